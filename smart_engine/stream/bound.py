r"""How many answers may be missed, given the audits' finds: at every moment at once.

Items are numbered as they arrive. Before item i is tossed for, its audit rate π_i is
fixed; with probability π_i it is audited. Let x_i = 1 if the policy's own answer to it
is wrong. An audited error is *found* (and repaired), an unaudited one is *missed*. Let
m be the number of misses so far.

For a slope λ ≥ 0 with (1 − π)e^λ < 1, a find is charged

    u(λ, π) = −ln[(1 − (1 − π)e^λ) / π].

On an error, exp(λ·m − Σ u) is multiplied by e^λ with probability 1 − π and by e^(−u)
with probability π: by (1 − π)e^λ + π·e^(−u) = 1 in the mean. On a right answer, and
where π = 1, it stays as it is. So it is a martingale started at 1, whatever the errors
do, if no answer depends on the coin of its own item or of a later one: items may be
chosen in view of all coins tossed before, and models do not see coins at all. So is any
mixture

    W = Σ_k w_k exp(λ_k·m − U_k),   Σ w_k = 1,   U_k = charges of all finds.

By Ville's inequality W reaches 1/α with probability at most α, ever. W grows with m, so
with probability 1 − α, at every moment, m is at most the largest number for which W is
below 1/α: the bound. This is never worse than a share w_k·α of the risk for each slope.

*Slopes slide.* As π falls, (1 − π)e^λ comes near 1. Then λ_k is lowered before the
toss: m ≥ 0, so exp(λ·m) never grows by that, and W stays a supermartingale. No weight
is lost, where dropping the slope would lose all of its weight.

*Outcomes come late.* W is a supermartingale in the order of arrival, in which π_i and
λ_k depend on what was known when i arrived. Of the items that have arrived, audited
ones may still be unresolved. Cut the stream anywhere. Before the cut, take unresolved
audited items for finds: charges only raise the bound, so do those of finds after the
cut, and so do flatter slopes. After the cut, no more misses can have been made than
items went unaudited. The bound at the cut and that number together bound the misses;
this holds at every cut, so the least such sum does.

Source: Ville (1939); mixtures as in Robbins (1970) and Howard, Ramdas et al. (2021).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from smart_engine.evidence.tails import FloatArray, IntArray

__all__ = ["MissBound", "charges", "log_mixture"]

_STEEPEST, _FLATTEST, _COUNT = 1.0, 2e-4, 24
"""Slopes at the start. Audit rates never fall so low that flatter ones would help."""

_LEAN = 0.5
"""Weights are proportional to slope^lean: early moments count for a little more."""

_FIRST_SLOPES = np.geomspace(_STEEPEST, _FLATTEST, _COUNT)
_FIRST_WEALTH = np.log(_FIRST_SLOPES**_LEAN / (_FIRST_SLOPES**_LEAN).sum())
"""Where the mixture starts."""

_ROUNDING = 1e-9
"""What the mixture must exceed its threshold by, in logarithms, against rounding."""


def log_mixture(
    log_wealth: FloatArray, slopes: FloatArray, misses: FloatArray | int
) -> FloatArray:
    """Return ln W at a number of misses, the last axis being that of the slopes.

    Args:
        log_wealth: ln w_k − U_k, shape (…, slopes).
        slopes: λ_k, a shape that fits.
        misses: Number of misses m, or numbers of a shape that fits.
    """
    exponents = log_wealth + slopes * misses
    top = exponents.max(axis=-1, keepdims=True)
    total = np.exp(exponents - top).sum(axis=-1)
    return np.asarray(top[..., 0] + np.log(total), float)


def charges(slopes: FloatArray, rate: FloatArray | float) -> FloatArray:
    """Return what a find is charged at an audit rate, u(λ, π) ≥ 0, per slope.

    Args:
        slopes: λ_k with (1 − π)e^λ < 1.
        rate: Audit rate π, 0 < π ≤ 1, of a shape that fits.

    Example:
        ```python
        # At π = 1 nothing can be missed and nothing is charged.
        assert charges(np.array([0.5]), 1.0) == 0
        ```
    """
    return np.asarray(-np.log((1 - (1 - rate) * np.exp(slopes)) / rate), float)


class MissBound:
    """The mixture as it runs.

    Args:
        alpha: Probability with which the bound may ever fail, 0 < α < 1.

    Attributes:
        slopes: λ_k now, never rising.
        log_wealth: ln w_k − U_k now, never rising.
        threshold: ln(1/α), what ln W must reach.
        misses: The bound: largest number of misses that is not excluded.

    Example:
        ```python
        bound = MissBound(0.05)
        bound.flatten(0.2)
        before = bound.misses
        bound.charge(charges(bound.slopes, 0.3))
        assert bound.misses > before
        ```
    """

    def __init__(self, alpha: float) -> None:
        """Start with nothing missed and nothing found."""
        self.slopes, self.log_wealth = _FIRST_SLOPES, _FIRST_WEALTH
        self.threshold = math.log(1 / alpha)
        self.misses = self.bound()

    def take_up(self, slopes: Sequence[float], log_wealth: Sequence[float]) -> None:
        """Go on from where another bound of the same level stood.

        Raises:
            ValueError: If no bound can stand there: slopes and wealth never rise.
        """
        if not len(slopes) == len(log_wealth) == _COUNT:
            raise ValueError("a bound with other slopes")
        first = _FIRST_SLOPES * (1 + _ROUNDING), _FIRST_WEALTH + _ROUNDING
        if (slopes > first[0]).any() or (log_wealth > first[1]).any():
            raise ValueError("a bound that has risen")
        self.slopes, self.log_wealth = np.array(slopes), np.array(log_wealth)
        self.misses = self.bound()

    def flatten(self, steepest: float) -> None:
        """Lower every slope above `steepest` to it."""
        self.slopes = np.minimum(self.slopes, steepest)
        self.misses = self.bound()

    def charge(self, charged: FloatArray) -> None:
        """Take a find into account, with what was fixed when it was tossed for."""
        self.log_wealth = self.log_wealth - charged
        self.misses = self.bound()

    def excludes(self, misses: int) -> bool:
        """Whether so many misses are excluded."""
        reached = log_mixture(self.log_wealth, self.slopes, misses)
        return float(reached) >= self.threshold + _ROUNDING

    def bound(self) -> int:
        """Return the bound, all finds charged."""
        return int(self.bounds(np.zeros((1, len(self.slopes))))[0])

    def bounds(self, charged: FloatArray) -> IntArray:
        """Return what the bound were if more finds were charged.

        Args:
            charged: Sums of their charges, shape (cases, slopes).

        Returns:
            Numbers of misses, shape (cases,).
        """
        wealth = self.log_wealth - charged
        goal = self.threshold + _ROUNDING
        # ln W is convex and rises with m: from above, Newton's steps never overshoot.
        at = ((goal - wealth) / self.slopes).min(axis=1)
        for _ in range(50):
            exponents = wealth + self.slopes * at[:, None]
            top = exponents.max(axis=1)
            terms = np.exp(exponents - top[:, None])
            total = terms.sum(axis=1)
            step = (top + np.log(total) - goal) * total / (terms @ self.slopes)
            at = at - step
            if step.max() < 0.01:
                break
        least = np.maximum(np.ceil(at) - 1, 0.0)
        while (short := log_mixture(wealth, self.slopes, least[:, None]) < goal).any():
            least = least + short
        return np.asarray(least, np.int64) - 1
