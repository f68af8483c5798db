"""What the score of an answer tells of its error rate: hypotheses, weighed by evidence.

The same score may mean different risk for different answers, rising or falling or not
at all, and few draws cannot tell. So each hypothesis fixes how far the log odds of an
error may depend on the score, alike for all answers and apart for each. Its evidence is
the probability of the errors seen under it; draws are shared out in proportion. The
first hypothesis is that scores tell nothing: without a signal, an audit does what it
does without scores.

Under the others, the log odds of a group of answers are a sum of smooth curves over the
place of its score among all scores: a Gaussian process, by Laplace's approximation
(Rasmussen & Williams 2006, chapter 3). They only tell where an answer's errors are: how
often it is wrong in all is as it is without scores. So a plan that does not heed scores
is expected to cost the same, with them and without. No promise rests on it.
"""

from __future__ import annotations

import numpy as np

from smart_engine.evidence.tails import FloatArray, IntArray

__all__ = ["place_of_ranks", "weigh_scores"]

_NOTHING = 0.4
"""Prior probability that scores tell nothing."""

_SLOPES = np.array([(0.0, 0.0), (0.7, 0.0), (2.0, 0.0), (0.0, 1.5), (1.5, 1.0)])
"""Per hypothesis, how far log odds vary with the score (standard deviations): alike for
all answers, and apart for each."""

_ANSWER = 1.5
"""How far log odds vary between answers, apart from scores."""

_STRAIGHT, _BENT = 0.7, 0.3
"""Parts of a curve that are straight, and that turn as they like."""

_STEPS, _ENOUGH = 12, 0.01
"""Most of Newton's steps, and a step that is small enough to end with."""

_SHIFTS = 16
"""Steps in which curves are shifted to a given mean."""

_MOST_ODDS = 12.0
"""Keeps log odds finite."""


def place_of_ranks(share: FloatArray) -> FloatArray:
    """Return where scores lie, given the share of scores below: about −2 to 2."""
    inside = np.clip(share, 1e-3, 1 - 1e-3)
    return np.asarray(0.6 * np.log(inside / (1 - inside)), float)


def weigh_scores(
    plain: FloatArray,
    tally: FloatArray,
    errors: FloatArray,
    answer: IntArray,
    place: FloatArray,
    rng: np.random.Generator,
) -> FloatArray:
    """Let as many draws of error rates depend on scores as the evidence is for it.

    Args:
        plain: Draws of the rates if scores tell nothing, (draws, groups).
        tally: Answers seen per group, (groups,).
        errors: How many of them were wrong.
        answer: Per group, a number for the answer.
        place: Per group, where its scores lie among all, see `place_of_ranks`; nan for
            answers without a score.
        rng: Source of the draws.

    Returns:
        Draws of the rates, (draws, groups). In each, an answer's mean rate over what
        was seen of it is that of `plain`.

    Example:
        ```python
        rng = np.random.default_rng(0)
        tally, errors = np.full(5, 200.0), np.array([90.0, 40, 15, 5, 2])
        place, one = place_of_ranks(np.arange(1, 10, 2) / 10), np.zeros(5, np.int64)
        plain = np.full((48, 5), errors.sum() / tally.sum())
        rates = weigh_scores(plain, tally, errors, one, place, rng).mean(axis=0)
        assert (np.diff(rates) < 0).all()
        assert abs(rates[0] - 0.45) < 0.05
        ```
    """
    mean = float(np.log((errors.sum() + 0.5) / (tally.sum() - errors.sum() + 0.5)))
    prior = _covariance(answer, place)
    odds, root, evidence = _fit(prior, tally, errors, mean)
    others = len(_SLOPES) - 1
    weight = np.array([_NOTHING, *[(1 - _NOTHING) / others] * others])
    weight *= np.exp(evidence - evidence.max())
    until = np.cumsum(weight / weight.sum())
    count = len(plain)
    ladder = rng.permutation((np.arange(count) + rng.random()) / count)
    chosen = np.minimum(np.searchsorted(until, ladder), others)
    rates = plain.copy()
    seen = (answer[:, None] == np.unique(answer)) * (tally[:, None] + 1e-6)
    eye = np.eye(len(tally))
    for index in np.unique(chosen[chosen > 0]).tolist():
        here, scaled = chosen == index, root[index][:, None] * prior[index]
        inner = eye + scaled * root[index]
        spread = prior[index] - scaled.T @ np.linalg.solve(inner, scaled)
        spread += 1e-6 * (1 + np.trace(spread) / len(tally)) * eye
        noise = rng.standard_normal((int(here.sum()), len(tally)))
        drawn = odds[index] + noise @ np.linalg.cholesky(spread).T
        rates[here] = _shifted(drawn, plain[here], seen / seen.sum(axis=0))
    return rates


def _shifted(odds: FloatArray, plain: FloatArray, share: FloatArray) -> FloatArray:
    """Return rates whose log odds these are but for a shift to each answer's mean rate.

    Args:
        odds: Log odds, (draws, groups).
        plain: Rates of that mean, (draws, groups).
        share: Per group and answer, the group's share of what was seen of the answer.
    """
    target = _log_odds(plain @ share)
    rates = _rates(odds)
    for _ in range(_SHIFTS):
        odds = odds + (target - _log_odds(rates @ share)) @ (share.T > 0)
        rates = _rates(odds)
    return rates


def _rates(odds: FloatArray) -> FloatArray:
    return np.asarray(1 / (1 + np.exp(-np.clip(odds, -_MOST_ODDS, _MOST_ODDS))), float)


def _log_odds(rate: FloatArray) -> FloatArray:
    inside = np.clip(rate, 1e-9, 1 - 1e-9)
    return np.asarray(np.log(inside / (1 - inside)), float)


def _covariance(answer: IntArray, place: FloatArray) -> FloatArray:
    """Prior covariance of log odds, (hypotheses, groups, groups)."""
    scored = np.isfinite(place)
    at = np.nan_to_num(place)
    alike = (answer[:, None] == answer) & (scored[:, None] == scored)
    bent = np.exp(-np.abs(at[:, None] - at))
    curve = (scored[:, None] & scored) * (_STRAIGHT * np.outer(at, at) + _BENT * bent)
    joint, apart = (_SLOPES.T**2)[:, :, None, None]
    return np.asarray(1 + _ANSWER**2 * alike + (joint + apart * alike) * curve, float)


def _fit(
    prior: FloatArray, tally: FloatArray, errors: FloatArray, mean: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Most probable log odds, roots of their weights, and log evidence, by hypothesis.

    Newton's steps start from the log odds seen: from their prior mean, a first step may
    lead too far to come back.
    """
    eye = np.eye(len(tally))
    odds = np.tile(np.log((errors + 0.5) / (tally - errors + 0.5)), (len(prior), 1))
    for _ in range(_STEPS):
        rate = 1 / (1 + np.exp(-odds))
        weight = tally * rate * (1 - rate)
        root = np.sqrt(weight)
        inner = eye + root[:, :, None] * prior * root[:, None, :]
        pull = (weight * (odds - mean) + errors - tally * rate)[:, :, None]
        target = root[:, :, None] * (prior @ pull)
        lean = pull - root[:, :, None] * np.linalg.solve(inner, target)
        step = np.clip(mean + (prior @ lean)[:, :, 0], -_MOST_ODDS, _MOST_ODDS) - odds
        odds = odds + step
        if np.abs(step).max() < _ENOUGH:
            break
    likelihood = (errors * odds - tally * np.logaddexp(0, odds)).sum(axis=1)
    shrunk = (lean[:, :, 0] * (odds - mean)).sum(axis=1)
    volume = np.linalg.slogdet(inner)[1]
    return odds, root, np.asarray(likelihood - (shrunk + volume) / 2, float)
