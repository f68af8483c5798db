"""What is known of a batch: the record that sessions write and strategies read."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smart_engine.calls import Result
from smart_engine.equivalence import Equivalence, Exact
from smart_engine.equivalence.labelling import Labelling, LabelOf
from smart_engine.equivalence.rule import agree_as_read
from smart_engine.evidence.prices import mean_price
from smart_engine.evidence.slices import Slices
from smart_engine.evidence.tails import FloatArray, IntArray
from smart_engine.guarantee import Guarantee
from smart_engine.money.ledger import LedgerScope
from smart_engine.money.spending import (
    Spend,
    add_spend,
    record_rule_calls,
    spend_of,
)
from smart_engine.tiers import Tier, expected_ratios

__all__ = [
    "ANSWERED",
    "ASKED",
    "FAILED",
    "REFERENCE",
    "UNASKED",
    "BatchRecord",
    "RecordPart",
]

UNASKED, ASKED, ANSWERED, FAILED = range(4)
REFERENCE = 0
"""Index of the reference among the tiers; candidates follow it."""


class BatchRecord:
    """Answers, costs and comparisons of one batch, in tables of tiers × items.

    Memory is linear: per tier and item, 16 bytes and a pointer to the answer; 8 more
    once any answer comes with a score, and 4 where labels are promised.

    Args: As of `BatchSession`; the tiers with the reference first.

    Attributes:
        rounds: Waves handed out so far.
        slices: To which slice each item belongs.
        priced: Whether it is known of all tiers what a call is expected to cost.
        ratios: Per tier, what a call is expected to cost, in calls of the reference.
        status: UNASKED, ASKED, ANSWERED or FAILED, which an unreadable answer is, too.
        wrong: Whether an answer differs from the reference's.
        cached: Whether the answer came from a cache, so that its cost was not paid.
        estimated: Whether the cost rests on an estimated usage.
        codes: A number for the answer, shared by equal answers; 0 where it has none.
        labelling: Which label an answer is.
        labels: The number of the answer's label, 0 where it has none.
        scores: The model's own score of its answer, or nan; see `score`.
        tokens: Per tier, input and output tokens of all calls.
        answers: Per tier and item, its answer; empty if the driver keeps answers.
        readings: By tier and item, what the rule read in answers yet to be compared.
        lost: Item → USD that failed attempts cost, and calls at most whose cost
            nobody told: not what its models cost, and so no basis for plans.
        lost_spend: The same per model, with how often it was called.
        sat_out: Per tier, the items that do not fit into it: it was not asked.
        judge_cost: Item → USD that comparing its answers cost.
        judge_cost_estimated: What of that rests on an estimated usage.
        judge_spend: What each judge was asked and what it cost.
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
        firsts: Sequence[int] | None = None,
        min_saving: float = 0.0,
        label_of: LabelOf | None = None,
        *,
        keep_answers: bool = True,
        max_rounds: int | None = None,
        slices: Sequence[str] | None = None,
    ) -> None:
        self.n_items = n_items
        self.slices = Slices.read(slices, n_items)
        self.rounds = 0
        self._max_rounds = math.inf if max_rounds is None else max_rounds
        self.names = [tier.name for tier in tiers]
        self.ratios = expected_ratios(tiers)
        self.priced = all(tier.cost is not None for tier in tiers)
        self.min_saving = min_saving
        self.guarantee = guarantee
        self.rng = np.random.default_rng(seed)
        self.max_in_flight = max_in_flight
        self.rule = rule
        self.keyed = bool(getattr(rule, "keyed", False))
        self.hidden = bool(getattr(rule, "hidden", False))
        self.scope = scope
        self._firsts = None if firsts is None else np.array(firsts, np.int64)
        shape = (len(tiers), n_items)
        self.status = np.zeros(shape, np.uint8)
        self.wrong = np.zeros(shape, bool)
        self.cached = np.zeros(shape, bool)
        self.estimated = np.zeros(shape, bool)
        self.costs = np.zeros(shape)
        self.codes = np.zeros(shape, np.int32)
        self.labelling = Labelling(rule, label_of, guarantee)
        self.labels = np.zeros(shape, np.int32)  # no memory while nothing is entered
        self.scores: FloatArray = np.broadcast_to(np.nan, shape)
        self.tokens: list[list[Any]] = [[0, 0] for _ in tiers]
        self.answers: list[list[Any]] = [
            [None] * n_items for _ in tiers if keep_answers
        ]
        self.readings: dict[tuple[int, int], Any] = {}
        self.lost: defaultdict[int, float] = defaultdict(float)
        self.sat_out = [0] * len(self.names)
        self.lost_spend = dict.fromkeys(self.names, Spend())
        self.judge_cost: defaultdict[int, float] = defaultdict(float)
        self.judge_cost_estimated: defaultdict[int, float] = defaultdict(float)
        self.judge_spend: dict[str, Spend] = {}
        self._same: dict[tuple[int, int, int], bool] = {}

    @property
    def rounds_left(self) -> float:
        """Waves that may still be handed out; infinite without a limit."""
        return self._max_rounds - self.rounds

    @property
    def candidates(self) -> range:
        """Indices of the candidates among the tiers."""
        return range(1, len(self.names))

    def count(self, tier: int, *tokens: float | list[float]) -> None:
        """Count input and output tokens, of one call or of many.

        The sum is exact, so that its order is no matter.
        """
        for place, each in enumerate(tokens):
            self.tokens[tier][place] += _exact_sum(each)

    def score(
        self, tier: int, items: int | IntArray, values: float | FloatArray
    ) -> None:
        """Enter a model's own scores of answers; the first one makes the table."""
        if not self.scores.flags.writeable:
            self.scores = self.scores.copy()
        self.scores[tier, items] = values

    def same(self, left: int, right: int, items: IntArray) -> NDArray[np.bool_]:
        """Per item, whether two tiers gave usable answers that mean the same."""
        usable = (self.status[[left, right]][:, items] == ANSWERED).all(axis=0)
        first, second = self.codes[left, items], self.codes[right, items]
        same = usable & (first == second) & (first > 0)
        if not self.keyed:
            for place in np.flatnonzero(usable & ~same).tolist():
                item = int(items[place])
                key = (left, right, item)
                if key not in self._same:
                    self._same[key] = self.agree(item, left, right)
                same[place] = self._same[key]
        return np.asarray(same)

    def agree(self, item: int, left: int, right: int) -> bool:
        """Whether two tiers' answers mean the same; enters what judging cost."""
        codes = self.codes[left, item], self.codes[right, item]
        if self.keyed and all(codes):
            return bool(codes[0] == codes[1])
        if not self.answers:
            return False
        with record_rule_calls() as calls:
            try:
                return agree_as_read(
                    self.rule, lambda: (self._read(left, item), self._read(right, item))
                )
            finally:
                if calls:
                    add_spend(self.judge_spend, calls)
                    self.judge_cost[item] += sum(result.total for _, result in calls)
                    estimated = sum(result.estimated for _, result in calls)
                    self.judge_cost_estimated[item] += estimated
                    if self.scope is not None:
                        self.scope.record_judge_calls(item, calls)

    def _read(self, tier: int, item: int) -> Any:
        """Return what the rule reads in an answer."""
        if (tier, item) in self.readings:
            return self.readings.pop((tier, item))
        return self.rule.parse(self.answers[tier][item])

    def lose(self, tier: int, item: int, result: Result) -> None:
        """Enter what a call cost beyond the cost of its last attempt."""
        unknown = result.unknown or 0.0
        known = Spend(cost=unknown, unknown=unknown)
        lost = sum(map(spend_of, result.earlier), known)
        self.lost[item] += lost.cost
        self.lost_spend[self.names[tier]] += lost

    def errors(self, tier: int, items: IntArray) -> int:
        """How many of a candidate's answers on these drawn items were wrong.

        Wrong means not equivalent to the reference's. A candidate that failed is not
        wrong, for the item escalates; every candidate is wrong where the reference
        failed, the worst case.
        """
        return int(self.wrong[tier, items].sum())

    def cost(self, tier: int, items: IntArray) -> float:
        """What that tier costs on these items, in USD, as if nothing were cached."""
        return float(self.costs[tier, items].sum())

    def cost_alone(
        self, paid: IntArray, served: IntArray, drawn: IntArray, route: IntArray
    ) -> float | None:
        """What the reference alone would cost on all these items, in USD.

        That is what it cost where it was paid, None if it was not, and for the others
        an estimate from those that were drawn: what else it was asked about may have
        been chosen for its price. Where equal requests are made once, each counts once.

        Args:
            paid: Items that it answered.
            served: Items that candidates answered.
            drawn: Items on which it was asked in order to learn.
            route: Per item, the tier that serves it if the reference does not.
        """
        drawn = np.intersect1d(paid, drawn)
        if self._firsts is not None:
            firsts, places = np.unique(self._firsts[paid], return_index=True)
            paid = paid[places]
            others, places = np.unique(self._firsts[served], return_index=True)
            served = served[places[~np.isin(others, firsts)]]
        if not len(paid):
            return None
        known = self.cost(REFERENCE, paid)
        if not len(served):
            return known
        tier = int(np.bincount(route[served]).argmax())
        told = self.status[tier] == ANSWERED
        sample = next(
            each for each in (drawn[told[drawn]], paid[told[paid]], paid) if len(each)
        )
        costs = self.costs[tier]
        return known + mean_price(
            costs[sample], self.costs[REFERENCE, sample], costs[served[told[served]]]
        ) * len(served)

    @property
    def spend(self) -> dict[str, Spend]:
        """What each model was asked and what was paid for it, judges included."""
        table = {}
        for tier, name in enumerate(self.names):
            costs, status = self.costs[tier], self.status[tier]
            table[name] = self.lost_spend[name] + Spend(
                calls=int((status >= ANSWERED).sum()) - self.sat_out[tier],
                failures=int((status == FAILED).sum()) - self.sat_out[tier],
                cost=float(costs[~self.cached[tier]].sum()),
                input_tokens=float(self.tokens[tier][0]),
                output_tokens=float(self.tokens[tier][1]),
                estimated=float(costs[self.estimated[tier]].sum()),
            )
        return table | self.judge_spend


def _exact_sum(tokens: float | list[float]) -> int | Fraction:
    if not isinstance(tokens, list):
        return int(tokens) if float(tokens).is_integer() else Fraction(tokens)
    if all(map(float.is_integer, map(float, tokens))):
        return sum(map(int, tokens))
    return sum(map(Fraction, tokens), Fraction())


class RecordPart(BatchRecord):
    """Some items of a batch, as the record of a batch of their own.

    A strategy reads it; what it shows is as old as the last `update`.

    Args:
        whole: The record of the batch.
        items: Its items here, by their places there.
        guarantee: What is promised of them.
        max_in_flight: Most of their calls at once.

    Attributes:
        items: As given.
    """

    def __init__(
        self,
        whole: BatchRecord,
        items: IntArray,
        guarantee: Guarantee,
        max_in_flight: int,
    ) -> None:
        self.__dict__.update(whole.__dict__)
        self._whole, self.items, self.n_items = whole, items, len(items)
        self.guarantee, self.max_in_flight = guarantee, max_in_flight
        self.rng = whole.rng.spawn(1)[0]
        self._same = {}
        self.update()

    def update(self) -> None:
        """Take in what is known of the batch by now."""
        whole, items = self._whole, self.items
        self.rounds = whole.rounds
        self.status, self.wrong = whole.status[:, items], whole.wrong[:, items]
        self.costs, self.codes = whole.costs[:, items], whole.codes[:, items]
        self.scores = whole.scores[:, items]

    def agree(self, item: int, left: int, right: int) -> bool:
        """Whether two tiers' answers mean the same, as of the batch."""
        return self._whole.agree(int(self.items[item]), left, right)
