"""What goes in and out of a session: calls to make, outcomes to record, answers."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from smart_engine.pricing import Usage

__all__ = ["Call", "Failure", "Outcome", "Role", "Served"]

Role = Literal["profiled", "applied", "escalated"]
"""Why a model answered an item.

`profiled`: the reference was paid in order to learn; `applied`: the chosen model
answered; `escalated`: a candidate was asked, but failed or was not trusted here, so the
reference answered.
"""


class Call(NamedTuple):
    """One call the adapter has to make.

    Attributes:
        item: Index of the item in the batch, from 0.
        tier: Name of the model to ask.
    """

    item: int
    tier: str


class Outcome(NamedTuple):
    """What a call brought.

    Attributes:
        answer: Whatever the model said; the session's equivalence reads it.
        cost: What the call cost, in USD.
        usage: Tokens it used, for the ledger.
        confidence: The model's own score of this answer, 0 to 1, where known.
        cached: The answer came from a cache: nothing is paid, and `cost` is what it
            would have cost, for a plan must not take a model for free.
    """

    answer: Any
    cost: float
    usage: Usage | None = None
    confidence: float | None = None
    cached: bool = False

    @property
    def paid(self) -> float:
        """What was paid for it, in USD."""
        return 0.0 if self.cached else self.cost


class Failure(NamedTuple):
    """A call that brought no usable answer.

    Attributes:
        error: What went wrong.
        cost: What was billed all the same, in USD.
        usage: Tokens billed all the same, for the ledger.
    """

    error: BaseException
    cost: float = 0.0
    usage: Usage | None = None

    @property
    def paid(self) -> float:
        """What was paid for it, in USD."""
        return self.cost


class Served(NamedTuple):
    """The answer handed out for one item.

    Attributes:
        item: Index of the item in the batch.
        tier: Name of the model whose answer it is.
        role: Why that model answered.
        answer: The recorded answer, or None where `error` is set.
        cost: All that was spent on this item, in USD, every model included.
        error: Set where no answer could be had: the reference itself failed.
    """

    item: int
    tier: str
    role: Role
    answer: Any
    cost: float
    error: BaseException | None = None
