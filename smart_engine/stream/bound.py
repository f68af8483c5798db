r"""A bound on undetected errors that holds at every moment: the mathematics.

Before the draw of item i its audit rate π_i is fixed; with probability π_i it is
audited. Where the policy's own answer is wrong, an audit *detects* (and repairs) the
error; otherwise it is *undetected*. Let m be the number of undetected errors so far.
For a slope λ ≥ 0 with (1 − π)e^λ < 1, a detected error is charged

    u(λ, π) = −ln[(1 − (1 − π)e^λ) / π].

On an error, exp(λ·m − Σ u) is multiplied by e^λ with probability 1 − π and by e^(−u)
with probability π: by (1 − π)e^λ + π·e^(−u) = 1 in the mean. On a right answer, and
where π = 1, it does not change. So it is a martingale started at 1, whatever errors
occur, if no answer depends on the draw of its own or a later item. So is any mixture

    W = Σ_k w_k exp(λ_k·m − U_k),   Σ w_k = 1,   U_k = all charges so far.

By Ville's inequality W reaches 1/α with probability at most α, ever. W grows with m, so
with probability 1 − α, at every moment, m is at most the largest number for which W is
below 1/α: the bound. It is never worse than a share w_k·α of the risk for each slope.

*Slopes fall.* As π falls, (1 − π)e^λ comes near 1. Then λ_k is lowered before the draw:
m ≥ 0, so exp(λ·m) never grows by that, and W stays a supermartingale.

*Outcomes come late.* Audits of items that have arrived may be unresolved. Cut the
stream anywhere. Before the cut, charge unresolved audits as detected errors: charges
only raise the bound, and so do those after the cut and flatter slopes. After the cut,
there are no more undetected errors than items without an audit. The bound at the cut
plus that number bounds all undetected errors; so does the least such sum.

Source: Ville (1939); mixtures as in Robbins (1970) and Howard, Ramdas et al. (2021).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from smart_engine.evidence.tails import FloatArray, IntArray

__all__ = ["ErrorBound", "charges", "log_mixture"]

# Audit rates never fall so low that flatter slopes would help. Weights proportional to
# the root of the slope favour early moments a little.
_FIRST_SLOPES = np.geomspace(1.0, 2e-4, 24)
_FIRST_WEALTH = np.log(_FIRST_SLOPES**0.5 / (_FIRST_SLOPES**0.5).sum())
_ROUNDING = 1e-9  # by which ln W must exceed its threshold


def log_mixture(
    log_wealth: FloatArray, slopes: FloatArray, undetected: FloatArray | int
) -> FloatArray:
    """Return ln W at a number of undetected errors; the last axis is the slopes'.

    Args:
        log_wealth: ln w_k − U_k, shape (…, slopes).
        slopes: λ_k, a shape that fits.
        undetected: Number of undetected errors m, or numbers of a shape that fits.
    """
    exponents = log_wealth + slopes * undetected
    top = exponents.max(axis=-1, keepdims=True)
    total = np.exp(exponents - top).sum(axis=-1)
    return np.asarray(top[..., 0] + np.log(total), float)


def charges(slopes: FloatArray, rate: FloatArray | float) -> FloatArray:
    """Return the charge of an error detected at an audit rate, u(λ, π) ≥ 0, per slope.

    Args:
        slopes: λ_k with (1 − π)e^λ < 1.
        rate: Audit rate π, 0 < π ≤ 1, of a shape that fits.

    Example:
        ```python
        # At π = 1 every error is detected, and nothing is charged.
        assert charges(np.array([0.5]), 1.0) == 0
        ```
    """
    return np.asarray(-np.log((1 - (1 - rate) * np.exp(slopes)) / rate), float)


class ErrorBound:
    """The mixture W of a stream so far.

    Args:
        alpha: Probability with which the bound may ever fail, 0 < α < 1.

    Attributes:
        slopes: λ_k now, never rising.
        log_wealth: ln w_k − U_k now, never rising.
        threshold: ln(1/α), what ln W must reach.
        undetected: The bound: largest number of undetected errors that is not excluded.

    Example:
        ```python
        bound = ErrorBound(0.05)
        bound.flatten(0.2)
        before = bound.undetected
        bound.charge(charges(bound.slopes, 0.3))
        assert bound.undetected > before
        ```
    """

    def __init__(self, alpha: float) -> None:
        self.slopes, self.log_wealth = _FIRST_SLOPES, _FIRST_WEALTH
        self.threshold = math.log(1 / alpha)
        self.undetected = self.bound()

    def take_up(self, slopes: Sequence[float], log_wealth: Sequence[float]) -> None:
        """Go on from where another bound of the same level stood.

        Raises:
            ValueError: If no bound can stand there: slopes and wealth never rise.
        """
        if not len(slopes) == len(log_wealth) == len(_FIRST_SLOPES):
            raise ValueError("a bound with other slopes")
        risen = slopes > _FIRST_SLOPES * (1 + _ROUNDING)
        if (risen | (log_wealth > _FIRST_WEALTH + _ROUNDING)).any():
            raise ValueError("slopes or wealth that have risen")
        self.slopes, self.log_wealth = np.array(slopes), np.array(log_wealth)
        self.undetected = self.bound()

    def flatten(self, steepest: float) -> None:
        """Lower every slope above `steepest` to it."""
        self.lower(np.minimum(self.slopes, steepest))

    def lower(self, slopes: FloatArray) -> None:
        """Lower slopes to these, none of which is above what it was."""
        if (slopes < self.slopes).any():
            self.slopes = slopes
            self.undetected = self.bound()

    def charge(self, charged: FloatArray) -> None:
        """Charge a detected error, at the rate and slopes of its draw."""
        self.log_wealth = self.log_wealth - charged
        self.undetected = self.bound()

    def bound(self) -> int:
        """Return the bound, all detected errors charged."""
        return int(self.bounds(np.zeros((1, len(self.slopes))))[0])

    def bounds(self, charged: FloatArray) -> IntArray:
        """Return the bound if more errors were detected.

        Args:
            charged: Sums of their charges, shape (cases, slopes).

        Returns:
            Numbers of undetected errors, shape (cases,).
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
