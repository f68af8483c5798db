"""Strata: the items in which one kind of error may hide, and how often it does.

A stratum's items are ordered from the safest to the riskiest and cut into bands. Rates
are estimated from what is known of the bands, in proportion to the risk where little is
known, and never fall with it. Nothing here touches a promise: a bad signal or estimate
costs money, never validity.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from smart_engine.evidence.plans import draws_needed
from smart_engine.evidence.tails import BoolArray, FloatArray, IntArray

__all__ = ["Costs", "Stratum"]

_EVEN, _FINE = 24, 24
"""Bands of equal size, and bands whose sizes fall towards the riskiest items."""

_WORTH = 2.0
"""How many known items a band's prior rate is worth."""

_LEAST_RISK = 1e-3
"""So that a model that is sure of itself may still err."""


class Costs(NamedTuple):
    """What serving the first k populations is expected to cost, for every k from 0 on.

    Attributes:
        calls: Reference calls: draws, and all items outside.
        found: Errors that the draws are expected to show.
    """

    calls: FloatArray
    found: FloatArray


class Stratum:
    """Items in which one kind of error may hide, safest first.

    Args:
        items: The items.
        risk: Per item, how likely an error looks, on any scale from 0 up.

    Attributes:
        items: The items, safest first.
        bands: Number of bands.
        band: Per item in that order, its band.
        known: Per item in that order, whether it is known to be wrong or not.
        wrong: Per item in that order, whether it is known to be wrong.
    """

    def __init__(self, items: IntArray, risk: FloatArray) -> None:
        order = np.argsort(risk, kind="stable")
        self.items, risk = items[order], risk[order]
        size = len(items)
        even = np.linspace(0, size, _EVEN + 1)[1:]
        fine = size + 1 - np.geomspace(1, size + 1, _FINE)
        last = np.flatnonzero(np.append(risk[1:] != risk[:-1], True)[:size]) + 1
        wanted = np.unique(np.append(even, fine).round())
        places = np.searchsorted(last, wanted[(wanted > 0) & (wanted <= size)])
        ends = np.unique(last[places])
        self.bands = len(ends)
        self.band = np.searchsorted(ends, np.arange(size), side="right")
        sums = self.per_band(np.maximum(risk, _LEAST_RISK))
        self._risk = sums / np.maximum(self.per_band(), 1)
        self.known = np.zeros(size, bool)
        self.wrong = np.zeros(size, bool)

    def learn(self, known: BoolArray, wrong: BoolArray) -> None:
        """Take in what is known of all items of the batch."""
        self.known = known[self.items]
        self.wrong = wrong[self.items] & self.known

    def per_band(self, values: BoolArray | FloatArray | None = None) -> FloatArray:
        """Per band, the sum of its items' values; by default their number."""
        return np.bincount(self.band, values, self.bands).astype(float)

    def unknown(self, first: int = 0) -> IntArray:
        """The items of the bands from `first` on of which nothing is known."""
        return self.items[~self.known & (self.band >= first)]

    def rates(self) -> FloatArray:
        """Per band, the estimated share of its unknown items that are wrong."""
        known, wrong = self.per_band(self.known), self.per_band(self.wrong)
        size, risk = self.per_band(), self._risk
        typical = float(risk @ size) / max(float(size.sum()), 1.0)
        scale = (wrong.sum() + 0.5) / (known @ risk + 0.5 / max(typical, _LEAST_RISK))
        prior = np.minimum(scale * risk, 1.0)
        return _rising(wrong + _WORTH * prior, known + _WORTH)

    def costs(self, allowed: FloatArray | float, level: FloatArray | float) -> Costs:
        """Return what auditing all that is unknown is expected to cost, band by band.

        Args:
            allowed: Errors that may stay undetected; an array has a last axis of 1.
            level: Level of the audit, in the same shape.
        """
        left = self.per_band(~self.known)
        inside, rates = np.cumsum(left), self.rates()
        wrong = np.cumsum(left * rates)
        rate = wrong / np.maximum(inside, 1e-9)
        draws = draws_needed(inside, rate, allowed, level)
        part = np.maximum.accumulate(draws / np.maximum(inside, 1.0), axis=-1)
        calls = part * inside + inside[-1:] - inside
        none = np.zeros((*calls.shape[:-1], 1))
        return Costs(
            np.concatenate([none + left.sum(), calls], axis=-1),
            np.concatenate([none, part * wrong], axis=-1),
        )


def _rising(wrong: FloatArray, known: FloatArray) -> FloatArray:
    """Rates that never fall: neighbours that do are pooled (isotonic regression)."""
    pools: list[tuple[float, float, int]] = []
    for pool in zip(wrong.tolist(), known.tolist(), [1] * len(wrong), strict=True):
        errors, size, bands = pool
        while pools and pools[-1][0] * size >= errors * pools[-1][1]:
            before = pools.pop()
            errors, size = errors + before[0], size + before[1]
            bands += before[2]
        pools.append((errors, size, bands))
    return np.concatenate(
        [np.zeros(0), *(np.full(bands, e / n) for e, n, bands in pools)]
    )
