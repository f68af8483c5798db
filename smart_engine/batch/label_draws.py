"""What random draws say about labels: how often each is taken for which other one.

An audit draws from a population uniformly and without replacement. Of each item drawn
it is known what would have been handed out and what the reference says. How many items
of the population have a label wrongly, or miss it, then lies in an interval that holds
at every number of draws, so that an audit may stop whenever it likes.

Source: prior-posterior-ratio martingales for sampling without replacement (Waudby-Smith
& Ramdas 2020); `docs/mathematics.md`, Theorem 11.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel

from smart_engine.evidence.tails import FloatArray, IntArray

__all__ = ["Between", "Confusion", "added", "hidden"]

_PRIOR = 0.5
"""Both parameters of the beta-binomial prior, whose choice says where intervals are
narrow: they hold with any."""


class Between(NamedTuple):
    """A number of answers that is not known exactly: at least and at most so many."""

    least: int
    most: int

    def up_to(self, limit: int) -> Between:
        """Return what is left of it below a limit."""
        return Between(min(self.least, limit), min(self.most, limit))


def added(numbers: Iterable[Between]) -> Between:
    """Return the sum of such numbers."""
    return Between(*map(sum, zip(*numbers, strict=True)))


class Confusion(BaseModel, frozen=True, extra="forbid"):
    """What would have been handed out for items compared, and what the reference says.

    Attributes:
        in_slice: The slice that they are of; None where a batch has no slices.
        items: Items of the population from which they were drawn uniformly.
        draws: Number of the draws.
        level: Level of the audit whose draws they are; 0 where items were compared in
            another way, so that nothing follows for others.
        kinds: Labels that would be handed out in that population.
        cells: Label that would have been handed out, label that the reference gives,
            and how often; None where an answer has no label. Items that escalate have
            the reference's.
    """

    in_slice: str | None = None
    items: int
    draws: int
    level: float
    kinds: tuple[str, ...]
    cells: tuple[tuple[str | None, str | None, int], ...]

    def false(self, label: str) -> int:
        """Items drawn that would have been given a label wrongly."""
        return sum(n for said, true, n in self.cells if said == label != true)

    def missed(self, label: str) -> int:
        """Items drawn that would have missed a label.

        All labels that are never handed out here count as one.
        """
        rare = label not in self.kinds
        return sum(
            count
            for said, true, count in self.cells
            if said != true
            and true is not None
            and (true == label or (rare and true not in self.kinds))
        )

    def false_left(self, label: str) -> Between:
        """Items not drawn that are given a label wrongly."""
        if label not in self.kinds:
            return Between(0, 0)
        return hidden(self.items, self.draws, self.false(label), self._part)

    def missed_left(self, label: str) -> Between:
        """Items not drawn that miss a label."""
        left = hidden(self.items, self.draws, self.missed(label), self._part)
        return left if label in self.kinds else Between(0, left.most)

    @property
    def _part(self) -> float:
        """Level of one interval: two for each label handed out, one for all others."""
        return self.level / (2 * len(self.kinds) + 1)


def hidden(population: int, draws: int, found: int, level: float) -> Between:
    """Return how many items of a kind were not drawn, by how many were.

    Hypothesis that is rejected: the population has K of them, others than drawn.
    Condition: the draws are uniform without replacement; when to stop may depend on
    all that they show.

    Args:
        population: Items of the population, M.
        draws: Items drawn, n.
        found: Items of the kind among them, k.
        level: Probability with which the interval may ever leave the number out.

    Example:
        ```python
        assert hidden(1000, 200, 4, 0.05) == (0, 64)
        assert hidden(1000, 1000, 4, 0.05) == (0, 0)
        ```
    """
    left = np.arange(population - draws + 1)
    log_ratio = _log_chance(left + found, population, _PRIOR, _PRIOR)
    log_ratio -= _log_chance(
        left, population - draws, _PRIOR + found, _PRIOR + draws - found
    )
    kept = left[log_ratio < math.log(1 / level)]
    return Between(int(kept[0]), int(kept[-1]))


def _log_chance(count: IntArray, size: int, a: float, b: float) -> FloatArray:
    """Log probability of so many of a kind, by the beta-binomial distribution."""
    from scipy.special import betaln, gammaln

    ways = gammaln(size + 1) - gammaln(count + 1) - gammaln(size - count + 1)
    chance = ways + betaln(count + a, size - count + b) - betaln(a, b)
    return np.asarray(chance, float)
