"""A budget that holds: no call starts whose worst case does not fit into what is left.

A call reserves the most it can cost before it starts, and gives back what it did not
cost when it ends. So calls in flight are counted, and what is spent never exceeds the
limit as long as no call costs more than it reserved. A call that may be billed though
nobody tells what it cost gives nothing back.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from smart_engine.calls import Failure, Result
from smart_engine.errors import BudgetExceededError, InvalidInputError

__all__ = ["Budget", "check_budget", "taken"]

_UNTOLD = {"MissingUsageError", "JSONDecodeError", "ReadError", "ReadTimeout"}
_UNTOLD |= {"RemoteProtocolError", "SocketTimeoutError", "ServerDisconnectedError"}
"""Errors of calls that were answered, or might have been, and tell no usage."""


class Budget:
    """Money that calls may spend.

    Args:
        limit: The budget in USD.
        lock: Held while the purse is open; calls may start and end at once.

    Attributes:
        limit: The budget in USD.
        needs: Model → USD that one of its calls has needed at most, so far.

    Example:
        ```python
        from contextlib import nullcontext

        budget = Budget(1.0, nullcontext())
        assert budget.reserve(0.75)
        assert not budget.reserve(0.75)  # the first may still cost that much
        budget.settle(reserved=0.75, paid=0.2)
        assert budget.reserve(0.75)
        ```
    """

    def __init__(self, limit: float, lock: AbstractContextManager[Any]) -> None:
        """Spend nothing yet."""
        self.limit = limit
        self.needs: dict[str, float] = {}
        self._lock = lock
        self._spent = self._reserved = 0.0

    @property
    def left(self) -> float:
        """USD neither spent nor reserved."""
        return self.limit - self._spent - self._reserved

    def reserve(self, most: float) -> bool:
        """Set aside the most a call can cost; False if that does not fit."""
        with self._open():
            # Sums of floats may miss the limit by a rounding error.
            if self._spent + self._reserved + most > self.limit * (1 + 1e-12):
                return False
            self._reserved += most
            return True

    def settle(self, reserved: float, paid: float) -> None:
        """Book what a call cost; the rest of what it reserved is free again."""
        with self._open():
            self._reserved -= reserved
            self._spent += paid

    @contextmanager
    def _open(self) -> Iterator[None]:
        """Hold the purse open."""
        with self._lock:
            yield

    def exceeded(self) -> BudgetExceededError:
        """Return the error that says so."""
        return BudgetExceededError(self.limit, max(0.0, self.left))


def taken(brought: Result, most: float) -> float:
    """Return what a call is taken to have cost: the most, if it was cut off untold.

    Args:
        brought: What it brought.
        most: The most it can have cost, in USD.

    Example:
        ```python
        assert taken(Failure(ValueError("refused")), 0.5) == 0
        assert taken(Failure(GeneratorExit()), 0.5) == 0.5
        assert taken(Failure(GeneratorExit(), cost=0.1), 0.5) == 0.1
        ```
    """
    if not isinstance(brought, Failure) or brought.usage is not None or brought.cost:
        return brought.paid
    error: BaseException | None = brought.error
    if not isinstance(error, Exception):  # broken off from outside
        return most
    while error is not None:
        if _UNTOLD & {kind.__name__ for kind in type(error).__mro__}:
            return most
        error = error.__cause__
    return 0.0


def check_budget(budget: float | None) -> None:
    """Raise unless a budget is a number of USD above zero, or none is set.

    Raises:
        InvalidInputError: It names the field.
    """
    number = isinstance(budget, int | float) and not isinstance(budget, bool)
    if budget is not None and not (number and 0 < budget <= sys.float_info.max):
        hint = "give the most that may be spent in USD, or leave it out for no limit"
        raise InvalidInputError("budget_usd", budget, hint)
