"""Drives a session whose items are somewhere else: in blocks, behind a pool of workers.

The session decides here; calls are made there, in pieces. What comes back of a call is
what a session needs: cost, usage, the key of its answer. The answer stays there.

A worker may be lost, with the piece that it was at, by a kill, a lack of memory or an
input on which it crashes. Its piece is made again by another. One that was lost three
times is made in sixteen parts, and so on with each part that is lost, so that a row
which kills whoever takes it is found, and fails alone. What a lost worker has bought
nobody can tell: each call of its piece is charged at its most for that attempt, and
marked `unknown`. Within a budget, it is made again only if that fits.

As in `drive`, the session is driven in a thread of its own, so that Ctrl-C comes
between no result and its record. The first one lets workers end the calls they are at,
and no others; the second one leaves them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from threading import Lock
from typing import NamedTuple, Protocol

import numpy as np

from smart_engine.bulk import Calls, Outcomes
from smart_engine.calls import Call, Failure, Result
from smart_engine.errors import SmartError
from smart_engine.serving.result_columns import Columns, read_columns

__all__ = ["BlockSession", "Ended", "Piece", "Pool", "WorkerLostError", "drive_blocks"]

_LOSSES = 3
"""Times that a piece is lost before it is divided, and a single row before it fails."""

_PARTS = 16
"""Parts into which a piece is divided: a worker takes longer to begin than they do."""

_ALL_LOST = 60
"""Losses one after another, without any piece that ended, that end a job.

To find one row that kills, in pieces of a thousand rows, takes eight.
"""

_AHEAD = 2
"""Pieces in flight per worker: one to make, one to follow at once."""


class WorkerLostError(SmartError):
    """Whoever made a call was lost, with its result."""


@dataclass(frozen=True)
class Piece:
    """Calls that one worker makes.

    Attributes:
        number: Its number in its job.
        calls: Its calls, in the order of their items.
        losses: How often it was lost, of the times that count before it is divided.
        attempts: How often its calls may have been made before, and were lost.
    """

    number: int
    calls: Calls
    losses: int = 0
    attempts: int = 0


class Ended(NamedTuple):
    """A piece that is no longer in flight.

    Attributes:
        piece: The piece.
        columns: The results of its calls, or of those that were made before it had to
            stop; see `smart_engine.serving.result_columns`. None if it was lost.
        lost: How its worker was lost.
        error: Why no call of the job may be made any more, if that showed.
    """

    piece: Piece
    columns: Columns | None
    lost: str | None = None
    error: BaseException | None = None


class Pool(Protocol):
    """Workers that make pieces."""

    @property
    def workers(self) -> int:
        """Number of pieces that are made at once."""
        ...

    def submit(self, piece: Piece) -> None:
        """Have a piece made by a worker, and return at once."""
        ...

    def wait(self) -> Ended:
        """Wait for the next piece that ends, in whatever order.

        Raises:
            Exception: If workers cannot work at all.
        """
        ...

    def worst_case(self, call: Call) -> float | None:
        """Return the most that a call can cost, in USD; None if nothing limits it."""
        ...

    def stop(self) -> None:
        """Have the pieces in flight end, each with the calls that it is at."""
        ...

    def leave(self) -> None:
        """Have the pieces in flight end now; they count as lost."""
        ...


class BlockSession(Protocol):
    """What is needed of a session here."""

    def next_block(self, most: int | None = None) -> Calls:
        """Return the calls that may start now, so many at most."""
        ...

    def record(self, call: Call, outcome: Result) -> BaseException | None:
        """Record the result of a call."""
        ...

    def record_all(self, outcomes: Outcomes) -> None:
        """Record results that brought an answer."""
        ...


def drive_blocks(
    session: BlockSession,
    pool: Pool,
    batch_size: int,
    *,
    recorded: Callable[[], None] | None = None,
    record_inner_call: Callable[[int, str, Result], None] | None = None,
    repeat: Callable[[Call], bool] = lambda call: True,  # noqa: ARG005
) -> None:
    """Run a session to its end.

    Args:
        session: The session.
        pool: Makes its calls.
        batch_size: Most calls of a piece.
        recorded: Called after the results of each piece are recorded, if anything is.
        record_inner_call: Enters a call that a call made itself: item, model, result.
        repeat: Whether a call that was lost, and is charged at its most, may be made
            again.

    Raises:
        WorkerLostError: If one worker after another is lost, whatever they are given.
    """
    driven = _Driven(session, pool, batch_size, recorded, record_inner_call, repeat)
    with ThreadPoolExecutor(1, "smart") as own:
        try:
            own.submit(copy_context().run, driven.run).result()
        except BaseException:
            try:
                driven.stop()
                own.shutdown()
            except BaseException:
                pool.leave()
                raise
            raise


class _Driven:
    """The state of a drive."""

    def __init__(
        self,
        session: BlockSession,
        pool: Pool,
        batch_size: int,
        recorded: Callable[[], None] | None,
        record_inner_call: Callable[[int, str, Result], None] | None,
        repeat: Callable[[Call], bool],
    ) -> None:
        self._session, self._pool, self._size = session, pool, batch_size
        self._repeat = repeat
        self._recorded, self._record_inner = recorded, record_inner_call
        self._pieces: deque[Piece] = deque()
        self._made = self._in_flight = self._lost_in_a_row = 0
        self._stopping = False
        self._starting = Lock()

    def stop(self) -> None:
        """Start no further piece, and let those in flight end early."""
        with self._starting:
            self._stopping = True
        self._pool.stop()

    def _start(self) -> None:
        """Start a piece, unless none may start any more."""
        with self._starting:
            if not self._stopping:
                self._pool.submit(self._pieces.popleft())
                self._in_flight += 1

    def run(self) -> None:
        """Start what may start and record what ends, until nothing is left."""
        try:
            while not self._stopping:
                if not self._pieces:
                    self._refill()
                if self._pieces and self._in_flight < _AHEAD * self._pool.workers:
                    self._start()
                elif not self._in_flight:
                    return
                else:
                    self._end(self._next())
        except BaseException:
            self.stop()
            raise
        finally:
            while self._in_flight:
                self._end(self._next())

    def _next(self) -> Ended:
        """Return the next piece that ends; without workers there is none."""
        try:
            return self._pool.wait()
        except BaseException:
            self._in_flight = 0
            raise

    def _refill(self) -> None:
        """Cut the calls that may start now into pieces, for all workers."""
        workers = self._pool.workers
        calls = self._session.next_block(self._size * workers).in_order()
        size = min(self._size, -(-len(calls) // workers))
        for first in range(0, len(calls), size or 1):
            self._add(calls[first : first + size])

    def _add(self, calls: Calls, losses: int = 0, attempts: int = 0) -> None:
        if not calls:
            return
        self._pieces.append(Piece(self._made, calls, losses, attempts))
        self._made += 1

    def _end(self, ended: Ended) -> None:
        """Record what a piece brought, or have it made again."""
        self._in_flight -= 1
        if ended.columns is None:
            self._lose(ended.piece, ended.lost or "it was lost")
        else:
            self._lost_in_a_row = 0
            together, alone = read_columns(ended.columns)
            for outcomes in together:
                self._session.record_all(outcomes)
            for row in alone:
                for model, result in row.inside:
                    if self._record_inner is not None:
                        self._record_inner(row.call.item, model, result)
                self._session.record(row.call, row.result)
            if self._recorded is not None:
                self._recorded()
        if ended.error is not None and not self._stopping:
            raise ended.error

    def _lose(self, piece: Piece, how: str) -> None:
        """Have a piece made again: as it is, in parts, or not at all."""
        if self._stopping:
            return
        self._lost_in_a_row += 1
        if self._lost_in_a_row >= _ALL_LOST:
            problem = f"{_ALL_LOST} workers were lost one after another: {how}"
            raise WorkerLostError(problem)
        losses, attempts = piece.losses + 1, piece.attempts + 1
        if losses >= _LOSSES and len(piece.calls) == 1:
            self._fail(piece.calls[0], attempts, f"was lost: {how}")
            return
        repeated = np.array([self._repeat(call) for call in piece.calls])
        for call in piece.calls.where(~repeated):
            why = f"was lost, and the budget has no room for another one: {how}"
            self._fail(call, attempts, why)
        calls = piece.calls.where(repeated)
        if losses < _LOSSES:
            # Under a number of its own: what the lost one left behind is not its.
            self._add(calls, losses, attempts)
            return
        size = -(-len(calls) // _PARTS)
        for first in range(0, len(calls), size or 1):
            part = calls[first : first + size]
            self._add(part, 0 if len(part) == 1 else losses - 1, attempts)

    def _fail(self, call: Call, attempts: int, how: str) -> None:
        """Record a call as failed, each attempt at its most."""
        most = self._pool.worst_case(call)
        error = WorkerLostError(f"each of {attempts} workers that took this row {how}")
        lost = Failure(error, unknown=None if most == 0 else most or 0.0)
        self._session.record(call, lost._replace(earlier=(lost,) * (attempts - 1)))
