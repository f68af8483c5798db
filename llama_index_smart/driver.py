"""Drives a batch's session: makes its calls concurrently and records what they bring.

Only the driver records outcomes. Whatever ends a drive, those that have arrived are
recorded first: they were paid for. An interrupt reaches the main thread alone, so the
driver has a thread of its own: nothing comes between an outcome and its record. A kill
asks nobody, so whoever made a call keeps its outcome, where the session keeps any,
before anything else is done.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from queue import SimpleQueue
from threading import Event

from smart_engine.runtime.steps import Steps
from smart_engine.runtime.turns import turn

from smart_engine.calls import Call, Failure, Outcome
from smart_engine.serving.session import Session

__all__ = ["adrive", "drive"]

stepped = Steps(asyncio.get_running_loop)
"""Takes steps of sessions."""

Result = Outcome | Failure
Arrived = SimpleQueue[tuple[Call, Result] | None]
"""What calls brought; None wakes a driver that is to stop."""


def drive(
    session: Session, ask: Callable[[Call], Result], max_concurrency: int
) -> None:
    """Run a session to its end with threads.

    Args:
        session: The session.
        ask: Makes one call, in a worker thread; what it raises fails that call.
        max_concurrency: Most calls in flight at once.
    """
    stop, arrived = Event(), Arrived()
    driver = ThreadPoolExecutor(1, "smart")
    try:
        run = copy_context().run
        driver.submit(run, _run, session, ask, max_concurrency, stop, arrived).result()
    finally:
        stop.set()
        arrived.put(None)
        driver.shutdown(wait=True)


def _run(
    session: Session,
    ask: Callable[[Call], Result],
    max_concurrency: int,
    stop: Event,
    arrived: Arrived,
) -> None:
    """Run a session to its end, or until it is to stop."""

    def work(call: Call) -> None:
        if stop.is_set():
            return
        try:
            brought = ask(call)
            session.keep(call, brought)
            arrived.put((call, brought))
        except BaseException as error:  # noqa: BLE001 - the item's, not the job's
            arrived.put((call, Failure(error)))

    backlog: deque[Call] = deque()
    flying = 0
    pool = ThreadPoolExecutor(max_concurrency, "smart")
    try:
        while not stop.is_set():
            backlog.extend(session.next_calls())
            while backlog and flying < 2 * max_concurrency:
                pool.submit(copy_context().run, work, backlog.popleft())
                flying += 1
            if not flying:
                return
            found = arrived.get()
            if found is None:
                return
            session.record(*found)
            flying -= 1
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        while not arrived.empty():
            found = arrived.get()
            if found is not None:
                session.record(*found)


async def adrive(
    session: Session, ask: Callable[[Call], Awaitable[Result]], max_concurrency: int
) -> None:
    """Run a session to its end with tasks.

    Args:
        session: The session.
        ask: Makes one call; what it raises fails that call.
        max_concurrency: Most calls in flight at once.
    """
    flying: dict[asyncio.Task[Result], Call] = {}
    ended: asyncio.Queue[asyncio.Task[Result]] = asyncio.Queue()
    backlog: deque[Call] = deque()
    try:
        while True:
            if not backlog:
                backlog.extend(await stepped(session, session.next_calls))
            if backlog and ended.empty() and len(flying) < max_concurrency:
                await turn(asyncio.get_running_loop())
                call = backlog.popleft()
                task = asyncio.create_task(_brought(session, ask, call))
                flying[task] = call
                task.add_done_callback(ended.put_nowait)
            elif flying:
                task = await ended.get()
                call, brought = flying.pop(task), task.result()
                await stepped(session, session.record, call, brought)
            else:
                return
    finally:
        for task in flying:
            task.cancel()
        found = await asyncio.gather(*flying, return_exceptions=True)
        rest = zip(flying.values(), found, strict=True)
        await stepped(session, _record_all, session, rest)


def _record_all(
    session: Session, rest: Iterable[tuple[Call, Result | BaseException]]
) -> None:
    """Record what calls brought, or that they were broken off."""
    for call, brought in rest:
        if isinstance(brought, BaseException):
            session.record(call, Failure(brought))
        else:
            session.record(call, brought)


async def _brought(
    session: Session, ask: Callable[[Call], Awaitable[Result]], call: Call
) -> Result:
    """Return what a call brings; an error is its own, not the job's."""
    try:
        brought = await ask(call)
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        return Failure(error)  # nobody cancelled the job: the call did so itself
    except Exception as error:  # noqa: BLE001
        return Failure(error)
    with suppress(asyncio.CancelledError):  # it ends here anyway, and is paid for
        await stepped(session, session.keep, call, brought)
    return brought
