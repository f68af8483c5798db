"""Tail probabilities, exact and vectorised; no decision is taken here."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "BoolArray",
    "FloatArray",
    "IntArray",
    "beta_binomial_cdf",
    "binomial_quantile_below",
    "clopper_pearson_lower",
    "hypergeometric_cdf",
    "hypergeometric_log_none",
    "hypergeometric_log_pmf",
    "largest",
]

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.signedinteger[Any]]

# Gauss-Hermite in the normal score of the posterior reaches the far tails, where a
# model that is unlikely to qualify still has its whole chance.
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(32)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


def clopper_pearson_lower(
    successes: int, failures: int, confidence: ArrayLike
) -> FloatArray:
    """Lower end of the two-sided Clopper-Pearson interval of a success rate.

    Args:
        successes: Number of successes seen.
        failures: Number of failures seen.
        confidence: Confidence of the two-sided interval, any shape.

    Returns:
        The lower ends, in the shape of `confidence`.

    Source: Clopper & Pearson 1934; SMART (Jo & Trummer 2024) uses it for agreement.

    Example:
        ```python
        assert round(float(clopper_pearson_lower(10, 0, 0.95)), 3) == 0.692
        ```
    """
    from scipy.special import betaincinv

    tail = (1.0 - np.asarray(confidence, float)) / 2.0
    if successes == 0:
        return np.zeros_like(tail)
    return np.asarray(betaincinv(successes, failures + 1, tail), float)


def binomial_quantile_below(tail: float, n: ArrayLike, p: float) -> IntArray:
    """Largest k with P(Bin(n, p) ≤ k) ≤ tail; −1 where even k = 0 has more.

    Args:
        tail: Probability, in (0, 1).
        n: Numbers of trials, any shape.
        p: Success probability of one trial, in (0, 1).

    Returns:
        Integers in the shape of `n`.

    Example:
        ```python
        # 72 draws without an error exclude an error rate of 5 % at 2.5 %.
        assert binomial_quantile_below(0.025, [71, 72], 0.05).tolist() == [-1, 0]
        ```
    """
    from scipy.special import bdtr, bdtrik

    trials = np.asarray(n, np.int64)
    # bdtrik interpolates between integers; the two corrections make it exact.
    guess = np.floor(np.nan_to_num(bdtrik(tail, trials.astype(float), p), nan=0.0))
    guess = np.clip(guess, 0.0, trials)
    guess = np.where(bdtr(guess, trials, p) > tail, guess - 1, guess)
    above = np.minimum(guess + 1, trials)
    more = (above > guess) & (bdtr(above, trials, p) <= tail)
    return np.asarray(np.where(more, above, guess), np.int64)


def hypergeometric_cdf(found: int, population: int, marked: int, draws: int) -> float:
    """P(at most `found` marked items among `draws` draws without replacement).

    Args:
        found: Number of marked items in the sample.
        population: Number of items.
        marked: Number of marked items in the population.
        draws: Number of items drawn.

    Returns:
        The probability, exact up to rounding in log space.

    Example:
        ```python
        assert round(hypergeometric_cdf(0, 4, 2, 2), 12) == round(1 / 6, 12)
        ```
    """
    least = max(0, draws - (population - marked))
    if found >= min(marked, draws):
        return 1.0
    if found < least:
        return 0.0
    # The distribution is log-concave: a lower tail is summed downwards from its
    # largest term, and 60 standard deviations below that nothing is left.
    mean = draws * marked / population
    spread = (mean * (1 - marked / population)) ** 0.5
    top = min(found, int(mean) + 1)
    start = max(least, top - int(60 * spread) - 60)
    terms = hypergeometric_log_pmf(
        np.arange(start, found + 1), population, marked, draws
    )
    return float(min(1.0, np.exp(terms).sum()))


def hypergeometric_log_none(population: int, marked: int, draws: int) -> float:
    """Log of P(no marked item among the draws)."""
    others = population - marked
    if draws > others:
        return -math.inf
    some = math.lgamma(others + 1) - math.lgamma(others - draws + 1)
    return some - math.lgamma(population + 1) + math.lgamma(population - draws + 1)


def hypergeometric_log_pmf(
    found: ArrayLike, population: ArrayLike, marked: ArrayLike, draws: ArrayLike
) -> FloatArray:
    """Log of P(exactly `found` marked items among the draws), element by element."""
    from scipy.special import gammaln

    def log_choose(n: FloatArray, k: FloatArray) -> FloatArray:
        return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1), float)

    counts = found, population, marked, draws
    k, m, r, n = (np.asarray(count, float) for count in counts)
    possible = (k <= np.minimum(r, n)) & (k >= n - (m - r)) & (k >= 0)
    k, r, n = (np.where(possible, count, 0.0) for count in (k, r, n))
    log = log_choose(r, k) + log_choose(m - r, n - k) - log_choose(m, n)
    return np.where(possible, log, -np.inf)


def beta_binomial_cdf(
    most: ArrayLike, draws: ArrayLike, errors: int, successes: int
) -> FloatArray:
    """P(at most `most` errors in `draws` more draws), the error rate being unknown.

    The rate has the posterior Beta(errors + 1, successes + 1), that is, a uniform
    prior updated by what was seen. This is the SMART paper's integral of the
    binomial tail over the posterior of a model's agreement, done by quadrature.

    Args:
        most: Largest numbers of errors, any shape; negative ones give 0.
        draws: Numbers of draws, in the same shape.
        errors: Errors seen so far.
        successes: Successes seen so far.

    Returns:
        Probabilities in the shape of `draws`: within 0.005 while `draws` is at most
        some sixteen times what was seen, within 0.1 far beyond. Good enough to plan
        with; nothing that is promised rests on it.

    Source: Jo & Trummer 2024, expected cost of profiling.

    Example:
        ```python
        # Nothing seen: every number of errors out of 9 is equally likely.
        chance = beta_binomial_cdf([4], [9], errors=0, successes=0)
        assert abs(float(chance[0]) - 0.5) < 0.01
        ```
    """
    from scipy.special import betainc, betaincinv, ndtr

    rates = betaincinv(errors + 1, successes + 1, ndtr(_NODES))
    k = np.asarray(most, float)[..., None]
    n = np.asarray(draws, float)[..., None]
    inside = np.clip(k, 0, np.maximum(n - 1, 0))
    tail = betainc(np.maximum(n - inside, 1e-9), inside + 1, 1.0 - rates)
    tail = np.where(k < 0, 0.0, np.where(k >= n, 1.0, tail))
    return np.asarray(tail @ _WEIGHTS, float)


def largest(low: int, high: int, fits: Callable[[int], bool]) -> int:
    """Largest whole number up to `high` that fits; `low` fits, larger ones less."""
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
