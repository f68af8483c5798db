"""Jobs that a sample could come from, of any size, and sessions that run on them.

A sample leaves open how often candidates differ. So each simulated job draws its items
from the sample with weights of its own (a Bayesian bootstrap; Rubin 1981), to which
each candidate adds half a wrong answer that no model gave, half of it shared with all
others: where no answer in the sample differs, some in the job still may.

A job's first items are a smaller job of the same kind, with the same weights: jobs of
two sizes differ by their size, and by no luck in what was drawn.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from smart_engine.batch.session import BatchSession
from smart_engine.bulk import Outcomes
from smart_engine.calls import ROLES, Call, Failure, Outcome, Result
from smart_engine.equivalence import Equivalence, Normalized, agree
from smart_engine.equivalence.keys import ByKey
from smart_engine.errors import SmartError
from smart_engine.evidence.tails import BoolArray, FloatArray, IntArray
from smart_engine.guarantee import Guarantee
from smart_engine.money.pricing import Price
from smart_engine.tiers import Tier

__all__ = ["Ran", "Row", "SampleJobs", "coded", "priced"]

_UNSEEN_WEIGHT = 0.25
"""Weight, in items, of an error that the sample did not show."""

_UNSEEN = -1
"""Code of an answer that no model gave."""

Row = list[Result]
"""Every model's result on one item, reference first."""


@dataclass(frozen=True)
class Ran:
    """What one simulated job cost.

    Attributes:
        audits: Items for which the reference was paid in order to learn.
        certifying: USD spent on these, by all models.
        cost: USD spent on the job.
        alone: USD that the reference alone would have cost.
        rounds: Waves of calls.
    """

    audits: int
    certifying: float
    cost: float
    alone: float
    rounds: int

    @property
    def saved_share(self) -> float:
        """Share of the reference's cost that was saved."""
        return 1 - self.cost / self.alone if self.alone > 0 else 0.0


class SampleJobs:
    """Simulated jobs that a sample could come from.

    Args:
        names: Names of the models, reference first.
        rows: The sample, as `coded` returns it.
        seed: Seed of the jobs; job k of each size has the same weights.
        slices: Per row, the name of its slice, if slices are promised.
    """

    def __init__(
        self,
        names: Sequence[str],
        rows: Sequence[Row],
        seed: int,
        slices: Sequence[str] | None = None,
    ) -> None:
        self._names, self._rows, self._seed = list(names), rows, seed
        self._slices = slices
        self._costs: FloatArray = np.array([[one.cost for one in row] for row in rows])
        self._failed: BoolArray = np.array(
            [[isinstance(one, Failure) for one in row] for row in rows]
        )
        self._codes: IntArray = np.array([[*map(_code, row)] for row in rows])

    def run(self, number: int, size: int, guarantee: Guarantee, **settings: Any) -> Ran:
        """Run a session on one of the jobs.

        Args:
            number: Its number.
            size: Number of its items.
            guarantee: What is promised.
            **settings: More settings of a `BatchSession`.
        """
        like, unseen = self._drawn(number, size)
        costs = self._costs[like].T
        failed = self._failed[like].T & ~unseen
        codes = np.where(unseen, _UNSEEN, self._codes[like].T)
        tiers = [
            Tier(name, "candidate" if place else "reference", float(cost.sum()))
            for place, (name, cost) in enumerate(zip(self._names, costs, strict=True))
        ]
        columns = not guarantee.labels
        session = BatchSession(
            size,
            tiers,
            guarantee,
            seed=number,
            equivalence=ByKey(Normalized()) if columns else operator.eq,
            label_of=None if columns else operator.itemgetter(1),
            keep_answers=not columns,
            slices=self._slices and [self._slices[place] for place in like.tolist()],
            **settings,
        )

        def result(tier: int, item: int) -> Result:
            given = self._rows[like[item]][tier]
            wrong = Outcome((_UNSEEN, ""), given.cost)
            return wrong if unseen[tier, item] else given

        while calls := session.next_block():
            for tier, name in enumerate(self._names):
                items = calls.items[calls.tiers == tier]
                odd = failed[tier, items] if columns else np.ones(len(items), bool)
                for item in items[odd].tolist():
                    session.record(Call(item, name), result(tier, item))
                plain = items[~odd]
                if len(plain):
                    keys = _Keys(plain, codes[tier])
                    session.record_all(_outcomes(name, plain, keys, costs[tier]))
        handed_out = session.handed_out
        audited = handed_out.roles == ROLES.index("profiled")
        return Ran(
            int(audited.sum()),
            float(handed_out.costs[audited].sum()),
            session.certificate.cost,
            float(costs[0].sum()),
            session.rounds,
        )

    def _drawn(self, number: int, size: int) -> tuple[IntArray, BoolArray]:
        """Return per item its row of the sample, and which models err unseen on it."""
        weighing, drawing, meeting = (
            np.random.default_rng([self._seed, number, part]) for part in range(3)
        )
        known, models = len(self._rows), len(self._names)
        erring = np.zeros((known + models, models), bool)
        erring[known, 1:] = True  # all candidates together, then each by itself
        erring[known + 1 :, 1:] = np.eye(models - 1, dtype=bool)
        weights = weighing.dirichlet([1.0] * known + [_UNSEEN_WEIGHT] * models)
        ends = np.cumsum(weights)
        drawn = np.searchsorted(ends, drawing.random(size) * ends[-1], side="right")
        others = meeting.integers(known, size=size)
        return np.where(drawn < known, drawn, others), erring[drawn].T


class _Keys(Sequence[bytes]):
    """Keys of answers, none of which says more than which are the same for its item."""

    def __init__(self, items: IntArray, codes: IntArray) -> None:
        self._items, self._codes = items, codes

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, place: int) -> bytes: ...

    @overload
    def __getitem__(self, place: slice) -> list[bytes]: ...

    def __getitem__(self, place: int | slice) -> bytes | list[bytes]:
        if isinstance(place, slice):
            return [self[each] for each in range(len(self))[place]]
        item = self._items[place]
        return b"%d %d" % (item, self._codes[item])


def coded(row: Sequence[Result], rule: Equivalence, label: Callable[[Any], str]) -> Row:
    """Return results whose answers are pairs: what means the same, and its label."""
    kinds: list[Any] = []
    found: Row = []
    for index, result in enumerate(row):
        if isinstance(result, Failure) or (index and not _readable(rule, result)):
            lost = SmartError("no usable answer")
            found.append(Failure(lost, result.cost, result.usage))
            continue
        same = (k for k, kind in enumerate(kinds) if agree(rule, result.answer, kind))
        code = next(same, len(kinds))
        if code == len(kinds):
            kinds.append(result.answer)
        answer = code, label(result.answer)
        found.append(Outcome(answer, result.cost, result.usage))
    return found


def priced(
    rows: Iterable[Row], prices: Mapping[str, Price], names: list[str]
) -> list[Row]:
    """Return results at other prices, where their models have one."""
    return [
        [
            result._replace(cost=prices[name].cost(result.usage))
            if name in prices and result.usage is not None
            else result
            for name, result in zip(names, row, strict=True)
        ]
        for row in rows
    ]


def _code(result: Result) -> int:
    return result.answer[0] if isinstance(result, Outcome) else _UNSEEN


def _readable(rule: Equivalence, outcome: Outcome) -> bool:
    try:
        rule.parse(outcome.answer)
    except Exception:  # noqa: BLE001 - a user's rule may raise anything
        return False
    return True


def _outcomes(
    name: str, items: IntArray, keys: Sequence[bytes], costs: FloatArray
) -> Outcomes:
    """Return answers of one model, by their keys."""
    unknown = [None] * len(items)
    return Outcomes(
        name,
        items,
        keys,
        costs[items],
        [[], []],
        np.full(len(items), np.nan),
        (unknown, unknown),
    )
