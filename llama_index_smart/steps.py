"""Steps of a session in async code: where one may wait, a thread does the waiting.

A step waits for a database, or for a judge's verdict; all others are so short that they
are taken at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

__all__ = ["Waiting", "stepped"]

T = TypeVar("T")


class Waiting(Protocol):
    """Whatever takes steps."""

    @property
    def waits(self) -> bool:
        """Whether they may wait."""
        ...


async def stepped(
    whose: Waiting, step: Callable[..., T], *args: Any, **kwargs: Any
) -> T:
    """Take a step, and return what it returns.

    Whoever is cancelled meanwhile is so when the step is done: what is being written is
    written, and what was paid for is recorded.

    Args:
        whose: Says whether its steps may wait.
        step: The step.
        *args: Handed to it.
        **kwargs: Handed to it.
    """
    if not whose.waits:
        return step(*args, **kwargs)
    taken = asyncio.ensure_future(asyncio.to_thread(step, *args, **kwargs))
    cancelled = None
    while not taken.done():
        try:
            await asyncio.wait([taken])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        taken.exception()  # it was the step's, and nobody waits for it any more
        raise cancelled
    return taken.result()
