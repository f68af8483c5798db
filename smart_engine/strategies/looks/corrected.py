r"""Looks whose promise holds: exact, finite-population, corrected for repetition.

Null hypothesis of a look at a candidate: more than B of its answers on the items not
drawn are wrong, B being the number of wrong answers the guarantee allows. Condition:
the drawn items are a uniform random subset. With d errors among n draws, hidden
errors exceed B only if the population holds at least B + d + 1; the p-value is
P(Hyp(N, B + d + 1, n) ≤ d), which rises with d, so the test has its level whatever
the true number is.

The looks are few, because their distances grow, and are fixed in advance. The failure
probability α is divided evenly over looks and candidates, so all conclusions taken
together hold with probability at least 1 − α. Drawn items are answered by the
reference and therefore right: only undetected errors count.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from smart_engine.evidence.tails import IntArray, hypergeometric_cdf, largest
from smart_engine.guarantee import Guarantee
from smart_engine.strategies._base import Tally
from smart_engine.strategies.looks._base import rejection

__all__ = ["CorrectedLooks"]

_FIRST = _STEP = 32
"""Sizes are multiples of this, so that concurrent calls come in full rounds."""

_GROWTH = 3 / 2
"""Next look at 3/2 of the items. Later looks overshoot, more looks cost level; the
sum of both hardly changes between 1.2 and 1.5."""


class CorrectedLooks:
    """Exact hypergeometric tests at a few growing sample sizes.

    α is divided over the looks at all candidates.

    Source: Bonferroni over a fixed design; the test is the classic finite-population
    one of risk-limiting audits (Stark 2008).
    """

    keeps_level = True

    def __init__(self, guarantee: Guarantee, n_items: int, n_candidates: int) -> None:
        self._n_items = n_items
        self._max_errors = guarantee.max_errors(n_items)
        # So early that not even a flawless record could admit, looks only rule out.
        pointless = -np.log(guarantee.alpha) / guarantee.tolerance
        sizes = [min(_FIRST, n_items)]
        while sizes[-1] < n_items:
            growth = 2 if sizes[-1] < pointless else _GROWTH
            rounded = int(np.ceil(sizes[-1] * growth / _STEP)) * _STEP
            sizes.append(min(n_items, rounded))
        self.schedule = np.array(sizes, np.int64)
        self.level = guarantee.alpha / (n_candidates * len(sizes))
        design = (n_items, self._max_errors, self.level)
        most = [_most_admitted(*design, size) for size in sizes]
        self.acceptance = np.array(most, np.int64)
        self.rejection = rejection(guarantee, self.schedule)

    def horizons(self, look: int) -> IntArray:
        """All later looks: they are few."""
        return np.arange(look + 1, len(self.schedule), dtype=np.int64)

    def mix(
        self, tallies: Sequence[Tally], profiled: int, reference_cost: float
    ) -> dict[int, int]:
        """The best candidate on as many items as its evidence allows.

        A candidate that may not serve all remaining items may serve some. Let the
        batch be in random order, the first n items drawn, and let it serve up to
        position M. The test is the same on the population of the first M items; the
        largest M it passes is taken. That M depends on the errors seen and the level
        holds all the same: read the order backwards from N, where the first n items
        are at any time a uniform subset of the first M, and stop at the first M that
        this evidence could pass. Items drawn after n count as if they held no error,
        which is the worst case.
        """
        remaining = self._n_items - profiled
        best_cost, best = remaining * reference_cost, dict[int, int]()
        for tally in tallies:
            if tally.cost >= reference_cost:
                continue
            count = max(0, self._reach(tally.draws, tally.errors) - profiled)
            cost = count * tally.cost + (remaining - count) * reference_cost
            if cost < best_cost and count > 0:
                best_cost, best = cost, {tally.tier: count}
        return best

    def _reach(self, draws: int, errors: int) -> int:
        """Largest prefix in which more than B undetected errors are excluded."""
        if not draws:
            return 0
        seen = (errors, draws, self.level)
        return largest(
            draws, self._n_items, lambda m: _excluded(m, self._max_errors, *seen)
        )


def _excluded(
    population: int, max_errors: int, errors: int, draws: int, level: float
) -> bool:
    """Whether more than `max_errors` undetected errors are excluded at `level`."""
    marked = max_errors + errors + 1
    if marked > population - draws + errors:
        return True
    return hypergeometric_cdf(errors, population, marked, draws) <= level


@lru_cache(maxsize=4096)
def _most_admitted(n_items: int, max_errors: int, level: float, draws: int) -> int:
    """Most errors among the draws that admit; −1 where none do."""
    return largest(
        -1, draws, lambda errors: _excluded(n_items, max_errors, errors, draws, level)
    )
