"""How many draws a wave makes, where only so many waves may follow.

Waves of exactly the draws that are missing buy none in vain, but each error that they
detect asks for a further wave. A wave that is larger saves later ones; its draws
beyond those that would have sufficed are bought in vain. Where an audit would stop is
simulated in the worlds of the posterior; from that, the sizes of the waves that are
left are planned so that as few draws as possible are expected in all. All of it
decides what an audit costs, nothing of it whether it is valid: the numbers that
suffice are fixed before.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from smart_engine.evidence.acceptance import SequentialTest
from smart_engine.evidence.plans import draws_needed
from smart_engine.evidence.tails import FloatArray

__all__ = ["NextWave", "next_wave"]

_WORLDS = 12
"""Simulated audits per draw from the posterior."""

_SIZES = 40
"""Sizes at which a wave may end that are compared, at most."""


class NextWave(NamedTuple):
    """What to draw next, and what that leads to.

    Attributes:
        end: Draws to have made after the wave.
        draws: Per draw from the posterior, expected draws from here on.
    """

    end: int
    draws: FloatArray


def next_wave(
    test: SequentialTest,
    rate: FloatArray,
    waves: float,
    last: int,
    rng: np.random.Generator,
) -> NextWave:
    """Return the next wave of an audit that has not accepted yet.

    Each wave shows more of the error rate; those after the next one are planned as if
    it were known by then.

    Args:
        test: The audit.
        rate: Draws from the posterior of the error rate of the items not drawn yet.
        waves: Waves that may still draw before one that draws all that is left.
        last: Number of draws at which everything is settled.
        rng: Source of the simulated audits.
    """
    sizes, going = _stops(test, rate, last, rng)
    if waves < 1 or len(sizes) < 3:
        end = last if waves < 1 else int(sizes[-1])
        return NextWave(end, np.full(len(rate), float(end - test.draws)))
    further = sizes[None, :] - sizes[:, None]  # from a size, to a size
    ahead = np.where(further > 0, further, np.inf)[None]
    left = (last - sizes) * going  # per draw from the posterior and size
    for _ in range(int(min(waves - 1, len(sizes)))):
        step = ahead[:, :-1] * np.maximum(going[:, :-1, None], 1e-12)
        left[:, :-1] = (step + left[:, None, :]).min(axis=2)
    total = further[0, 1:] + left[:, 1:].mean(axis=0)
    best = 1 + int(total.argmin())
    return NextWave(int(sizes[best]), further[0, best] + left[:, best])


def _stops(
    test: SequentialTest, rate: FloatArray, last: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Return sizes at which an audit may stop, and how often it goes on beyond.

    Returns:
        The sizes, from that now to `last`; and, per draw from the posterior and size,
        the share of simulated audits that go on.
    """
    design, errors = test.acceptance, len(test.errors)
    most = max(2, last - test.draws)
    allowed = errors + np.unique(np.geomspace(1, most, _SIZES).astype(int)) - 1
    level = design.level * design.share_of_level(allowed)
    need = draws_needed(design.items, 0.0, design.max_errors, level, 0.0, allowed)
    need = np.ceil(need * test.target / max(need[0], 1.0))  # the first one is exact
    fits = need < last
    chance = np.repeat(np.clip(rate, 1e-9, 1.0)[:, None], _WORLDS, axis=1)
    found, alive = np.full(chance.shape, errors), np.ones(chance.shape, bool)
    sizes, going = [test.draws], [np.ones(len(rate))]
    for size, most in zip(need[fits].astype(int).tolist(), allowed[fits], strict=True):
        if size > sizes[-1]:
            found += rng.binomial(size - sizes[-1], chance)
            alive &= found > most
            sizes.append(size)
            going.append(alive.mean(axis=1))
        if not going[-1].any():
            break
    ends = np.array([*sizes, last], float)
    return ends, np.array([*going, np.zeros(len(rate))]).T
