"""Drives a batch's session: makes its calls concurrently and records what they bring.

Only the driver touches the session. Whatever ends a drive, outcomes that have arrived
are recorded first: they were paid for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from typing import Any

from smart_engine.calls import Call, Failure, Outcome
from smart_engine.serving.resumed import AnySession

__all__ = ["adrive", "drive"]

Brought = Outcome | Failure


def drive(
    session: AnySession, ask: Callable[[Call], Brought], max_concurrency: int
) -> None:
    """Run a session to its end with threads.

    Args:
        session: The session.
        ask: Makes one call, in a worker thread; what it raises fails that call.
        max_concurrency: Most calls in flight at once.
    """
    ended: SimpleQueue[tuple[Call, Future[Brought]]] = SimpleQueue()
    backlog: deque[Call] = deque()
    flying = 0

    def take_up() -> None:
        nonlocal flying
        call, future = ended.get()
        flying -= 1
        error = future.exception()
        session.record(call, future.result() if error is None else Failure(error))

    with ThreadPoolExecutor(max_concurrency, "smart") as pool:
        try:
            while True:
                backlog.extend(session.next_calls())
                while backlog and flying < 2 * max_concurrency:
                    call = backlog.popleft()
                    future = pool.submit(copy_context().run, ask, call)
                    flying += 1
                    future.add_done_callback(partial(_put, ended, call))
                if not flying:
                    return
                take_up()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            while not ended.empty():
                call, future = ended.get()
                if not future.cancelled():
                    ended.put((call, future))
                    take_up()


def _put(ended: SimpleQueue[Any], call: Call, future: Future[Brought]) -> None:
    """Say that a call has ended."""
    ended.put((call, future))


async def adrive(
    session: AnySession, ask: Callable[[Call], Awaitable[Brought]], max_concurrency: int
) -> None:
    """Run a session to its end with tasks.

    Args:
        session: The session.
        ask: Makes one call; what it raises fails that call.
        max_concurrency: Most calls in flight at once.
    """
    flying: dict[asyncio.Task[Brought], Call] = {}
    ended: asyncio.Queue[asyncio.Task[Brought]] = asyncio.Queue()
    backlog: deque[Call] = deque()
    try:
        while True:
            backlog.extend(session.next_calls())
            while backlog and len(flying) < max_concurrency:
                call = backlog.popleft()
                task = asyncio.create_task(_brought(ask, call))
                flying[task] = call
                task.add_done_callback(ended.put_nowait)
            if not flying:
                return
            task = await ended.get()
            session.record(flying.pop(task), task.result())
    finally:
        for task in flying:
            task.cancel()
        found = await asyncio.gather(*flying, return_exceptions=True)
        for call, brought in zip(flying.values(), found, strict=True):
            if isinstance(brought, BaseException):
                session.record(call, Failure(brought))
            else:
                session.record(call, brought)


async def _brought(ask: Callable[[Call], Awaitable[Brought]], call: Call) -> Brought:
    """Return what a call brings; an error is its own, not the job's."""
    try:
        return await ask(call)
    except Exception as error:  # noqa: BLE001
        return Failure(error)
