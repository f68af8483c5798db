"""What goes into a session and comes out: calls, their results, answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from smart_engine.errors import InvalidInputError, OversizedError
from smart_engine.money.pricing import Usage

__all__ = [
    "ROLES",
    "Call",
    "Failure",
    "HandedOut",
    "Outcome",
    "Result",
    "Role",
    "Served",
    "Timing",
    "check_outcome",
]

Role = Literal["profiled", "applied", "escalated", "reference", "uncertified"]
"""Why a model answered an item.

`profiled`: the reference was paid in order to learn; `applied`: the chosen model
answered; `escalated`: a candidate was asked, but failed or was not trusted here, so the
reference answered; `reference`: in a stream, no candidate was asked at all;
`uncertified`: the guarantee does not cover this answer, since the budget ended first.
"""


ROLES: tuple[Role, ...] = get_args(Role)


class Call(NamedTuple):
    """One call to make.

    Attributes:
        item: Index of the item in the batch or stream, from 0.
        tier: Name of the model to ask.
    """

    item: int
    tier: str


class Timing(NamedTuple):
    """When a call was made, by the clock of its caller.

    Attributes:
        began: When it began, in seconds since 1970, UTC.
        seconds: How long it took until its answer was complete or it failed.
    """

    began: float
    seconds: float


class Outcome(NamedTuple):
    """The result of a call that succeeded.

    Attributes:
        answer: The model's answer, of any type that the session's equivalence reads.
        cost: What the call cost, in USD.
        usage: Tokens it used, for the ledger.
        confidence: The model's own score of this answer, 0 to 1, where known.
        cached: The answer came from a cache, or from another item that asks the same:
            nothing is paid, and `cost` is what it would have cost, so that a plan does
            not take the model for free.
        restored: The answer was bought in an earlier run and read from a store.
        timing: When the call was made, where known.
        unknown: As for a `Failure`: of a chain, within which a call failed.
        earlier: The attempts at the call that failed before this one, in their order.
    """

    answer: Any
    cost: float
    usage: Usage | None = None
    confidence: float | None = None
    cached: bool = False
    restored: bool = False
    timing: Timing | None = None
    unknown: float | None = None
    earlier: tuple[Failure, ...] = ()

    @property
    def paid(self) -> float:
        """What was paid for it, in USD, or at most; without earlier attempts."""
        return (0.0 if self.cached else self.cost) + (self.unknown or 0.0)

    @property
    def total(self) -> float:
        """What was paid for it and all earlier attempts, in USD."""
        return self.paid + sum(attempt.paid for attempt in self.earlier)

    @property
    def estimated(self) -> float:
        """What of that rests on an estimated usage, in USD."""
        estimated = self.usage is not None and self.usage.estimated
        return self.cost if estimated and not self.cached else 0.0


class Failure(NamedTuple):
    """The result of a call that has no usable answer.

    Attributes:
        error: What went wrong.
        cost: What was billed all the same, in USD, as far as the provider told.
        usage: Tokens billed all the same, for the ledger.
        timing: When the call was made; None where it was not, or that is unknown.
        unknown: The most that was billed, in USD, where the provider did not tell and
            nothing shows that it was not; 0 where nothing bounds it. None where the
            cost is known.
        earlier: The attempts at the call that failed before this one, in their order.

    Example:
        ```python
        reset = Failure(ConnectionError("reset"), unknown=0.25)
        outcome = Outcome("yes", cost=0.5, earlier=(reset, reset))
        assert outcome.paid == 0.5
        assert outcome.total == 1.0
        ```
    """

    error: BaseException
    cost: float = 0.0
    usage: Usage | None = None
    timing: Timing | None = None
    unknown: float | None = None
    earlier: tuple[Failure, ...] = ()

    @property
    def paid(self) -> float:
        """What was paid for it, in USD, or at most; without earlier attempts."""
        return self.cost + (self.unknown or 0.0)

    @property
    def total(self) -> float:
        """What was paid for it and all earlier attempts, in USD."""
        return self.paid + sum(attempt.paid for attempt in self.earlier)

    @property
    def sat_out(self) -> bool:
        """Whether a candidate was not asked at all, for the item does not fit in."""
        return isinstance(self.error, OversizedError)

    @property
    def estimated(self) -> float:
        """What of that rests on an estimated usage, in USD."""
        return self.cost if self.usage is not None and self.usage.estimated else 0.0


Result = Outcome | Failure
"""The result of a call."""


class Served(NamedTuple):
    """The answer handed out for one item.

    Attributes:
        item: Index of the item in the batch or stream.
        tier: Name of the model whose answer it is.
        role: Why that model answered.
        answer: The recorded answer, or None where `error` is set.
        cost: All that was spent on this item, in USD, every model included.
        error: Set where there is no answer, since the reference itself failed.
        estimated: What of the cost rests on an estimated usage, in USD.
    """

    item: int
    tier: str
    role: Role
    answer: Any
    cost: float
    error: BaseException | None = None
    estimated: float = 0.0


class HandedOut(NamedTuple):
    """Who answered which item, as tables; see `Served` for single items.

    Attributes:
        names: Names of the models, the reference first.
        models: Per item, the index of the model whose answer is handed out; below 0
            where none is.
        roles: Per item, the index of its role in `ROLES`.
        costs: Per item, all that was spent on it, in USD.
        estimated: Per item, what of that rests on an estimated usage.
        errors: Item → why it has no answer.
    """

    names: Sequence[str]
    models: NDArray[np.int16]
    roles: NDArray[np.uint8]
    costs: NDArray[np.float64]
    estimated: NDArray[np.float64]
    errors: Mapping[int, BaseException]

    def served(self, answer: Callable[[int, int], Any]) -> Iterator[Served]:
        """Yield what is handed out for each item.

        Args:
            answer: Returns the answer of a model, by its index, to an item.
        """
        columns = (self.models, self.roles, self.costs, self.estimated)
        for item, (model, role, cost, estimated) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True)
        ):
            yield Served(
                item,
                self.names[max(model, 0)],
                ROLES[role],
                None if model < 0 else answer(model, item),
                cost,
                self.errors.get(item),
                estimated,
            )


def check_outcome(outcome: Result) -> None:
    """Raise unless the figures of an outcome can be entered in a ledger.

    Raises:
        InvalidInputError: If the cost is not a number of zero or more, or the
            confidence no number; nan counts as an unknown confidence.
    """
    cost = outcome.cost
    number = isinstance(cost, int | float | np.number) and not isinstance(cost, bool)
    if not (number and 0 <= cost < float("inf")):
        hint = "the cost of a call in USD is zero or more"
        raise InvalidInputError("cost", cost, hint)
    if isinstance(outcome, Outcome) and outcome.confidence is not None:
        confidence = outcome.confidence
        if not isinstance(confidence, int | float | np.number):
            hint = "a model's score of its answer is a number; leave it out if unknown"
            raise InvalidInputError("confidence", confidence, hint)
