"""The SMART paper's looks: a 95 % interval, tested again every few items.

Repeating a fixed-level test voids its level: with several candidates and thousands of
items, this breaks its promise up to three times as often as allowed (measured rates:
`docs/figures.md`). It reproduces the paper; `CorrectedLooks` keeps the promise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from smart_engine.evidence.tails import (
    FloatArray,
    IntArray,
    binomial_quantile_below,
    clopper_pearson_lower,
)
from smart_engine.guarantee import Guarantee
from smart_engine.strategies._base import Tally
from smart_engine.strategies.looks._base import doubling, rejection

__all__ = ["PaperLooks"]

INTERVAL = 10
"""Items between two looks."""

_SPLITS = np.linspace(0.0, 1.0, 21)
"""How the confidence is split between two models: exponents t and 1 − t of γ."""


class PaperLooks:
    """Two-sided Clopper-Pearson intervals at confidence γ, every ten items.

    Admitted: lower end of the agreement ≥ 1 − δ. Ruled out: upper end < 1 − δ.
    No correction for repeated looks or for several candidates.

    Source: Jo & Trummer 2024, profiling and combination of models.
    """

    keeps_level = False

    def __init__(self, guarantee: Guarantee, n_items: int, n_candidates: int) -> None:
        del n_candidates
        self._guarantee = guarantee
        self._n_items = n_items
        self.schedule = np.unique(
            np.append(np.arange(INTERVAL, n_items, INTERVAL), n_items)
        )
        self.level = guarantee.alpha / 2
        rate = guarantee.tolerance
        # Upper end of the error rate ≤ δ  ⟺  P(Bin(n, δ) ≤ errors) ≤ α/2.
        self.acceptance = binomial_quantile_below(self.level, self.schedule, rate)
        # Lower end > δ  ⟺  P(Bin(n, δ) ≥ errors) < α/2: count the agreements.
        self.rejection = rejection(guarantee, self.schedule)

    def horizons(self, look: int) -> IntArray:
        """Looks 1, 2, 4, 8, … intervals ahead, and the last."""
        return doubling(look + 1, len(self.schedule))

    def mix(
        self, tallies: Sequence[Tally], profiled: int, reference_cost: float
    ) -> dict[int, int]:
        """The paper's linear program, solved by looking at its corners.

        Least cost subject to: shares sum to one, and the shares weighted by the
        lower ends of agreement reach what the remaining items must. Two
        constraints, so an optimal corner has at most two models: candidate and
        reference at confidence γ, or two candidates at γ^t and γ^(1−t), whose
        product is γ. All pairs and a grid of t are tried; no product of levels over
        all models is enumerated.
        """
        remaining = self._n_items - profiled
        allowed = self._guarantee.tolerance * self._n_items
        levels = self._guarantee.confidence**_SPLITS
        useful = [tally for tally in tallies if tally.cost < reference_cost]
        # Error rate assumed of each candidate at each level; the last level is γ.
        rates = {
            t.tier: 1.0 - clopper_pearson_lower(t.draws - t.errors, t.errors, levels)
            for t in useful
        }
        corners: list[tuple[float, dict[int, int]]] = [(remaining * reference_cost, {})]
        for cheap in useful:
            rate = rates[cheap.tier][-1]
            count = min(remaining, int(allowed / rate)) if rate > 0 else remaining
            cost = count * cheap.cost + (remaining - count) * reference_cost
            corners.append((cost, {cheap.tier: count}))
            for dear in useful:
                if cheap.cost >= dear.cost:
                    continue
                low, high = rates[cheap.tier], rates[dear.tier][::-1]
                count = _most(low, high, allowed, remaining)
                if count >= 0:
                    cost = count * cheap.cost + (remaining - count) * dear.cost
                    split = {cheap.tier: count, dear.tier: remaining - count}
                    corners.append((cost, split))
        best = min(corners, key=lambda corner: corner[0])[1]
        return {tier: count for tier, count in best.items() if count > 0}


def _most(cheap: FloatArray, dear: FloatArray, allowed: float, remaining: int) -> int:
    """Most items the cheaper of two models may serve, the other serving the rest.

    Per column, that is the largest m ≤ remaining with
    cheap·m + dear·(remaining − m) ≤ allowed; −1 where no column allows any.
    """
    spare = allowed - dear * remaining
    gap = cheap - dear
    with np.errstate(divide="ignore", invalid="ignore"):
        some = np.where((gap > 0) & (spare >= 0), np.floor(spare / gap), -1.0)
    counts = np.where(spare >= gap * remaining, remaining, some)
    return int(counts.max())
