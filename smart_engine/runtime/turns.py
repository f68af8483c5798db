"""Turns of an event loop: of all that begins at once, one thing begins in each.

What begins costs the loop milliseconds, step after step: hundreds of calls that begin
together would hold it up for seconds, and with it everybody else who lives on it. Here
they begin in the order in which they came, one in each pass of the loop, between which
it reads its sockets and wakes its sleepers. A turn is taken, never held: nothing limits
how many calls are in flight, and nothing can be waited for in a circle.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol
from weakref import WeakKeyDictionary

__all__ = ["Loop", "turn"]


class Waiter(Awaitable[None], Protocol):
    """Somebody who waits, as a future does."""

    def done(self) -> bool:
        """Whether the wait is over, as it is if it was cancelled."""
        ...

    def set_result(self, result: None, /) -> None:
        """End the wait."""
        ...


class Loop(Protocol):
    """What is needed of an event loop."""

    def call_soon(self, callback: Callable[[], None], /) -> Any:
        """Call back in the loop's next pass."""
        ...

    def create_future(self) -> Any:
        """Return somebody who waits in the loop."""
        ...


async def turn(loop: Loop) -> None:
    """Wait for a turn in which nothing else begins; at once if there is one.

    Args:
        loop: The running event loop.

    Example:
        ```python
        import asyncio


        async def begin(number, begun):
            await turn(asyncio.get_running_loop())
            begun.append(number)


        async def main():
            begun = []
            tasks = [asyncio.create_task(begin(n, begun)) for n in range(3)]
            await asyncio.sleep(0)
            assert begun == [0]  # one pass of the loop, one beginning
            await asyncio.gather(*tasks)
            assert begun == [0, 1, 2]


        asyncio.run(main())
        ```
    """
    waiter = _turns.setdefault(loop, _Turns()).take(loop)
    if waiter is not None:
        await waiter


class _Turns:
    """The turns of one loop; used in its thread alone."""

    def __init__(self) -> None:
        """Nobody waits."""
        self._waiting: deque[Waiter] = deque()
        self._taken = False

    def take(self, loop: Loop) -> Waiter | None:
        """Take the turn if it is free; else return who waits for one."""
        if not self._taken:
            self._pass_on(loop)
            return None
        waiter: Waiter = loop.create_future()
        self._waiting.append(waiter)
        return waiter

    def _pass_on(self, loop: Loop) -> None:
        """See to it that the next pass of the loop has a turn again."""
        self._taken = True
        loop.call_soon(lambda: self._next(loop))

    def _next(self, loop: Loop) -> None:
        """Give the turn to the first who still waits for it."""
        self._taken = False
        while self._waiting and not self._taken:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                self._pass_on(loop)


_turns: WeakKeyDictionary[Loop, _Turns] = WeakKeyDictionary()
"""The turns of each loop, for as long as the loop lives."""
