"""What an audit knows of its batch: items drawn, tests open, level left, the route."""

from __future__ import annotations

import math

import numpy as np

from smart_engine.evidence.acceptance import Acceptance, Allowance, SequentialTest
from smart_engine.evidence.policies import Policy
from smart_engine.evidence.record import (
    ANSWERED,
    FAILED,
    REFERENCE,
    UNASKED,
    BatchRecord,
)
from smart_engine.evidence.tails import BoolArray, IntArray
from smart_engine.strategies._base import Audited, Decision, Tally, Verdict
from smart_engine.strategies.audit_trial import TELLING, promising

__all__ = ["GROWTH", "LAST", "AuditState"]

GROWTH = 0.5
"""A further wave adds at most this share of the draws made so far."""

LAST = 0.3
"""Least share of the draws that is made after all that will be served was asked."""

_REPAIRS = 0.05
"""Share of a test's level with which it may end by repairs."""

_AGAIN = 0.05
"""Share of the level left that a plan leaves for a further attempt."""


class AuditState:
    """What the audit of one batch knows.

    Args:
        batch: The batch; at first, everything goes to the reference.

    Attributes:
        order: The items in the order in which they are drawn.
        draws: How many of them were drawn.
        active: Candidates still asked on drawn items.
        scouted: Items on which candidates alone were asked.
        tests: Every audit run so far.
        registered: Policy → its test on the whole batch.
        all_asked: Policy → draws made when all that it would serve had been asked.
        level_left: Level left for plans.
        route: Per item, the tier that serves it.
        audited: What the audit that decided has compared.
    """

    def __init__(self, batch: BatchRecord) -> None:
        n_items = batch.n_items
        self.batch = batch
        self.order = np.arange(n_items, dtype=np.int32)  # there may be millions
        batch.rng.shuffle(self.order)
        self.draws = 0
        self.active = promising(batch)
        self.scouted = np.empty(0, np.int64)
        self.tests: list[SequentialTest] = []
        self.registered: dict[Policy, SequentialTest] = {}
        self.all_asked: dict[Policy, int] = {}
        self.level_left = 0.0
        self.route = np.full(n_items, REFERENCE, np.int16)
        self.audited: list[Audited] = []

    @property
    def drawn(self) -> IntArray:
        """The items drawn so far."""
        return self.order[: self.draws]

    @property
    def undrawn(self) -> IntArray:
        """The items not drawn so far, in the order of drawing."""
        return self.order[self.draws :]

    @property
    def reference_calls(self) -> int:
        """Items on which the reference was asked so far."""
        return int((self.batch.status[REFERENCE] != UNASKED).sum())

    def failed(self, items: IntArray) -> BoolArray:
        """Per item, whether the reference failed."""
        return np.asarray(self.batch.status[REFERENCE, items] == FAILED)

    def never_right(self, tier: int) -> bool:
        """Whether a candidate gave no right answer, on enough draws to tell."""
        status = self.batch.status[tier, self.drawn]
        right = (status == ANSWERED) & ~self.batch.wrong[tier, self.drawn]
        return int((status != UNASKED).sum()) >= TELLING and not right.any()

    @property
    def max_errors(self) -> int:
        """Answers that may stay wrong undetected, B; failures so far count."""
        answers = self.batch.n_items
        if self.draws:
            answers -= round(answers * float(self.failed(self.drawn).mean()))
        return self.batch.guarantee.max_errors(answers)

    @property
    def plan_level(self) -> float:
        """Level at which the next plan is audited."""
        return self.level_left * (1 - _AGAIN)

    def sketch(
        self, items: int, max_errors: int, level: float, expected_errors: float
    ) -> SequentialTest:
        """Return a test as it would be; where waves are limited, it may end by repairs.

        Args: As of `open_test`, and the errors that may stay undetected.
        """
        repair = 0.0 if math.isinf(self.batch.rounds_left) else _REPAIRS * level
        design = Acceptance(items, max_errors, level - repair, expected_errors)
        return SequentialTest("", design, repair_level=repair)

    def open_test(
        self,
        policy: Policy,
        items: int,
        level: float,
        expected_errors: float,
        others: IntArray | None = None,
    ) -> SequentialTest:
        """Fix the design of a test; its level is spent from here on.

        Args:
            policy: The policy.
            items: Number of items that it could serve.
            level: Level of the test.
            expected_errors: Shape of its acceptance numbers.
            others: All other items, of which the reference is asked. Where it fails on
                them, the allowance is smaller.
        """
        batch = self.batch
        lost = 0 if others is None else int(self.failed(others).sum())
        allowance = Allowance(batch.guarantee, batch.n_items - lost)
        test = self.sketch(items, allowance.after(0), level, expected_errors)
        test.policy, test.allowance = policy.name(batch.names), allowance
        self.tests.append(test)
        return test

    def settle(self, test: SequentialTest, others: IntArray) -> SequentialTest:
        """Return a test as it is once all other items were asked.

        Its design depends on what failed among those, which says nothing of its draws.
        """
        batch, design = self.batch, test.acceptance
        lost = int(self.failed(others).sum())
        allowance = Allowance(batch.guarantee, batch.n_items - lost)
        if allowance == test.allowance:
            return test
        level, expected = design.level, design.expected_errors
        design = Acceptance(design.items, allowance.after(0), level, expected)
        again = SequentialTest(test.policy, design, allowance, test.repair_level)
        again.extend(test.draws, test.errors, set(test.failures))
        self.tests[self.tests.index(test)] = again
        return again

    def asked(self, policy: Policy, items: IntArray) -> bool:
        """Whether all candidates of a policy were asked about these items."""
        status = self.batch.status[list(policy.tiers)][:, items]
        return bool((status != UNASKED).all())

    def note_asked(self) -> None:
        """Enter which policies were asked about all that they would serve by now.

        A wave that was asked about all of it made its own draws as late.
        """
        for policy in self.registered.keys() - self.all_asked.keys():
            if self.asked(policy, self.undrawn):
                self.all_asked[policy] = self.draws

    def proven(self, policy: Policy, test: SequentialTest) -> bool:
        """Whether a test of the whole batch lets its policy serve.

        It accepted, on draws of which enough were made after all that the policy would
        serve had been asked. Where it accepted before, the draws made since count, and
        what they show: a candidate may have turned bad in between.
        """
        if test.accepted is None:
            return False
        enough = self.late_enough(policy)
        return test.accepted >= enough or (test.suffices and self.draws >= enough)

    def late_enough(self, policy: Policy) -> int:
        """Return the draws in all of which enough are late for a policy to serve."""
        since = self.all_asked.get(policy, self.draws)
        return min(math.ceil(since / (1 - LAST)), self.batch.n_items)

    def wave_end(self, drawn: int, want: int, most: int, calls: int) -> int:
        """End of a wave: further draws are bought only where they fill what may fly.

        Args:
            drawn: Draws made so far.
            want: Draws wanted in all.
            most: Draws that suffice, or all there are; never more than these.
            calls: Calls that a draw makes.
        """
        if not math.isinf(self.batch.rounds_left):
            return min(want, self.batch.n_items)
        at_once = max(1, self.batch.max_in_flight // calls)
        return min(most, drawn + -(-(want - drawn) // at_once) * at_once)

    def decision(self) -> Decision:
        """Route, evidence and tests as they stand."""
        batch, drawn = self.batch, self.drawn
        serving = set(np.unique(self.route).tolist())
        reference = batch.cost(REFERENCE, drawn) / max(len(drawn), 1)
        evidence: list[tuple[Tally, Verdict]] = []
        for tier in batch.candidates:
            asked = drawn[batch.status[tier, drawn] != UNASKED]
            if len(asked):
                cost = batch.cost(tier, asked) / len(asked)
                verdict: Verdict = "too dear" if cost >= reference else "undecided"
                if verdict == "undecided" and self.never_right(tier):
                    verdict = "never right"
                tally = Tally(tier, len(asked), batch.errors(tier, asked), cost)
                evidence.append((tally, "admitted" if tier in serving else verdict))
        return Decision(self.route, evidence, tests=self.tests, audited=self.audited)
