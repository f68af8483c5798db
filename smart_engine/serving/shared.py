"""Streams and tasks that threads share, and, over a stored row, all their processes.

Each step locks the row, goes on from where the others have come, and writes how it went
on: all of it or nothing. A step that cannot be written counts as that of a killed
process. A stream knows no more of its item then than that it arrived, and takes that at
its worst for ever: an audit as a detected error, a served item as an undetected one.
The item itself gets the answer it was to have, if that is there, or else the
reference's (`StoredRouter`).

Arrivals of a stream wait for the disk, so that no audit draw is used twice and no
possible error is forgotten. Nothing else does: what a power cut may take of it are
sums, audits that were resolved, and answers that had been counted, without which the
bound is but higher.
"""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

from smart_engine.calls import Call, Failure, Outcome, Served
from smart_engine.equivalence import Equivalence
from smart_engine.errors import StoreError
from smart_engine.jobs.record import TaskRecord
from smart_engine.jobs.task import Task
from smart_engine.row import StreamRow
from smart_engine.serving.router import Settled
from smart_engine.stream.drift import Drift, DriftWatch
from smart_engine.stream.session import StreamSession
from smart_engine.stream.state import SharedPart, StreamState
from smart_engine.warn import warn

__all__ = ["SharedStream", "SharedTask"]


class _Part(Protocol):
    @property
    def arrived(self) -> int: ...

    def model_dump_json(self) -> str: ...


class _Shareable(Protocol):
    def shared(self) -> Any: ...

    def take_up(self, part: Any) -> None: ...


State = TypeVar("State", bound=_Shareable)


class SharedSteps(Generic[State]):
    """A state that threads share, and processes over a row.

    Args:
        begin: Begins it.
        lock: Held around every step of it.
        row: Where processes share it, if they do.
    """

    _part: type[Any]
    _kind: str

    def __init__(
        self,
        begin: Callable[[], State],
        lock: AbstractContextManager[Any],
        row: StreamRow | None = None,
    ) -> None:
        self._begin, self._lock, self._row = begin, lock, row
        self._known: str | None = None
        self._arrived = 0

    @property
    @abstractmethod
    def _session(self) -> State:
        """The state, in memory."""

    @contextmanager
    def step(self, *, durable: bool = False) -> Iterator[State]:
        """Lock it for a step, which others see whole or not at all.

        Raises:
            StoreError: If it cannot be read or written.
        """
        with self._lock:
            if self._row is None:
                yield self._session
                return
            # Unless this step is written, the next one starts from the row.
            known, self._known = self._known, None
            with self._row.locked(durable=durable) as row:
                if row.text != known:
                    self._take_up(row.text)
                yield self._session
                part: _Part = self._session.shared()
                row.text = part.model_dump_json()
            self._known, self._arrived = row.text, part.arrived

    def _take_up(self, text: str) -> None:
        """Go on from what the row holds, or begin."""
        try:
            fresh = None if text else self._begin().shared()
            part = fresh or self._part.model_validate_json(text)
            self._session.take_up(part)
        except ValueError as error:
            hint = "it is damaged or was written by another version; use another one"
            problem = f"a {self._kind} in the store cannot be read: {hint}"
            raise StoreError(problem) from error
        if part.arrived < self._arrived:
            raise StoreError(
                f"the store knows of {part.arrived} items of a {self._kind}, of which "
                f"{self._arrived} had arrived: no audit may be drawn twice; begin anew "
                "with another store, or another seed"
            )


class SharedStream(SharedSteps[StreamSession]):
    """A stream session that many threads and tasks may use, and many processes.

    Args:
        begin: Begins its session.
        lock: Held around every step of it.
        row: Where processes share it, if they do.
        on_drift: Is told where recent errors leave the past, if given; see `Drift`.
            Each process watches the audits of all, from when it opens the stream.

    Attributes:
        waits: Whether steps may wait.
    """

    reservations = None
    _part, _kind = SharedPart, "stream"

    def __init__(
        self,
        begin: Callable[[], StreamSession],
        lock: AbstractContextManager[Any],
        row: StreamRow | None = None,
        on_drift: Callable[[Drift], None] | None = None,
    ) -> None:
        super().__init__(begin, lock, row)
        self._awake: StreamSession | None = begin()
        self._on_drift, self._watch = on_drift, DriftWatch(self._awake.task)
        self._resting = b""
        self.waits = row is not None or self._awake.waits

    @property
    def _session(self) -> StreamSession:
        """Its session, which goes on from where it came to rest."""
        if self._awake is None:
            session = self._begin()
            part = SharedPart.model_validate_json(zlib.decompress(self._resting))
            session.take_up(part)
            self._awake = session
        return self._awake

    def rest(self) -> bool:
        """Take little memory until the next step; False if an item is open."""
        with self._lock:
            if self._awake is not None and self._awake.idle:
                part = self._awake.shared().model_dump_json()
                self._resting = zlib.compress(part.encode())
                self._awake = self._known = None
            return self._awake is None

    def arrive(self, *, shown: bool, rule: Equivalence | None = None) -> int:
        """Let the next item in."""
        number = None
        try:
            with self.step(durable=True) as session:
                number = session.arrive(shown=shown, rule=rule)
        except BaseException:
            if number is not None:
                self._session.forget(number)
            raise
        return number

    def serving(self, item: int) -> str | None:
        """Name of the model whose answer is handed out if its call succeeds."""
        with self._lock:
            return self._session.serving(item)

    def next_calls(self, item: int) -> list[Call]:
        """Return the calls that may start now."""
        with self._lock:
            return self._session.next_calls(item)

    def fall_back(self, item: int, model: str) -> None:
        """Let a candidate answer, whatever was decided, for the budget has ended."""
        with self.step() as session:
            session.fall_back(item, model)

    def record(self, call: Call, outcome: Outcome | Failure) -> BaseException | None:
        """Record an outcome; return why its answer cannot be used, if so."""
        unread = self._session.evaluate(call, outcome)  # a judge takes long: no lock
        with self.step() as session:
            session.book(call, outcome)
            drift = self._watch.see(*session.audited) if self._on_drift else None
        if drift is not None:
            self._tell(drift)
        return unread

    def _tell(self, drift: Drift) -> None:
        """Tell of a drift; what the user's function raises costs no answer."""
        try:
            if self._on_drift is not None:
                self._on_drift(drift)
        except Exception as error:  # noqa: BLE001 - a user's function may raise anything
            warn(f"on_drift raised {type(error).__name__}")

    def settle(self, item: int) -> Settled:
        """Hand out the answer."""
        with self.step() as session:
            served = session.answer(item)
            cost = session.reference_cost
        return Settled(served.tier, served.role, served.error, cost)

    def must_finish(self, item: int) -> bool:
        """Whether its calls have to be made to their end, for they decide an audit."""
        with self._lock:
            return self._session.must_finish(item)

    def abandon(self, item: int, *, shown: bool) -> None:
        """Close an item whose answer is no longer wanted, or was shown in part."""
        with self.step() as session:
            session.abandon(item, shown=shown)

    def peek(self, item: int) -> Served | None:
        """Return the answer to an item if it can be handed out."""
        with self._lock:
            return self._session.peek(item)

    def forget(self, item: int) -> None:
        """Close an item whose step could not be written."""
        with self._lock:
            self._session.forget(item)

    def state(self) -> StreamState:
        """Where the stream stands, by the work of all; or where it was seen last."""
        resting = self._awake is None
        try:
            with self.step() as session:
                return session.state()
        except StoreError as error:
            warn(f"a stream is shown as seen last: {error}")
            with self._lock:
                return self._session.state()
        finally:
            if resting:
                self.rest()


class SharedTask(SharedSteps[Task]):
    """A task whose jobs threads and processes share; see `jobs/task.py`."""

    _part, _kind = TaskRecord, "task"

    @cached_property
    def _session(self) -> Task:
        return self._begin()
