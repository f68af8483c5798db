"""A stream that a store keeps: all processes that open it work on one.

Each step holds the stream's place in the store, takes up where the others have come,
and leaves there how it went on: all of it or nothing. A step that cannot be written
counts as that of a killed process. The stream knows no more of its item than that it
arrived, and takes that at its worst for ever: an audit for a find, a served item for a
miss. The item itself gets the answer it was to have, if that is there, or else the
reference's.

Arrivals wait for the disk, so that no coin is tossed twice and no possible miss is
forgotten. Nothing else does: what a power cut may take of it are sums, audits that were
resolved, and answers that had been counted, without which the bound is but higher.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from smart_engine.calls import Call, Failure, Outcome, Served
from smart_engine.errors import StoreError
from smart_engine.money.budget import Budget
from smart_engine.serving.profile import StreamRow
from smart_engine.serving.router import Settled, SharedStream
from smart_engine.stream.session import StreamSession
from smart_engine.stream.shared import SharedPart
from smart_engine.stream.state import StreamState

__all__ = ["StoredBudget", "StoredRouter", "StoredStream"]

_DAMAGED = "it is damaged or was written by another version; use another one"


class StoredStream(SharedStream):
    """A stream session whose shared part is kept at a place.

    Args:
        session: The session, freshly begun.
        lock: Held around every step of it.
        place: Where its shared part is kept.
    """

    waits = True

    def __init__(
        self,
        session: StreamSession,
        lock: AbstractContextManager[Any],
        place: StreamRow,
    ) -> None:
        """Look at nothing yet: the first step does."""
        super().__init__(session, lock)
        self._place = place
        self._fresh = session.shared()
        self._known: str | None = None
        self._arrived = 0

    @contextmanager
    def _step(self, *, durable: bool = False) -> Iterator[StreamSession]:
        with self._lock:
            # Unless this step is written, the next one starts from what is kept.
            known, self._known = self._known, None
            with self._place.locked(durable=durable) as row:
                if row.text != known:
                    self._take_up(row.text)
                yield self._session
                part = self._session.shared()
                row.text = part.model_dump_json()
            self._known, self._arrived = row.text, part.arrived

    def _take_up(self, text: str) -> None:
        """Go on from the shared part that is kept, or begin."""
        try:
            part = SharedPart.model_validate_json(text) if text else self._fresh
            self._session.take_up(part)
        except ValueError as error:
            raise StoreError(
                f"a stream in the store cannot be read: {_DAMAGED}"
            ) from error
        if part.arrived < self._arrived:
            raise StoreError(
                f"the store knows of {part.arrived} items of a stream, of which "
                f"{self._arrived} had arrived: no coin may be tossed twice; begin anew "
                "with another store, or another seed"
            )

    def arrive(self, *, shown: bool) -> int:
        """Let the next item in."""
        number = None
        try:
            with self._step(durable=True) as session:
                number = session.arrive(shown=shown)
        except BaseException:
            if number is not None:
                self._session.forget(number)
            raise
        return number

    def peek(self, item: int) -> Served | None:
        """Return the answer to an item if it can be handed out."""
        with self._lock:
            return self._session.peek(item)

    def forget(self, item: int) -> None:
        """Close an item of which the store could not be told."""
        with self._lock:
            self._session.forget(item)

    def state(self) -> StreamState:
        """Where the stream stands, by the work of all; or where it was seen last."""
        try:
            with self._step() as session:
                return session.state()
        except StoreError as error:
            warnings.warn(f"a stream is shown as seen last: {error}", stacklevel=2)
            return super().state()


class StoredRouter:
    """One item of a stored stream; where the store fails, the reference answers.

    Args:
        stream: The stream.
        reference: Name of the reference.
    """

    waits = True

    def __init__(self, stream: StoredStream, reference: str) -> None:
        """The item has not arrived yet."""
        self._stream, self._reference = stream, reference
        self._asked: set[str] = set()
        self._said: dict[str, Outcome | Failure] = {}
        self._alone = False
        self._ready: Served | None = None

    def arrive(self, *, shown: bool) -> int:
        """Let the item in."""
        try:
            return self._stream.arrive(shown=shown)
        except StoreError as error:
            self._part(-1, error)
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

    def record(self, call: Call, outcome: Outcome | Failure) -> BaseException | None:
        """Record what a call brought; return why its answer is of no use, if so."""
        self._said[call.tier] = outcome
        if self._alone:
            return None
        try:
            return self._stream.record(call, outcome)
        except StoreError as error:
            self._part(call.item, error)
            return None

    def settle(self, item: int) -> Settled:
        """Hand out the answer."""
        if not self._alone:
            self._ready = self._stream.peek(item)
            try:
                return self._stream.settle(item)
            except StoreError as problem:
                self._part(item, problem)
        if self._ready is not None:
            return Settled(self._ready.tier, self._ready.role, self._ready.error, None)
        said = self._said[self._reference]
        error = said.error if isinstance(said, Failure) else None
        return Settled(self._reference, "reference", error, None)

    def abandon(self, item: int) -> None:
        """Close an item that nobody waits for any longer."""
        if self._alone:
            return
        try:
            self._stream.abandon(item)
        except StoreError as error:
            self._part(item, error)

    def _part(self, item: int, error: StoreError) -> None:
        """Go on without the stream."""
        self._alone = True
        self._ready = self._ready or self._stream.peek(item)
        self._stream.forget(item)
        problem = (
            f"an item goes on without its stream, at the reference's cost: {error}"
        )
        warnings.warn(problem, stacklevel=2)


class StoredBudget(Budget):
    """A budget that all processes spend from.

    What a killed process had set aside for its calls stays set aside: nobody can tell
    whether they were made.

    Args:
        limit: The budget in USD.
        lock: Held while money is reserved or booked.
        place: Where it is kept what was spent and set aside.
    """

    def __init__(
        self, limit: float, lock: AbstractContextManager[Any], place: StreamRow
    ) -> None:
        """Spend nothing yet."""
        super().__init__(limit, lock)
        self._place = place

    @contextmanager
    def _open(self) -> Iterator[None]:
        with super()._open(), self._place.locked(durable=True) as row:
            self._spent, self._reserved = _sums(row.text)
            yield
            # Sums of floats may miss zero by a rounding error.
            row.text = json.dumps([self._spent, max(0.0, self._reserved)])

    def settle(self, reserved: float, paid: float) -> None:
        """Book what a call cost; where that fails, all it reserved stays set aside."""
        try:
            super().settle(reserved, paid)
        except StoreError as error:
            warnings.warn(f"the budget keeps what was set aside: {error}", stacklevel=2)


def _sums(text: str) -> tuple[float, float]:
    """Return what was spent and what is set aside."""
    if not text:
        return 0.0, 0.0
    try:
        spent, reserved = map(float, json.loads(text))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise StoreError(f"a budget in the store cannot be read: {_DAMAGED}") from error
    if not (0 <= spent < math.inf and 0 <= reserved < math.inf):
        raise StoreError(f"a budget in the store cannot be read: {_DAMAGED}")
    return spent, reserved
