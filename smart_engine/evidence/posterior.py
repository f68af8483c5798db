"""The posterior over items: who agrees with whom, and which group is right.

Candidates that disagree cannot all be right, so their answers alone, without one
reference call, already show much of how often each errs. A cell is a pattern of
agreement together with the group that agrees with the reference, or none. Patterns are
counted wherever candidates were asked; which group is right is counted where the
reference was asked, too, on top of a vague prior: a group of m candidates is wrong in
the same way with odds ε·c^(m−1), ε as seen from disagreement, c anywhere between 0.2
and 0.8.

The posterior chooses plans. No promise rests on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from smart_engine.evidence.policies import Answers, PolicyResult
from smart_engine.evidence.record import BatchRecord
from smart_engine.evidence.tails import BoolArray, FloatArray, IntArray

__all__ = ["DRAWS", "Posterior"]

DRAWS = 48
"""Draws from the posterior that stand for what may be true."""

_ALONE = 0.08
"""Prior error rate ε of a single candidate."""


class Posterior:
    """Draws from the posterior over cells.

    Args:
        batch: The batch.
        tiers: The candidates, in the order in which they are asked.
        scouted: Items on which they were asked, without the reference.
        drawn: Items on which the reference was asked, too.
        rng: Source of the draws.

    Attributes:
        answers: One item per cell: how candidates that are in it compare.
        wrong: Per tier and cell, whether that tier is wrong in it.
        weight: Per draw and cell, its probability.
    """

    def __init__(
        self,
        batch: BatchRecord,
        tiers: Sequence[int],
        scouted: IntArray,
        drawn: IntArray,
        rng: np.random.Generator,
    ) -> None:
        items = np.concatenate([scouted, drawn])
        groups = Answers.read(batch, items, tiers).groups(tiers)
        patterns, back = np.unique(groups, axis=1, return_inverse=True)
        back = back.ravel()
        if not len(items):
            patterns = np.zeros((len(tiers), 1), np.int64)
        seen = np.bincount(back, minlength=patterns.shape[1])
        labelled = back[len(scouted) :]
        wrong = batch.wrong[:, drawn][list(tiers)]

        frequency = rng.gamma(seen + 0.05, size=(DRAWS, len(seen)))
        frequency /= frequency.sum(axis=1, keepdims=True)
        epsilon, company = _expected_errors(patterns, seen, rng)
        cells: list[tuple[IntArray, int]] = []
        weights: list[FloatArray] = []
        for index, pattern in enumerate(patterns.T):
            heads = [int(head) for head in np.unique(pattern) if head >= 0]
            right = [*heads, -1]  # −1: none of them
            expected = _odds(pattern, right, epsilon, company)
            counts = np.zeros(len(right))
            for place in np.flatnonzero(labelled == index).tolist():
                good = [head for head in heads if not wrong[head, place]]
                counts[right.index(good[0]) if good else -1] += 1
            # The prior is worth one error where all agree, elsewhere two items.
            strength = 2.0 if len(heads) != 1 else np.maximum(2.0, 1 / expected[:, -1:])
            chance = rng.gamma(counts + strength * expected + 1e-9)
            chance /= chance.sum(axis=1, keepdims=True)
            for column, head in enumerate(right):
                cells.append((pattern, head))
                weights.append(frequency[:, index] * chance[:, column])
        self.weight = np.stack(weights, axis=1)
        self.answers, self.wrong = _cells(len(batch.names), tiers, cells)

    def share(self, cells: BoolArray) -> FloatArray:
        """Per draw, the probability of a set of cells."""
        return np.asarray(self.weight @ cells, float)

    def error_rate(self, result: PolicyResult) -> FloatArray:
        """Per draw, the share of items on which a policy's candidates agree and err."""
        return self.share(result.wrong(self.wrong) & result.agreed)

    def trust(self) -> FloatArray:
        """Per tier, its mean agreement with the reference; 1 of tiers not asked."""
        return np.asarray(1.0 - (self.weight @ self.wrong.T).mean(axis=0), float)


def _expected_errors(
    patterns: IntArray, seen: IntArray, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Draw ε, how often one errs, and c, how often another errs with it."""
    size = len(patterns)
    total = int(seen.sum())
    split = np.array([len(set(p[p >= 0].tolist())) - 1 for p in patterns.T])
    apart = float((seen * np.maximum(split, 0)).sum()) / max(total, 1) / size
    rate = (apart if size > 1 else _ALONE) + 0.5 / (total + 10)
    noise = np.exp(0.5 * rng.standard_normal(DRAWS))
    return np.clip(rate * noise, 0.005, 0.5), rng.uniform(0.2, 0.8, DRAWS)


def _odds(
    pattern: IntArray, right: list[int], epsilon: FloatArray, company: FloatArray
) -> FloatArray:
    """Per draw, the expected probability that each group is the right one."""
    odds = np.ones((DRAWS, len(right)))
    for place, head in enumerate(right):
        for other in right[:-1]:
            if other != head:
                size = int((pattern == other).sum())
                odds[:, place] *= epsilon * company ** (size - 1)
    return np.asarray(odds / odds.sum(axis=1, keepdims=True), float)


def _cells(
    n_tiers: int, tiers: Sequence[int], cells: list[tuple[IntArray, int]]
) -> tuple[Answers, BoolArray]:
    """Return the cells as if they were items."""
    patterns = np.array([pattern for pattern, _ in cells]).T
    heads = np.array([head for _, head in cells])
    group = np.full((n_tiers, len(cells)), -1, np.int64)
    group[list(tiers)] = patterns
    usable = group >= 0
    answers = Answers(
        usable,
        {
            (a, b): usable[a] & (group[a] == group[b])
            for a, b in combinations(sorted(tiers), 2)
        },
        np.zeros_like(group),
        np.full(group.shape, np.nan),
        np.zeros(group.shape),
    )
    return answers, usable & (group != heads)
