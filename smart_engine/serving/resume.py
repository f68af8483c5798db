"""A batch that goes on where it was cut off: what had been bought is not bought again.

A session's course depends on its seed and on what its calls bring, not on their order.
So a new session that is given the outcomes of an earlier one, call by call as it asks
for them, comes to where that one was, and ends as that one would have.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, Protocol

from smart_engine.batch.certificate import Certificate
from smart_engine.batch.progress import Progress
from smart_engine.batch.session import BatchSession
from smart_engine.calls import Call, Failure, Outcome, Served
from smart_engine.equivalence.verdicts import Verdict, verdict_memory
from smart_engine.errors import UnkeptAnswerError
from smart_engine.money.spending import Spend

__all__ = ["AnswerStore", "AnySession", "Resumed", "ResumedSession", "Session"]


class AnswerStore(Protocol):
    """Where the outcomes of one job are kept, and the verdicts bought for it."""

    def held(self) -> dict[Call, Outcome]:
        """Return what is kept."""
        ...

    def keep(self, call: Call, outcome: Outcome) -> None:
        """Keep what a call brought, for good once this returns, in whatever thread.

        Raises:
            UnkeptAnswerError: If that is not possible with this answer.
            StoreError: If it is not possible with any.
        """
        ...

    def said(self) -> dict[str, Verdict]:
        """Return the verdicts that are kept, by their keys."""
        ...

    def keep_said(self, key: str, said: Verdict) -> None:
        """Keep a verdict, for good once this returns.

        Raises:
            StoreError: If that is not possible.
        """
        ...


class Session(Protocol):
    """Anything that says which calls to make, and is told what they bring."""

    @property
    def waits(self) -> bool:
        """Whether its steps may wait, as for a judge or a database."""
        ...

    def next_calls(self) -> list[Call]:
        """Return the calls that may start now."""
        ...

    def keep(self, call: Call, outcome: Outcome | Failure) -> None:
        """Keep what a call has just brought, if anything is kept."""
        ...

    def record(self, call: Call, outcome: Outcome | Failure) -> BaseException | None:
        """Record what a call brought; return why no answer of it can be used, if so."""
        ...


class Resumed:
    """Buys nothing that is on a shelf, and puts there the rest, whatever it is for.

    Answers are kept before the session learns of them: as soon as they arrive, if
    whoever makes the calls says so with `keep`. Calls that failed are not kept: they
    are made again. Where the shelf fails, a warning is given once and the session goes
    on without it: what is bought is still handed out. Where one answer cannot be
    written, a warning is given, too, and all others are kept.

    Args:
        session: What asks for calls.
        shelf: What was bought for its job before.

    Attributes:
        shelf: The same.
    """

    waits = True  # for the shelf

    def __init__(self, session: Session, shelf: AnswerStore) -> None:
        """Look at the shelf once."""
        self._driven, self.shelf = session, shelf
        self._held = shelf.held()
        self._seen: set[Call] = set()
        self._problem: Exception | None = None
        self._unkept: Exception | None = None
        self._warned: set[str] = set()

    def next_calls(self) -> list[Call]:
        """Return the calls that have to be made now."""
        while calls := self._driven.next_calls():
            fresh = []
            for call in calls:
                outcome = self._held.pop(call, None)
                if outcome is None:
                    fresh.append(call)
                else:
                    self._driven.record(call, outcome._replace(restored=True))
            if fresh:
                return fresh
        return []

    def keep(self, call: Call, outcome: Outcome | Failure) -> None:
        """Keep what a call has just brought; `record` it later, in its turn.

        Whatever thread a call was made in may do so at once. It raises nothing: a shelf
        that fails costs no answer.
        """
        known = self._problem is not None or call in self._seen
        if known or not isinstance(outcome, Outcome):
            return
        try:
            self.shelf.keep(call, outcome)
        except UnkeptAnswerError as error:
            self._unkept = error
        except Exception as error:  # noqa: BLE001 - told when it is recorded
            self._problem = error
            return
        self._seen.add(call)

    def record(self, call: Call, outcome: Outcome | Failure) -> BaseException | None:
        """Record what a call brought, and keep it if that was not done yet."""
        self.keep(call, outcome)
        for what, problem in (
            ("cannot be resumed", self._problem),
            ("will buy some answers again if it is resumed", self._unkept),
        ):
            if problem is not None and what not in self._warned:
                self._warned.add(what)
                told = f"the batch goes on, but {what}: {problem}"
                warnings.warn(told, stacklevel=2)
        return self._driven.record(call, outcome)


class ResumedSession(Resumed):
    """A batch session that buys nothing that is on its shelf, and puts there the rest.

    What its rule buys in order to compare answers is put there, too.

    Args:
        session: A fresh session of the job.
        shelf: What was bought for the job before.

    Example:
        ```python
        class Memory(dict):
            def held(self):
                return dict(self)

            def keep(self, call, outcome):
                self[call] = outcome

            def said(self):
                return {}  # no rule here costs money


        from smart_engine.tiers import Tier

        shelf = Memory()
        for bought in (500, 0):  # the second time, everything is there
            tiers = [Tier("big", role="reference"), Tier("small")]
            session = ResumedSession(BatchSession(500, tiers), shelf)
            calls_made = 0
            while calls := session.next_calls():
                for call in calls:
                    session.record(call, Outcome("yes", cost=0.01))
                    calls_made += 1
            assert session.done
            assert (calls_made > 0) == (bought > 0)
        ```
    """

    def __init__(self, session: BatchSession, shelf: AnswerStore) -> None:
        """Look at the shelf once."""
        super().__init__(session, shelf)
        self._session = session
        self._said = shelf.said()

    def next_calls(self) -> list[Call]:
        """Return the calls that have to be made now."""
        with verdict_memory(self):
            return super().next_calls()

    def record(self, call: Call, outcome: Outcome | Failure) -> BaseException | None:
        """Record what a call brought, and keep it if that was not done yet."""
        with verdict_memory(self):
            return super().record(call, outcome)

    def recall(self, key: str) -> Verdict | None:
        """Return a verdict that was bought before; what it cost, but once."""
        said = self._said.get(key)
        if said is not None:
            self._said[key] = said._replace(calls=())
        return said

    def remember(self, key: str, said: Verdict) -> None:
        """Keep a verdict that was bought now; a shelf that fails costs no verdict."""
        self._said[key] = said._replace(calls=())
        if self._problem is None:
            try:
                self.shelf.keep_said(key, said)
            except Exception as error:  # noqa: BLE001 - told when a call is recorded
                self._problem = error

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

    def bought(self, item: int) -> Iterator[tuple[str, Any]]:
        """Yield every answer bought for an item, with the name of its model."""
        return self._session.bought(item)

    @property
    def spend(self) -> dict[str, Spend]:
        """What each model was asked and what it cost, in earlier runs, too."""
        return self._session.spend

    @property
    def certificate(self) -> Certificate:
        """What was promised, what was seen, and what follows."""
        return self._session.certificate


AnySession = BatchSession | ResumedSession
"""A batch session, whether it may go on where another was cut off or not."""
