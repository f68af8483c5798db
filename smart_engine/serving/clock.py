"""When calls are made: the one place of the engine that reads a clock.

Adapters do, around each call; nothing else in the engine imports this.
"""

from __future__ import annotations

import time
from typing import TypeVar

from smart_engine.calls import Failure, Outcome, Timing

__all__ = ["Clock"]

B = TypeVar("B", Outcome, Failure, Outcome | Failure)


class Clock:
    """Times one call.

    Example:
        ```python
        clock = Clock()
        outcome = clock.timed(Outcome("yes", cost=0.5))
        assert outcome.timing.seconds >= 0
        ```
    """

    __slots__ = ("_began", "_tick")

    def __init__(self) -> None:
        """The call begins."""
        self.restart()

    def restart(self) -> None:
        """The call begins only now, or anew."""
        self._began, self._tick = time.time(), time.perf_counter()

    @property
    def timing(self) -> Timing:
        """When the call was made, if it ends now."""
        return Timing(self._began, time.perf_counter() - self._tick)

    def timed(self, brought: B) -> B:
        """Return what the call brought, now that it has ended, with its timing."""
        return brought._replace(timing=self.timing)
