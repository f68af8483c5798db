"""One audit of a stratum as it runs: what to draw next, and which bands to serve.

It keeps to the design of its `NestedAudit`; everything else here is about costs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from smart_engine.evidence.tails import FloatArray, IntArray
from smart_engine.labels.costs import SCENARIOS, scenarios, share_to_draw
from smart_engine.labels.promise import Claim, NestedAudit
from smart_engine.labels.strata import Stratum

__all__ = ["RunningAudit"]

_SCALES, _MOST = 6, 4.0
"""Errors may be so many times as frequent as is estimated, and twice as frequent as
would be allowed without any draw; what would be served then is found for so many
cases between."""


class RunningAudit:
    """An audit of what is unknown of a stratum.

    Args:
        stratum: The stratum.
        place: Per item of the batch, its place in the random order of drawing.
        allowed: Errors that may stay undetected.
        level: Its level.

    Attributes:
        stratum: As given.
        allowed: Errors that may stay undetected, by what is known by now.
        audit: Its design, and what it has shown.
        served: Number of claims, the last of which is of what is served; None so far.
    """

    def __init__(
        self, stratum: Stratum, place: IntArray, allowed: int, level: float
    ) -> None:
        self.stratum, self.allowed = stratum, allowed
        free = np.flatnonzero(~stratum.known)
        self._order = free[np.argsort(place[stratum.items[free]])]
        band = stratum.band[self._order]
        left = stratum.per_band(~stratum.known) * stratum.rates()
        most = max(_MOST, _MOST / 2 * allowed / max(float(left.sum()), 1e-9))
        path: dict[int, float] = {}
        for scale in np.geomspace(1.0, most, _SCALES).tolist():
            costs = stratum.costs(float(allowed), level, scale)
            plan = max(int(np.argmin(costs.calls)), int(band.min()) + 1)
            path[plan] = max(path.get(plan, 0.0), float(costs.found[plan]))
        ends = np.array(sorted(path))
        inside = np.searchsorted(np.sort(band), ends)
        _, first = np.unique(inside, return_index=True)
        self._ends = ends[first]
        self._rank = np.searchsorted(self._ends, band, side="right")
        claims = self._claims([path[end] for end in self._ends.tolist()])
        self.audit = NestedAudit(self._rank, claims, level)
        self._drawn = 0
        self.served: int | None = None
        self._look()

    def resume(self) -> None:
        """Let it decide anew what is served."""
        self.served = None

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
        target = self.audit.claims[best - 1].population
        left = ~self.stratum.known[self._order]
        inside = self._rank <= target
        draws = max(1, int(np.ceil(part[best] * float((left & inside).sum()))))
        looked = int(inside[: self._drawn].sum())
        without_errors = self.audit.tests[best - 1].target - looked
        step = min(draws, max(without_errors, -(-draws // 3)))
        wanted = np.flatnonzero(left & inside)[:step]
        if not len(wanted):  # all of them are known, and were too many
            self.served = self.audit.made
            return none
        until = int(wanted[-1]) + 1
        kept = self._rank[:until] < self._populations
        return self.stratum.items[self._order[:until][kept & left[:until]]]

    def _claims(self, found: list[float]) -> list[Claim]:
        """Return the claims, in the order in which they are tested.

        First what one would serve if errors were more frequent than is estimated, the
        most frequent first, each with the errors that one would find; then what is
        planned, with falling bounds, apart by the spread of the errors found.

        Args:
            found: Per population, errors expected to be found in it.
        """
        rooms = np.ceil(np.array(found) + np.array(found) ** 0.5).astype(int).tolist()
        last = len(rooms) - 1
        falls, room = [0], 0
        while room < max(rooms):
            room += max(1, int(room**0.5))
            falls.append(room)
        planned = [(each, room) for each, room in enumerate(rooms[:last])]
        planned += [(last, room) for room in reversed(falls)]
        return [
            Claim(at, self.allowed + room, 0.5 * (1 + room)) for at, room in planned
        ]

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
        level = audit.level
        share = drawn / np.maximum(size, 1.0)
        factor = scenarios(known)
        need = size * share_to_draw(
            factor * wrong, most, level, share, shown, of_all=True
        )
        if audit.made < len(audit.tests):
            target = audit.tests[audit.made].target
            need[:, audit.made] = np.maximum(need[:, audit.made], target)
        part = (need - drawn) / np.maximum(size - drawn, 1.0)
        part[:, : audit.made] = 0.0
        part = np.maximum.accumulate(np.clip(part, 0.0, 1.0), axis=1)
        over = np.maximum(most - known - part * factor * wrong - self.allowed, 0.0)
        fixing = np.array(
            [
                [
                    _calls_to_find(
                        over[i, k],
                        (left * (1 - part[i, k]))[:end],
                        factor[i, k] * rates[:end],
                    )
                    for k, end in enumerate(ends.tolist())
                ]
                for i in range(len(SCENARIOS))
            ]
        )
        cost = (part * inside + fixing).mean(axis=0) + total - inside
        return np.append(total, cost), np.append(0.0, part[len(SCENARIOS) // 2])


def _calls_to_find(errors: float, left: FloatArray, rates: FloatArray) -> float:
    """Return how many of the riskiest items have so many errors."""
    wrong, items = (left * rates)[::-1], left[::-1]
    before = np.append(0, np.cumsum(wrong))
    band = np.searchsorted(before[1:], errors)
    if band == len(items):
        return float(items.sum())
    part = (errors - before[band]) / max(float(wrong[band]), 1e-12)
    return float(items[:band].sum() + part * items[band])
