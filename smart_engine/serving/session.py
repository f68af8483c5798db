"""What runs a session needs of it, and a wrapper that passes that and its results on.

A concern is added to a session by a wrapper that changes some steps, never by a
subclass of the session: `ResumedSession(BudgetedSession(RepeatedSession(…)))`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from smart_engine.batch.certificate import Certificate
from smart_engine.batch.progress import Progress
from smart_engine.batch.session import BatchSession
from smart_engine.calls import Call, Failure, Outcome, Served
from smart_engine.money.spending import Spend

__all__ = ["AnySession", "Session", "SessionWrapper"]


class Session(Protocol):
    """Anything that says which calls to make, and records their outcomes."""

    @property
    def waits(self) -> bool:
        """Whether its steps may wait, as for a judge or a database."""
        ...

    def next_calls(self) -> list[Call]:
        """Return the calls that may start now."""
        ...

    def keep(self, call: Call, outcome: Outcome | Failure) -> None:
        """Store an outcome that has just arrived, if the session stores any."""
        ...

    def record(self, call: Call, outcome: Outcome | Failure) -> BaseException | None:
        """Record an outcome; return why its answer cannot be used, if so."""
        ...


class SessionWrapper:
    """A session around another one; a subclass changes some of its steps.

    Args:
        session: The session.
    """

    def __init__(self, session: AnySession) -> None:
        self._session: AnySession = session

    @property
    def waits(self) -> bool:
        """Whether its steps may wait."""
        return self._session.waits

    def next_calls(self) -> list[Call]:
        """Return the calls that may start now."""
        return self._session.next_calls()

    def keep(self, call: Call, outcome: Outcome | Failure) -> None:
        """Store an outcome that has just arrived."""
        self._session.keep(call, outcome)

    def record(self, call: Call, outcome: Outcome | Failure) -> BaseException | None:
        """Record an outcome; return why its answer cannot be used, if so."""
        return self._session.record(call, outcome)

    def stop(
        self, unmade: Iterable[Call], why: BaseException, *, strict: bool = False
    ) -> None:
        """End the session here; see `BatchSession.stop`."""
        self._session.stop(unmade, why, strict=strict)

    @property
    def unfinished(self) -> list[int]:
        """Items for which the reference's call went beyond a budget."""
        return self._session.unfinished

    @property
    def done(self) -> bool:
        """Whether every item has its answer."""
        return self._session.done

    def progress(self) -> Progress:
        """Where the batch stands, what was bought in earlier runs included."""
        return self._session.progress()

    @property
    def answers(self) -> list[Served]:
        """The answer handed out for each item."""
        return self._session.answers

    def bought(self, item: int) -> list[tuple[str, Any]]:
        """Return every answer bought for an item, with the name of its model."""
        return self._session.bought(item)

    @property
    def spend(self) -> dict[str, Spend]:
        """What each model was asked and what it cost, in earlier runs, too."""
        return self._session.spend

    @property
    def certificate(self) -> Certificate:
        """What was promised, what was seen, and what follows."""
        return self._session.certificate


AnySession = BatchSession | SessionWrapper
"""A batch's session, whatever is wrapped around it."""
