"""How often items are wrong, by how risky they look and by what is known of them.

A score ranks items better than it tells how often they are wrong. So log odds of an
error are taken to rise in a straight line with the logarithm of the risk, or with the
log odds of its rank (Platt's scaling of a score); lines of all slopes are averaged
by how well they explain the errors seen. Where many errors of a band were seen, they
prevail. Nothing here touches a promise.

Source: Platt 1999, probabilities from scores; overdispersion as of Williams 1982.
"""

from __future__ import annotations

import numpy as np

from smart_engine.evidence.tails import FloatArray

__all__ = ["error_rates"]

_SLOPES, _SLOPE, _SPREAD = np.linspace(0.0, 2.0, 11), 1.0, 0.5
"""The slopes tried; the mean and the standard deviation expected of them. A score that
is a probability has a slope of 1."""

_LEVEL_VARIANCE = 9.0
"""Variance expected of a line's height, in log odds."""

_EXCESS = 0.5
"""Variance of a band's rate about the line, relative to its square: so many errors of
one band do not outweigh all others."""

_SHAPE = 0.25
"""How many errors seen in a band the line is worth there."""

_STEPS = 12
"""Newton steps to a line's height."""

_LEAST_RISK = 1e-6
"""So that a model that is sure of itself may still err."""


def error_rates(
    risk: FloatArray, sizes: FloatArray, known: FloatArray, wrong: FloatArray
) -> FloatArray:
    """Return the share of wrong items in each band, never falling from band to band.

    Args:
        risk: Mean risk per band, rising, (bands,).
        sizes: Items per band.
        known: Items of which it is known whether they are wrong.
        wrong: Those of them that are.

    Example:
        ```python
        sizes, known = np.full(4, 100.0), np.full(4, 20.0)
        risk, wrong = np.array([0.01, 0.1, 0.2, 0.5]), np.array([0.0, 0.0, 4.0, 9.0])
        rates = error_rates(risk, sizes, known, wrong)
        assert 0 < rates[0] < rates[1] < 0.1 < rates[2] < 0.3 < rates[3] < 0.6
        ```
    """
    rank = (np.cumsum(sizes) - sizes / 2) / max(float(sizes.sum()), 1.0)
    signals = np.log([np.maximum(risk, _LEAST_RISK), rank / (1 - rank)])
    weight = 1 / (1 + _EXCESS * wrong)
    line = _line(signals, weight * known, weight * wrong)
    return _rising(wrong + _SHAPE, known + _SHAPE / line)


def _line(signals: FloatArray, known: FloatArray, wrong: FloatArray) -> FloatArray:
    """Rates by a logistic regression on each signal, averaged over all slopes."""
    lines = len(signals) * len(_SLOPES)
    tilt = (_SLOPES * signals[..., None]).swapaxes(1, 2).reshape(lines, len(known))
    unlikely = np.tile(((_SLOPES - _SLOPE) / _SPREAD) ** 2 / 2, len(signals))
    height = np.zeros((lines, 1))
    for _ in range(_STEPS):
        rate = _logistic(height + tilt)
        slope = (wrong - known * rate).sum(axis=1, keepdims=True)
        slope -= height / _LEVEL_VARIANCE
        curve = (known * rate * (1 - rate)).sum(axis=1, keepdims=True)
        curve += 1 / _LEVEL_VARIANCE
        height = height + np.clip(slope / curve, -2.0, 2.0)
    odds = height + tilt
    evidence = (wrong * odds - known * np.logaddexp(0.0, odds)).sum(axis=1)
    evidence -= height[:, 0] ** 2 / (2 * _LEVEL_VARIANCE) + unlikely
    evidence -= np.log(curve[:, 0]) / 2  # Laplace's approximation
    share = np.exp(evidence - evidence.max())
    return np.asarray(share @ _logistic(odds) / share.sum(), float)


def _logistic(odds: FloatArray) -> FloatArray:
    """Probability by log odds, kept off 0 and 1."""
    return np.asarray(1 / (1 + np.exp(-np.clip(odds, -30.0, 30.0))), float)


def _rising(wrong: FloatArray, known: FloatArray) -> FloatArray:
    """Rates that never fall: neighbours that do are pooled (isotonic regression)."""
    pools: list[tuple[float, float, int]] = []
    for pool in zip(wrong.tolist(), known.tolist(), [1] * len(wrong), strict=True):
        errors, size, bands = pool
        while pools and pools[-1][0] * size >= errors * pools[-1][1]:
            before = pools.pop()
            errors, size = errors + before[0], size + before[1]
            bands += before[2]
        pools.append((errors, size, bands))
    return np.concatenate(
        [np.zeros(0), *(np.full(bands, e / n) for e, n, bands in pools)]
    )
