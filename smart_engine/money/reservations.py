"""What calls in flight reserve of a budget: the worst case of each.

A call that makes calls of its own, as that of a chain does, has an allowance: it
reserves the worst case of each of them as it comes to them, beyond what it began with.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from smart_engine.calls import Call, Failure, Result
from smart_engine.errors import BudgetExceededError
from smart_engine.money.budget import Budget

__all__ = ["Allowance", "Reservations", "WorstCase", "refusal"]

WorstCase = Callable[[Call], float | None]
"""The most a call can cost, in USD; None where that shows only as it goes."""


class Allowance:
    """What one call may spend; it reserves more where it makes calls of its own.

    Args:
        budget: The budget.
        reserved: USD that are reserved for it.
        lock: Held at every change; a call's own calls may start and end at once.
        bounded: Whether that was known to be the most that it can cost.

    Attributes:
        bounded: As given.
        reserved: USD that are reserved for it by now.
        needed: The most that it has needed at once.

    Example:
        ```python
        from contextlib import nullcontext

        budget = Budget(1.0, nullcontext())
        one, other = (Allowance(budget, 0.0, nullcontext()) for _ in range(2))
        assert one.begin(0.75) is None
        assert "0.25 USD are left" in str(other.begin(0.75))
        one.end("big", 0.75, paid=0.25)
        assert one.begin(0.5) is None
        assert one.reserved == one.needed == 0.75
        ```
    """

    def __init__(
        self,
        budget: Budget,
        reserved: float,
        lock: AbstractContextManager[Any],
        *,
        bounded: bool = False,
    ) -> None:
        self._budget, self._lock, self.bounded = budget, lock, bounded
        self.reserved, self.needed = reserved, 0.0
        self._spent = self._running = 0.0
        self._refused: BudgetExceededError | None = None

    @property
    def spent(self) -> float:
        """USD that its own calls cost; those in flight at their worst case."""
        return self._spent + self._running

    def begin(self, worst_case: float) -> BudgetExceededError | None:
        """Let a call of its own begin; return why it may not, if so.

        Once one was refused, none may begin: the call's answer is of no use then.
        """
        with self._lock:
            needed = self.spent + worst_case
            short = needed - self.reserved
            if self._refused is None and short > 0:
                if self._budget.reserve(short):
                    self.reserved = needed
                else:
                    self._refused = self._budget.exceeded()
            if self._refused is None:
                self._running += worst_case
                self.needed = max(self.needed, needed)
            return self._refused

    def end(self, model: str, worst_case: float, paid: float) -> None:
        """Book what a call of its own cost that began with that worst case."""
        self._budget.compare(model, paid, worst_case)
        with self._lock:
            self._running -= worst_case
            self._spent += paid

    def repeat(self, paid: float) -> bool:
        """Let the call be made again after an attempt that cost so much; if it fits."""
        with self._lock:
            if not self._budget.reserve(paid):
                return False
            self.reserved += paid
            return True


class Reservations:
    """The calls of one batch, or of one item, that are in flight within a budget.

    Args:
        budget: The budget.
        worst_case: Returns the most a call can cost.
        lock: Guards allowances.

    Attributes:
        budget: The budget.
    """

    def __init__(
        self, budget: Budget, worst_case: WorstCase, lock: AbstractContextManager[Any]
    ) -> None:
        self.budget, self._worst_case, self._lock = budget, worst_case, lock
        self._allowances: dict[Call, Allowance] = {}

    @property
    def in_flight(self) -> int:
        """Number of calls in flight."""
        return len(self._allowances)

    def begin(self, call: Call) -> bool:
        """Reserve the worst-case cost of a call; False if that does not fit.

        Where it is unknown, it is the most that one like it has needed; until that is
        known, one alone begins with nothing, and finds out.
        """
        worst_case = self._worst_case(call)
        bounded = worst_case is not None
        if worst_case is None:
            worst_case = self.budget.needs.get(call.tier)
        if worst_case is None:
            if any(other.tier == call.tier for other in self._allowances):
                return False
            worst_case = 0.0
        if not self.budget.reserve(worst_case):
            return False
        allowance = Allowance(self.budget, worst_case, self._lock, bounded=bounded)
        self._allowances[call] = allowance
        return True

    def fits(self, call: Call) -> bool:
        """Whether a call's worst-case cost fits now, as far as it is known."""
        worst_case = self._worst_case(call) or 0.0
        if not self.budget.reserve(worst_case):
            return False
        self.budget.settle(worst_case, 0.0)
        return True

    def end(self, call: Call, paid: float) -> None:
        """Book what a call cost, and release the rest of what was reserved for it."""
        allowance = self._allowances.pop(call)
        if allowance.bounded:
            self.budget.compare(call.tier, paid, allowance.reserved)
        self.budget.settle(allowance.reserved, paid)
        needs = self.budget.needs
        needs[call.tier] = max(needs.get(call.tier, 0.0), allowance.needed, paid)

    def repeat(self, call: Call) -> bool:
        """Reserve another attempt at a call, whose last one is charged at its most.

        Returns:
            False if that does not fit.
        """
        return self._allowances[call].repeat(self._worst_case(call) or 0.0)

    def end_all(self) -> None:
        """Release all; none of these calls is made, or will be recorded."""
        for allowance in self._allowances.values():
            self.budget.settle(allowance.reserved, 0.0)
        self._allowances.clear()

    def allowance(self, call: Call) -> Allowance:
        """Return what a call in flight may spend."""
        return self._allowances[call]


def refusal(result: Result) -> BudgetExceededError | None:
    """Return the budget's error if that is why a call could not be finished."""
    error = result.error if isinstance(result, Failure) else None
    return error if isinstance(error, BudgetExceededError) else None
