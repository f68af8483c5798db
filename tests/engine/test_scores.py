"""Error rates by score: how far scores are trusted is for the errors seen to say."""

from __future__ import annotations

import numpy as np
import pytest

from smart_engine.evidence.posterior import DRAWS
from smart_engine.evidence.scores import place_of_ranks, weigh_scores

BANDS = 10
PLACE = np.tile(place_of_ranks((np.arange(BANDS) + 0.5) / BANDS), 2)
ANSWER = np.repeat([0, 1], BANDS)

SIGNALS = {
    "none": np.full(2 * BANDS, -2.0),
    "answer alone": np.where(ANSWER, 0.5, -3.0),
    "score alone": -2.0 - 1.5 * PLACE,
    "both": np.where(ANSWER, 0.5, -3.0) - PLACE,
    "opposite": -1.5 + np.where(ANSWER, -1.5, 1.5) * PLACE,
    "one answer": -2.0 - 1.5 * PLACE * ANSWER,
    "neither rising nor falling": -3.5 + 2.5 * np.exp(-(PLACE**2)),
}
"""Log odds of an error, ten bands of scores for each of two answers."""


def draw(signal: str, draws: int, seed: int) -> tuple[np.ndarray, ...]:
    """True rates; answers seen per group, and errors; rates as the errors suggest."""
    rng = np.random.default_rng([seed, draws])
    truth = 1 / (1 + np.exp(-SIGNALS[signal]))
    share = np.where(ANSWER, 0.2, 0.8) / BANDS
    tally = rng.multinomial(draws, share).astype(float)
    errors = rng.binomial(tally.astype(int), truth).astype(float)
    kinds = [answer == ANSWER for answer in (0, 1)]
    plain = np.empty((DRAWS, 2 * BANDS))
    for kind in kinds:
        bad, seen = errors[kind].sum(), tally[kind].sum()
        plain[:, kind] = rng.beta(bad + 0.5, seen - bad + 0.5, (DRAWS, 1))
    return (
        truth,
        share,
        tally,
        errors,
        plain,
        weigh_scores(plain, tally, errors, ANSWER, PLACE, rng),
    )


def errors_left(rates: np.ndarray, truth: np.ndarray, share: np.ndarray) -> float:
    """Share of errors among the half of the items that seems safest."""
    order = np.argsort(rates.mean(axis=0))
    room = np.clip(0.5 - (np.cumsum(share[order]) - share[order]), 0, share[order])
    return float((truth[order] * room).sum())


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("draws", [40, 200, 1000])
def test_errors_expected_are_the_errors_there_are(signal, draws) -> None:
    """A plan is as good as this: what it expects of the items that seem safest."""
    missed = []
    for seed in range(12):
        truth, share, *_, rates = draw(signal, draws, seed)
        safest = np.argsort(rates.mean(axis=0))[:BANDS]
        expected = rates[:, safest] @ share[safest]
        error = expected.mean() - truth[safest] @ share[safest]
        missed.append(error / max(expected.std(), 1e-3))
    assert abs(np.mean(missed)) < 1.5
    assert np.median(np.abs(missed)) < 2.0


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("draws", [0, 40, 200])
def test_a_plan_that_heeds_no_scores_costs_the_same_with_and_without(
    signal, draws
) -> None:
    """How often each answer is wrong in all does not depend on its scores."""
    for seed in range(6):
        *_, tally, _, plain, rates = draw(signal, draws, seed)
        for kind in (answer == ANSWER for answer in (0, 1)):
            share = (tally[kind] + 1e-6) / (tally[kind] + 1e-6).sum()
            told, blind = rates[:, kind] @ share, plain[:, kind] @ share
            np.testing.assert_allclose(told, blind, atol=2e-3)


@pytest.mark.parametrize("signal", sorted(set(SIGNALS) - {"none", "answer alone"}))
def test_every_kind_of_signal_is_found(signal) -> None:
    told, blind = [], []
    for seed in range(12):
        truth, share, *_, plain, rates = draw(signal, 600, seed)
        told.append(errors_left(rates, truth, share))
        blind.append(errors_left(plain, truth, share))
    best = errors_left(truth[None], truth, share)
    assert np.mean(blind) - np.mean(told) > 0.6 * (np.mean(blind) - best)


@pytest.mark.parametrize("signal", ["none", "answer alone"])
def test_scores_that_tell_nothing_count_for_little(signal) -> None:
    kept = []
    for seed in range(12):
        *_, plain, rates = draw(signal, 1000, seed)
        kept.append((rates == plain).all(axis=1).mean())
    assert np.mean(kept) > 0.6


def test_few_errors_leave_it_open_how_far_scores_count() -> None:
    kept = []
    for seed in range(12):
        *_, plain, rates = draw("score alone", 16, seed)
        kept.append((rates == plain).all(axis=1).mean())
    assert 0.05 < np.mean(kept) < 0.6


@pytest.mark.parametrize("wrong", [0.0, 1.0])
@pytest.mark.parametrize("seen", [0.0, 1.0, 40.0, 1e5])
def test_rates_stay_rates_where_all_or_none_were_wrong(wrong, seen) -> None:
    tally = np.full(2 * BANDS, seen)
    place = np.where(np.arange(2 * BANDS) == 3, np.nan, PLACE)
    plain = np.full((DRAWS, 2 * BANDS), 0.5)
    rng = np.random.default_rng(0)
    rates = weigh_scores(plain, tally, wrong * tally, ANSWER, place, rng)
    assert ((rates > 0) & (rates < 1)).all()


def test_the_evidence_agrees_with_numerical_integration() -> None:
    """One group: the errors' probability, averaged over the prior of its log odds."""
    from smart_engine.evidence import scores

    tally, errors, mean = np.array([30.0]), np.array([4.0]), -1.5
    prior = scores._covariance(np.zeros(1, np.int64), np.array([0.8]))
    evidence = scores._fit(prior, tally, errors, mean)[2]
    odds = np.linspace(-20, 20, 40_001)
    likelihood = errors * odds - tally * np.logaddexp(0, odds)
    for index, variance in enumerate(prior[:, 0, 0]):
        density = np.exp(-((odds - mean) ** 2) / (2 * variance))
        density /= np.sqrt(2 * np.pi * variance)
        exact = np.log((np.exp(likelihood) * density).sum() * (odds[1] - odds[0]))
        assert abs(evidence[index] - exact) < 0.1
