"""When a call was made, and how long it took, by clocks that adapters bring along."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from smart_engine.calls import Failure, Outcome, Timing

__all__ = ["Clock"]

B = TypeVar("B", Outcome, Failure, Outcome | Failure)


class Clock:
    """Times one call.

    Args:
        now: Tells the time, in seconds since 1970, UTC, as `time.time` does.
        tick: Tells seconds from any moment on, as `time.perf_counter` does.

    Example:
        ```python
        clock = Clock(lambda: 1.8e9, iter([5.0, 7.0]).__next__)
        outcome = clock.timed(Outcome("yes", cost=0.5))
        assert outcome.timing.seconds == 2.0
        ```
    """

    __slots__ = ("_began", "_now", "_tick", "_ticked")

    def __init__(self, now: Callable[[], float], tick: Callable[[], float]) -> None:
        """The call begins."""
        self._now, self._tick = now, tick
        self.restart()

    def restart(self) -> None:
        """The call begins only now, or anew."""
        self._began, self._ticked = self._now(), self._tick()

    @property
    def timing(self) -> Timing:
        """When the call was made, if it ends now."""
        return Timing(self._began, self._tick() - self._ticked)

    def timed(self, brought: B) -> B:
        """Return what the call brought, now that it has ended, with its timing."""
        return brought._replace(timing=self.timing)
