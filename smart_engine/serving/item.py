"""One single item between its arrival and its answer: what was asked, said and paid.

The adapter makes the calls, with threads or with tasks; all else is here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from smart_engine.calls import Call, Failure, Outcome, Result
from smart_engine.errors import ProtocolError
from smart_engine.money.reservations import Allowance
from smart_engine.money.spending import record_rule_calls
from smart_engine.serving.books import Books
from smart_engine.serving.router import Router

__all__ = ["SingleItem"]


class SingleItem:
    """One answer in the making.

    Args:
        decider: Says who is asked, and whose answer is handed out.
        books: Where each call is entered.
        reference: Name of the reference: wherever it is asked, it answers.
        task: The item's task.

    Attributes:
        task: The item's task.
        said: Model → its answer, of those that gave one.

    Example:
        ```python
        from contextlib import nullcontext

        from smart_engine.serving.books import Books
        from smart_engine.serving.router import FixedRouter

        books = Books(nullcontext, ["big"])
        item = SingleItem(FixedRouter("big", "named"), books, "big", "a task")
        with item.admitted(shown=False):
            while calls := item.next_calls():
                for call in calls:
                    item.record(call, Outcome("yes", cost=0.01))
            assert item.settle() == "yes"
        assert item.told["cost"] == 0.01
        ```
    """

    def __init__(self, router: Router, books: Books, reference: str, task: str) -> None:
        """Nobody was asked yet."""
        self._router, self._reference = router, reference
        self._scope, self._place = books.item(reference, task)
        self.task = task
        self.said: dict[str, Any] = {}
        self._cost = self._estimated = 0.0
        self._number = -1
        self._arrived = False
        self._told: dict[str, Any] = {}
        self._lock = books.new_lock()

    @property
    def waits(self) -> bool:
        """Whether its steps may wait, as no step in an event loop may."""
        return self._router.waits

    @contextmanager
    def admitted(self, *, shown: bool) -> Iterator[None]:
        """Let the item in; see that it is closed whatever happens.

        Args:
            shown: Whether its answer will be shown while it is being written.
        """
        try:
            self.arrive(shown=shown)
            yield
        except BaseException:
            self.abandon()
            raise

    def arrive(self, *, shown: bool) -> None:
        """Let the item in; whoever does so closes it, whatever happens: see `admitted`.

        Args:
            shown: Whether its answer will be shown while it is being written.
        """
        self._number = self._router.arrive(shown=shown)
        self._arrived = True

    def abandon(self) -> None:
        """Close the item, unless it did not arrive, or is closed already."""
        if self._arrived:
            with suppress(ProtocolError):
                self._router.abandon(self._number)

    def next_calls(self) -> list[Call]:
        """Return the calls that may start now; none: the answer can be handed out."""
        with self._judging():
            return self._router.next_calls(self._number)

    def live(self, calls: Sequence[Call]) -> Call | None:
        """Return the call whose answer is handed out if it succeeds, if any is."""
        wanted = {self._reference, self._router.serving(self._number)}
        return next((call for call in calls if call.tier in wanted), None)

    def record(self, call: Call, outcome: Outcome | Failure) -> None:
        """Enter a call in the books, and tell who decides; one after the other."""
        if isinstance(outcome, Outcome):
            self.said[call.tier] = outcome.answer
        unread = None
        with self._lock, self._judging():
            try:
                unread = self._router.record(call, outcome)
            finally:
                self._paid(outcome)
                self._scope.record_call(self._place, call.tier, outcome, unread)

    def repeated(self, name: str, failure: Failure) -> None:
        """Enter a call that has failed and is made again."""
        with self._lock:
            self._paid(failure)
        self._scope.record_call(self._place, name, failure)

    def allowance(self, model: str) -> Allowance | None:
        """Return what a model's call in flight may spend, if there is a budget."""
        reservations = self._router.reservations
        if reservations is None:
            return None
        return reservations.allowance(Call(self._number, model))

    def inside(self, model: str, brought: Result) -> None:
        """Enter a model's call within the call of a chain."""
        self._scope.record_inner_call(self._place, model, brought)

    def settle(self) -> Any:
        """Hand out the answer; raise if there is none."""
        with self._judging():
            settled = self._router.settle(self._number)
        if settled.error is not None:
            raise settled.error
        reference = settled.reference_cost
        self._told = {
            "model": settled.model,
            "task": self.task,
            "role": settled.role,
            "cost": self._cost,
            "saved": 0.0 if reference is None else reference - self._cost,
            "certificate": None,
        }
        if self._estimated:
            self._told["estimated"] = self._estimated
        return self.said[settled.model]

    @contextmanager
    def _judging(self) -> Iterator[None]:
        """Enter the calls that the rule makes meanwhile."""
        with record_rule_calls() as bought:
            try:
                yield
            finally:
                for _, brought in bought:
                    self._paid(brought)
                self._scope.record_judge_calls(self._place, bought)

    def _paid(self, brought: Result) -> None:
        """Add what a call cost to what the item did."""
        self._cost += brought.paid
        self._estimated += brought.estimated

    @property
    def told(self) -> dict[str, Any]:
        """What the user is told of a settled item: who answered, why, at what cost.

        What of the cost is `estimated` is told only where something is.
        """
        return dict(self._told)
