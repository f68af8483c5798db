"""The contract between a profiling strategy and the looks it takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from smart_engine.evidence.tails import IntArray, binomial_quantile_below
from smart_engine.guarantee import Guarantee
from smart_engine.strategies._base import Tally

__all__ = ["Looks", "doubling", "rejection"]


class Looks(Protocol):
    """When the evidence is looked at and what a look may conclude.

    A candidate with at most `acceptance` errors at a look is admitted: it may serve
    all remaining items. One with at least `rejection` errors is ruled out.

    Attributes:
        keeps_level: Whether the promise holds at the worst case.
        schedule: Sample sizes at which the evidence is looked at, rising to n_items.
        acceptance: Per look, the most errors that admit; −1 where none can.
        rejection: Per look, the fewest errors that rule out.
        level: One-sided error probability of a single look at one candidate.
    """

    keeps_level: bool
    schedule: IntArray
    acceptance: IntArray
    rejection: IntArray
    level: float

    def horizons(self, look: int) -> IntArray:
        """Indices of the later looks a planner should consider, nearest first."""

    def mix(
        self, tallies: Sequence[Tally], profiled: int, reference_cost: float
    ) -> dict[int, int]:
        """Cheapest split of the remaining items that keeps the promise.

        Args:
            tallies: Evidence per candidate, whatever its verdict.
            profiled: Items answered by the reference already.
            reference_cost: Mean cost of the reference on one item, in USD.

        Returns:
            Tier index → number of remaining items, candidates only; the reference
            serves the rest.
        """


def rejection(guarantee: Guarantee, schedule: IntArray) -> IntArray:
    """Fewest errors that rule out: lower end of the error rate's interval > δ.

    At confidence γ, uncorrected: ruling out costs money, never validity.
    """
    rate, tail = guarantee.tolerance, guarantee.alpha / 2
    return schedule - binomial_quantile_below(tail, schedule, 1 - rate)


def doubling(start: int, stop: int) -> IntArray:
    """Whole numbers start, start + 1, start + 3, start + 7, … and stop − 1 at last."""
    if start >= stop:
        return np.empty(0, np.int64)
    ahead = 2 ** np.arange(int(stop - start).bit_length()) - 1 + start
    return np.unique(np.minimum(ahead, stop - 1))
