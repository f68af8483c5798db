"""One audit of a stratum as it runs: which bands it is about, and what to draw next.

Its design is fixed before its first draw; everything else here is about costs. If more
errors turn up than are foreseen, too many bands are audited: what draws from them all
would have to find, the reference finds among the riskiest items for fewer calls, after
the audit. So each further error detected lets more stay until then. As the bound falls
only by errors that are there to be found, that is the share of the allowance that is
expected to be errors.
"""

from __future__ import annotations

import math

import numpy as np

from smart_engine.evidence.acceptance import Acceptance, SequentialTest
from smart_engine.evidence.tails import IntArray
from smart_engine.labels.costs import share_to_draw
from smart_engine.labels.strata import Stratum

__all__ = ["RunningAudit"]

_SHAPE = 0.2
"""Errors that the acceptance numbers expect, as a share of those that draws are."""


class RunningAudit:
    """An audit of what is unknown of a stratum, its riskiest bands left out.

    Args:
        stratum: The stratum.
        place: Per item of the batch, its place in the random order of drawing.
        allowed: Errors that may stay undetected.
        level: Its level.
        gain: Errors that may stay undetected besides, for each one detected.

    Attributes:
        stratum: As given.
        test: Its design, and what it has shown.
    """

    def __init__(
        self,
        stratum: Stratum,
        place: IntArray,
        allowed: int,
        level: float,
        gain: float,
    ) -> None:
        self.stratum = stratum
        costs = stratum.costs(float(allowed), level, gain)
        self._end = costs.end
        inside = np.flatnonzero(~stratum.known & (stratum.band < self._end))
        self._order = inside[np.argsort(place[stratum.items[inside]])]
        found, undetected = costs.found[self._end], costs.undetected[self._end]
        design = Acceptance(
            len(inside),
            allowed,
            level,
            _SHAPE * float(found),
            gain,
            foreseen=math.ceil(found),
            surplus=min(1.0, float(undetected) / max(allowed, 1)),
        )
        self.test = SequentialTest("", design)
        self._look()

    def next_draws(self) -> IntArray:
        """Return the items to draw next; none once its test has accepted."""
        self._look()
        if self.test.accepted is not None:
            return self.stratum.items[:0]
        least = self.test.target - self.test.draws  # if they show no further error
        step = max(least, -(-self._draws_left() // 3))
        drawn = self._order[: self.test.draws + step]
        return self.stratum.items[drawn[~self.stratum.known[drawn]]]

    def outside(self) -> IntArray:
        """The unknown items that it is not about."""
        return self.stratum.unknown(self._end)

    @property
    def found(self) -> int:
        """Errors found in what it is about, since the first draw."""
        return int(self.stratum.wrong[self._order].sum())

    def _look(self) -> None:
        """Let the test look at all that is known without a gap."""
        gaps = np.flatnonzero(~self.stratum.known[self._order])
        drawn = int(gaps[0]) if len(gaps) else len(self._order)
        errors = np.flatnonzero(self.stratum.wrong[self._order[:drawn]]) + 1
        self.test.extend(drawn, errors[errors > self.test.draws].tolist(), ())

    def _draws_left(self) -> int:
        """Return how many more draws are expected."""
        left = self._order[self.test.draws :]
        wrong = self.stratum.rates()[self.stratum.band[left]].sum()
        size, design = len(self._order), self.test.acceptance
        errors = len(self.test.errors)
        gain = design.gain + design.surplus * (errors >= design.foreseen)
        share = share_to_draw(
            wrong,
            design.allowed(errors) - gain * errors,
            design.level,
            self.test.draws / max(size, 1),
            errors,
            gain,
        )
        return int(float(share) * size) - self.test.draws
