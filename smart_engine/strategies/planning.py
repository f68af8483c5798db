"""Whether profiling further is worth its cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from smart_engine.evidence.tails import beta_binomial_cdf
from smart_engine.strategies.looks import Looks, Seen

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
        """Remember where going on paid last: that look is asked first."""
        self._looks = looks
        self._n_items = n_items
        self._paid_before: int | None = None

    def goes_on(
        self,
        look: int,
        undecided: Sequence[Seen],
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
        horizons = self._looks.horizons(look)
        if not len(horizons):
            return False
        if (
            self._paid_before in horizons
            and self._pays(
                np.array([self._paid_before]), look, undecided, reference_cost, cost_now
            ).any()
        ):
            return True
        pays = self._pays(horizons, look, undecided, reference_cost, cost_now)
        if not pays.any():
            return False
        self._paid_before = int(horizons[pays.argmax()])
        return True

    def _pays(
        self,
        horizons: np.ndarray,
        look: int,
        undecided: Sequence[Seen],
        reference_cost: float,
        cost_now: float,
    ) -> np.ndarray:
        """Per horizon, whether going on until it is expected to cost less."""
        n = int(self._looks.schedule[look])
        remaining = self._n_items - n
        more = self._looks.schedule[horizons] - n
        acceptance = self._looks.acceptance[horizons]
        per_item = reference_cost + sum(s.cost for s in undecided)
        expected = np.zeros(len(horizons))
        none_cheaper = np.ones(len(horizons))
        for one in sorted(undecided, key=lambda s: (s.cost, s.tier)):
            chance = beta_binomial_cdf(
                acceptance - one.errors, more, one.errors, one.draws - one.errors
            )
            expected += none_cheaper * chance * one.cost
            none_cheaper *= 1.0 - chance
        expected += none_cheaper * cost_now
        going_on = more * per_item + (remaining - more) * expected
        return np.asarray(going_on < remaining * cost_now)
