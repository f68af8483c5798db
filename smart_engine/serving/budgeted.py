"""Sessions and deciders that keep to a budget.

Where the next call does not fit into what is left, nothing is asked any more. What had
been bought is handed out, marked `uncertified`, or, if the user is strict, is an error:
the guarantee covers neither.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from smart_engine.batch.session import BatchSession
from smart_engine.calls import Call, Failure, Outcome
from smart_engine.errors import BudgetExceededError
from smart_engine.money.reservations import Allowance, Reservations, refusal
from smart_engine.serving.router import Router, Settled

__all__ = ["BudgetedRouter", "BudgetedSession"]


class BudgetedSession(BatchSession):
    """A batch session that keeps to a budget.

    Calls that do not fit wait for those in flight to give back what they did not cost.
    If nothing is in flight and the next call still does not fit, the session ends, as
    it does once a call that was under way could not be finished.

    Args:
        *args: As for `BatchSession`.
        reserved: What its calls set aside.
        strict: Whether items that the guarantee does not cover are errors.
        **kwargs: As for `BatchSession`.
    """

    def __init__(
        self, *args: Any, reserved: Reservations, strict: bool, **kwargs: Any
    ) -> None:
        """Nothing is reserved yet."""
        super().__init__(*args, **kwargs)
        self._reserved, self._strict = reserved, strict
        self._waiting: deque[Call] = deque()
        self._refused: BudgetExceededError | None = None

    def next_calls(self) -> list[Call]:
        """Return the calls that may start now and fit into the budget."""
        self._waiting.extend(super().next_calls())
        ready = []
        while self._waiting and self._refused is None:
            if not self._reserved.begin(self._waiting[0]):
                break
            ready.append(self._waiting.popleft())
        refused = self._refused and self._stopped is None and self._unfinished()
        if (self._waiting or refused) and not self._reserved:
            why = self._refused or self._reserved.exceeded()
            self.stop(self._waiting, why, strict=self._strict)
            self._waiting.clear()
        return ready

    def record(self, call: Call, outcome: Outcome | Failure) -> BaseException | None:
        """Record what a call brought, and what it cost."""
        error = super().record(call, outcome)
        self._reserved.end(call, outcome)
        self._refused = self._refused or refusal(outcome)
        return error

    def allowance(self, call: Call) -> Allowance:
        """Return what a call in flight may spend."""
        return self._reserved.allowance(call)


class BudgetedRouter:
    """Decides on one item as another does, as far as the budget allows.

    Args:
        inner: Who decides.
        reserved: What the item's calls set aside.
        reference: Name of the reference, whose answer is right in any case.
        fallback: Model whose answer may be handed out where the budget forbids what
            was decided, marked `uncertified`; None if that is an error.
    """

    def __init__(
        self,
        inner: Router,
        reserved: Reservations,
        reference: str,
        fallback: str | None,
    ) -> None:
        """Nothing is reserved yet."""
        self._inner, self._reserved = inner, reserved
        self._reference, self._fallback = reference, fallback
        self._said: dict[str, Outcome | Failure] = {}
        self._refused: BudgetExceededError | None = None
        self._ended = False

    @property
    def waits(self) -> bool:
        """Whether steps may wait."""
        return self._inner.waits

    def arrive(self, *, shown: bool) -> int:
        """Let the item in."""
        return self._inner.arrive(shown=shown)

    def serving(self, item: int) -> str | None:
        """Name of the model whose answer is handed out if its call succeeds."""
        return self._fallback if self._ended else self._inner.serving(item)

    def next_calls(self, item: int) -> list[Call]:
        """Return the calls that may start now.

        Raises:
            BudgetExceededError: If they do not fit, and nothing else may be done.
        """
        if self._ended:
            return []
        calls = self._inner.next_calls(item)
        if self._refused is None and all(map(self._reserved.begin, calls)):
            return calls
        self._reserved.end_all()
        said = self._said.get(self._reference)
        if not calls and (said is None or refusal(said) is None):
            return []  # candidates could not finish: it can be settled without them
        error = self._refused or self._reserved.exceeded()
        self._inner.abandon(item)
        self._ended = True
        if isinstance(said, Outcome):
            self._fallback = self._reference
        if self._fallback is None:
            raise error
        if self._fallback in self._said:
            return []
        instead = Call(item, self._fallback)
        if not self._reserved.begin(instead):
            raise error
        return [instead]

    def record(self, call: Call, outcome: Outcome | Failure) -> BaseException | None:
        """Record what a call brought, and what it cost."""
        self._said[call.tier] = outcome
        self._reserved.end(call, outcome)
        if self._ended:
            return None
        self._refused = self._refused or refusal(outcome)
        return self._inner.record(call, outcome)

    def settle(self, item: int) -> Settled:
        """Hand out the answer."""
        if not self._ended or self._fallback is None:
            return self._inner.settle(item)
        said = self._said[self._fallback]
        error = said.error if isinstance(said, Failure) else None
        right = self._fallback == self._reference
        role = "reference" if right else "uncertified"
        return Settled(self._fallback, role, error, None)

    def abandon(self, item: int) -> None:
        """Close an item that nobody waits for any longer."""
        self._reserved.end_all()
        if not self._ended:
            self._inner.abandon(item)

    def allowance(self, call: Call) -> Allowance:
        """Return what a call in flight may spend."""
        return self._reserved.allowance(call)
