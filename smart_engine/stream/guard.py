r"""The promise of a stream, and the only file that carries it.

The rule: an item is drawn for, so that it may be served without an audit, only while
the bound on undetected errors, everything in flight at its worst, is at most
δ·(answers handed out + 1). Otherwise the reference answers.

So when an undetected error is handed out, at least as many answers are out as the bound
asked for when its item arrived: with the stated confidence, at most a share δ of the
answers differs after every single answer (`docs/mathematics.md`, Theorem 4).

| event                                  | unaudited | unresolved | bound          |
|----------------------------------------|-----------|------------|----------------|
| arrival that the rule forbids to serve |           |            |                |
| arrival, draw ≥ rate: served           | +1        |            |                |
| arrival, draw < rate: audited          |           | +1         | as if an error |
| audit shows no error                   |           | −1         |                |
| audit shows an error, or is abandoned  |           | −1         | charged        |
| audit lost with its process            |           | stays      | as if an error |

Served items count as possible errors for good, answered or not. The rate may be chosen
in any way, as long as it is fixed before the draw.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from smart_engine.evidence.tails import FloatArray
from smart_engine.guarantee import Guarantee
from smart_engine.stream.bound import ErrorBound, charges
from smart_engine.stream.draws import AuditDraws
from smart_engine.stream.rate import Plan
from smart_engine.stream.state import SharedPart, UnresolvedAudits

__all__ = ["StreamGuard", "Way"]

Way = Literal["audited", "served", "reference"]
"""How an item is answered, settled when it arrives."""

_CUTS = 16  # of the stream, at which to bound the errors while audits are unresolved
_FADING = 0.99  # how fast `margin` falls, per item


class _Audit(NamedTuple):
    charge: FloatArray  # per slope, if it shows an error
    unaudited: int  # items served without an audit before it


class StreamGuard:
    """Decides whether the next item may be drawn for, and draws.

    Args:
        guarantee: What is promised.
        seed: Seed of all draws.
    """

    def __init__(self, guarantee: Guarantee, seed: int) -> None:
        self._share = guarantee.share.as_integer_ratio()
        self.seed, self._draws = seed, AuditDraws(seed)
        self.bound = ErrorBound(guarantee.alpha)  # all detected errors charged
        self.plan: Plan | None = None  # None: the reference answers everything
        self.arrived = 0  # items: audited, unaudited or forced
        self.unaudited = 0  # items served without an audit
        self.forced = 0  # items that the reference answers without a draw
        self.audits = 0  # items drawn for an audit
        self.unresolved: dict[int, _Audit] = {}  # by number, in order of arrival
        self.detected = 0  # audits that showed an error, or might have
        self.answered = 0  # answers handed out
        self.margin = 0.0  # recent maximum of what items in flight add to the bound
        self._charge: FloatArray = np.zeros_like(self.bound.slopes)
        self._recount()

    def admit(self) -> Way:
        """Let the next item in: draw for it if the rule allows it."""
        number, self.arrived = self.arrived, self.arrived + 1
        if self.plan is None or not self._may_draw():
            self.forced += 1
            return "reference"
        if self._draws[number] >= self.plan.rate:
            self.unaudited += 1
            return "served"
        self.audits += 1
        self.unresolved[number] = _Audit(self._charge, self.unaudited)
        self._recount()
        return "audited"

    def settle(self, number: int, *, detected: bool) -> None:
        """Resolve an audit: it detected an error, or might have, or it did not."""
        audit = self.unresolved.pop(number)
        if detected:
            self.detected += 1
            self.bound.charge(audit.charge)
        self._recount()

    def hand_out(self) -> None:
        """Count an answer that is handed out."""
        self.answered += 1

    def follow(self, plan: Plan | None) -> None:
        """Draw for later items at another rate.

        Raises:
            ValueError: If (1 − π)e^λ ≥ 1 for a slope of that plan.
        """
        self.plan = plan
        if plan is not None:
            self.bound.flatten(plan.steepest)
            self._charge = charges(self.bound.slopes, plan.rate)
            if not np.isfinite(self._charge).all():
                raise ValueError("an audit rate too low for its slopes")
        self._recount()

    def allowed(self, more: int = 0) -> int:
        """Differing answers allowed with `more` than are out, ⌊δ·(answered + more)⌋."""
        numerator, denominator = self._share
        return numerator * (self.answered + more) // denominator

    @property
    def room(self) -> int:
        """Errors allowed with the next answer, less the margin for items in flight."""
        return max(0, self.allowed(1) - int(self.margin))

    @property
    def possible_errors(self) -> int:
        """Bound on the undetected errors among all items that have arrived."""
        return min(self._undetected(), self.unaudited)

    @property
    def rate(self) -> float:
        """Probability with which the next item would go to the reference."""
        within = self._undetected(1) <= self.allowed(1)
        return self.plan.rate if self.plan is not None and within else 1.0

    def waiting(self) -> tuple[UnresolvedAudits, ...]:
        """Return the unresolved audits, those with the same charges together."""
        together: dict[tuple[float, ...], list[tuple[int, int]]] = {}
        for number, (charge, unaudited) in self.unresolved.items():
            key = tuple(charge.tolist())
            together.setdefault(key, []).append((number, unaudited))
        return tuple(
            UnresolvedAudits(charges=charge, audits=tuple(audits))
            for charge, audits in together.items()
        )

    def take_up(self, part: SharedPart) -> None:
        """Go on from where other processes have come.

        Raises:
            ValueError: If it is no state that a stream of this guarantee can be in.
        """
        if part.seed is not None and part.seed != self.seed:
            self.seed, self._draws = part.seed, AuditDraws(part.seed)
        self.bound.take_up(part.slopes, part.log_wealth)
        self.arrived, self.unaudited = part.arrived, part.unaudited
        self.forced, self.margin = part.by_reference, part.crowd
        self.answered, self.audits = part.sums.answered, part.sums.audits
        self.detected = part.sums.found
        waiting = {
            number: _Audit(np.array(one.charges), unaudited)
            for one in part.unresolved
            for number, unaudited in one.audits
        }
        self.unresolved = dict(sorted(waiting.items()))
        self.follow(None if part.plan is None else Plan(*part.plan))

    def _may_draw(self) -> bool:
        """Whether the rule allows to draw for the item that has just arrived."""
        undetected = self._undetected(1)
        in_flight = undetected - self.bound.undetected
        self.margin = max(in_flight, _FADING * self.margin)
        return undetected <= self.allowed(1)

    def _undetected(self, more: int = 0) -> int:
        """Bound the undetected errors if `more` items are served without an audit."""
        if not self.unresolved:
            return self.bound.undetected
        return min(self._if_detected, self._at_cuts + self.unaudited + more)

    def _recount(self) -> None:
        """Bound the errors anew, at several cuts before unresolved audits."""
        waiting = list(self.unresolved.values())
        self._if_detected, self._at_cuts = self.bound.undetected, 0
        if not waiting:
            return
        count = len(waiting)
        cuts = sorted({count * k // _CUTS for k in range(_CUTS + 1)})
        charged = np.cumsum([audit.charge for audit in waiting], axis=0)
        before = np.vstack([np.zeros_like(charged[:1]), charged])[cuts]
        *bounds, self._if_detected = self.bound.bounds(before).tolist()
        self._at_cuts = min(
            bound - waiting[cut].unaudited
            for bound, cut in zip(bounds, cuts, strict=False)
        )
