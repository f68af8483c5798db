"""What is known of a batch: the record that sessions write and strategies read."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smart_engine.equivalence import Equivalence, Exact, agree
from smart_engine.evidence.tails import FloatArray, IntArray
from smart_engine.guarantee import Guarantee
from smart_engine.money.ledger import LedgerScope
from smart_engine.money.spending import Spend, add_spend, record_rule_calls
from smart_engine.tiers import Tier

__all__ = ["ANSWERED", "ASKED", "FAILED", "REFERENCE", "UNASKED", "BatchRecord"]

UNASKED, ASKED, ANSWERED, FAILED = range(4)
REFERENCE = 0
"""Index of the reference among the tiers; candidates follow it."""


class BatchRecord:
    """Answers, costs and comparisons of one batch, per tier and item.

    Memory is linear: per tier and item, one pointer, five numbers and four bytes; per
    item, two more numbers.

    Args:
        n_items: Number of items.
        tiers: The tiers, reference first.
        guarantee: What is promised.
        seed: Seed of all randomness of the session.
        rule: When two answers mean the same.
        max_in_flight: Calls that an audit's waves should fill.
        scope: Where the calls of the rule are entered, if anywhere.
    """

    def __init__(
        self,
        n_items: int,
        tiers: Sequence[Tier],
        guarantee: Guarantee,
        seed: int,
        rule: Equivalence = Exact(),
        max_in_flight: int = 1,
        scope: LedgerScope | None = None,
    ) -> None:
        """Start with nothing asked."""
        self.n_items = n_items
        self.tiers = tuple(tiers)
        self.guarantee = guarantee
        self.rng = np.random.default_rng(seed)
        self.max_in_flight = max_in_flight
        self.rule = rule
        self.scope = scope
        self.judging: dict[str, Spend] = {}
        self.judged = array("d", bytes(8 * n_items))
        self.judged_by_estimate = array("d", bytes(8 * n_items))
        self._same: dict[tuple[int, int, int], bool] = {}
        self.keyed = bool(getattr(rule, "keyed", False))
        count = len(self.tiers)
        self.status = [bytearray(n_items) for _ in range(count)]
        self.wrong = [bytearray(n_items) for _ in range(count)]
        self.cached = [bytearray(n_items) for _ in range(count)]
        self.estimated = [bytearray(n_items) for _ in range(count)]
        zeros = bytes(8 * n_items)
        self.costs = [array("d", zeros) for _ in range(count)]
        self.input_tokens = [array("d", zeros) for _ in range(count)]
        self.output_tokens = [array("d", zeros) for _ in range(count)]
        self.codes = [array("q", bytes(8 * n_items)) for _ in range(count)]
        nothing = array("d", [float("nan")])
        self.scores = [nothing * n_items for _ in range(count)]
        self.answers: list[list[Any]] = [[None] * n_items for _ in range(count)]

    @property
    def candidates(self) -> range:
        """Indices of the candidates among the tiers."""
        return range(1, len(self.tiers))

    def usable(self, tier: int, items: IntArray) -> NDArray[np.bool_]:
        """Per item, whether that tier gave an answer that can be read."""
        return np.asarray(np.frombuffer(self.status[tier], np.uint8)[items] == ANSWERED)

    def code(self, tier: int, items: IntArray) -> IntArray:
        """Per item, a number for that tier's answer; equal answers share theirs."""
        return np.frombuffer(self.codes[tier], np.int64)[items]

    def confidence(self, tier: int, items: IntArray) -> FloatArray:
        """Per item, that tier's score of its own answer, nan where there is none."""
        return np.frombuffer(self.scores[tier], np.float64)[items]

    def same(self, left: int, right: int, items: IntArray) -> NDArray[np.bool_]:
        """Per item, whether two tiers gave usable answers that mean the same."""
        usable = self.usable(left, items) & self.usable(right, items)
        first, second = self.code(left, items), self.code(right, items)
        same = usable & (first == second) & (first > 0)
        if not self.keyed:
            here, there = self.answers[left], self.answers[right]
            for place in np.flatnonzero(usable & ~same).tolist():
                key = (left, right, int(items[place]))
                if key not in self._same:
                    item = key[2]
                    self._same[key] = self.agree(item, here[item], there[item])
                same[place] = self._same[key]
        return np.asarray(same)

    def agree(self, item: int, left: Any, right: Any) -> bool:
        """Whether two answers to an item mean the same; book what it cost to say."""
        with record_rule_calls() as bought:
            try:
                return agree(self.rule, left, right)
            finally:
                add_spend(self.judging, bought)
                self.judged[item] += sum(brought.paid for _, brought in bought)
                estimated = sum(brought.estimated for _, brought in bought)
                self.judged_by_estimate[item] += estimated
                if self.scope is not None:
                    self.scope.record_judge_calls(item, bought)

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

    def asked(self, tier: int, items: IntArray) -> NDArray[np.bool_]:
        """Per item, whether that tier was asked about it."""
        return np.asarray(np.frombuffer(self.status[tier], np.uint8)[items] != UNASKED)

    def errors_of(self, tier: int, items: IntArray) -> NDArray[np.bool_]:
        """Per drawn item, whether that candidate's answer was wrong."""
        return np.asarray(np.frombuffer(self.wrong[tier], np.uint8)[items] > 0)

    def wrong_of(self, items: IntArray) -> NDArray[np.bool_]:
        """Per tier and drawn item, whether that tier's answer was wrong."""
        return np.array([self.errors_of(t, items) for t in range(len(self.tiers))])

    def cost(self, tier: int, items: IntArray) -> float:
        """What that tier costs on these items, in USD, as if nothing were cached."""
        return float(np.frombuffer(self.costs[tier], np.float64)[items].sum())

    def paid(self, tier: int) -> float:
        """What was paid for that tier's calls, in USD."""
        cached = np.frombuffer(self.cached[tier], np.bool_)
        return float(np.frombuffer(self.costs[tier], np.float64)[~cached].sum())

    def paid_by_estimate(self, tier: int) -> float:
        """What of that rests on an estimated usage, in USD."""
        estimated = np.frombuffer(self.estimated[tier], np.bool_)
        return float(np.frombuffer(self.costs[tier], np.float64)[estimated].sum())
