"""Tail probabilities against exact enumeration and scipy.stats."""

from __future__ import annotations

from fractions import Fraction
from math import comb, exp

import numpy as np
import pytest
from scipy import stats

from smart_engine.evidence.tails import (
    beta_binomial_cdf,
    binomial_quantile_below,
    clopper_pearson_lower,
    hypergeometric_cdf,
    hypergeometric_log_none,
)


@pytest.mark.parametrize("population", range(1, 13))
def test_hypergeometric_cdf_is_exact_on_small_populations(population: int) -> None:
    for marked in range(population + 1):
        for draws in range(population + 1):
            ways = [
                comb(marked, k) * comb(population - marked, draws - k)
                for k in range(draws + 1)
            ]
            for found in range(-1, draws + 2):
                exact = Fraction(sum(ways[: found + 1]), comb(population, draws))
                ours = hypergeometric_cdf(found, population, marked, draws)
                assert ours == pytest.approx(float(exact), rel=1e-9, abs=1e-14)
            none = float(Fraction(ways[0], comb(population, draws)))
            log = hypergeometric_log_none(population, marked, draws)
            assert exp(log) == pytest.approx(none, rel=1e-9, abs=1e-14)


def test_hypergeometric_cdf_agrees_with_scipy_on_large_populations() -> None:
    rng = np.random.default_rng(1)
    for _ in range(400):
        population = int(10 ** rng.uniform(1, 6))
        marked, draws = (int(n) for n in rng.integers(0, population + 1, 2))
        if rng.random() < 0.5:  # the audits' usual shape: few marked, few drawn
            marked, draws = int(marked**0.7), int(draws**0.7)
        spread = stats.hypergeom(population, marked, draws)
        found = int(spread.mean() + rng.normal(0, 4) * (spread.std() + 1))
        expected = spread.cdf(found)
        ours = hypergeometric_cdf(found, population, marked, draws)
        assert ours == pytest.approx(expected, rel=1e-5, abs=1e-12)


def test_hypergeometric_cdf_rises_with_found_and_falls_with_marked() -> None:
    by_found = [hypergeometric_cdf(k, 1000, 80, 300) for k in range(81)]
    by_marked = [hypergeometric_cdf(5, 1000, m, 300) for m in range(5, 200)]
    assert by_found == sorted(by_found)
    assert by_marked == sorted(by_marked, reverse=True)


@pytest.mark.parametrize("tail", [0.001, 0.025, 0.05, 0.3])
@pytest.mark.parametrize("p", [0.01, 0.02, 0.05, 0.2, 0.5, 0.8, 0.98])
def test_binomial_quantile_is_the_largest_below(tail: float, p: float) -> None:
    n = np.r_[1:60, 73, 100, 199, 500, 1000, 5000, 20_000]
    k = binomial_quantile_below(tail, n, p)
    assert k.dtype.kind == "i"
    assert np.all((k >= -1) & (k <= n))
    assert np.all(stats.binom.cdf(k, n, p) <= tail)
    assert np.all(stats.binom.cdf(k + 1, n, p) > tail)


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
@pytest.mark.parametrize(("successes", "failures"), [(1, 0), (9, 1), (95, 5), (3, 40)])
def test_clopper_pearson_lower_leaves_half_the_error_above(
    successes: int, failures: int, confidence: float
) -> None:
    low = float(clopper_pearson_lower(successes, failures, confidence))
    n = successes + failures
    assert stats.binom.sf(successes - 1, n, low) == pytest.approx((1 - confidence) / 2)


def test_clopper_pearson_lower_at_its_ends() -> None:
    assert clopper_pearson_lower(0, 5, [0.5, 0.95]).tolist() == [0, 0]
    assert clopper_pearson_lower(0, 0, 0.95) == 0
    assert clopper_pearson_lower(50, 1, 1.0) == 0
    low = clopper_pearson_lower(50, 1, np.linspace(0.1, 0.99, 20))
    assert np.all(np.diff(low) < 0)


@pytest.mark.parametrize(
    ("errors", "successes"),
    [(0, 32), (1, 31), (2, 8), (1, 99), (20, 80), (300, 700), (9, 1)],
)
def test_beta_binomial_cdf_is_scipys_to_half_a_percent(
    errors: int, successes: int
) -> None:
    seen = errors + successes
    for draws in (1, 5, seen // 2, seen, 4 * seen, 16 * seen):
        spread = stats.betabinom(draws, errors + 1, successes + 1)
        most = np.unique(np.linspace(0, draws, 200).astype(int))
        ours = beta_binomial_cdf(most, np.full(len(most), draws), errors, successes)
        assert np.abs(ours - spread.cdf(most)).max() < 0.005


@pytest.mark.parametrize("most", [2, 10, 20, 40])
def test_beta_binomial_cdf_keeps_the_size_of_rare_tails(most: int) -> None:
    # A model that is unlikely to qualify: its small chance decides whether to go on.
    exact = stats.betabinom.cdf(most, 1000, 11, 91)
    ours = float(beta_binomial_cdf([most], [1000], 10, 90)[0])
    assert exact < 0.1
    assert exact / 2 < ours < exact * 2


def test_beta_binomial_cdf_outside_its_range() -> None:
    chances = beta_binomial_cdf([-1, 0, 7, 9], [7, 0, 7, 7], 3, 4)
    assert chances == pytest.approx([0, 1, 1, 1])
