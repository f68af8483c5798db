"""Drives a session: makes its calls, at most so many at once, and records the results.

One loop decides what happens next. It is a flow, a generator that yields effects and is
sent their results, so that sync and async share it; a runner with threads and one with
tasks carry it out. Whatever ends a drive, results that have arrived are recorded first:
they were paid for. Ctrl-C reaches the main thread alone, so threads are driven from a
thread of their own: nothing comes between a result and its record. A kill reaches all,
so results are saved, where the session saves any, before anything else happens.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

from smart_engine.calls import Call, Failure, Result
from smart_engine.runtime.loop import take, turn
from smart_engine.runtime.requester import Requester, acall, call
from smart_engine.serving.members import UnpricedError
from smart_engine.serving.session import Session

__all__ = ["Caller", "adrive", "drive"]

_AHEAD = 2
"""Calls handed to a pool of threads per thread: one to make, one to follow at once."""


T = TypeVar("T")
E = TypeVar("E")

Flow = Generator[E, Any, T]
"""Yields effects, is sent their results, and returns the outcome."""


def run(flow: Flow[E, T], perform: Callable[[E], Any]) -> T:
    """Carry out a flow in synchronous code, and return its outcome.

    Args:
        flow: The flow.
        perform: Performs one effect; what it raises is raised inside the flow.

    Example:
        ```python
        def greeting():
            name = yield "name?"
            return f"Hello, {name}"


        assert run(greeting(), {"name?": "Ada"}.__getitem__) == "Hello, Ada"
        ```
    """
    resume: Callable[[], E] = partial(next, flow)
    while True:
        try:
            effect = resume()
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        try:
            resume = partial(flow.send, perform(effect))
        except BaseException as error:  # noqa: BLE001 - raised inside the flow
            resume = partial(flow.throw, error)


async def arun(flow: Flow[E, T], perform: Callable[[E], Awaitable[Any]]) -> T:
    """Carry out a flow in asynchronous code; see `run`."""
    resume: Callable[[], E] = partial(next, flow)
    while True:
        try:
            effect = resume()
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        try:
            resume = partial(flow.send, await perform(effect))
        except BaseException as error:  # noqa: BLE001 - raised inside the flow
            resume = partial(flow.throw, error)


class Caller(ABC):
    """Says how the calls of a session are made."""

    def start(self, item: int) -> None:  # noqa: B027
        """Prepare an item before each of its calls."""

    async def astart(self, item: int) -> None:  # noqa: B027
        """Prepare an item before each of its calls."""

    @abstractmethod
    def requester(self, item: int) -> Requester:
        """Return what puts an item to models."""


class _Step(NamedTuple):
    """Take a step of the session."""

    take: Callable[[], Any]


class _Start(NamedTuple):
    """Start a call."""

    call: Call


class _Wait(NamedTuple):
    """Wait for a result; return it with its call."""


_Effect = _Step | _Start | _Wait
_Arrived = tuple[Call, Result]


def _calls(
    session: Session,
    limit: int,
    waiting: Callable[[], bool],
    recorded: Callable[[], None] | None,
) -> Flow[_Effect, None]:
    """The loop: start what may start, record what has arrived, until nothing is left.

    Results that are waiting are recorded before another call starts.
    """
    backlog: deque[Call] = deque()
    in_flight = 0
    while True:
        if not backlog:
            backlog.extend((yield _Step(session.next_calls)))
        if backlog and in_flight < limit and not waiting():
            yield _Start(backlog[0])
            backlog.popleft()
            in_flight += 1
        elif in_flight:
            made, result = yield _Wait()
            in_flight -= 1
            yield _Step(partial(session.record, made, result))
            if recorded is not None:
                recorded()
            if isinstance(result, Failure) and isinstance(result.error, UnpricedError):
                raise result.error  # no further call can be paid for knowingly
        else:
            return


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
    with ThreadPoolExecutor(1, "smart") as own:
        try:
            own.submit(copy_context().run, threads.drive, recorded).result()
        finally:
            threads.stop()


class _Stopped(Exception):  # noqa: N818 - it ends a drive quietly
    """The drive was stopped from outside."""


class _Threads:
    """Carries the loop out with threads."""

    def __init__(self, session: Session, caller: Caller, limit: int) -> None:
        self._session, self._caller, self._limit = session, caller, limit
        self._arrived: SimpleQueue[_Arrived | None] = SimpleQueue()
        self._pool = ThreadPoolExecutor(limit, "smart")
        self._stopping = False

    def stop(self) -> None:
        self._stopping = True
        self._arrived.put(None)  # wakes the drive

    def drive(self, recorded: Callable[[], None] | None) -> None:
        waiting = self._waiting
        flow = _calls(self._session, _AHEAD * self._limit, waiting, recorded)
        try:
            run(flow, self._perform)
        except _Stopped:
            return
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)
            while not self._arrived.empty():
                arrived = self._arrived.get()
                if arrived is not None:
                    self._session.record(*arrived)

    def _waiting(self) -> bool:
        return not self._arrived.empty()

    def _perform(self, effect: _Effect) -> Any:
        if isinstance(effect, _Step):  # also when stopping: it may record a result
            return effect.take()
        if self._stopping:
            raise _Stopped
        if isinstance(effect, _Start):
            self._caller.start(effect.call.item)
            requester = self._caller.requester(effect.call.item)
            self._pool.submit(
                requester.context().run, self._make, requester, effect.call
            )
            return None
        arrived = self._arrived.get()
        if arrived is None:
            raise _Stopped
        return arrived

    def _make(self, requester: Requester, made: Call) -> None:
        result = call(requester, made.tier)
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
    flow = _calls(session, limit, tasks.waiting, recorded)
    try:
        await arun(flow, tasks.perform)
    finally:
        await tasks.end()


@dataclass
class _Tasks:
    """Carries the loop out with tasks."""

    session: Session
    caller: Caller

    def __post_init__(self) -> None:
        self._arrived: asyncio.Queue[_Arrived] = asyncio.Queue()
        self._flying: set[asyncio.Task[None]] = set()

    def waiting(self) -> bool:
        return not self._arrived.empty()

    async def perform(self, effect: _Effect) -> Any:
        if isinstance(effect, _Step):
            return await take(self.session, effect.take)
        if isinstance(effect, _Wait):
            return await self._arrived.get()
        await turn()
        await self.caller.astart(effect.call.item)
        requester = self.caller.requester(effect.call.item)
        making = self._make(requester, effect.call)
        task = asyncio.create_task(making, context=requester.context())
        self._flying.add(task)
        task.add_done_callback(self._flying.discard)
        return None

    async def _make(self, requester: Requester, made: Call) -> None:
        result = await acall(requester, made.tier)
        try:
            await take(self.session, partial(self.session.keep, made, result))
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
        await take(self.session, partial(self._record, rest))

    def _record(self, rest: list[_Arrived]) -> None:
        for made, result in rest:
            self.session.record(made, result)
