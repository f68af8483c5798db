"""Whether profiling further is worth its cost.

Going on until a later look costs the reference and every undecided candidate on each
item in between; from there, the cheapest candidate expected to be admitted serves the
rest. A candidate's chance to be admitted is the probability that its errors stay within
the look's acceptance number, its error rate being uncertain.

Source: Jo & Trummer 2024, expected cost of profiling (k = 1, 2, 4, … more).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from smart_engine.evidence.tails import beta_binomial_cdf
from smart_engine.strategies._base import Tally
from smart_engine.strategies.looks import Looks

__all__ = ["pays"]


def pays(
    looks: Looks,
    look: int,
    undecided: Sequence[Tally],
    reference_cost: float,
    cost_now: float,
) -> bool:
    """Whether going on until some later look is expected to cost less than stopping.

    Args:
        looks: The looks in use, the last of them at all items.
        look: Index of the look just taken.
        undecided: Evidence of the candidates still profiled.
        reference_cost: Mean cost of the reference on one item, in USD.
        cost_now: Mean cost per item of what may serve the rest now, in USD.
    """
    later = looks.horizons(look)
    remaining = int(looks.schedule[-1] - looks.schedule[look])
    more = looks.schedule[later] - looks.schedule[look]
    acceptance = looks.acceptance[later]
    expected = np.zeros(len(later))
    none_cheaper = np.ones(len(later))
    for tally in sorted(undecided, key=lambda tally: (tally.cost, tally.tier)):
        errors, right = tally.errors, tally.draws - tally.errors
        chance = beta_binomial_cdf(acceptance - errors, more, errors, right)
        expected += none_cheaper * chance * tally.cost
        none_cheaper *= 1.0 - chance
    expected += none_cheaper * cost_now
    per_item = reference_cost + sum(tally.cost for tally in undecided)
    going_on = more * per_item + (remaining - more) * expected
    return bool((going_on < remaining * cost_now).any())
