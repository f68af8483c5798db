"""Fair use of an event loop that others share.

Starting a call costs the loop milliseconds: hundreds that start together would hold it
up for seconds. `turn` lets one start in each pass of the loop, in the order of arrival;
a turn is not held, so that it limits nothing and cannot deadlock. A step of a session
that may wait, for a database or for a judge, is taken in a thread by `take`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from contextvars import Context, copy_context
from functools import partial
from typing import Any, Protocol, TypeVar
from weakref import WeakKeyDictionary

__all__ = ["Pump", "Waits", "take", "turn"]

T = TypeVar("T")


class Waits(Protocol):
    """A session or an item, whose steps may have to wait."""

    @property
    def waits(self) -> bool:
        """Whether a step may wait for a database or a judge."""
        ...


async def take(owner: Waits, step: Callable[[], T]) -> T:
    """Take a step of a session without blocking the event loop.

    A caller that is cancelled meanwhile is cancelled when the step has ended: what is
    being written is written.

    Args:
        owner: Whose step it is.
        step: The step.
    """
    if not owner.waits:
        return step()
    loop = asyncio.get_running_loop()
    taken = loop.run_in_executor(None, partial(copy_context().run, step))
    cancelled: asyncio.CancelledError | None = None
    while not taken.done():
        try:
            await asyncio.wait([taken])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        taken.exception()  # retrieved: nobody is left to handle it
        raise cancelled
    return taken.result()


class Pump:
    """Runs a generator in one task, so that its scopes hold, a piece at a time.

    It advances only when the next piece is asked for.

    Args:
        pieces: The generator.
        context: The context to run it in.
    """

    END = object()

    def __init__(self, pieces: AsyncGenerator[Any], context: Context) -> None:
        self._wanted, self._found = asyncio.Semaphore(0), asyncio.Queue[Any]()
        self._task = asyncio.create_task(self._run(pieces), context=context)
        self._task.add_done_callback(lambda _: self._found.put_nowait(self.END))

    async def next(self) -> Any:
        """Return the next piece, `END` after the last one; raise what it raises."""
        self._wanted.release()
        piece = await self._found.get()
        if piece is self.END:
            await asyncio.wait([self._task])
            self._task.result()
        return piece

    async def close(self) -> None:
        """End the generator where it is."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, pieces: AsyncGenerator[Any]) -> None:
        async with aclosing(pieces):
            while True:
                try:
                    await self._wanted.acquire()
                except asyncio.CancelledError:
                    # Core leaves generators that are closed between two pieces to the
                    # loop, which ends them in another task: so it is cancelled at work.
                    self._task.cancel()
                    await anext(pieces, self.END)
                    raise
                piece = await anext(pieces, self.END)
                if piece is self.END:
                    return
                self._found.put_nowait(piece)


async def turn() -> None:
    """Wait for a pass of the running loop in which nothing else starts.

    Example:
        ```python
        import asyncio


        async def start(number, started):
            await turn()
            started.append(number)


        async def main():
            started = []
            tasks = [asyncio.create_task(start(n, started)) for n in range(3)]
            await asyncio.sleep(0)
            assert started == [0]  # one pass of the loop, one start
            await asyncio.gather(*tasks)
            assert started == [0, 1, 2]


        asyncio.run(main())
        ```
    """
    loop = asyncio.get_running_loop()
    waiter = _turns.setdefault(loop, _Turns()).take(loop)
    if waiter is not None:
        await waiter


class _Turns:
    """The turns of one loop, used in its thread alone."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._taken = False

    def take(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None] | None:
        """Take the turn if it is free, else return a future that ends with it."""
        if not self._taken:
            self._hold(loop)
            return None
        waiter = loop.create_future()
        self._waiting.append(waiter)
        return waiter

    def _hold(self, loop: asyncio.AbstractEventLoop) -> None:
        self._taken = True
        loop.call_soon(self._next, loop)

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give the turn to the first that still waits for it."""
        self._taken = False
        while self._waiting and not self._taken:
            waiter = self._waiting.popleft()
            if not waiter.done():  # as it is if it was cancelled
                waiter.set_result(None)
                self._hold(loop)


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turns] = WeakKeyDictionary()
