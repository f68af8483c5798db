"""Drives a session: makes its calls, at most so many at once, and records the results.

One loop says what to do next; a runner with threads and one with tasks do it. Whatever
ends a drive, results that have arrived are recorded first: they were paid for. Ctrl-C
reaches the main thread alone, so threads are driven from a thread of their own: nothing
comes between a result and its record. The first one waits for the calls in flight; the
second one leaves them, each recorded as cancelled. A kill reaches all, so results are
saved, where the session saves any, before anything else happens.

Calls that a dispatcher carries take no thread or task: they are collected, and sent
once the session has no other call to make. Their replies come as results do.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from queue import SimpleQueue
from typing import Any

from smart_engine.calls import Call, Failure, Result
from smart_engine.runtime.lanes.carried_call import CarriedCall
from smart_engine.runtime.lanes.dispatcher import CallReply, Dispatcher
from smart_engine.runtime.lanes.exchange import Request
from smart_engine.runtime.loop import take, turn
from smart_engine.runtime.requester import Attempts, Requester
from smart_engine.serving.members import UnpricedError
from smart_engine.serving.session import Session

__all__ = ["Caller", "adrive", "drive"]

_AHEAD = 2
"""Calls handed to a pool of threads per thread: one to make, one to follow at once."""

_Arrived = tuple[Call, Result] | list[CallReply] | BaseException | None
"""A result, replies, why the drive cannot go on, or nothing but a reason to look."""


class Caller(ABC):
    """Says how the calls of a session are made.

    Attributes:
        dispatcher: Carries calls in batches, if any are to be.
    """

    dispatcher: Dispatcher | None = None

    @abstractmethod
    def begin(self, item: int) -> tuple[Requester, Context]:
        """Return what puts an item to models, and the context to call one in.

        An exception fails the call, which is then not made.
        """

    @abstractmethod
    async def abegin(self, item: int) -> tuple[Requester, Context]:
        """Return what puts an item to models, and the context to call one in."""


class _Loop:
    """Says what to do next: start what may start, until nothing is left.

    Attributes:
        in_flight: Number of calls in flight.
        carried_calls: Those of them that are carried.
        live: Calls that wait to be made live after all.
    """

    def __init__(
        self,
        session: Session,
        dispatcher: Dispatcher | None,
        limit: int,
        recorded: Callable[[], None] | None,
    ) -> None:
        self._session, self._limit, self._recorded = session, limit, recorded
        self._dispatcher = dispatcher
        self._backlog: deque[Call] = deque()
        self.carried_calls: dict[Call, CarriedCall] = {}
        self.live: dict[Call, CarriedCall] = {}
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
        if waiting or self.empty:
            return None
        busy = self.in_flight - len(self.carried_calls) >= self._limit
        if busy and not self.carries(self._backlog[0]):
            return None
        self.in_flight += 1
        return self._backlog.popleft()

    def carries(self, made: Call) -> bool:
        """Whether a call is carried."""
        dispatcher = self._dispatcher
        return bool(
            dispatcher and dispatcher.carries(made.tier) and made not in self.live
        )

    def written(
        self, carried_call: CarriedCall, written: Request | Result
    ) -> Result | None:
        """Collect the request of a call, or return the call's result if it has none."""
        if not isinstance(written, Request):
            return written
        self.carried_calls[carried_call.call] = carried_call
        assert self._dispatcher is not None  # noqa: S101 - for type checkers
        self._dispatcher.collect(carried_call.call, written)
        return None

    def send(self, deliver: Callable[[_Arrived], None]) -> bool:
        """Send what was collected, if nothing else can be done meanwhile.

        Returns:
            Whether there are calls to start now: those that are too few to be sent.
        """
        dispatcher = self._dispatcher
        if not (dispatcher and dispatcher.collected) or self.in_flight > len(
            self.carried_calls
        ):
            return False
        few = dispatcher.few()
        for made in few:
            self.live[made] = self.carried_calls.pop(made)
            self._backlog.append(made)
            self.in_flight -= 1
        if dispatcher.collected:
            dispatcher.send(deliver)
        return bool(few)

    def look(self) -> None:
        """Show where the drive stands."""
        if self._recorded is not None:
            self._recorded()

    def end(self, result: Result) -> None:
        """Go on after a result that was recorded."""
        self.in_flight -= 1
        self.look()
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
    loop = _Loop(session, caller.dispatcher, _AHEAD * limit, recorded)
    with ThreadPoolExecutor(1, "smart") as own:
        driving = own.submit(copy_context().run, threads.drive, loop)
        try:
            driving.result()
        except BaseException as error:
            try:
                threads.stop()
                wait([driving])
                _tell_what_is_left(error, caller.dispatcher)
            except BaseException as again:
                threads.leave(again)
                raise
            raise


def _tell_what_is_left(error: BaseException, dispatcher: Dispatcher | None) -> None:
    """Note on what ends a drive which batches go on without it."""
    if dispatcher is not None and (left := dispatcher.left_behind()):
        error.add_note(left)


class _Threads:
    """Carries the loop out with threads."""

    def __init__(self, session: Session, caller: Caller, limit: int) -> None:
        self._session, self._caller = session, caller
        self._arrived: SimpleQueue[_Arrived] = SimpleQueue()
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
        if self._caller.dispatcher is not None:
            self._caller.dispatcher.leave()
        self.stop()

    def drive(self, loop: _Loop) -> None:
        try:
            while not self._stopping:
                if loop.empty:
                    loop.refill()
                waiting = not self._arrived.empty()
                fresh = loop.next(waiting=waiting)
                if fresh is not None:
                    self._start(loop, fresh)
                    continue
                if not loop.in_flight:
                    return
                if not waiting and loop.send(self._arrived.put):
                    continue
                arrived = self._arrived.get()
                if not arrived:
                    loop.look()
                for result in self._take(loop, arrived):
                    loop.end(result)
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._end(loop)
            self._pool.shutdown(wait=self._left is None)

    def _take(self, loop: _Loop, arrived: _Arrived) -> list[Result]:
        """Record all that arrived; return the results."""
        if isinstance(arrived, BaseException):
            raise arrived
        if isinstance(arrived, tuple):
            return [self._record(*arrived)]
        results: list[Result] = []
        for made, reply in arrived or ():
            carried_call = loop.carried_calls.pop(made)
            result = carried_call.read(reply)
            if not self._stopping and carried_call.again(result):
                again = loop.written(carried_call, carried_call.write())
                if again is None:
                    continue
                result = again
            self._session.keep(made, result)
            results.append(self._record(made, result))
        return results

    def _end(self, loop: _Loop) -> None:
        """Record the calls in flight: as they end, or now, if they are to be left."""
        for made, (_, future) in list(self._flying.items()):
            if future.cancelled():
                del self._flying[made]
        while self._flying:
            if self._left is not None and self._arrived.empty():
                made, (attempts, _) = next(iter(self._flying.items()))
                self._record(made, attempts.failed(self._left))
            else:
                self._take_last(loop, self._arrived.get())
        if (dispatcher := self._caller.dispatcher) is not None:
            dispatcher.stop()
            while not self._arrived.empty():
                self._take_last(loop, self._arrived.get())
            for carried_call in dispatcher.lost(loop.carried_calls):
                self._record(carried_call.call, carried_call.lost())

    def _take_last(self, loop: _Loop, arrived: _Arrived) -> None:
        """Record what arrived while the drive is ending."""
        self._stopping = True
        if not isinstance(arrived, BaseException):
            self._take(loop, arrived)

    def _record(self, made: Call, result: Result) -> Result:
        self._flying.pop(made, None)
        self._session.record(made, result)
        return result

    def _start(self, loop: _Loop, fresh: Call) -> None:
        if fresh in loop.live:
            return self._make_live(fresh, *loop.live.pop(fresh).live())
        try:
            requester, context = self._caller.begin(fresh.item)
        except Exception as error:  # noqa: BLE001 - it fails the call
            return self._arrived.put((fresh, Failure(error)))
        if loop.carries(fresh):
            carried_call = CarriedCall(fresh, requester, context)
            result = loop.written(carried_call, carried_call.write())
            return None if result is None else self._arrived.put((fresh, result))
        attempts = Attempts(requester, fresh.tier)
        return self._make_live(fresh, context, attempts)

    def _make_live(self, made: Call, context: Context, attempts: Attempts) -> None:
        future = self._pool.submit(context.run, self._make, made, attempts)
        self._flying[made] = attempts, future

    def _make(self, made: Call, attempts: Attempts) -> None:
        result = attempts.run()
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
    loop = _Loop(session, caller.dispatcher, limit, recorded)
    try:
        await tasks.drive(loop)
    except BaseException as error:
        await tasks.end(loop)
        _tell_what_is_left(error, caller.dispatcher)
        raise
    await tasks.end(loop)


class _Tasks:
    """Carries the loop out with tasks."""

    def __init__(self, session: Session, caller: Caller) -> None:
        self._session, self._caller = session, caller
        self._arrived: asyncio.Queue[_Arrived] = asyncio.Queue()
        self._flying: set[asyncio.Task[None]] = set()
        self._reading: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def drive(self, loop: _Loop) -> None:
        deliver = partial(_put, asyncio.get_running_loop(), self._arrived)
        while True:
            if loop.empty:
                await take(self._session, loop.refill)
            waiting = not self._arrived.empty()
            fresh = loop.next(waiting=waiting)
            if fresh is not None:
                await self._start(loop, fresh)
                continue
            if not loop.in_flight:
                return
            if not waiting and loop.send(deliver):
                continue
            arrived = await self._arrived.get()
            if isinstance(arrived, tuple):
                await take(self._session, partial(self._session.record, *arrived))
                loop.end(arrived[1])
            elif arrived:
                await self._read_all(loop, arrived)
            else:
                loop.look()

    async def _start(self, loop: _Loop, fresh: Call) -> None:
        await turn()
        if fresh in loop.live:
            return self._make_live(fresh, *loop.live.pop(fresh).live())
        try:
            requester, context = await self._caller.abegin(fresh.item)
        except Exception as error:  # noqa: BLE001 - it fails the call
            return self._arrived.put_nowait((fresh, Failure(error)))
        if loop.carries(fresh):
            carried_call = CarriedCall(fresh, requester, context)
            result = loop.written(carried_call, await carried_call.awrite())
            return None if result is None else self._arrived.put_nowait((fresh, result))
        attempts = Attempts(requester, fresh.tier)
        return self._make_live(fresh, context, attempts)

    def _make_live(self, made: Call, context: Context, attempts: Attempts) -> None:
        task = asyncio.create_task(self._make(made, attempts), context=context)
        self._flying.add(task)
        task.add_done_callback(self._flying.discard)

    async def _make(self, made: Call, attempts: Attempts) -> None:
        result = await attempts.arun()
        try:
            await take(self._session, partial(self._session.keep, made, result))
        finally:
            self._arrived.put_nowait((made, result))
        if isinstance(result, Failure) and isinstance(
            result.error, KeyboardInterrupt | SystemExit | GeneratorExit
        ):
            raise result.error

    async def _read_all(
        self, loop: _Loop, arrived: list[CallReply] | BaseException
    ) -> None:
        """Read replies, each in a task that ends even where the drive is cancelled."""
        if isinstance(arrived, BaseException):
            raise arrived
        for made, reply in arrived:
            await turn()
            carried_call = loop.carried_calls.pop(made)
            task = asyncio.create_task(self._read(loop, carried_call, reply))
            self._reading.add(task)
            task.add_done_callback(self._reading.discard)

    async def _read(self, loop: _Loop, carried_call: CarriedCall, reply: Any) -> None:
        result = await carried_call.aread(reply)
        if not self._stopping and carried_call.again(result):
            again = loop.written(carried_call, await carried_call.awrite())
            if again is None:
                return self._arrived.put_nowait(None)
            result = again
        try:
            await take(
                self._session, partial(self._session.keep, carried_call.call, result)
            )
        finally:
            self._arrived.put_nowait((carried_call.call, result))
        return None

    async def end(self, loop: _Loop) -> None:
        """Cancel what is in flight, and record what has arrived."""
        self._stopping = True
        flying = list(self._flying)
        for task in flying:
            task.cancel()
        await asyncio.gather(*flying, return_exceptions=True)
        dispatcher, lost = self._caller.dispatcher, list[_Arrived]()
        if dispatcher is not None:
            await take(dispatcher, dispatcher.stop)
            await self._read_rest(loop)
            lost = [
                (each.call, each.lost()) for each in dispatcher.lost(loop.carried_calls)
            ]
        rest = [self._arrived.get_nowait() for _ in range(self._arrived.qsize())]
        await take(self._session, partial(self._record, [*rest, *lost]))

    async def _read_rest(self, loop: _Loop) -> None:
        """Read the replies that are there."""
        for _ in range(self._arrived.qsize()):
            arrived = self._arrived.get_nowait()
            if isinstance(arrived, list):
                await self._read_all(loop, arrived)
            else:
                self._arrived.put_nowait(arrived)
        if self._reading:
            await asyncio.wait(self._reading)

    def _record(self, rest: list[_Arrived]) -> None:
        for arrived in rest:
            if isinstance(arrived, tuple):
                self._session.record(*arrived)


def _put(
    loop: asyncio.AbstractEventLoop, queue: asyncio.Queue[_Arrived], arrived: _Arrived
) -> None:
    """Put something into a queue of a loop, from a thread; a closed loop wants none."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(queue.put_nowait, arrived)
