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

The errors of one job, an early one, are bounded by an exact audit of its own, too, as a
batch's are. It has a part of the level to itself, `OWN_SHARE`, all bounds the rest.
Such a job's items are drawn for one by one, in the order of their draws, until the
audit accepts: its errors then add at most the audit's allowance to `possible`. In the
bound of all they count as if each had been audited at the rate that this has reached.

Why that suffices: `docs/mathematics.md`, Theorems 6 and 10. A job may be as generous as
it likes when it lets items in: nothing is handed out before the rule is kept, and where
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
from smart_engine.evidence.tails import FloatArray, IntArray
from smart_engine.evidence.task_promise import OWN_SHARE
from smart_engine.guarantee import Guarantee
from smart_engine.jobs.record import JobWave, LateAudits, TaskRecord
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
        own_level: Level of the one audit of a job's own.
        own_left: Whether no job has begun it.
    """

    def __init__(self, guarantee: Guarantee, seed: int) -> None:
        self.guarantee = guarantee
        self.seed = seed
        self.own_level, self.own_left = OWN_SHARE * guarantee.alpha, True
        self.bound = ErrorBound(guarantee.alpha - self.own_level)
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

    def let_in(self, items: int) -> None:
        """Let items in that are drawn for one by one: the audit of a job's own.

        Raises:
            ProtocolError: If there was one already.
        """
        if not self.own_left:
            raise ProtocolError("a task has one audit of a job's own, and had it")
        self.own_left = False
        self.arrived += items

    def draw_on(self, wave: JobWave, until: int) -> JobWave:
        """Audit further ones of the items that are drawn for one by one.

        Args:
            wave: These items.
            until: Draws to have made then.
        """
        own, ways = wave.own, [*wave.ways]
        if own is None:
            raise ProtocolError("these items are not drawn for one by one")
        charge = -np.log(np.array(own.kept))
        for place in self.order(wave)[own.drawn : until].tolist():
            ways[place] = AUDITED
            self.unresolved[wave.first + place] = charge
        self.audits += until - own.drawn
        own = own.model_copy(update={"drawn": until})
        return wave.model_copy(update={"ways": "".join(ways), "own": own})

    def order(self, wave: JobWave) -> IntArray:
        """Return the places of a wave's items in the order of their draws."""
        return np.argsort(self._draws(wave), kind="stable")

    def _draws(self, wave: JobWave) -> FloatArray:
        draws, first = AuditDraws(self.seed), wave.first
        return np.array([draws[first + place] for place in range(len(wave.ways))])

    def slopes(self, wave: JobWave | None) -> FloatArray:
        """Return the slopes of all errors, those of a wave drawn for in order included.

        If its rate has come to π, and a detected error leaves a part κ of the wealth,
        those of its errors that were not detected have λ = ln[(1 − πκ)/(1 − π)].
        """
        own = None if wave is None else wave.own
        if wave is None or own is None or own.drawn == len(wave.ways):
            return self.bound.slopes
        if not own.drawn:
            raise ProtocolError("nothing is known of items before the first is drawn")
        rate = np.sort(self._draws(wave))[own.drawn - 1]
        reached = np.log1p(rate * (1 - np.array(own.kept)) / (1 - rate))
        return np.asarray(np.minimum(self.bound.slopes, reached), float)

    def settle(self, number: int, *, detected: bool) -> None:
        """Resolve an audit: it detected an error, or might have, or it did not."""
        charge = self.unresolved.pop(number)
        if detected:
            self.detected += 1
            self.bound.charge(charge)

    def allowed(self, more: int) -> int:
        """Differing answers allowed with `more` than are out, ⌊δ·(answered + more)⌋."""
        return self.guarantee.max_errors(self.answered + more)

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

    def excess(
        self, answers: int, hidden: int, corrected: int, wave: JobWave | None = None
    ) -> int:
        """How many errors more than are allowed there might be among all answers.

        Args:
            answers: Answers that a job is about to hand out.
            hidden: Most errors among those of them that are neither the reference's nor
                checked by it: their number, or what an audit of its own has shown.
            corrected: Errors that the job found when it checked answers after all.
            wave: Those of its items that were drawn for one by one, if any.
        """
        return self._possible(hidden, corrected, wave) - self.allowed(answers)

    def hand_out(
        self, answers: int, hidden: int, corrected: int, wave: JobWave | None = None
    ) -> None:
        """Count the answers of a job, which hands them out now; see `excess`.

        Raises:
            ProtocolError: If the promise forbids it.
        """
        if self.excess(answers, hidden, corrected, wave) > 0:
            hint = "ask the reference about more of its items first"
            raise ProtocolError(f"a job cannot be handed out yet: {hint}")
        self.possible = self._possible(hidden, corrected, wave)
        self.bound.lower(self.slopes(wave))
        self.corrected += corrected
        self.answered += answers

    def _possible(self, hidden: int, corrected: int, wave: JobWave | None) -> int:
        bound = self.at_worst()
        bound.lower(self.slopes(wave))
        undetected = bound.undetected - self.corrected - corrected
        return max(0, min(undetected, self.possible + hidden))

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
        self.own_left = part.own_left
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
