r"""The promise over a task's jobs, and the only file that carries it.

The rule: a job hands out its answers, all at once, only if the bound on those among the
task's answers that differ is then at most ⌊δ·(answers handed out, its own included)⌋.
Where it is not, the job asks the reference about more of its items first.

Every item that a candidate may answer is audited with a probability fixed before its
draw, so the bound of `stream/bound.py` holds for all of them, whoever let them in, at
all times. `possible` bounds the differing answers that were handed out: at the end of
a job it becomes the smaller of

- that bound, every unresolved audit counted as a detected error, less the errors found
  when unaudited answers were checked after all (`corrected`), and
- what it was before, plus the unaudited answers of this job: each might be wrong.

Why that suffices: `docs/mathematics.md`, Theorem 6. A job may be as generous as it
likes when it lets items in: nothing is handed out before the rule is kept, and where
every answer of a job is the reference's, it always is.

| event                            | unresolved | bound    | possible                  |
|----------------------------------|------------|----------|---------------------------|
| item let in, draw ≥ rate: served |            |          |                           |
| item let in, draw < rate: audit  | +1         | as error |                           |
| audit shows no error             | −1         |          |                           |
| audit shows an error, or is lost | −1         | charged  |                           |
| audit never heard of again       | stays      | as error |                           |
| a job hands out its answers      |            |          | see above; never too much |
"""

from __future__ import annotations

from copy import copy

import numpy as np

from smart_engine.errors import ProtocolError
from smart_engine.evidence.tails import FloatArray
from smart_engine.guarantee import Guarantee
from smart_engine.jobs.record import LateAudits, TaskRecord
from smart_engine.stream.bound import ErrorBound, charges
from smart_engine.stream.draws import AuditDraws
from smart_engine.stream.rate import Plan

__all__ = ["AUDITED", "SERVED", "TaskGuard"]

SERVED, AUDITED = "s", "a"
"""How an item that was drawn for is answered: by a candidate, or by the reference."""


class TaskGuard:
    """Draws for items, and says what a job may hand out.

    Args:
        guarantee: What is promised.
        seed: Seed of all draws.

    Attributes:
        bound: On undetected errors, all detected ones charged.
        arrived: Items drawn for.
        audits: Those of them that are audited.
        unresolved: Audits without an outcome: number → charges of a detected error.
        detected: Audits that showed an error, or might have.
        answered: Answers handed out.
        possible: Bound on those of them that differ.
        corrected: Errors found when unaudited answers were checked after all.
    """

    def __init__(self, guarantee: Guarantee, seed: int) -> None:
        self._guarantee = guarantee
        self.seed = seed
        self.bound = ErrorBound(guarantee.alpha)
        self.arrived = self.audits = self.detected = 0
        self.unresolved: dict[int, FloatArray] = {}
        self.answered = self.possible = self.corrected = 0

    def draw(self, items: int, plan: Plan) -> str:
        """Let items in, and return per item whether it is served or audited."""
        self.bound.flatten(plan.steepest)
        charge = charges(self.bound.slopes, plan.rate)
        if not np.isfinite(charge).all():
            raise ValueError("an audit rate too low for its slopes")
        draws, first = AuditDraws(self.seed), self.arrived
        ways = ""
        for number in range(first, first + items):
            audited = draws[number] < plan.rate
            ways += AUDITED if audited else SERVED
            if audited:
                self.unresolved[number] = charge
        self.arrived += items
        self.audits += ways.count(AUDITED)
        return ways

    def settle(self, number: int, *, detected: bool) -> None:
        """Resolve an audit: it detected an error, or might have, or it did not."""
        charge = self.unresolved.pop(number)
        if detected:
            self.detected += 1
            self.bound.charge(charge)

    def allowed(self, more: int) -> int:
        """Differing answers allowed with `more` than are out, ⌊δ·(answered + more)⌋."""
        return self._guarantee.max_errors(self.answered + more)

    def at_worst(self) -> ErrorBound:
        """Return the bound, every unresolved audit counted as a detected error."""
        return self.expected(1.0)

    def expected(self, share: float) -> ErrorBound:
        """Return the bound if such a share of the unresolved audits detect an error.

        Only `at_worst` is a bound. What is cheap may rest on what is expected.
        """
        bound = copy(self.bound)
        charged = sum(self.unresolved.values(), np.zeros_like(bound.slopes))
        bound.charge(share * charged)
        return bound

    def excess(self, answers: int, unseen: int, corrected: int) -> int:
        """How many errors more than are allowed there might be among all answers.

        Args:
            answers: Answers that a job is about to hand out.
            unseen: Those of them that are neither the reference's nor checked by it.
            corrected: Errors that the job found when it checked answers after all.
        """
        return self._possible(unseen, corrected) - self.allowed(answers)

    def hand_out(self, answers: int, unseen: int, corrected: int) -> None:
        """Count the answers of a job, which hands them out now; see `excess`.

        Raises:
            ProtocolError: If the promise forbids it.
        """
        if self.excess(answers, unseen, corrected) > 0:
            hint = "ask the reference about more of its items first"
            raise ProtocolError(f"a job cannot be handed out yet: {hint}")
        self.possible = self._possible(unseen, corrected)
        self.corrected += corrected
        self.answered += answers

    def _possible(self, unseen: int, corrected: int) -> int:
        undetected = self.at_worst().undetected - self.corrected - corrected
        return max(0, min(undetected, self.possible + unseen))

    def take_up(self, part: TaskRecord) -> None:
        """Go on from where other processes have come.

        Raises:
            ValueError: If no promise of this level can stand there.
        """
        self.seed = part.seed
        self.bound.take_up(part.slopes, part.log_wealth)
        self.arrived, self.audits = part.arrived, part.audits
        self.detected, self.answered = part.found, part.answered
        self.possible, self.corrected = part.possible, part.corrected
        self.unresolved = {
            number: np.array(late.charges)
            for late in part.unresolved
            for number in late.numbers
        }

    def late(self) -> tuple[LateAudits, ...]:
        """Return the unresolved audits, those with the same charges together."""
        together: dict[tuple[float, ...], list[int]] = {}
        for number, charge in self.unresolved.items():
            together.setdefault(tuple(charge.tolist()), []).append(number)
        return tuple(
            LateAudits(charges=charge, numbers=tuple(numbers))
            for charge, numbers in together.items()
        )
