"""What calls in flight have set aside of a budget: the most that each may still cost.

A call that makes calls of its own, as that of a chain does, has an allowance: it sets
aside what each of them can cost as it comes to them, beyond what it began with.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from smart_engine.calls import Call, Failure, Result
from smart_engine.errors import BudgetExceededError
from smart_engine.money.budget import Budget, taken

__all__ = ["Allowance", "Reservations", "WorstCase", "refusal"]

WorstCase = Callable[[Call], float | None]
"""The most a call can cost, in USD; None where that shows only as it goes."""


class Allowance:
    """What one call may spend; it asks for more where it makes calls of its own.

    Args:
        purse: The budget.
        held: USD that are set aside for it.
        lock: Held while it changes; a call's own calls may start and end at once.

    Attributes:
        held: USD that are set aside for it by now.
        needed: The most that it has needed at once.

    Example:
        ```python
        from contextlib import nullcontext

        budget = Budget(1.0, nullcontext())
        one, other = (Allowance(budget, 0.0, nullcontext()) for _ in range(2))
        assert one.begin(0.75) is None
        assert "0.25 USD are left" in str(other.begin(0.75))
        one.end(0.75, paid=0.25)
        assert one.begin(0.5) is None
        assert one.held == one.needed == 0.75
        ```
    """

    def __init__(
        self, budget: Budget, held: float, lock: AbstractContextManager[Any]
    ) -> None:
        """Nothing is spent yet."""
        self._budget, self._lock = budget, lock
        self.held, self.needed = held, 0.0
        self._spent = self._running = 0.0
        self._refused: BudgetExceededError | None = None

    @property
    def gone(self) -> float:
        """USD that its own calls cost, at their most where nobody tells."""
        return self._spent + self._running

    def begin(self, most: float) -> BudgetExceededError | None:
        """Let a call of its own begin; return why it may not, if so.

        Where one was refused, none may begin any more: what comes of it is of no use.

        Args:
            most: USD that it can cost at most.
        """
        with self._lock:
            needed = self._spent + self._running + most
            short = needed - self.held
            if self._refused is None and short > 0:
                if self._budget.reserve(short):
                    self.held = needed
                else:
                    self._refused = self._budget.exceeded()
            if self._refused is None:
                self._running += most
                self.needed = max(self.needed, needed)
            return self._refused

    def end(self, most: float, paid: float) -> None:
        """Book what a call of its own cost that could have cost that much."""
        with self._lock:
            self._running -= most
            self._spent += paid


class Reservations:
    """The calls of one batch, or of one item, that are in flight within a budget.

    Args:
        purse: The budget.
        most: The most a call can cost.
        lock: Guards allowances.
    """

    def __init__(
        self, budget: Budget, most: WorstCase, lock: AbstractContextManager[Any]
    ) -> None:
        """Nothing is in flight."""
        self._budget, self._most, self._lock = budget, most, lock
        self._open: dict[Call, Allowance] = {}

    def __bool__(self) -> bool:
        """Whether anything is in flight."""
        return bool(self._open)

    def begin(self, call: Call) -> bool:
        """Set aside the most a call can cost; False if that does not fit.

        Where nobody can tell, it is the most that one like it has needed; until that is
        known, one alone begins with nothing, and finds out.
        """
        most = self._most(call)
        if most is None:
            most = self._budget.needs.get(call.tier)
        if most is None:
            if any(other.tier == call.tier for other in self._open):
                return False
            most = 0.0
        if not self._budget.reserve(most):
            return False
        self._open[call] = Allowance(self._budget, most, self._lock)
        return True

    def end(self, call: Call, brought: Result) -> None:
        """Book what a call cost; the rest of what was set aside is free again."""
        allowance = self._open.pop(call)
        gone = allowance.gone if allowance.needed else taken(brought, allowance.held)
        paid = max(brought.paid, gone)
        self._budget.settle(allowance.held, paid)
        needs = self._budget.needs
        needs[call.tier] = max(needs.get(call.tier, 0.0), allowance.needed, paid)

    def end_all(self) -> None:
        """Let go of all calls; none of them is made, or will be recorded."""
        for allowance in self._open.values():
            self._budget.settle(allowance.held, 0.0)
        self._open.clear()

    def allowance(self, call: Call) -> Allowance:
        """Return what a call in flight may spend."""
        return self._open[call]

    def exceeded(self) -> BudgetExceededError:
        """Return the error that says that nothing more fits."""
        return self._budget.exceeded()


def refusal(brought: Result) -> BudgetExceededError | None:
    """Return why a call could not be finished, if it is for the budget's end."""
    error = brought.error if isinstance(brought, Failure) else None
    return error if isinstance(error, BudgetExceededError) else None
