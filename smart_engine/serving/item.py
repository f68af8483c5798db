"""A single item between its arrival and its answer: calls, answers and costs.

The runtime makes the calls, with threads or with tasks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from smart_engine.calls import Call, Outcome, Result
from smart_engine.equivalence import Equivalence
from smart_engine.errors import ProtocolError
from smart_engine.money.reservations import Allowance, Reservations
from smart_engine.money.spending import record_rule_calls
from smart_engine.serving.books import Books
from smart_engine.serving.router import Router

__all__ = ["SingleItem"]


class SingleItem:
    """One item that is being answered.

    Args:
        router: Decides which models are asked, and whose answer is handed out.
        books: Where each call is entered.
        reference: Name of the reference: wherever it is asked, it answers.
        task: The item's task.
        reservations: What its calls reserve, if there is a budget.
        rule: How its answers are compared, if not by its stream's own rule.

    Attributes:
        task: The item's task.
        answers: Model → its answer, of those that gave one.
        mark: What the answer's metadata say: which model answered, why, at what
            cost. `estimated` is there only where some cost is.

    Example:
        ```python
        from contextlib import nullcontext

        from smart_engine.serving.books import Books
        from smart_engine.serving.router import FixedRouter

        books = Books(nullcontext, ["big"])
        item = SingleItem(FixedRouter("big", "named"), books, "big", "a task")
        item.arrive(shown=False)
        while calls := item.next_calls():
            for call in calls:
                item.record(call, Outcome("yes", cost=0.01))
        assert item.settle() == "yes"
        assert item.mark["cost"] == 0.01
        ```
    """

    def __init__(
        self,
        router: Router,
        books: Books,
        reference: str,
        task: str,
        reservations: Reservations | None = None,
        rule: Equivalence | None = None,
    ) -> None:
        self._router, self._reference, self._rule = router, reference, rule
        self._reservations = reservations
        self._scope, self._row = books.item(reference, task)
        self._lock = books.new_lock()
        self._number: int | None = None  # the router's, once the item has arrived
        self._cost = self._estimated = 0.0
        self.task = task
        self.answers: dict[str, Any] = {}
        self.mark: dict[str, Any] = {}

    @property
    def cost(self) -> float:
        """USD that it has cost so far."""
        return self._cost

    @property
    def waits(self) -> bool:
        """Whether a step may wait for a database or a judge."""
        return self._router.waits

    def arrive(self, *, shown: bool) -> None:
        """Let the item in; then it must be settled or abandoned, whatever happens.

        Args:
            shown: Whether its answer will be shown while it is being written.
        """
        self._number = self._router.arrive(shown=shown, rule=self._rule)

    def must_finish(self) -> bool:
        """Whether its calls have to be made to their end, for they decide an audit."""
        return self._number is not None and self._router.must_finish(self._number)

    def abandon(self, *, shown: bool = False) -> None:
        """Close the item, unless it did not arrive, or is closed already.

        Args:
            shown: Whether a piece of its answer was shown.
        """
        if self._number is not None:
            with suppress(ProtocolError):
                self._router.abandon(self._number, shown=shown)

    def next_calls(self) -> list[Call]:
        """Return the calls that may start now; none: the answer can be handed out."""
        return self._router.next_calls(self._open)

    def live(self, calls: Sequence[Call]) -> Call | None:
        """Return the call whose answer is handed out if it succeeds, if any is."""
        wanted = {self._reference, self._router.serving(self._open)}
        return next((call for call in calls if call.tier in wanted), None)

    def record(self, call: Call, result: Result) -> None:
        """Record the result of a call."""
        if isinstance(result, Outcome):
            self.answers[call.tier] = result.answer
        unusable = None
        with self._lock, self._rule_calls():
            try:
                unusable = self._router.record(call, result)
            finally:
                self._pay(result)
                self._scope.record_call(self._row, call.tier, result, unusable)

    def record_inner_call(self, model: str, result: Result) -> None:
        """Enter a model's call within the call of a chain."""
        self._scope.record_inner_call(self._row, model, result)

    def allowance(self, model: str) -> Allowance | None:
        """Return what a model's call in flight may spend, if there is a budget."""
        if self._reservations is None:
            return None
        return self._reservations.allowance(Call(self._open, model))

    def settle(self) -> Any:
        """Return the answer.

        Raises:
            BaseException: The reference's error, where there is no answer.
        """
        with self._rule_calls():
            settled = self._router.settle(self._open)
        if settled.error is not None:
            raise settled.error
        reference = settled.reference_cost
        self.mark = {
            "model": settled.model,
            "task": self.task,
            "role": settled.role,
            "cost": self._cost,
            "saved": 0.0 if reference is None else reference - self._cost,
            "certificate": None,
        }
        if self._estimated:
            self.mark["estimated"] = self._estimated
        return self.answers[settled.model]

    @property
    def _open(self) -> int:
        """The router's number of the item.

        Raises:
            ProtocolError: If it has not arrived.
        """
        if self._number is None:
            raise ProtocolError("the item has not arrived: call arrive() first")
        return self._number

    @contextmanager
    def _rule_calls(self) -> Iterator[None]:
        """Enter the calls that the rule makes in the block."""
        with record_rule_calls() as made:
            try:
                yield
            finally:
                if made:
                    for _, result in made:
                        self._pay(result)
                    self._scope.record_judge_calls(self._row, made)

    def _pay(self, result: Result) -> None:
        self._cost += result.total
        self._estimated += result.estimated
