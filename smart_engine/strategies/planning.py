"""Whether profiling further is worth its cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from smart_engine.evidence.tails import BoolArray, IntArray, beta_binomial_cdf
from smart_engine.strategies._base import Tally
from smart_engine.strategies.looks import Looks

__all__ = ["Planner"]


class Planner:
    """Compares the cost of stopping now with the expected cost of going on.

    Going on until a later look costs the reference and every undecided candidate on
    each item in between; from there, the cheapest candidate expected to be admitted
    serves the rest. A candidate's chance to be admitted is the probability that its
    errors stay within the look's acceptance number, its error rate being uncertain.

    Args:
        looks: The looks in use.
        n_items: Number of items in the batch.

    Source: Jo & Trummer 2024, expected cost of profiling (k = 1, 2, 4, … more).
    """

    def __init__(self, looks: Looks, n_items: int) -> None:
        self._looks = looks
        self._n_items = n_items
        self._paid_before: int | None = None  # the look to try first

    def pays(
        self,
        look: int,
        undecided: Sequence[Tally],
        reference_cost: float,
        cost_now: float,
    ) -> bool:
        """Whether some later look is expected to be cheaper than stopping now.

        Args:
            look: Index of the look just taken.
            undecided: Evidence of the candidates still profiled.
            reference_cost: Mean cost of the reference on one item, in USD.
            cost_now: Mean cost per item of what may serve the rest now, in USD.
        """
        later = self._looks.horizons(look)
        per_item = reference_cost + sum(tally.cost for tally in undecided)
        if self._paid_before in later:
            before = np.array([self._paid_before])
            if self._cheaper(before, look, undecided, per_item, cost_now).any():
                return True
        cheaper = self._cheaper(later, look, undecided, per_item, cost_now)
        if not cheaper.any():
            return False
        self._paid_before = int(later[cheaper.argmax()])
        return True

    def _cheaper(
        self,
        later: IntArray,
        look: int,
        undecided: Sequence[Tally],
        per_item: float,
        cost_now: float,
    ) -> BoolArray:
        """Per later look, whether going on until it is expected to cost less."""
        draws = int(self._looks.schedule[look])
        remaining = self._n_items - draws
        more = self._looks.schedule[later] - draws
        acceptance = self._looks.acceptance[later]
        expected = np.zeros(len(later))
        none_cheaper = np.ones(len(later))
        for tally in sorted(undecided, key=lambda tally: (tally.cost, tally.tier)):
            errors, right = tally.errors, tally.draws - tally.errors
            chance = beta_binomial_cdf(acceptance - errors, more, errors, right)
            expected += none_cheaper * chance * tally.cost
            none_cheaper *= 1.0 - chance
        expected += none_cheaper * cost_now
        going_on = more * per_item + (remaining - more) * expected
        return np.asarray(going_on < remaining * cost_now)
