"""When a call was made, and how long it took."""

from __future__ import annotations

from time import perf_counter, time
from typing import TypeVar

from smart_engine.calls import Failure, Outcome, Timing

__all__ = ["Clock"]

R = TypeVar("R", Outcome, Failure, Outcome | Failure)


class Clock:
    """Times one call.

    Example:
        ```python
        outcome = Clock().timed(Outcome("yes", cost=0.5))
        assert outcome.timing.seconds >= 0
        ```
    """

    __slots__ = ("_began", "_ticked")

    def __init__(self) -> None:
        self._began, self._ticked = time(), perf_counter()

    @property
    def timing(self) -> Timing:
        """When the call was made, if it ends now."""
        return Timing(self._began, perf_counter() - self._ticked)

    def timed(self, result: R) -> R:
        """Return the result of the call, which has just ended, with its timing."""
        return result._replace(timing=self.timing)
