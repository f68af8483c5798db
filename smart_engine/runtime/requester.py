"""What an adapter provides: how one item is put to its models; and single calls."""

from __future__ import annotations

import asyncio
import random
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import aclosing, closing
from contextvars import Context, copy_context
from typing import Any, TypeVar

from smart_engine.calls import Failure, Outcome, Result, Timing
from smart_engine.serving.retry import may_succeed_later

__all__ = ["Clock", "Requester", "acall", "astream", "call", "stream"]

R = TypeVar("R", Outcome, Failure, Outcome | Failure)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 8.0
"""Seconds before another attempt, at most: doubled each time, drawn below that."""


class Requester(ABC):
    """Puts one item to models, by the names that the engine knows them by.

    What its methods raise fails the call, not the item: `failed` makes it a result.
    """

    __slots__ = ()

    @property
    def retries(self) -> int:
        """How often a call that failed is made again, where that may help."""
        return 0

    @property
    def watched(self) -> bool:
        """Whether the caller sees pieces of answers that it asks for as a whole."""
        return False

    def streamed(self, model: str) -> bool:  # noqa: ARG002
        """Whether the caller has seen any piece of a model's whole answer."""
        return False

    def context(self) -> Context:
        """Return the context in which a model is called."""
        return copy_context()

    @abstractmethod
    def call(self, model: str, *, shown: bool = False) -> Result:
        """Return a model's whole answer, whose pieces the caller may see."""

    @abstractmethod
    async def acall(self, model: str, *, shown: bool = False) -> Result:
        """Return a model's whole answer, whose pieces the caller may see."""

    @abstractmethod
    def stream(self, model: str) -> Generator[Any]:
        """Yield a model's answer piece by piece."""

    @abstractmethod
    def astream(self, model: str) -> AsyncGenerator[Any]:
        """Yield a model's answer piece by piece."""

    @abstractmethod
    def joined(self, model: str, pieces: Sequence[Any]) -> Result:
        """Return the result of a call whose answer was streamed to its end."""

    @abstractmethod
    def failed(
        self, model: str, pieces: Sequence[Any], error: BaseException
    ) -> Failure:
        """Return the result of a call that ended by an error, with what it cost."""

    def retried(self, model: str, failure: Failure) -> None:  # noqa: B027
        """Enter an attempt that failed and is followed by another."""


class Clock:
    """Times one call, from its construction on.

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


def call(requester: Requester, model: str, *, shown: bool = False) -> Result:
    """Return the result of a call, a failure if its last attempt raised anything."""
    pause, pauses = 0.0, _pauses(requester, model)
    while True:
        try:
            if pause:
                time.sleep(pause)
            return requester.call(model, shown=shown)
        except BaseException as error:  # noqa: BLE001 - the caller decides what it ends
            failure = requester.failed(model, (), error)
        if (wait := pauses(failure)) is None:
            return failure
        pause = wait


async def acall(requester: Requester, model: str, *, shown: bool = False) -> Result:
    """Return the result of a call, a failure if its last attempt raised anything."""
    pause, pauses = 0.0, _pauses(requester, model)
    while True:
        try:
            if pause:
                await asyncio.sleep(pause)
            return await requester.acall(model, shown=shown)
        except BaseException as error:  # noqa: BLE001 - the caller decides what it ends
            failure = requester.failed(model, (), error)
        if (wait := pauses(failure)) is None:
            return failure
        pause = wait


def stream(requester: Requester, model: str) -> Generator[Any]:
    """Yield an answer piece by piece; only its beginning is tried again."""
    started, pauses = False, _pauses(requester, model)
    while True:
        try:
            with closing(requester.stream(model)) as pieces:
                for piece in pieces:
                    started = True
                    yield piece
        except Exception as error:
            if started or not requester.retries:
                raise
            if (pause := pauses(requester.failed(model, (), error))) is None:
                raise
            time.sleep(pause)
        else:
            return


async def astream(requester: Requester, model: str) -> AsyncGenerator[Any]:
    """Yield an answer piece by piece; only its beginning is tried again."""
    started, pauses = False, _pauses(requester, model)
    while True:
        try:
            async with aclosing(requester.astream(model)) as pieces:
                async for piece in pieces:
                    started = True
                    yield piece
        except Exception as error:
            if started or not requester.retries:
                raise
            if (pause := pauses(requester.failed(model, (), error))) is None:
                raise
            await asyncio.sleep(pause)
        else:
            return


def _pauses(requester: Requester, model: str) -> Callable[[Failure], float | None]:
    """Return a function from an attempt that failed to the seconds before the next one.

    It returns None where there is no further attempt, and else enters the one that
    failed.
    """
    longest = _FIRST_PAUSE
    left = requester.retries

    def pause(failure: Failure) -> float | None:
        nonlocal left, longest
        if not left or not may_succeed_later(failure):
            return None
        requester.retried(model, failure)
        seconds = random.uniform(0, longest)  # noqa: S311 - no secret
        left, longest = left - 1, min(_LONGEST_PAUSE, 2 * longest)
        return seconds

    return pause
