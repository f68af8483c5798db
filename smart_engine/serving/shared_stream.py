"""A stream that threads share, and, over a stored row, all processes that open it.

A step that cannot be written counts as that of a killed process. The stream knows no
more of its item than that it arrived, and takes that at its worst for ever: an audit as
a detected error, a served item as an undetected one. The item itself gets the answer it
was to have, if that is there, or else the reference's.

Arrivals wait for the disk, so that no audit draw is used twice and no possible error is
forgotten. Nothing else does: what a power cut may take of it are sums, audits that were
resolved, and answers that had been counted, without which the bound is but higher.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from smart_engine.calls import Call, Failure, Outcome, Served
from smart_engine.equivalence import Equivalence
from smart_engine.errors import StoreError
from smart_engine.row import StreamRow
from smart_engine.serving.router import Settled
from smart_engine.serving.shared_steps import SharedSteps
from smart_engine.stream.drift import Drift, DriftWatch
from smart_engine.stream.session import StreamSession
from smart_engine.stream.state import SharedPart, StreamState

__all__ = ["SharedStream", "StoredRouter"]


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
            warnings.warn(f"on_drift raised {type(error).__name__}", stacklevel=2)

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
            warnings.warn(f"a stream is shown as seen last: {error}", stacklevel=2)
            with self._lock:
                return self._session.state()
        finally:
            if resting:
                self.rest()


class StoredRouter:
    """One item of a stored stream; where the store fails, the reference answers.

    Args:
        stream: The stream.
        reference: Name of the reference.
    """

    reservations, waits = None, True

    def __init__(self, stream: SharedStream, reference: str) -> None:
        self._stream, self._reference = stream, reference
        self._asked: set[str] = set()
        self._outcomes: dict[str, Outcome | Failure] = {}
        self._alone = False
        self._ready: Served | None = None

    def arrive(self, *, shown: bool, rule: Equivalence | None = None) -> int:
        """Let the item in."""
        try:
            return self._stream.arrive(shown=shown, rule=rule)
        except StoreError as error:
            self._go_alone(-1, error)
            return -1

    def serving(self, item: int) -> str | None:
        """Name of the model whose answer is handed out if its call succeeds."""
        return self._reference if self._alone else self._stream.serving(item)

    def next_calls(self, item: int) -> list[Call]:
        """Return the calls that may start now."""
        if not self._alone:
            calls = self._stream.next_calls(item)
        elif self._ready is not None or self._reference in self._asked:
            calls = []
        else:
            calls = [Call(item, self._reference)]
        self._asked.update(call.tier for call in calls)
        return calls

    def fall_back(self, item: int, model: str) -> None:
        """Let a candidate answer, whatever was decided, for the budget has ended.

        Raises:
            StoreError: If the stream cannot count its answer.
        """
        if self._alone:
            raise StoreError("no stream counts an uncertified answer")
        self._stream.fall_back(item, model)

    def record(self, call: Call, outcome: Outcome | Failure) -> BaseException | None:
        """Record an outcome; return why its answer cannot be used, if so."""
        self._outcomes[call.tier] = outcome
        if self._alone:
            return None
        try:
            return self._stream.record(call, outcome)
        except StoreError as error:
            self._go_alone(call.item, error)
            return None

    def settle(self, item: int) -> Settled:
        """Hand out the answer."""
        if not self._alone:
            self._ready = self._stream.peek(item)
            try:
                return self._stream.settle(item)
            except StoreError as problem:
                self._go_alone(item, problem)
        if self._ready is not None:
            return Settled(self._ready.tier, self._ready.role, self._ready.error, None)
        outcome = self._outcomes[self._reference]
        error = outcome.error if isinstance(outcome, Failure) else None
        return Settled(self._reference, "reference", error, None)

    def must_finish(self, item: int) -> bool:
        """Whether its calls have to be made to their end, for they decide an audit."""
        return not self._alone and self._stream.must_finish(item)

    def abandon(self, item: int, *, shown: bool) -> None:
        """Close an item whose answer is no longer wanted, or was shown in part."""
        if self._alone:
            return
        try:
            self._stream.abandon(item, shown=shown)
        except StoreError as error:
            self._go_alone(item, error)

    def _go_alone(self, item: int, error: StoreError) -> None:
        """Go on without the stream."""
        self._alone = True
        self._ready = self._ready or self._stream.peek(item)
        self._stream.forget(item)
        why = f"an item goes on without its stream, at the reference's cost: {error}"
        warnings.warn(why, stacklevel=2)
