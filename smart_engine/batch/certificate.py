"""The record of what was promised, what was seen, and what follows."""

from __future__ import annotations

import hashlib
import math
from typing import Literal

from pydantic import AliasChoices, BaseModel, Field

from smart_engine.batch.label_counts import LabelBound, LabelCount, LabelInterval
from smart_engine.batch.label_draws import Between, Confusion, added
from smart_engine.batch.slice_counts import SliceCount
from smart_engine.evidence.acceptance import Acceptance, Allowance, SequentialTest
from smart_engine.evidence.task_promise import TaskPromise
from smart_engine.guarantee import Guarantee
from smart_engine.labels.promise import Promised
from smart_engine.money.spending import Spend
from smart_engine.strategies import Verdict

__all__ = ["AuditTest", "Certificate", "Evidence"]

_MAX_ERRORS = Field(validation_alias=AliasChoices("max_errors", "budget"))
"""Certificates of earlier versions called it `budget`; they are still read."""


class Evidence(BaseModel, frozen=True, extra="forbid"):
    """What profiling has shown of one candidate.

    Attributes:
        model: Name of the candidate.
        draws: Randomly drawn items on which it was compared with the reference.
        errors: How many of those answers were not equivalent.
        mean_cost: Mean cost of serving one item by it, in USD, escalations included.
        verdict: What was concluded.
    """

    model: str
    draws: int
    errors: int
    mean_cost: float
    verdict: Verdict


class AuditTest(BaseModel, frozen=True, extra="forbid"):
    """One audit: its design, fixed in advance, and what its draws have shown.

    Attributes:
        policy: Which candidates it asks: `a`, `a = b` (both), or `a → b → c` (in turn,
            until two agree). On the whole batch it serves where all that were asked
            agree, or two of a cascade; on fewer items, those that a plan picked.
        in_slice: The slice whose audit it is; None where a batch has no slices.
        items: Number of items it could serve, M.
        max_errors: Wrong answers that may stay undetected, B, if the reference
            fails on none of its draws.
        answers: Items that could still get an answer when it was designed, so that
            B = ⌊δ·answers⌋; all items by default. Where a task's jobs share one
            promise, answers of earlier jobs are among them.
        elsewhere: Errors that may be among those, by which B is less.
        level: Probability with which it may accept wrongly; those of all tests of a
            certificate sum to at most 1 − confidence.
        expected_errors: Shape of its acceptance numbers.
        draws: Items drawn uniformly and compared with the reference.
        errors: Numbers of the draws, from 1, that showed an error.
        failures: Those of them on which the reference failed; each takes an answer
            from those that B is a share of.
        accepted: Number of draws after which it accepted, None if it did not.
        repair_level: Probability with which it may end wrongly by repairs; these sum up
            with the levels.
        repaired: Number of items that the reference answered in the wave that ended
            it, the next in the order of draws; None unless it ended by such repairs.
    """

    policy: str
    in_slice: str | None = None
    items: int
    max_errors: int = _MAX_ERRORS
    answers: int | None = None
    elsewhere: int = 0
    level: float
    expected_errors: float
    draws: int
    errors: tuple[int, ...]
    failures: tuple[int, ...] = ()
    accepted: int | None
    repair_level: float = 0.0
    repaired: int | None = None

    @property
    def ended(self) -> int | None:
        """Number of draws, repairs included, that let its policy serve, if it did."""
        if self.repaired is not None:
            return self.draws + self.repaired
        return self.accepted

    def replay(self, guarantee: Guarantee) -> SequentialTest:
        """Run the test again, on the draws that are recorded."""
        design = Acceptance(
            self.items, self.max_errors, self.level, self.expected_errors
        )
        allowance = None
        if self.answers is not None:
            allowance = Allowance(guarantee, self.answers, self.elsewhere)
        test = SequentialTest(self.policy, design, allowance, self.repair_level)
        test.extend(self.draws, self.errors, set(self.failures))
        test.repaired = self.repaired
        return test

    @classmethod
    def of(cls, test: SequentialTest, in_slice: str | None) -> AuditTest:
        """Return what is recorded of a test."""
        design = test.acceptance
        return cls(
            policy=test.policy,
            in_slice=in_slice,
            items=design.items,
            max_errors=design.max_errors,
            answers=test.allowance.answers if test.allowance else None,
            elsewhere=test.allowance.elsewhere if test.allowance else 0,
            level=design.level,
            expected_errors=design.expected_errors,
            draws=test.draws,
            errors=tuple(test.errors),
            failures=tuple(test.failures),
            accepted=test.accepted,
            repair_level=test.repair_level,
            repaired=test.repaired,
        )


class Certificate(BaseModel, frozen=True, extra="forbid"):
    """What was promised for a batch, what was seen, and what follows.

    Attributes:
        format: Version of this record.
        task: Name of the task, or None.
        strategy: Strategy that decided.
        looks: How repeated looks at the evidence were treated; None where a strategy
            takes none.
        level: One-sided error probability of one look at one candidate, or None.
        seed: Seed of all randomness.
        items: Number of items, N.
        max_disagreement: Largest tolerated share of differing answers, δ; None where
            only labels are promised.
        confidence: Probability with which that holds, γ.
        max_errors: Number of differing answers allowed, B: the share δ of the answers
            handed out, rounded down; with slices, the sum of theirs.
        equivalence: When two answers count as the same.
        reference: Name of the reference.
        evidence: What profiling has shown of each candidate.
        tests: The audits, for strategy "audit".
        promise: What the jobs of the task under one promise have shown, this one among
            them: then the claim, and `max_errors`, are about all of their answers, and
            about no other answers of the task. None: this batch keeps its own.
        promised: What was promised of labels and slices, and what follows from their
            audits.
        slices: Who answered in each slice, if the share is promised of each.
        labels: Labels among the answers, where few are possible; see `label_bounds`.
        compared: Where labels are, what would have been handed out for items that were
            compared, and what the reference says; see `label_intervals`.
        wasted: Draws that were in flight when the evidence was complete already.
        profiled: Items drawn and answered by the reference in order to learn.
        served: Model → items answered by it.
        escalated: Items passed to the reference because candidates failed, disagreed
            or gave an answer that was too risky.
        unanswered: Items for which the reference itself failed, or that the budget
            left without any answer.
        uncertified: Items that the guarantee does not cover, for the budget ended
            first: answered by what had been bought, or not at all.
        spend: Model → what it was asked and what it cost; judges as `judge: …`.
        reference_only_cost: What the reference alone would have cost, in USD, on the
            items that have an answer: what it was paid, and for the others an estimate
            by the items that were drawn; None if it was never paid. Where items ask the
            same and were asked once, it would have been asked once, too.
        valid: Whether the stated confidence is kept at the worst case. It is not
            with the paper's repeated looks, nor where the budget ended first, nor
            without any answer, nor where the reference failed so often that a strategy
            of the paper allowed more than the share δ of what was answered.
    """

    format: Literal[2] = 2
    task: str | None = None
    strategy: str
    looks: str | None
    level: float | None
    seed: int
    items: int
    max_disagreement: float | None
    confidence: float
    max_errors: int = _MAX_ERRORS
    equivalence: str
    reference: str
    evidence: tuple[Evidence, ...]
    tests: tuple[AuditTest, ...] = ()
    promise: TaskPromise | None = None
    promised: tuple[Promised, ...] = ()
    slices: tuple[SliceCount, ...] = ()
    labels: tuple[LabelCount, ...] = ()
    compared: tuple[Confusion, ...] = ()
    wasted: int = 0
    profiled: int
    served: dict[str, int]
    escalated: int
    unanswered: int
    uncertified: int = 0
    spend: dict[str, Spend]
    reference_only_cost: float | None
    valid: bool

    @property
    def id(self) -> str:
        """Short fingerprint of the whole record."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]

    @property
    def answered(self) -> int:
        """Number of items that have an answer."""
        return self.items - self.unanswered

    @property
    def cost(self) -> float:
        """USD spent on the batch by all models."""
        return sum(spend.cost for spend in self.spend.values())

    @property
    def estimated(self) -> float:
        """USD of the cost that rest on an estimated usage."""
        return sum(spend.estimated for spend in self.spend.values())

    @property
    def unknown(self) -> float:
        """USD of the cost that failed calls are charged at most; see `Spend`."""
        return sum(spend.unknown for spend in self.spend.values())

    @property
    def saved(self) -> float | None:
        """USD saved against the reference alone (estimated), None if unknown."""
        if self.reference_only_cost is None:
            return None
        return self.reference_only_cost - self.cost

    def saved_by(self, cost: float) -> float | None:
        """USD saved (estimated) by an item that cost so much, None if unknown."""
        if self.reference_only_cost is None:
            return None
        alone = self.reference_only_cost / self.answered
        return 0.0 if math.isclose(alone, cost) else alone - cost

    @property
    def slice_bounds(self) -> dict[str, tuple[int, int]]:
        """Slice → at most so many of its answers differ, and how many may.

        They hold together, with the confidence of the certificate. Nothing is known
        where it is not valid.
        """
        if not self.valid:
            return {}
        audited = {each.in_slice: each.undetected for each in self.promised}
        bounds = {}
        for each in self.slices:
            guarantee = Guarantee(self.max_disagreement, self.confidence)
            allowed = guarantee.max_errors(each.answered)
            unseen = each.answered - each.served.get(self.reference, 0)
            most = min(unseen, allowed, audited.get(each.name, allowed))
            bounds[each.name] = most, allowed
        return bounds

    @property
    def label_bounds(self) -> tuple[LabelBound, ...]:
        """What follows for each label, together and with the same confidence.

        Of the answers that were not compared with the reference's, at most `max_errors`
        differ: all of them might be of one label. What was promised of a label is more.
        Nothing is known where the certificate is not valid, or is about several jobs.
        """
        if not self.valid or self.promise is not None:
            return ()
        unseen = self.answered - self.served.get(self.reference, 0)
        known = {(each.of, each.label): each.undetected for each in self.promised}
        agreements = [e.undetected for e in self.promised if e.of == "agreement"]
        most = sum(agreements) if agreements else min(unseen, self.max_errors)
        return tuple(
            LabelBound(
                each.label,
                each.answers,
                min(each.unseen, most, known.get(("precision", each.label), most)),
                min(
                    unseen - each.unseen,
                    most,
                    known.get(("recall", each.label), most),
                ),
            )
            for each in self.labels
        )

    @property
    def label_intervals(self) -> tuple[LabelInterval, ...]:
        """What the draws say about each label.

        All intervals hold together with the confidence of the certificate, whatever is
        promised. Where labels were audited by themselves, they are the bounds of these
        audits. Nothing is known where the certificate is not valid, or is about several
        jobs.
        """
        unseen = self.answered - self.served.get(self.reference, 0)
        audits = [each for each in self.compared if each.level]
        found = []
        for count, bound in zip(self.labels, self.label_bounds, strict=False):
            false, missed = Between(0, bound.false), Between(0, bound.missed)
            if audits:
                of = count.label
                false = added(each.false_left(of) for each in audits)
                missed = added(each.missed_left(of) for each in audits)
            found.append(
                LabelInterval(
                    count.label,
                    count.answers,
                    false.up_to(count.unseen),
                    missed.up_to(unseen - count.unseen),
                )
            )
        return tuple(found)

    @property
    def claim(self) -> str:
        """What follows, in one sentence."""
        answers = f"{self.answered} answers"
        if self.promise is not None:
            answers = f"all {self.promise.answers} answers of {self.task!r} so far"
            jobs = self.promise.jobs
            answers += f", in {jobs} job{'' if jobs == 1 else 's'} under this promise"
        promise = self._promise(answers)
        if self.valid:
            alone = self.served.get(self.reference) == self.answered
            assumption = (
                "" if alone else " Models are taken to answer alike throughout."
            )
            return (
                f"With probability at least {self.confidence:.4g}, {promise}."
                f"{assumption}"
            )
        if self.uncertified:
            return (
                f"Nothing is claimed: the budget ended before {self.uncertified} of "
                f"{self.items} items could be certified."
            )
        if not self.answered:
            return f"Nothing is claimed: none of {self.items} items has an answer."
        if self.looks == "paper":
            return (
                f"Aimed at {self.confidence:.4g} but not kept at the worst case "
                f"(looks='{self.looks}'): {promise}."
            )
        return (
            f"Nothing is claimed: {self.unanswered} of {self.items} items have no "
            "answer, and the errors allowed are too many for the others."
        )

    def _promise(self, answers: str) -> str:
        """What is promised of so many answers."""
        parts = [
            f"the {each.of} of {each.label!r} is at least {each.share:.4g}"
            for each in self.promised
            if each.share is not None and each.label is not None
        ]
        if self.max_disagreement is not None:
            share = f"{self.max_disagreement:.4g}"
            shares = f"{share} of {'each slice' if self.slices else 'all'}"
            differ = (
                f"at most {self.max_errors} of {answers} ({shares}) differ from "
                f"{self.reference}'s"
            )
            parts.insert(0, differ)
        listed = ", and ".join(parts) or f"all {answers} are {self.reference}'s"
        return f"{listed} by the rule '{self.equivalence}'"
