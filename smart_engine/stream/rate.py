"""How often to audit: the least rate that leaves room for the next finds.

A lower rate needs flatter slopes, and flatter slopes raise the bound on misses. The
rate is the least one at which the bound, after that and after some further finds, would
still be within what is allowed now. Without that room the next find would send the
stream to the reference until its allowance has caught up, at full cost.

There must be room for one find, and for chance on top: the more finds are expected
before the stream has doubled, the likelier several come close together, and their
number varies by the root of what is expected. Where errors are so rare that hardly one
is expected by then, even room for one is not worth its price. Nothing here touches
validity: any rate keeps the promise.

As a rule of thumb the rate is a constant over the number of answers, so the number of
audits grows with the logarithm of that number. It never falls below `_FLOOR`: a model
that turns bad is always found out.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from smart_engine.stream.bound import MissBound, charges, log_mixture

__all__ = ["Plan", "plan"]

_FLOOR = 1e-3
"""Least audit rate."""

_CHANCE = 0.2
"""Finds there must be room for beyond the next, per root of the number expected."""

_LITTLE, _RARE = 0.3, 1.5
"""Room while no more than so many errors are expected, found or missed."""

_RATES = np.concatenate([np.geomspace(_FLOOR, 0.5, 128), np.arange(0.52, 0.99, 0.02)])
_KEPT = np.array([0.5, 0.35, 0.25, 0.15])
"""Least share e^(−u) of its wealth that a slope keeps after a find."""

_STEEPEST = np.log(
    (1 - _RATES[:, None] * _KEPT) / (1 - _RATES[:, None])
)  # (rates, kept): where e^(−u) is just that
_RATE = _RATES[:, None, None]


class Plan(NamedTuple):
    """What the next items are tossed for with.

    Attributes:
        rate: Audit rate π.
        steepest: Largest slope that rate allows.
    """

    rate: float
    steepest: float


def plan(bound: MissBound, allowed: int, errors: float) -> Plan | None:
    """Return the least audit rate for which there is room.

    Args:
        bound: The bound on misses, all finds charged.
        allowed: Number of misses allowed now.
        errors: Errors expected in as many items as have been answered.

    Returns:
        None if everything must go to the reference for now.

    Example:
        ```python
        bound = MissBound(0.05)
        assert plan(bound, 20, errors=4).rate > plan(bound, 2000, errors=400).rate
        assert plan(bound, 20, errors=4).rate > plan(bound, 20, errors=0).rate
        assert plan(bound, 0, errors=0) is None
        ```
    """
    if not bound.excludes(allowed + 1):
        return None
    slopes = np.minimum(bound.slopes, _STEEPEST[:, :, None])
    finds = 1 + _CHANCE * np.sqrt(errors * _RATE) if errors > _RARE else _LITTLE
    wealth = bound.log_wealth - finds * charges(slopes, _RATE)
    room = log_mixture(wealth, slopes, allowed + 1) > bound.threshold
    fits = room.any(axis=1)
    if not fits.any():
        return None
    lowest = int(fits.argmax())
    kept = int(room[lowest].argmax())
    return Plan(float(_RATES[lowest]), float(_STEEPEST[lowest, kept]))
