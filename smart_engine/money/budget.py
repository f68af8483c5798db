"""A budget that holds: no call starts whose worst case does not fit into what is left.

A call reserves its worst-case cost before it starts, and releases the unused rest when
it ends. So calls in flight are counted, and what is spent never exceeds the limit as
long as no call costs more than it reserved. A call that may be billed though its cost
is unknown releases nothing.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from smart_engine.errors import BudgetExceededError, InvalidInputError, StoreError
from smart_engine.money.limits import overrun
from smart_engine.row import StreamRow
from smart_engine.warn import warn

__all__ = ["Budget", "check_budget"]


class Budget:
    """Money that calls may spend: those of one process, or of all that share a row.

    What a killed process had reserved in a row stays reserved: its calls may have been
    made.

    Args:
        limit: The budget in USD.
        lock: Held at every change; calls may start and end at once.
        row: Where processes share what was spent and reserved, if they do.

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

    def __init__(
        self,
        limit: float,
        lock: AbstractContextManager[Any],
        row: StreamRow | None = None,
    ) -> None:
        self.limit = limit
        self.needs: dict[str, float] = {}
        self._lock, self._row = lock, row
        self._spent = self._reserved = 0.0
        self._unlimited: set[str] = set()

    @property
    def left(self) -> float:
        """USD neither spent nor reserved."""
        return self.limit - self._spent - self._reserved

    def reserve(self, worst_case: float) -> bool:
        """Reserve the worst-case cost of a call; False if that does not fit."""
        with self._locked():
            # Sums of floats may miss the limit by a rounding error.
            if self._spent + self._reserved + worst_case > self.limit * (1 + 1e-12):
                return False
            self._reserved += worst_case
            return True

    def settle(self, reserved: float, paid: float) -> None:
        """Book what a call cost, and release the rest of what it reserved.

        Where the row cannot be written, a warning says so, and all stays reserved.
        """
        try:
            with self._locked():
                self._reserved -= reserved
                self._spent += paid
        except StoreError as error:
            warn(f"the budget keeps what was set aside: {error}")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._lock:
            if self._row is None:
                yield
                return
            with self._row.locked(durable=True) as row:
                self._spent, self._reserved = _sums(row.text)
                yield
                # Sums of floats may miss zero by a rounding error.
                row.text = json.dumps([self._spent, max(0.0, self._reserved)])

    def compare(self, model: str, paid: float, worst_case: float) -> None:
        """Warn, once a model, where a call cost more than its worst case."""
        problem = overrun(model, paid, worst_case)
        if problem is not None and model not in self._unlimited:
            self._unlimited.add(model)
            warn(problem)

    def exceeded(self) -> BudgetExceededError:
        """Return the error that says that nothing more fits."""
        return BudgetExceededError(self.limit, max(0.0, self.left))


def check_budget(budget: float | None) -> None:
    """Raise unless a budget is a number of USD above zero, or none is set.

    Raises:
        InvalidInputError: It names the field.
    """
    number = isinstance(budget, int | float) and not isinstance(budget, bool)
    if budget is not None and not (number and 0 < budget <= sys.float_info.max):
        hint = "give the most that may be spent in USD, or leave it out for no limit"
        raise InvalidInputError("budget_usd", budget, hint)


def _sums(text: str) -> tuple[float, float]:
    """Return what was spent and what is reserved, by the text of a row."""
    try:
        spent, reserved = map(float, json.loads(text or "[0, 0]"))
    except (TypeError, ValueError, OverflowError, RecursionError):
        spent = reserved = math.nan
    if not (0 <= spent < math.inf and 0 <= reserved < math.inf):
        hint = "it is damaged or was written by another version; use another one"
        raise StoreError(f"a budget in the store cannot be read: {hint}")
    return spent, reserved
