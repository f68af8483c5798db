"""Steps of a session in async code: where one may wait, a thread does the waiting.

A step waits for a database, or for a judge's verdict; all others are so short that they
are taken at once. The event loop, and so the thread, is the adapter's.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Any, Protocol, TypeVar

__all__ = ["Loop", "Steps", "Waiting"]

T = TypeVar("T")


class Loop(Protocol):
    """What is needed of an event loop."""

    def create_future(self) -> Any:
        """Return something to wait for."""
        ...

    def run_in_executor(self, executor: None, func: Callable[[], Any], /) -> Any:
        """Run a function in a thread; return something to wait for."""
        ...


class Waiting(Protocol):
    """Whatever takes steps."""

    @property
    def waits(self) -> bool:
        """Whether they may wait."""
        ...


class Steps:
    """Takes steps.

    Args:
        running: Returns the running event loop, as `asyncio.get_running_loop` does.

    Example:
        ```python
        import asyncio
        from types import SimpleNamespace

        stepped = Steps(asyncio.get_running_loop)
        slow = SimpleNamespace(waits=True)
        assert asyncio.run(stepped(slow, divmod, 7, 2)) == (3, 1)
        ```
    """

    def __init__(self, running: Callable[[], Loop]) -> None:
        """No step is taken."""
        self._running = running

    async def __call__(
        self, whose: Waiting, step: Callable[..., T], *args: Any, **kwargs: Any
    ) -> T:
        """Take a step, and return what it returns.

        Whoever is cancelled meanwhile is so when the step is done: what is being
        written is written, and what was paid for is recorded.

        Args:
            whose: Says whether its steps may wait.
            step: The step.
            *args: Handed to it.
            **kwargs: Handed to it.
        """
        if not whose.waits:
            return step(*args, **kwargs)
        loop = self._running()
        call = partial(copy_context().run, step, *args, **kwargs)
        taken = loop.run_in_executor(None, call)
        cancelled: BaseException | None = None
        while not taken.done():
            over = loop.create_future()
            wake = partial(_wake, over)
            taken.add_done_callback(wake)
            try:
                await over
            except GeneratorExit:  # nobody will ever come back here
                raise
            except BaseException as error:  # noqa: BLE001 - raised when it is done
                cancelled = error
            finally:
                taken.remove_done_callback(wake)
        if cancelled is not None:
            taken.exception()  # it was the step's, and nobody waits for it any more
            raise cancelled
        result: T = taken.result()
        return result


def _wake(over: Any, _: Any) -> None:
    """End a wait that was not cancelled."""
    if not over.done():
        over.set_result(None)
