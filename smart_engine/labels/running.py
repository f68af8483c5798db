"""One audit of a stratum as it runs: what to draw next, and which bands to serve.

It keeps to the design of its `NestedAudit`; everything else here is about costs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from smart_engine.evidence.plans import draws_needed
from smart_engine.evidence.tails import FloatArray, IntArray
from smart_engine.labels.promise import Claim, NestedAudit
from smart_engine.labels.strata import Stratum

__all__ = ["RunningAudit"]

_FIRST, _GROWTH = 16, 0.5
"""Draws of the first wave; and the share of the draws made by which those still needed
may be more for other populations to be given up."""

_ROOM, _FALLS = 0.5, (0.7, 0.4, 0.2, 0.0)
"""Share of the errors one expects to find for which the first claim leaves room; and
what later ones leave of that room."""

_BELOW, _ABOVE = (0.25, 0.4, 0.55, 0.7, 0.8, 0.9, 1.0), (0.1, 0.3, 1.0)
"""Where the populations end: shares of the bands that a plan serves, and of others."""


class RunningAudit:
    """An audit of what is unknown of a stratum.

    Args:
        stratum: The stratum.
        place: Per item of the batch, its place in the random order of drawing.
        allowed: Errors that may stay undetected.
        level: Its level.

    Attributes:
        stratum: As given.
        audit: Its design, and what it has shown.
        served: Number of claims, the last of which is of what is served; None so far.
    """

    def __init__(
        self, stratum: Stratum, place: IntArray, allowed: int, level: float
    ) -> None:
        self.stratum, self._allowed = stratum, allowed
        costs = stratum.costs(float(allowed), level)
        plan = int(np.argmin(costs.calls))
        expected = float(costs.found[plan])
        free = np.flatnonzero(~stratum.known)
        others = stratum.bands - plan
        below = {int(np.ceil(plan * share)) for share in _BELOW} - {0}
        above = {plan + int(np.ceil(others * share)) for share in _ABOVE}
        ends = np.array(sorted(below | above), np.int64)
        inside = np.searchsorted(stratum.band[free], ends)
        _, first = np.unique(inside[inside > 0], return_index=True)
        self._ends = ends[inside > 0][first]
        self._order = free[np.argsort(place[stratum.items[free]])]
        self._rank = np.searchsorted(
            self._ends, stratum.band[self._order], side="right"
        )
        planned = int(np.searchsorted(self._ends, plan))
        planned = min(planned, len(self._ends) - 1)
        room = int(_ROOM * expected)
        falls = sorted(
            {allowed + int(share * room) for share in _FALLS} - {allowed + room}
        )
        claims = [
            *(Claim(each, allowed + room) for each in range(planned + 1)),
            *(Claim(planned, most) for most in reversed(falls)),
            *(Claim(each, allowed) for each in range(planned + 1, len(self._ends))),
        ]
        shape = 0.5 * (1 + expected + expected**0.5)
        self.audit = NestedAudit(self._rank, claims, level, shape)
        self._drawn = 0
        self.served: int | None = None
        self._look()

    def next_draws(self) -> IntArray:
        """Return the items to draw next; none once it is settled what is served."""
        none = self.stratum.items[:0]
        if self.served is not None:
            return none
        self._look()
        cost, part = self._costs()
        best = int(np.argmin(cost))
        if best <= self.audit.made:
            self.served = best
            return none
        populations = self.audit.claims[best - 1].population + 1
        left = ~self.stratum.known[self._order]
        inside = self._rank < populations
        draws = max(1, int(np.ceil(part[best] * float((left & inside).sum()))))
        made = int((~left & inside).sum())
        if draws <= max(_FIRST, _GROWTH * made):
            self.audit.drop(populations)
        step = draws if draws <= _FIRST else max(_FIRST, -(-draws // 2))
        wanted = np.flatnonzero(left & inside)[:step]
        if not len(wanted):  # all of them are known, and were too many
            self.served = self.audit.made
            return none
        until = int(wanted[-1]) + 1
        kept = self._rank[:until] < self._populations
        return self.stratum.items[self._order[:until][kept & left[:until]]]

    def outside(self) -> IntArray:
        """The unknown items that are not served."""
        end = self._ends[self._last] if self.served else 0
        return self.stratum.unknown(int(end))

    @property
    def found(self) -> int:
        """Errors found in what is served, since the first draw."""
        if not self.served:
            return 0
        return int(self.stratum.wrong[self._order][self._rank <= self._last].sum())

    @property
    def _last(self) -> int:
        """The population that is served."""
        return self.audit.claims[(self.served or 0) - 1].population

    @property
    def _populations(self) -> int:
        """Number of populations of which a claim is made, or may still be."""
        return self.audit.claims[-1].population + 1

    def _look(self) -> None:
        """Let the tests look at all that is known without a gap."""
        known = self.stratum.known[self._order]
        gaps = np.flatnonzero((self._rank < self._populations) & ~known)
        self._drawn = int(gaps[0]) if len(gaps) else len(known)
        self.audit.observe(self._drawn, self.stratum.wrong[self._order])

    def _costs(self) -> tuple[FloatArray, FloatArray]:
        """Per number of claims made: calls still needed, and share to draw before."""
        stratum, audit = self.stratum, self.audit
        rates, left = stratum.rates(), stratum.per_band(~stratum.known)
        at = np.array([claim.population for claim in audit.claims])
        most = np.array([claim.max_errors for claim in audit.claims], float)
        ends = self._ends[at]
        inside = np.append(0, np.cumsum(left))[ends]
        wrong = np.append(0, np.cumsum(left * rates))[ends]
        total = float(left.sum())

        def count(values: NDArray[Any]) -> FloatArray:
            sums = np.bincount(self._rank, values, len(self._ends))
            return np.asarray(np.cumsum(sums)[at], float)

        looked = np.arange(len(self._order)) < self._drawn
        found = stratum.wrong[self._order]
        drawn, shown = count(looked), count(looked & found)
        size, known = count(np.ones(len(found))), count(found)
        rate = wrong / np.maximum(inside, 1e-9)
        level = audit.level
        need = draws_needed(size, rate, most, level, drawn, shown, of_all=True)
        if audit.made < len(audit.tests):
            need[audit.made] = max(need[audit.made], audit.tests[audit.made].target)
        part = (need - drawn) / np.maximum(size - drawn, 1.0)
        part[: audit.made] = 0.0
        part = np.maximum.accumulate(np.clip(part, 0.0, 1.0))
        over = np.maximum(most - known - part * wrong - self._allowed, 0.0)
        fixing = np.array(
            [
                _calls_to_find(over[k], (left * (1 - part[k]))[:end], rates[:end])
                for k, end in enumerate(ends.tolist())
            ]
        )
        cost = np.append(total, part * inside + fixing + total - inside)
        return cost, np.append(0.0, part)


def _calls_to_find(errors: float, left: FloatArray, rates: FloatArray) -> float:
    """Return how many of the riskiest items have so many errors."""
    wrong, items = (left * rates)[::-1], left[::-1]
    before = np.append(0, np.cumsum(wrong))
    band = np.searchsorted(before[1:], errors)
    if band == len(items):
        return float(items.sum())
    part = (errors - before[band]) / max(float(wrong[band]), 1e-12)
    return float(items[:band].sum() + part * items[band])
