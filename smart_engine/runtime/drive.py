"""Drives a session: makes its calls, at most so many at once, and records the results.

One loop says what to do next; a runner with threads and one with tasks do it. Whatever
ends a drive, results that have arrived are recorded first: they were paid for. Ctrl-C
reaches the main thread alone, so threads are driven from a thread of their own: nothing
comes between a result and its record. The first one waits for the calls in flight; the
second one leaves them, each recorded as cancelled. A kill reaches all, so results are
saved, where the session saves any, before anything else happens.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import Context, copy_context
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

from smart_engine.calls import Call, Failure, Result
from smart_engine.runtime.loop import take, turn
from smart_engine.runtime.requester import Attempts, Requester, acall, call
from smart_engine.serving.members import UnpricedError
from smart_engine.serving.session import Session

__all__ = ["Caller", "adrive", "drive"]

T = TypeVar("T")

_AHEAD = 2
"""Calls handed to a pool of threads per thread: one to make, one to follow at once."""

_Arrived = tuple[Call, Result]


class Caller(ABC):
    """Says how the calls of a session are made."""

    def start(self, item: int) -> None:  # noqa: B027
        """Prepare an item, before each of its calls and before its answer.

        An exception fails the call, which is then not made.
        """

    async def astart(self, item: int) -> None:  # noqa: B027
        """Prepare an item, before each of its calls and before its answer."""

    @abstractmethod
    def requester(self, item: int) -> Requester:
        """Return what puts an item to models."""

    def run(self, item: int, step: Callable[[], T]) -> T:  # noqa: ARG002
        """Take a step of an item where who asks about it is."""
        return step()

    async def arun(self, item: int, step: Coroutine[Any, Any, T]) -> T:  # noqa: ARG002
        """Take a step of an item where who asks about it is."""
        return await step

    def begin(self, item: int) -> tuple[Requester, Context]:
        """Return what puts an item to models, and the context to call one in."""
        requester = self.requester(item)
        return requester, requester.context()


class _Loop:
    """Says what to do next: start what may start, until nothing is left.

    Attributes:
        in_flight: Number of calls in flight.
    """

    def __init__(
        self, session: Session, limit: int, recorded: Callable[[], None] | None
    ) -> None:
        self._session, self._limit, self._recorded = session, limit, recorded
        self._backlog: deque[Call] = deque()
        self.in_flight = 0

    @property
    def empty(self) -> bool:
        """Whether the session has to be asked for calls."""
        return not self._backlog

    def refill(self) -> None:
        self._backlog.extend(self._session.next_calls())

    def next(self, *, waiting: bool) -> Call | None:
        """Return the call to start now; else a result has to be recorded first.

        Args:
            waiting: Whether a result is waiting to be recorded.
        """
        if waiting or self.empty or self.in_flight >= self._limit:
            return None
        self.in_flight += 1
        return self._backlog.popleft()

    def end(self, result: Result) -> None:
        """Go on after a result that was recorded."""
        self.in_flight -= 1
        if self._recorded is not None:
            self._recorded()
        if isinstance(result, Failure) and isinstance(result.error, UnpricedError):
            raise result.error  # no further call can be paid for knowingly


def drive(
    session: Session,
    caller: Caller,
    limit: int,
    recorded: Callable[[], None] | None = None,
) -> None:
    """Run a session to its end in synchronous code.

    Args:
        session: The session.
        caller: Makes its calls, in threads.
        limit: Most calls in flight at once.
        recorded: Called after each result is recorded, if anything is.
    """
    threads = _Threads(session, caller, limit)
    loop = _Loop(session, _AHEAD * limit, recorded)
    with ThreadPoolExecutor(1, "smart") as own:
        driving = own.submit(copy_context().run, threads.drive, loop)
        try:
            driving.result()
        except BaseException:
            try:
                threads.stop()
                wait([driving])
            except BaseException as again:
                threads.leave(again)
                raise
            raise


class _Threads:
    """Carries the loop out with threads."""

    def __init__(self, session: Session, caller: Caller, limit: int) -> None:
        self._session, self._caller = session, caller
        self._arrived: SimpleQueue[_Arrived | None] = SimpleQueue()
        self._pool = ThreadPoolExecutor(limit, "smart")
        self._flying: dict[Call, tuple[Attempts, Future[None]]] = {}
        self._stopping = False
        self._left: BaseException | None = None

    def stop(self) -> None:
        """Start no further call, and no further attempt at one."""
        self._stopping = True
        for attempts, _ in list(self._flying.values()):
            attempts.give_up()
        self._arrived.put(None)  # wakes the drive

    def leave(self, why: BaseException) -> None:
        """Wait for no call in flight any more."""
        self._left = why
        self.stop()

    def drive(self, loop: _Loop) -> None:
        try:
            while not self._stopping:
                if loop.empty:
                    loop.refill()
                fresh = loop.next(waiting=not self._arrived.empty())
                if fresh is not None:
                    self._start(fresh)
                elif not loop.in_flight:
                    return
                elif (arrived := self._arrived.get()) is not None:
                    self._record(*arrived)
                    loop.end(arrived[1])
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._end()
            self._pool.shutdown(wait=self._left is None)

    def _end(self) -> None:
        """Record the calls in flight: as they end, or now, if they are to be left."""
        for made, (_, future) in list(self._flying.items()):
            if future.cancelled():
                del self._flying[made]
        while self._flying:
            if self._left is not None and self._arrived.empty():
                made, (attempts, _) = next(iter(self._flying.items()))
                self._record(made, attempts.failed(self._left))
            elif (arrived := self._arrived.get()) is not None:
                self._record(*arrived)

    def _record(self, made: Call, result: Result) -> None:
        self._flying.pop(made, None)
        self._session.record(made, result)

    def _start(self, fresh: Call) -> None:
        caller, item = self._caller, fresh.item
        try:
            caller.run(item, partial(caller.start, item))
        except Exception as error:  # noqa: BLE001 - it fails the call
            return self._arrived.put((fresh, Failure(error)))
        requester, context = caller.run(item, partial(caller.begin, item))
        attempts, make = Attempts(requester, fresh.tier), self._make
        future = self._pool.submit(context.run, make, requester, fresh, attempts)
        self._flying[fresh] = attempts, future
        return None

    def _make(self, requester: Requester, made: Call, attempts: Attempts) -> None:
        result = call(requester, made.tier, attempts=attempts)
        try:
            self._session.keep(made, result)
        finally:
            self._arrived.put((made, result))


async def adrive(
    session: Session,
    caller: Caller,
    limit: int,
    recorded: Callable[[], None] | None = None,
) -> None:
    """Run a session to its end in asynchronous code.

    Args:
        session: The session.
        caller: Makes its calls, in tasks of the running loop.
        limit: Most calls in flight at once.
        recorded: Called after each result is recorded, if anything is.
    """
    tasks = _Tasks(session, caller)
    try:
        await tasks.drive(_Loop(session, limit, recorded))
    finally:
        await tasks.end()


class _Tasks:
    """Carries the loop out with tasks."""

    def __init__(self, session: Session, caller: Caller) -> None:
        self._session, self._caller = session, caller
        self._arrived: asyncio.Queue[_Arrived] = asyncio.Queue()
        self._flying: set[asyncio.Task[None]] = set()

    async def drive(self, loop: _Loop) -> None:
        while True:
            if loop.empty:
                await take(self._session, loop.refill)
            fresh = loop.next(waiting=not self._arrived.empty())
            if fresh is not None:
                await self._start(fresh)
            elif not loop.in_flight:
                return
            else:
                made, result = await self._arrived.get()
                record = partial(self._session.record, made, result)
                await take(self._session, record)
                loop.end(result)

    async def _start(self, fresh: Call) -> None:
        await turn()
        caller, item = self._caller, fresh.item
        try:
            await caller.arun(item, caller.astart(item))
        except Exception as error:  # noqa: BLE001 - it fails the call
            return self._arrived.put_nowait((fresh, Failure(error)))
        requester, context = caller.run(item, partial(caller.begin, item))
        task = asyncio.create_task(self._make(requester, fresh), context=context)
        self._flying.add(task)
        task.add_done_callback(self._flying.discard)
        return None

    async def _make(self, requester: Requester, made: Call) -> None:
        result = await acall(requester, made.tier)
        try:
            await take(self._session, partial(self._session.keep, made, result))
        finally:
            self._arrived.put_nowait((made, result))
        if isinstance(result, Failure) and isinstance(
            result.error, KeyboardInterrupt | SystemExit | GeneratorExit
        ):
            raise result.error

    async def end(self) -> None:
        """Cancel what is in flight, and record what has arrived."""
        flying = list(self._flying)
        for task in flying:
            task.cancel()
        await asyncio.gather(*flying, return_exceptions=True)
        rest = [self._arrived.get_nowait() for _ in range(self._arrived.qsize())]
        await take(self._session, partial(self._record, rest))

    def _record(self, rest: list[_Arrived]) -> None:
        for made, result in rest:
            self._session.record(made, result)
