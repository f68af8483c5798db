"""Many calls at once, and many results, as columns: for jobs of millions of items.

A call is two numbers here, and a result a few: nothing is made for each of them but
where somebody reads them one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from smart_engine.calls import Call
from smart_engine.errors import InvalidInputError

__all__ = ["Calls", "Outcomes"]


class Calls(Sequence[Call]):
    """Calls as columns; one by one, each is a `Call`.

    Args:
        names: Names of all models.
        items: Per call, its item.
        tiers: Per call, the index of its model among the names.

    Attributes:
        names: As given.
        items: As given.
        tiers: As given.

    Example:
        ```python
        calls = Calls.of(["big", "small"], [Call(7, "small"), Call(3, "big")])
        assert calls.items.tolist() == [7, 3]
        assert list(calls.in_order()) == [Call(3, "big"), Call(7, "small")]
        ```
    """

    def __init__(
        self,
        names: Sequence[str],
        items: NDArray[np.int64],
        tiers: NDArray[np.int16],
    ) -> None:
        self.names, self.items, self.tiers = names, items, tiers

    @classmethod
    def of(cls, names: Sequence[str], calls: Iterable[Call]) -> Calls:
        """Return single calls as columns."""
        given = list(calls)
        tiers = [names.index(call.tier) for call in given]
        items = [call.item for call in given]
        return cls(names, np.array(items, np.int64), np.array(tiers, np.int16))

    def __len__(self) -> int:
        """Return their number."""
        return len(self.items)

    def __iter__(self) -> Iterator[Call]:
        """Yield them one by one."""
        names = self.names
        for item, tier in zip(self.items.tolist(), self.tiers.tolist(), strict=True):
            yield Call(item, names[tier])

    @overload
    def __getitem__(self, place: int) -> Call: ...

    @overload
    def __getitem__(self, place: slice) -> Calls: ...

    def __getitem__(self, place: int | slice) -> Call | Calls:
        """Return one of them, or some."""
        if isinstance(place, slice):
            return Calls(self.names, self.items[place], self.tiers[place])
        return Call(int(self.items[place]), self.names[self.tiers[place]])

    def __add__(self, others: Calls) -> Calls:
        """Return these and others after them."""
        items = np.concatenate([self.items, others.items])
        return Calls(self.names, items, np.concatenate([self.tiers, others.tiers]))

    def where(self, chosen: NDArray[np.bool_]) -> Calls:
        """Return those of them that are chosen."""
        return Calls(self.names, self.items[chosen], self.tiers[chosen])

    def in_order(self) -> Calls:
        """Return them by item, and those of one item as the models stand."""
        order = np.lexsort((self.tiers, self.items))
        return Calls(self.names, self.items[order], self.tiers[order])


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """Results of calls of one model that brought an answer, and nothing odd.

    Nothing odd: no attempt failed before, no call was made within, all of the cost is
    known. Such results stand for themselves, as `Outcome`.

    Attributes:
        tier: Name of the model.
        items: Per call, its item.
        keys: Per call, the key of its answer; see `smart_engine.equivalence.keys`.
        costs: Per call, its cost in USD; see `Outcome`.
        tokens: Per kind of `TOKEN_KINDS`, the tokens of each call.
        confidences: Per call, the model's own score of its answer; nan where unknown.
        timings: Per call, when it began and how long it took; see `Timing`.
        cached: Whether all answers came from a cache.
        estimated: Whether all usages are estimated.
        restored: Whether all were bought in an earlier run.
    """

    tier: str
    items: NDArray[np.int64]
    keys: Sequence[bytes]
    costs: NDArray[np.float64]
    tokens: Sequence[list[float]]
    confidences: NDArray[np.float64]
    timings: tuple[Sequence[float | None], Sequence[float | None]]
    cached: bool = False
    estimated: bool = False
    restored: bool = False

    def __len__(self) -> int:
        """Return the number of calls."""
        return len(self.items)

    def check(self) -> None:
        """Raise unless all costs can be entered in a ledger.

        Raises:
            InvalidInputError: If one is not zero or more, or infinite.
        """
        fine = (self.costs >= 0) & (self.costs < np.inf)
        if not fine.all():
            hint = "the cost of a call in USD is zero or more"
            raise InvalidInputError("cost", float(self.costs[~fine][0]), hint)

    @property
    def guessed(self) -> bool:
        """Whether what was paid for them rests on an estimated usage."""
        return self.estimated and not self.cached

    @property
    def paid(self) -> Sequence[float]:
        """Per call, what was paid for it, in USD."""
        return [0.0] * len(self) if self.cached else self.costs.tolist()
