"""Strata: the items in which one kind of error may hide, and how often it does.

A stratum's items are ordered from the safest to the riskiest and cut into bands.
Nothing here touches a promise: a bad signal or estimate costs money, never validity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from smart_engine.evidence.tails import BoolArray, FloatArray, IntArray
from smart_engine.labels.calibration import error_rates
from smart_engine.labels.costs import SCENARIOS, scenarios, share_to_draw

__all__ = ["Costs", "Stratum"]

_EVEN, _FINE = 24, 24
"""Bands of equal size, and bands whose sizes fall towards the riskiest items."""


class Costs(NamedTuple):
    """What serving the first k bands is expected to cost, for every k from 0 on.

    Attributes:
        calls: Reference calls: draws, and all items outside.
        found: Errors that the draws are expected to show.
        undetected: Errors expected to stay in the items served.
        outside: Errors expected in the items outside.
        shares: Share of the items served that is expected to be drawn.
    """

    calls: FloatArray
    found: FloatArray
    undetected: FloatArray
    outside: FloatArray
    shares: FloatArray

    @property
    def end(self) -> int:
        """Bands of the part that is cheapest to audit, at one level."""
        return int(self.calls.argmin())


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
        self._risk = self.per_band(risk) / np.maximum(self.per_band(), 1)
        self.known = np.zeros(size, bool)
        self.wrong = np.zeros(size, bool)
        self._rates: FloatArray | None = None

    def learn(self, known: BoolArray, wrong: BoolArray) -> None:
        """Take in what is known of all items of the batch."""
        self.known = known[self.items]
        self.wrong = wrong[self.items] & self.known
        self._rates = None

    def per_band(self, values: BoolArray | FloatArray | None = None) -> FloatArray:
        """Per band, the sum of its items' values; by default their number."""
        return np.bincount(self.band, values, self.bands).astype(float)

    def unknown(self, first: int = 0) -> IntArray:
        """The items of the bands from `first` on of which nothing is known."""
        return self.items[~self.known & (self.band >= first)]

    def rates(self) -> FloatArray:
        """Per band, the estimated share of its unknown items that are wrong."""
        if self._rates is None:
            known, wrong = self.per_band(self.known), self.per_band(self.wrong)
            self._rates = error_rates(self._risk, self.per_band(), known, wrong)
        return self._rates

    def costs(
        self,
        allowed: float,
        level: FloatArray | float,
        gain: float = 0.0,
        quantiles: Sequence[float] = SCENARIOS,
    ) -> Costs:
        """Return what auditing all that is unknown is expected to cost, band by band.

        Args:
            allowed: Errors that may stay undetected.
            level: Level of the audit; an array has a last axis of 1.
            gain: Errors that may stay undetected besides, for each one detected.
            quantiles: How many there may be; costs are means over these scenarios.
        """
        left = self.per_band(~self.known)
        inside, wrong = np.cumsum(left), np.cumsum(left * self.rates())
        likely = wrong * scenarios(np.cumsum(self.per_band(self.wrong)), quantiles)
        levels = np.asarray(level)[..., None]
        parts = share_to_draw(likely, allowed, levels, gain=gain)
        parts = np.maximum.accumulate(parts, axis=-1)
        calls = parts.mean(axis=-2) * inside + inside[-1:] - inside
        part = parts[..., len(quantiles) // 2, :]
        none = np.zeros((*calls.shape[:-1], 1))
        return Costs(
            np.concatenate([none + left.sum(), calls], axis=-1),
            np.concatenate([none, part * wrong], axis=-1),
            np.concatenate([none, (1 - part) * wrong], axis=-1),
            np.append(0.0, wrong)[-1] - np.append(0.0, wrong),
            np.concatenate([none, part], axis=-1),
        )
