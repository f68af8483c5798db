"""What an adapter provides: how one item is put to its models; and single calls."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextvars import Context
from typing import Any, Protocol, TypeVar

from smart_engine.calls import Failure, Outcome, Result, Timing
from smart_engine.serving.retry import may_succeed_later

__all__ = ["Asker", "Attempts", "Clock", "acall", "call"]

R = TypeVar("R", Outcome, Failure, Outcome | Failure)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 8.0
"""Seconds before another attempt, at most: doubled each time, drawn below that."""


class Asker(Protocol):
    """Puts one item to models, by the names that the engine knows them by.

    What its methods raise fails the call, not the item: `failed` makes it a result.
    """

    @property
    def retries(self) -> int:
        """How often a call that failed is made again, where that may help."""
        ...

    @property
    def watched(self) -> bool:
        """Whether the caller sees pieces of answers that it asks for as a whole."""
        ...

    def streamed(self, model: str) -> bool:
        """Whether the caller has seen any piece of a model's whole answer."""
        ...

    def context(self) -> Context:
        """Return the context in which a model is called."""
        ...

    def call(self, model: str, *, shown: bool = False) -> Result:
        """Return a model's whole answer, whose pieces the caller may see."""
        ...

    async def acall(self, model: str, *, shown: bool = False) -> Result:
        """Return a model's whole answer, whose pieces the caller may see."""
        ...

    def stream(self, model: str) -> Iterator[Any]:
        """Yield a model's answer piece by piece."""
        ...

    def astream(self, model: str) -> AsyncGenerator[Any]:
        """Yield a model's answer piece by piece."""
        ...

    def joined(self, model: str, pieces: Sequence[Any]) -> Result:
        """Return the result of a call whose answer was streamed to its end."""
        ...

    def failed(
        self, model: str, pieces: Sequence[Any], error: BaseException
    ) -> Failure:
        """Return the result of a call that ended by an error, with what it cost."""
        ...

    def retried(self, model: str, failure: Failure) -> None:
        """Enter an attempt that failed and is followed by another."""
        ...


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
        self._began, self._ticked = time.time(), time.perf_counter()

    @property
    def timing(self) -> Timing:
        """When the call was made, if it ends now."""
        return Timing(self._began, time.perf_counter() - self._ticked)

    def timed(self, result: R) -> R:
        """Return the result of the call, which has just ended, with its timing."""
        return result._replace(timing=self.timing)


class Attempts:
    """The attempts at one call."""

    def __init__(self, asker: Asker, model: str) -> None:
        self._asker, self._model = asker, model
        self._made = 0

    def pause(self, failure: Failure) -> float | None:
        """Return the seconds to wait before another attempt, None if there is none."""
        if self._made >= self._asker.retries or not may_succeed_later(failure):
            return None
        self._asker.retried(self._model, failure)
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**self._made)
        self._made += 1
        return random.uniform(0, longest)  # noqa: S311 - no secret


def call(asker: Asker, model: str, *, shown: bool = False) -> Result:
    """Return the result of a call, a failure if its last attempt raised anything."""
    attempts, pause = Attempts(asker, model), 0.0
    while True:
        try:
            if pause:
                time.sleep(pause)
            return asker.call(model, shown=shown)
        except BaseException as error:  # noqa: BLE001 - the caller decides what it ends
            failure = asker.failed(model, (), error)
        if (wait := attempts.pause(failure)) is None:
            return failure
        pause = wait


async def acall(asker: Asker, model: str, *, shown: bool = False) -> Result:
    """Return the result of a call, a failure if its last attempt raised anything."""
    attempts, pause = Attempts(asker, model), 0.0
    while True:
        try:
            if pause:
                await asyncio.sleep(pause)
            return await asker.acall(model, shown=shown)
        except BaseException as error:  # noqa: BLE001 - the caller decides what it ends
            failure = asker.failed(model, (), error)
        if (wait := attempts.pause(failure)) is None:
            return failure
        pause = wait
