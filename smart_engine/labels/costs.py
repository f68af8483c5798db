"""How many draws an audit is expected to need. Nothing here touches a promise.

A claim that at most b errors are in M items is made after n draws that found c, where
b + 1 errors would have shown c or fewer with a probability of at most the level. Each
of them is drawn with probability n/M: so n/M is a quantile of a beta distribution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from smart_engine.evidence.tails import FloatArray

__all__ = ["SCENARIOS", "scenarios", "share_to_draw"]

SCENARIOS = (1 / 6, 1 / 2, 5 / 6)
"""Quantiles of how many errors there may be: costs are means over them."""

_SEEN = 2.0
"""Errors seen that an estimate is worth where none was seen."""

_SPENT = 1 - math.exp(-1)
"""Share of its level that a test has used once it has found what it expects."""

_FOUND = 48
"""Numbers of errors found at which shares are computed; others are interpolated."""

_HALVINGS = 12
"""How often the interval is halved in which a share lies."""


def scenarios(seen: FloatArray, quantiles: Sequence[float] = SCENARIOS) -> FloatArray:
    """Return how many errors there may be, as multiples of what is estimated.

    Args:
        seen: Errors seen among such items, (n,).
        quantiles: The scenarios.

    Returns:
        Quantiles of a gamma distribution with a mean of 1, (scenarios, n).
    """
    from scipy.special import gammaincinv

    shape = np.asarray(seen, float) + _SEEN
    return np.asarray(gammaincinv(shape, np.array(quantiles)[:, None]) / shape, float)


def share_to_draw(
    errors: ArrayLike,
    allowed: ArrayLike,
    level: ArrayLike,
    drawn: ArrayLike = 0.0,
    found: ArrayLike = 0.0,
    gain: float = 0.0,
) -> FloatArray:
    """Return the share of the items drawn in all when a claim is expected to be made.

    Args:
        errors: Errors among the items not drawn yet, any shape; others broadcast.
        allowed: Errors that may stay undetected.
        level: Level of the audit.
        drawn: Share of the items drawn already.
        found: Errors found in them.
        gain: Errors that may stay undetected besides, for each one found.

    Example:
        ```python
        # No error in 1,000 items, of which 10 may be: 22 % for the first look.
        share = float(share_to_draw(0.0, 10.0, 0.1))
        assert abs(share - (1 - (0.1 * (1 - math.exp(-1))) ** (1 / 11))) < 0.002
        assert share_to_draw(5.0, 10.0, 0.1) > share
        ```
    """
    from scipy.special import betaincinv

    given = (errors, allowed, level, drawn, found)
    left, most, alpha, low, known = np.broadcast_arrays(
        *(np.asarray(each, float) for each in given)
    )
    if np.ndim(allowed) == np.ndim(drawn) == 0 and not np.any(drawn):
        return _without_draws(left, float(np.asarray(allowed)), alpha, gain)
    start, high = low, np.ones_like(low)
    for _ in range(_HALVINGS):
        share = (low + high) / 2
        seen = known + left * (share - start) / np.maximum(1 - start, 1e-9)
        may_stay = most + gain * seen
        enough = share >= 1 - betaincinv(may_stay + 1, seen + 1, _SPENT * alpha)
        high, low = np.where(enough, share, high), np.where(enough, low, share)
    return np.asarray(high, float)


def _without_draws(
    errors: FloatArray, allowed: float, level: FloatArray, gain: float
) -> FloatArray:
    """Return the shares before any draw: they depend on the errors found alone."""
    from scipy.special import betaincinv

    found = np.append(
        0.0, np.geomspace(0.1, 1 + float(errors.max(initial=0.0)), _FOUND)
    )
    shares = np.empty(errors.shape)
    for each in np.unique(level).tolist():
        may_stay = allowed + gain * found
        needed = 1 - betaincinv(may_stay + 1, found + 1, _SPENT * each)
        at = level == each
        low, high = np.zeros(int(at.sum())), np.ones(int(at.sum()))
        for _ in range(_HALVINGS):
            share = (low + high) / 2
            enough = share >= np.interp(errors[at] * share, found, needed)
            high, low = np.where(enough, share, high), np.where(enough, low, share)
        shares[at] = high
    return shares
