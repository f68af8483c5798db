"""How many draws a wave makes, where only so many waves may follow.

Waves of exactly the draws that are missing buy none in vain, but each error that they
detect asks for a further wave. A wave that is larger saves later ones; its draws
beyond those that would have sufficed are bought in vain. Audits are simulated in the
worlds of the posterior; then the waves are planned backwards so that as little as
possible is expected to be spent in all, as a share of what it would cost if waves were
not limited (a dynamic program on simulated paths; Longstaff & Schwartz 2001). A wave is
planned by what will be known before it: the errors that were detected, not the world.
All of it decides what an audit costs, nothing of it whether it is valid: the numbers
that suffice are fixed before.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from smart_engine.evidence.acceptance import SequentialTest
from smart_engine.evidence.plans import draws_needed
from smart_engine.evidence.repair import expected_repairs
from smart_engine.evidence.tails import BoolArray, FloatArray, IntArray

__all__ = ["NextWave", "next_wave"]

_PATHS = 12
"""Simulated audits per draw from the posterior."""

_SIZES = 40
"""Sizes at which a wave may end that are compared, at most."""

_KNOWN = 8
"""Groups of paths, by the errors detected, for which the next wave is planned apart."""

_MOST_WAVES = 12
"""Further waves beyond these are worth nothing."""


class NextWave(NamedTuple):
    """What to draw next, and what that leads to.

    Attributes:
        end: Draws to have made after the wave.
        by_waves: Per number of waves that may draw, from none on, and draw from the
            posterior: expected draws from here on.
    """

    end: int
    by_waves: FloatArray

    @property
    def draws(self) -> FloatArray:
        """Per draw from the posterior, expected draws with all the waves."""
        return np.asarray(self.by_waves[-1], float)


def next_wave(
    test: SequentialTest,
    rate: FloatArray,
    waves: float,
    last: int,
    rng: np.random.Generator,
    instead: FloatArray | None = None,
    besides: float = 0.0,
    *,
    ready: bool = False,
) -> NextWave:
    """Return the next wave of an audit that has not accepted yet.

    Args:
        test: The audit.
        rate: Draws from the posterior of the error rate of the items not drawn yet.
        waves: Waves that may still draw before one that draws all that is left.
        last: Number of draws at which everything is settled.
        rng: Source of the simulated audits.
        instead: What giving the audit up costs now, in draws, by the waves that are
            left then, from none on, and draw from the posterior.
        besides: What is spent in any case, in draws: a draw in vain counts as a share
            of all that the batch would cost without it.
        ready: Whether the audit may end by repairs now; after a wave it may anyway. If
            that is best, no draw is made.
    """
    sizes, found, alive = _paths(test, rate, last, rng)
    # What the batch would cost if waves were as small as can be.
    least = besides + sizes[alive.argmin(axis=1)] - test.draws
    weight = 1 / (1 + np.repeat(least.reshape(len(rate), -1).mean(axis=1), _PATHS))
    rest, chances = last - sizes, int(min(waves, _MOST_WAVES))
    ending = np.minimum(rest, expected_repairs(test, sizes, found))
    if not ready:
        ending[:, 0] = rest[0]
    cost, end = ending, test.draws if ready else last
    by_waves = [cost[:, 0]]
    for wave in range(1, chances + 1):
        given_up = None if instead is None else np.repeat(instead[wave], _PATHS)
        further = np.zeros_like(cost)
        for place in range(len(sizes) - 1 if wave < chances else 1):
            here = np.flatnonzero(alive[:, place])
            if not len(here):
                break
            group = _groups(found[here, place])
            ahead = sizes - sizes[place] + alive[here] * cost[here]
            ahead = ahead[:, place + 1 :]
            ahead = np.column_stack([ending[here, place], ahead])
            if given_up is not None and place:
                share = rest[place] / rest[0]
                ahead = np.column_stack([ahead, share * given_up[here]])
            best = _means(ahead, group, weight[here]).argmin(axis=1)
            further[here, place] = ahead[np.arange(len(here)), best[group]]
            if not place:
                end = int(sizes[best[0]]) if best[0] or ready else last
        cost = further
        by_waves.append(cost[:, 0])
    shape = len(by_waves), len(rate), _PATHS
    return NextWave(end, np.reshape(by_waves, shape).mean(axis=2))


def _groups(found: IntArray) -> IntArray:
    """Group paths by the errors detected; return the number of each one's group."""
    edges = np.unique(np.quantile(found, np.arange(1, _KNOWN) / _KNOWN))
    return np.unique(np.searchsorted(edges, found), return_inverse=True)[1]


def _means(values: FloatArray, group: IntArray, weight: FloatArray) -> FloatArray:
    """Return the weighted mean of the rows of each group."""
    member = (group == np.arange(group.max() + 1)[:, None]) * weight
    return np.asarray(member @ values / member.sum(axis=1, keepdims=True), float)


def _paths(
    test: SequentialTest, rate: FloatArray, last: int, rng: np.random.Generator
) -> tuple[FloatArray, IntArray, BoolArray]:
    """Simulate audits; return sizes at which one may stop, and what it has shown there.

    Returns:
        The sizes, from that now to `last`; and per path and size the errors detected,
        and whether it goes on. The paths of one draw from the posterior follow each
        other.
    """
    design, errors = test.acceptance, len(test.errors)
    most = max(2, last - test.draws)
    allowed = errors + np.unique(np.geomspace(1, most, _SIZES).astype(int)) - 1
    level = design.level * design.share_of_level(allowed)
    need = draws_needed(design.items, 0.0, design.max_errors, level, 0.0, allowed)
    need = np.ceil(need * test.target / max(need[0], 1.0))  # the first one is exact
    fits = need < last
    chance = np.repeat(np.clip(rate, 1e-9, 1.0), _PATHS)
    found = [np.full(len(chance), errors)]
    sizes, alive = [test.draws], [np.ones(len(chance), bool)]
    for size, most in zip(need[fits].astype(int).tolist(), allowed[fits], strict=True):
        if size > sizes[-1]:
            found.append(found[-1] + rng.binomial(size - sizes[-1], chance))
            alive.append(alive[-1] & (found[-1] > most))
            sizes.append(size)
        if not alive[-1].any():
            break
    found.append(found[-1])
    alive.append(np.zeros(len(chance), bool))
    return np.array([*sizes, last], float), np.array(found).T, np.array(alive).T
