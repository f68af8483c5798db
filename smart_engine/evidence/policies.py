"""Policies: whom to ask about an item, and whose answer to take.

A policy asks candidates in a fixed order. Which of them agree is the item's pattern;
the largest group that agrees serves the item. Whether an item with a certain pattern is
served at all or escalates is for the plan to decide, not for the policy. Adding a
policy is adding one entry to `family` or `pairs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from smart_engine.evidence.record import ANSWERED, BatchRecord
from smart_engine.evidence.tails import BoolArray, FloatArray, IntArray

__all__ = ["Answers", "Policy", "PolicyResult", "family", "pairs"]


class Answers(NamedTuple):
    """How the candidates' answers to some items compare.

    Attributes:
        usable: Per tier and item, whether that tier gave a usable answer.
        same: Per pair of tiers, lower first, and item, whether both say the same.
        code: Per tier and item, a number for the answer; equal answers share it.
        confidence: Per tier and item, the tier's score of its answer, or nan.
        cost: Per tier and item, what that answer cost, in USD.
    """

    usable: BoolArray
    same: dict[tuple[int, int], BoolArray]
    code: NDArray[np.signedinteger]
    confidence: FloatArray
    cost: FloatArray

    @classmethod
    def read(cls, batch: BatchRecord, items: IntArray, tiers: Sequence[int]) -> Answers:
        """Compare what these tiers answered to these items."""
        return cls(
            batch.status[:, items] == ANSWERED,
            {
                (a, b): batch.same(a, b, items)
                for a, b in combinations(sorted(tiers), 2)
            },
            batch.codes[:, items],
            batch.scores[:, items],
            batch.costs[:, items],
        )

    def groups(self, tiers: Sequence[int]) -> IntArray:
        """Per tier in turn and item, the place of the first tier with the same answer.

        −1 where a tier has no usable answer.
        """
        found = np.full((len(tiers), self.usable.shape[1]), -1, np.int64)
        for place, tier in enumerate(tiers):
            group = np.full(found.shape[1], place)
            for earlier in range(place - 1, -1, -1):
                pair = (tiers[earlier], tier)
                same = self.same[min(pair), max(pair)] & (found[earlier] == earlier)
                group = np.where(same, earlier, group)
            found[place] = np.where(self.usable[tier], group, -1)
        return found


class PolicyResult(NamedTuple):
    """A policy applied to some items.

    Attributes:
        pattern: Per item, a number for who agreed with whom; −1 without any answer.
        server: Per item, the tier whose answer is taken; 0 without any answer.
        asked: Per place in the policy and item, whether that candidate is asked.
        agreed: Per item, whether enough candidates agree to serve it unchecked: all
            that are asked, or two of them in a cascade.
    """

    pattern: IntArray
    server: IntArray
    asked: BoolArray
    agreed: BoolArray

    def served(self, per_tier: NDArray[np.generic]) -> NDArray[np.generic]:
        """Per item, the value of its server, of values per tier and item."""
        return per_tier[self.server, np.arange(len(self.server))]

    def wrong(self, wrong: BoolArray) -> BoolArray:
        """Per item, whether the answer taken is wrong; escalated items are right."""
        return np.asarray(self.served(wrong), bool) & (self.pattern >= 0)


class Policy(NamedTuple):
    """Candidates in the order in which they are asked.

    Attributes:
        tiers: Indices of the candidates.
        stops: Whether asking stops as soon as two of them agree (a cascade).
    """

    tiers: tuple[int, ...]
    stops: bool = False

    def name(self, names: Sequence[str]) -> str:
        """Name for certificates, made of the tiers' names."""
        return (" → " if self.stops else " = ").join(names[tier] for tier in self.tiers)

    def apply(self, answers: Answers, trust: FloatArray | None = None) -> PolicyResult:
        """Find the pattern and the server of each item.

        Args:
            answers: The candidates' answers.
            trust: Per tier, how far to trust it, 0 to 1: decides between groups of
                the same size. Without it, the one asked first does.
        """
        size = len(self.tiers)
        groups = answers.groups(self.tiers)
        asked = np.ones(groups.shape, bool)
        votes = np.zeros(groups.shape)
        pattern = np.zeros(groups.shape[1], np.int64)
        for place, tier in enumerate(self.tiers):
            if self.stops and place > 1:
                settled = (groups[:place] >= 0) & asked[:place]
                settled &= groups[:place] < np.arange(place)[:, None]
                asked[place] = ~settled.any(axis=0)
            group = np.where(asked[place], groups[place], -2)
            pattern = pattern * (size + 2) + group + 2
            weight = 1.0 if trust is None else 1.0 + 1e-3 * float(trust[tier])
            for head in range(place + 1):
                votes[head] += (group == head) * weight
        most = votes.max(axis=0)
        answered = most > 0
        enough = 2 if self.stops else size
        return PolicyResult(
            np.where(answered, pattern, -1),
            np.where(answered, np.array(self.tiers)[votes.argmax(axis=0)], 0),
            asked,
            answered & (most >= enough),
        )


def family(candidates: Sequence[int]) -> list[Policy]:
    """Return each candidate alone, all of them, and a cascade, cheapest first.

    They share a level from the start. A longer list misleads more than it saves: the
    more policies compete on few draws, the luckier the one that looks best.
    """
    policies = [Policy((tier,)) for tier in candidates]
    if len(candidates) >= 2:
        policies.append(Policy(tuple(candidates)))
    if len(candidates) >= 3:
        policies.append(Policy(tuple(candidates), stops=True))
    return policies


def pairs(candidates: Sequence[int]) -> list[Policy]:
    """Return the agreements of two that `family` lacks; these may serve, too."""
    several = candidates if len(candidates) >= 3 else ()
    return [Policy(pair) for pair in combinations(several, 2)]
