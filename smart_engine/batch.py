"""What is known of a batch: the record that sessions write and strategies read."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np

from smart_engine.guarantee import Guarantee
from smart_engine.tails import IntArray
from smart_engine.tiers import Tier

__all__ = ["ANSWERED", "ASKED", "FAILED", "REFERENCE", "UNASKED", "Batch"]

UNASKED, ASKED, ANSWERED, FAILED = range(4)
REFERENCE = 0
"""Index of the reference among the tiers; candidates follow it."""


class Batch:
    """Answers, costs and comparisons of one batch, per tier and item.

    Memory is linear: per tier and item, one pointer, three numbers and three bytes.

    Args:
        n_items: Number of items.
        tiers: The tiers, reference first.
        guarantee: What is promised.
        seed: Seed of all randomness of the session.
    """

    def __init__(
        self, n_items: int, tiers: Sequence[Tier], guarantee: Guarantee, seed: int
    ) -> None:
        """Start with nothing asked."""
        self.n_items = n_items
        self.tiers = tuple(tiers)
        self.guarantee = guarantee
        self.rng = np.random.default_rng(seed)
        count = len(self.tiers)
        self.status = [bytearray(n_items) for _ in range(count)]
        self.wrong = [bytearray(n_items) for _ in range(count)]
        self.cached = [bytearray(n_items) for _ in range(count)]
        zeros = bytes(8 * n_items)
        self.costs = [array("d", zeros) for _ in range(count)]
        self.input_tokens = [array("d", zeros) for _ in range(count)]
        self.output_tokens = [array("d", zeros) for _ in range(count)]
        self.answers: list[list[Any]] = [[None] * n_items for _ in range(count)]

    @property
    def candidates(self) -> range:
        """Indices of the candidates among the tiers."""
        return range(1, len(self.tiers))

    def failures(self, tier: int, items: IntArray) -> int:
        """How many of that tier's calls on these items brought no usable answer."""
        return int((np.frombuffer(self.status[tier], np.uint8)[items] == FAILED).sum())

    def errors(self, tier: int, items: IntArray) -> int:
        """How many of a candidate's answers on these drawn items were wrong.

        Wrong means not equivalent to the reference's. A candidate that failed is not
        wrong, for the item escalates; every candidate is wrong where the reference
        failed, the worst case.
        """
        return int(np.frombuffer(self.wrong[tier], np.uint8)[items].sum())

    def cost(self, tier: int, items: IntArray) -> float:
        """What that tier costs on these items, in USD, as if nothing were cached."""
        return float(np.frombuffer(self.costs[tier], np.float64)[items].sum())

    def paid(self, tier: int) -> float:
        """What was paid for that tier's calls, in USD."""
        cached = np.frombuffer(self.cached[tier], np.bool_)
        return float(np.frombuffer(self.costs[tier], np.float64)[~cached].sum())
