"""How an audit ends in one wave more, whatever that wave shows.

An audit that has not accepted may still end: the reference is asked about so many
further items, in the order of drawing, that what they repair suffices, most probably.
Let h errors be undetected after n draws that detected c. With m further items, more
than B of them stay undetected with probability w_h(m), known exactly. Let R_h be how
much likelier all draws so far were if rates were drawn from a fixed distribution than
with h + c errors. If w_h(m) ≤ β·R_h for every h > B, ending like that, at any time that
one likes, breaks the promise with probability at most β (mathematics, Theorem 13).

Source: a likelihood ratio is a martingale (Ville 1939), for draws without replacement
(Waudby-Smith & Ramdas 2020); here it need not reach 1/β, for the wave repairs.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from smart_engine.evidence.acceptance import SequentialTest
from smart_engine.evidence.tails import (
    FloatArray,
    IntArray,
    hypergeometric_cdf,
    hypergeometric_log_pmf,
    largest,
)

__all__ = ["expected_repairs", "repairs"]

_RANGE = 1.005
"""Ratio of the greatest to the least h that are checked together."""

_ROUNDING = 1e-9
"""Share of the level left unused, against rounding."""

_SURE = 1.0
"""Standard deviations by which expected repairs are above their mean."""


def repairs(test: SequentialTest) -> int:
    """Return the least number of further items with which an audit may end.

    That is all but B of those left, at most. They are the next in the order of draws.
    """
    design, draws, errors = test.acceptance, test.draws, len(test.errors)
    left, allowed = design.items - draws, test.unrepaired
    if test.repair_level <= 0 or allowed < 0:
        return max(0, design.most_draws - draws)
    low, high = _ranges(allowed + 1, left)
    # In a range, the ratio is least where the draws are likeliest, and the chance that
    # too many stay undetected is greatest where there are most.
    likeliest = np.clip(_mode(test), low + errors, high + errors)
    room = math.log(test.repair_level * (1 - _ROUNDING)) + _log_ratio(test, likeliest)
    binding = room < 0
    chances = np.exp(room[binding]).tolist()
    checked = list(zip(high[binding].tolist(), chances, strict=True))

    def falls_short(more: int) -> bool:
        for place, (hidden, chance) in enumerate(checked):
            if hypergeometric_cdf(hidden - allowed - 1, left, hidden, more) > chance:
                checked.insert(0, checked.pop(place))  # most likely the next, too
                return True
        return False

    if not falls_short(0):
        return 0
    return largest(0, max(0, left - allowed), falls_short) + 1


def _ranges(first: int, last: int) -> tuple[IntArray, IntArray]:
    """Cut the numbers from the first to the last into ranges; return their ends."""
    starts = [first]
    while starts[-1] < last:
        starts.append(max(starts[-1] + 1, int(starts[-1] * _RANGE)))
    low = np.array([start for start in starts if start <= last], np.int64)
    return low, np.append(low[1:] - 1, last)


def _mode(test: SequentialTest) -> int:
    """Return the number of errors in all that makes the draws likeliest."""
    return len(test.errors) * (test.acceptance.items + 1) // max(test.draws, 1)


def _log_ratio(test: SequentialTest, total: IntArray) -> FloatArray:
    """Return log R of the draws, per number of errors in all."""
    from scipy.special import gammaln

    draws, errors = test.draws, len(test.errors)
    seen = hypergeometric_log_pmf(errors, test.acceptance.items, total, draws)
    orders = gammaln(draws + 1) - gammaln(errors + 1) - gammaln(draws - errors + 1)
    return np.asarray(_log_mixture(test, draws, errors) - (seen - orders), float)


def _log_mixture(
    test: SequentialTest, draws: ArrayLike, errors: ArrayLike
) -> FloatArray:
    """Return the log probability of one order of draws and errors, rates being mixed.

    The rate has the distribution Beta(1, 2·M/(B + 1)), fixed with the design.
    """
    from scipy.special import betaln

    n, c = np.asarray(draws, float), np.asarray(errors, float)
    good = 2 * test.acceptance.items / (test.acceptance.max_errors + 1)
    return np.asarray(betaln(1 + c, good + n - c) - betaln(1, good), float)


def expected_repairs(
    test: SequentialTest, draws: ArrayLike, errors: ArrayLike
) -> FloatArray:
    """Return about how many repairs an audit would take after such draws."""
    items, allowed = test.acceptance.items, test.unrepaired
    n, c = (np.asarray(each, float) for each in np.broadcast_arrays(draws, errors))
    most = np.maximum(items - test.undetected - n, 0.0)
    if test.repair_level <= 0 or allowed < 0:
        return np.asarray(most, float)
    n = np.maximum(n, 1.0)
    p = np.clip(c / n, 1e-9, 1 - 1e-9)
    best = c * np.log(p) + (n - c) * np.log1p(-p)
    need = best - _log_mixture(test, n, c) - math.log(test.repair_level)
    low, high = p, np.ones_like(p)
    for _ in range(18):
        q = (low + high) / 2
        apart = n * (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))
        low, high = np.where(apart < need, q, low), np.where(apart < need, high, q)
    hidden = np.maximum(high * items - c, allowed + 1e-9)
    share = 1 - allowed / hidden
    share = share + _SURE * np.sqrt(share * (1 - share) / hidden)
    return np.asarray(np.minimum(np.clip(share, 0, 1) * (items - n), most), float)
