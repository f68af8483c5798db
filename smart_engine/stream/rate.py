"""How often to audit: the least rate that leaves room for the next detected errors.

A lower rate needs flatter slopes, and flatter slopes raise the bound on undetected
errors. The rate is the least one at which the bound, after that and after some further
detected errors, would still be within what is allowed now. Without that room the next
one would send the stream to the reference until the allowance has grown, at full cost.

There must be room for one, and for chance on top: the number expected before the
stream has doubled varies by its root. Where hardly one is expected by then, even room
for one is not worth its price. Any rate keeps the promise.

A job knows its items. What its rate must leave room for, until it ends, are the errors
that its audits are expected to detect, chance, and one or two of the jobs to come.

As a rule of thumb the rate is a constant over the number of answers, so the number of
audits grows with its logarithm. It never falls below `_FLOOR`: a model that turns bad
is always detected.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from smart_engine.evidence.tails import FloatArray
from smart_engine.stream.bound import ErrorBound, charges, log_mixture

__all__ = ["Plan", "plan", "plan_job"]

_FLOOR = 1e-3  # least audit rate
_CHANCE = 0.2  # room beyond the next detected error, per root of those expected
_LITTLE, _RARE = 0.3, 1.5  # room while no more than so many errors are expected

_SPARE, _SPREAD = 1.5, 0.5  # room for a job: detected errors, and per root of its own

_RATES = np.concatenate([np.geomspace(_FLOOR, 0.5, 128), np.arange(0.52, 0.99, 0.02)])
_KEPT = np.array([0.5, 0.35, 0.25, 0.15])  # wealth left after a detected error, e^(−u)
_STEEPEST = np.log((1 - _RATES[:, None] * _KEPT) / (1 - _RATES[:, None]))  # for these
_RATE = _RATES[:, None, None]


class Plan(NamedTuple):
    """How the next items are drawn for."""

    rate: float  # audit rate π
    steepest: float  # largest slope that it allows


def plan(bound: ErrorBound, allowed: int, errors: float) -> Plan | None:
    """Return the least audit rate for which there is room.

    Args:
        bound: The bound on undetected errors, all detected ones charged.
        allowed: Undetected errors allowed now.
        errors: Errors expected in as many items as have been answered.

    Returns:
        None if everything must go to the reference for now.

    Example:
        ```python
        bound = ErrorBound(0.05)
        assert plan(bound, 20, errors=4).rate > plan(bound, 2000, errors=400).rate
        assert plan(bound, 20, errors=4).rate > plan(bound, 20, errors=0).rate
        assert plan(bound, 0, errors=0) is None
        ```
    """
    chance = _CHANCE * np.sqrt(errors * _RATE)
    return _least(bound, allowed, 1 + chance if errors > _RARE else _LITTLE)


def plan_job(bound: ErrorBound, allowed: int, errors: float) -> Plan | None:
    """Return the least audit rate with which a job is expected to end within bounds.

    Args:
        bound: The bound on undetected errors, all detected ones charged.
        allowed: Undetected errors allowed when the job has ended.
        errors: Errors expected in the items that it has yet to let in.

    Returns:
        None if everything must go to the reference for now.
    """
    expected = errors * _RATE
    return _least(bound, allowed, _SPARE + expected + _SPREAD * np.sqrt(expected))


def _least(
    bound: ErrorBound, allowed: int, detected: FloatArray | float
) -> Plan | None:
    """Return the least rate with room for so many errors, which may depend on it."""
    if bound.undetected > allowed:
        return None
    slopes = np.minimum(bound.slopes, _STEEPEST[:, :, None])
    wealth = bound.log_wealth - detected * charges(slopes, _RATE)
    room = log_mixture(wealth, slopes, allowed + 1) > bound.threshold
    fits = room.any(axis=1)
    if not fits.any():
        return None
    lowest = int(fits.argmax())
    kept = int(room[lowest].argmax())
    return Plan(float(_RATES[lowest]), float(_STEEPEST[lowest, kept]))
