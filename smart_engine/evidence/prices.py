"""What the reference costs on an item, as far as a candidate's cost there tells.

An input that is long for one model is long for the other. So the log of the reference's
cost is taken to be a line of the log of the candidate's, fitted on items that both were
asked about; its slope is shrunk by how little these show. Items are cut into bands of
that price, or not at all where prices hardly vary. No promise rests on it: a wrong
price costs money, never validity.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from smart_engine.evidence.tails import FloatArray, IntArray

__all__ = ["Prices", "mean_price"]

_MOST_BANDS, _PER_BAND = 8, 8
"""Most bands, and how many items make one."""

_LEAST_SPREAD = 0.6
"""Standard deviation of log prices below which heeding them gains less than bands lose
by mistakes about who errs where."""


class Prices(NamedTuple):
    """Bands of items by what the reference is expected to cost on them.

    Attributes:
        edges: The candidate's costs between bands.
        mean: Per band, the mean price of its items; 1 is the mean of all items.
    """

    edges: FloatArray
    mean: FloatArray

    @classmethod
    def fit(cls, candidate: FloatArray, reference: FloatArray) -> Prices:
        """Learn from what both cost, in USD, on the same items.

        Example:
            ```python
            small = np.exp(np.random.default_rng(0).normal(size=64))
            prices = Prices.fit(small, 50 * small)
            assert len(prices.mean) == 8
            assert prices.mean[0] < 0.3 < 3 < prices.mean[-1]
            assert len(Prices.fit(small, np.ones(64)).mean) == 1
            ```
        """
        known = (candidate > 0) & (reference > 0)
        bands = min(int(known.sum()) // _PER_BAND, _MOST_BANDS)
        if bands < 2:
            return _ALL_ALIKE
        cost, price = candidate[known], np.log(reference[known])
        log = np.log(cost) - np.log(cost).mean()
        slope = _slope(log, price)
        if abs(slope) * float(log.std()) < _LEAST_SPREAD:
            return _ALL_ALIKE
        edges = np.unique(np.quantile(cost, np.arange(1, bands) / bands))
        band, worth = np.searchsorted(edges, cost), np.exp(slope * log)
        tally = np.bincount(band, minlength=len(edges) + 1)
        mean = np.bincount(band, worth, len(tally)) / np.maximum(tally, 1)
        mean = np.where(tally > 0, mean, worth.mean()) / worth.mean()
        return cls(edges, np.asarray(mean, float))

    def bands(self, candidate: FloatArray) -> IntArray:
        """Per item, its band, by what the candidate cost there, in USD.

        Where it cost nothing, which tells nothing, that of the most usual price.
        """
        usual = int(np.abs(self.mean - 1).argmin())
        band = np.searchsorted(self.edges, candidate)
        return np.where(candidate > 0, band, usual)


def mean_price(
    candidate: FloatArray, reference: FloatArray, others: FloatArray
) -> float:
    """Return the reference's mean cost on other items, in USD, estimated.

    Where these are longer than the sample for the candidate, they are for the reference
    (the regression estimator of Cochran 1977, section 7).

    Args:
        candidate: What the candidate cost on a sample of items, in USD.
        reference: What the reference cost on them.
        others: What the candidate cost on the others; empty where that is not known.

    Example:
        ```python
        small = np.array([1.0, 2.0, 3.0, 4.0])
        assert abs(mean_price(small, 50 * small, np.array([10.0])) - 500) < 1e-9
        assert mean_price(small, np.full(4, 50.0), np.array([10.0])) == 50
        ```
    """
    mean = float(reference.mean())
    if len(others):
        away = candidate - candidate.mean()
        mean += _slope(away, reference) * float(others.mean() - candidate.mean())
    return max(0.0, mean)


def _slope(away: FloatArray, values: FloatArray) -> float:
    """Return the slope of a line, shrunk by how little it explains.

    Args:
        away: By how much each place is above their mean.
        values: The values there.

    Source: least squares, and James and Stein's factor.
    """
    spread = float(away @ away)
    if len(away) < 3 or spread <= 0:
        return 0.0
    slope = float(away @ values) / spread
    rest = values - values.mean() - slope * away
    noise = float(rest @ rest) / (len(away) - 2)
    return slope * max(0.0, 1 - noise / (slope**2 * spread)) if slope else 0.0


_ALL_ALIKE = Prices(np.empty(0), np.ones(1))
