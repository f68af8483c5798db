"""Sessions and routers within a budget.

Where the next call does not fit into what is left, nothing more is asked. What had been
bought is handed out, marked `uncertified`, or, if the user is strict, is an error: the
guarantee covers neither. A batch that cannot pay a single call of its reference asks
nothing at all: no answer of a candidate would be covered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice

from smart_engine.bulk import Calls, Outcomes
from smart_engine.calls import Call, Failure, Outcome
from smart_engine.equivalence import Equivalence
from smart_engine.errors import BudgetExceededError, StoreError
from smart_engine.money.reservations import Reservations, refusal
from smart_engine.serving.router import Router, Settled
from smart_engine.serving.session import AnySession, SessionWrapper

__all__ = ["BudgetedRouter", "BudgetedSession"]


class BudgetedSession(SessionWrapper):
    """A batch session within a budget.

    Calls that do not fit wait for those in flight to release what they did not cost.
    If nothing is in flight and the next call still does not fit, the session ends, as
    it does once a call that was under way could not be finished.

    Args:
        session: The session.
        reservations: What its calls reserve.
        strict: Whether items that the guarantee does not cover are errors.
        needed: Calls of which the guarantee needs one at least, whichever: where none
            fits, no call is made. None where it may need none.
    """

    def __init__(
        self,
        session: AnySession,
        reservations: Reservations,
        *,
        strict: bool,
        needed: Iterable[Call] | None = None,
    ) -> None:
        super().__init__(session)
        self._reservations, self._strict = reservations, strict
        self._needed = needed
        self._waiting: deque[Call] = deque()
        self._refused: BudgetExceededError | None = None
        self._stopped = False

    def next_calls(self) -> list[Call]:
        """Return the calls that may start now and fit into the budget."""
        self._waiting.extend(self._session.next_calls())
        return self._begin(None)

    def next_block(self, most: int | None = None) -> Calls:
        """Return them as columns, of a session that does so, too."""
        lacking = most and max(0, most - len(self._waiting))
        more = self._session.next_block(lacking)  # type: ignore[union-attr]
        self._waiting.extend(more)
        return Calls.of(more.names, self._begin(most))

    def _begin(self, most: int | None) -> list[Call]:
        """Return those of the calls that wait that may begin, so many at most."""
        if self._needed is not None and self._waiting:
            if not any(map(self._reservations.fits, self._needed)):
                self._refused = self._reservations.budget.exceeded()
            self._needed = None
        waiting = list(islice(self._waiting, most))
        ready: list[Call] = []
        for call in waiting if self._refused is None else ():
            if not self._reservations.begin(call):
                break
            ready.append(self._waiting.popleft())
        unfinished = self._refused and not self._stopped and self._session.unfinished
        if (self._waiting or unfinished) and not self._reservations.in_flight:
            why = self._refused or self._reservations.budget.exceeded()
            self._session.stop(self._waiting, why, strict=self._strict)
            self._waiting.clear()
            self._stopped = True
        return ready

    def record(self, call: Call, outcome: Outcome | Failure) -> BaseException | None:
        """Record an outcome, and book what it cost."""
        error = self._session.record(call, outcome)
        self._reservations.end(call, outcome.total)
        self._refused = self._refused or refusal(outcome)
        return error

    def record_all(self, outcomes: Outcomes) -> None:
        """Record results that brought an answer, and book what they cost."""
        self._session.record_all(outcomes)  # type: ignore[union-attr]
        items = outcomes.items.tolist()
        for item, paid in zip(items, outcomes.paid, strict=True):
            self._reservations.end(Call(item, outcomes.tier), paid)


class BudgetedRouter:
    """Decides on one item as another router does, as far as the budget allows.

    Args:
        inner: The other router.
        reservations: What the item's calls reserve.
        reference: Name of the reference.
        fallback: Model whose answer may be handed out where the budget forbids what
            was decided, marked `uncertified`; None if that is an error.
    """

    def __init__(
        self,
        inner: Router,
        reservations: Reservations,
        reference: str,
        fallback: str | None,
    ) -> None:
        self._inner, self.reservations = inner, reservations
        self._reference, self._fallback = reference, fallback
        self._outcomes: dict[str, Outcome | Failure] = {}
        self._refused: BudgetExceededError | None = None

    @property
    def waits(self) -> bool:
        """Whether steps may wait."""
        return self._inner.waits

    def arrive(self, *, shown: bool, rule: Equivalence | None = None) -> int:
        """Let the item in."""
        return self._inner.arrive(shown=shown, rule=rule)

    def serving(self, item: int) -> str | None:
        """Name of the model whose answer is handed out if its call succeeds."""
        return self._inner.serving(item)

    def next_calls(self, item: int) -> list[Call]:
        """Return the calls that may start now.

        Raises:
            BudgetExceededError: If they do not fit, and nothing else may be done.
        """
        calls = self._inner.next_calls(item)
        if self._refused is None and all(map(self.reservations.begin, calls)):
            return calls
        self.reservations.end_all()
        reference = self._outcomes.get(self._reference)
        if not calls and (reference is None or refusal(reference) is None):
            return []  # candidates could not finish: it can be settled without them
        error = self._refused or self.reservations.budget.exceeded()
        model, self._fallback, self._refused = self._fallback, None, None
        if model is None or isinstance(self._outcomes.get(model), Failure):
            raise error
        try:
            self._inner.fall_back(item, model)
        except StoreError as problem:
            raise error from problem
        return self.next_calls(item)

    def fall_back(self, item: int, model: str) -> None:
        """Let a candidate answer, whatever was decided."""
        self._inner.fall_back(item, model)

    def record(self, call: Call, outcome: Outcome | Failure) -> BaseException | None:
        """Record an outcome, and book what it cost."""
        self._outcomes[call.tier] = outcome
        self.reservations.end(call, outcome.total)
        self._refused = self._refused or refusal(outcome)
        return self._inner.record(call, outcome)

    def settle(self, item: int) -> Settled:
        """Hand out the answer."""
        return self._inner.settle(item)

    def must_finish(self, item: int) -> bool:
        """Whether its calls have to be made to their end, for they decide an audit."""
        return self._inner.must_finish(item)

    def abandon(self, item: int, *, shown: bool) -> None:
        """Close an item whose answer is no longer wanted, or was shown in part."""
        self.reservations.end_all()
        self._inner.abandon(item, shown=shown)
