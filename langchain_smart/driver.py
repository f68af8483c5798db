"""Drives a session: makes its calls concurrently and records what they bring.

Both drivers do the same, with threads and with tasks: workers take calls from one
queue and put outcomes into another; only the driver records them. Whatever ends a
drive, outcomes that have arrived are recorded first: they were paid for. An interrupt
reaches the main thread alone, so the driver of threads has one of its own: nothing
comes between an outcome and its record. A kill asks nobody, so workers keep outcomes,
where the session keeps any, before they do anything else. The driver of tasks records
what has arrived before it hands out the next call, which takes a turn of the event
loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from queue import Empty, SimpleQueue
from threading import Event

from langchain_smart.runs import quiet_context, silence_ambient_handlers
from smart_engine.calls import Call, Failure, Outcome
from smart_engine.runtime.steps import Steps
from smart_engine.runtime.turns import turn
from smart_engine.serving.members import UnpricedError
from smart_engine.serving.session import Session

__all__ = ["adrive", "drive"]

stepped = Steps(asyncio.get_running_loop)
"""Takes steps of sessions."""

Result = tuple[Call, Outcome | Failure]
Results = SimpleQueue[Result | None]
"""What calls brought; None wakes a driver that is to stop."""

_AHEAD = 2
"""Calls handed out per worker: one to make, one to take up at once after it."""


def drive(
    session: Session,
    begin: Callable[[int], None],
    ask: Callable[[Call], Outcome | Failure],
    broken_off: Callable[[Call, BaseException], Failure],
    max_concurrency: int,
) -> None:
    """Run a session to its end with threads.

    Args:
        session: The session.
        begin: Called with an item before each of its calls is handed to a worker.
        ask: Makes one call, in a worker thread; what it raises fails that call.
        broken_off: Returns what a call brought that raised an error.
        max_concurrency: Most calls in flight at once.
    """
    stop, results = Event(), Results()
    driver = ThreadPoolExecutor(1, "smart")
    job = partial(_run, session, begin, ask, broken_off, max_concurrency)
    try:
        driver.submit(copy_context().run, partial(job, stop, results)).result()
    finally:
        stop.set()
        results.put(None)
        driver.shutdown(wait=True)


def _run(
    session: Session,
    begin: Callable[[int], None],
    ask: Callable[[Call], Outcome | Failure],
    broken_off: Callable[[Call, BaseException], Failure],
    max_concurrency: int,
    stop: Event,
    results: Results,
) -> None:
    """Run a session to its end, or until it is to stop."""
    todo: SimpleQueue[Call | None] = SimpleQueue()

    def work() -> None:
        while (call := todo.get()) is not None:
            try:
                brought = ask(call)
                session.keep(call, brought)
                results.put((call, brought))
            except BaseException as error:  # noqa: BLE001 - the item's, not the job's
                results.put((call, broken_off(call, error)))

    backlog: deque[Call] = deque()
    handed_out = workers = 0
    with ThreadPoolExecutor(max_concurrency, "smart") as pool:
        try:
            while not stop.is_set():
                backlog.extend(session.next_calls())
                while backlog and handed_out < _AHEAD * max_concurrency:
                    call = backlog.popleft()
                    begin(call.item)
                    todo.put(call)
                    handed_out += 1
                    if workers < min(handed_out, max_concurrency):
                        workers += 1
                        pool.submit(quiet_context().run, work)
                result = results.get() if handed_out else None
                if result is None:
                    return
                _record(session, result)
                handed_out -= 1
        finally:
            _drain(todo)
            for _ in range(workers):
                todo.put(None)
            pool.shutdown(wait=True)
            _record_rest(session, results)


def _record_rest(session: Session, results: Results) -> None:
    """Record what has arrived."""
    while not results.empty():
        if (result := results.get()) is not None:
            session.record(*result)


def _record(session: Session, result: Result) -> None:
    """Record what a call brought; a price that is missing ends the whole job.

    Raises:
        UnpricedError: No further call can be paid for knowingly.
    """
    call, brought = result
    session.record(call, brought)
    if isinstance(brought, Failure) and isinstance(brought.error, UnpricedError):
        raise brought.error


def _drain(todo: SimpleQueue[Call | None]) -> None:
    """Take back the calls that no worker has started."""
    try:
        while True:
            todo.get_nowait()
    except Empty:
        return


async def adrive(
    session: Session,
    begin: Callable[[int], Awaitable[None]],
    ask: Callable[[Call], Awaitable[Outcome | Failure]],
    broken_off: Callable[[Call, BaseException], Failure],
    max_concurrency: int,
) -> None:
    """Run a session to its end with tasks.

    Args:
        session: The session.
        begin: Called with an item before each of its calls is handed to a worker.
        ask: Makes one call; what it raises fails that call.
        broken_off: Returns what a call brought that raised an error.
        max_concurrency: Most calls in flight at once.
    """
    todo: asyncio.Queue[Call] = asyncio.Queue()
    results: asyncio.Queue[Result] = asyncio.Queue()
    backlog: deque[Call] = deque()
    handed_out = 0
    workers: list[asyncio.Task[None]] = []
    try:
        while True:
            if not backlog:
                backlog.extend(await stepped(session, session.next_calls))
            if backlog and results.empty() and handed_out < _AHEAD * max_concurrency:
                await turn(asyncio.get_running_loop())
                call = backlog.popleft()
                await begin(call.item)
                todo.put_nowait(call)
                handed_out += 1
                if len(workers) < min(handed_out, max_concurrency):
                    workers.append(
                        asyncio.create_task(
                            _work(session, todo, results, ask, broken_off)
                        )
                    )
            elif handed_out:
                await stepped(session, _record, session, await results.get())
                handed_out -= 1
            else:
                return
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        rest = [results.get_nowait() for _ in range(results.qsize())]
        await stepped(session, _record_all, session, rest)


def _record_all(session: Session, results: Iterable[Result]) -> None:
    """Record what has arrived."""
    for result in results:
        session.record(*result)


async def _work(
    session: Session,
    todo: asyncio.Queue[Call],
    results: asyncio.Queue[Result],
    ask: Callable[[Call], Awaitable[Outcome | Failure]],
    broken_off: Callable[[Call, BaseException], Failure],
) -> None:
    """Make calls until cancelled; a call that is cancelled brings a failure."""
    silence_ambient_handlers()
    while True:
        call = await todo.get()
        try:
            brought = await ask(call)
        except BaseException as error:  # the item's, unless the job itself is ending
            results.put_nowait((call, broken_off(call, error)))
            task = asyncio.current_task()
            ending = isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit)
            if ending or (task and task.cancelling()):
                raise
        else:
            try:
                await stepped(session, session.keep, call, brought)
            finally:
                results.put_nowait((call, brought))
