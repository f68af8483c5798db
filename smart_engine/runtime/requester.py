"""What an adapter provides: how one item is put to its models; and single calls."""

from __future__ import annotations

import asyncio
import random
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Sequence
from contextlib import aclosing, closing
from contextvars import Context, copy_context
from threading import Event
from typing import Any, Literal, Protocol, TypeVar

from smart_engine.calls import Failure, Outcome, Result, Timing
from smart_engine.errors import UnparseableAnswerError
from smart_engine.money.reservations import Allowance
from smart_engine.runtime.failure import (
    explain,
    is_untold,
    may_succeed_later,
    seconds_asked_for,
)
from smart_engine.runtime.signals import CallSignals, Signals

__all__ = ["Attempts", "Clock", "RateLimiter", "Requester", "Streaming", "Verb"]

R = TypeVar("R", Outcome, Failure, Outcome | Failure)

Verb = Literal["call", "acall", "stream", "astream"]
"""How a model is asked; see `Requester.prepare`."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 8.0
"""Seconds before another attempt, at most: doubled each time, at least half of it."""


class RateLimiter(Protocol):
    """Says when a call may be made; LangChain's rate limiters do."""

    def acquire(self, *, blocking: bool) -> bool:
        """Wait until a call may be made."""
        ...

    async def aacquire(self, *, blocking: bool) -> bool:
        """Wait until a call may be made."""
        ...


class Requester(ABC):
    """Puts one item to models, by the names that the engine knows them by.

    What its methods raise fails the call, not the item: `failed` makes it a result.

    Attributes:
        allowance: Returns what a model's call may spend, if there is a budget.
        rate_limiter: What each attempt waits for, if anything.
        signals: The models that are asked for logprobs.
        plain: Those of them that are not asked about this item: one has refused.
    """

    __slots__ = ()

    allowance: Callable[[str], Allowance | None]
    rate_limiter: RateLimiter | None = None
    signals: Signals = Signals()
    plain: set[str]

    def asks_for_logprobs(self, model: str) -> bool:
        """Whether a model that can be asked for logprobs is."""
        return self.signals.asked(model) and model not in self.plain

    def retries(self, model: str) -> int:  # noqa: ARG002
        """How often a model's call that failed is made again, where that may help."""
        return 0

    @abstractmethod
    def worst_case(self, model: str) -> float | None:
        """Return the most that a model's call can cost, in USD; None if unlimited."""

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

    def live(self) -> Requester:
        """Return one that asks all models live, where a lane is not worth it."""
        raise NotImplementedError

    def unseen(self) -> Requester:
        """Return one that puts the item to models for no callback to see.

        It only writes what would be sent; see `smart_engine.runtime.lanes.exchange`.
        """
        raise NotImplementedError

    @abstractmethod
    def prepare(self, model: str, verb: Verb, *, shown: bool) -> Callable[[], Any]:
        """Return a model's call, which is made as soon as it is called.

        Args:
            model: Name of the model.
            verb: Whether it returns a whole answer (`call`), a coroutine that does
                (`acall`), or pieces of one (`stream`, `astream`).
            shown: Whether the caller sees pieces of a whole answer.
        """

    @abstractmethod
    def result(self, model: str, answer: Any) -> Result:
        """Return the result of a call that brought a whole answer."""

    @abstractmethod
    def joined(self, model: str, pieces: Sequence[Any]) -> Result:
        """Return the result of a call whose answer was streamed to its end."""

    @abstractmethod
    def failed(
        self, model: str, pieces: Sequence[Any], error: BaseException
    ) -> Failure:
        """Return the result of a call that ended by an error.

        With what it cost, where that was told.
        """


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


class Streaming:
    """A call whose answer comes piece by piece; only its beginning is tried again.

    Args:
        requester: Makes the call.
        model: Name of the model.

    Attributes:
        pieces: What has come so far.
    """

    def __init__(self, requester: Requester, model: str) -> None:
        self._requester, self._model = requester, model
        self._attempts = Attempts(requester, model)
        self._failure: Failure | None = None
        self.pieces: list[Any] = []

    def stream(self) -> Generator[Any]:
        """Yield the pieces."""
        while True:
            try:
                call = self._attempts.begin("stream", shown=True)
                with closing(_each(call())) as pieces:
                    for piece in pieces:
                        self.pieces.append(piece)
                        yield piece
                self._refuse_nothing()
            except Exception as error:
                if not self._again(error):
                    raise
                self._attempts.wait()
            else:
                return

    async def astream(self) -> AsyncGenerator[Any]:
        """Yield the pieces."""
        while True:
            try:
                call = self._attempts.begin("astream", shown=True)
                async with aclosing(call()) as pieces:
                    async for piece in pieces:
                        self.pieces.append(piece)
                        yield piece
                self._refuse_nothing()
            except Exception as error:
                if not self._again(error):
                    raise
                await self._attempts.await_next()
            else:
                return

    def result(self, error: BaseException | None) -> Result:
        """Return the result of the call, which has ended, by an error or not."""
        if error is not None:
            return self._failure or self._attempts.failed(error, self.pieces)
        return self._attempts.ended(self._requester.joined(self._model, self.pieces))

    def _refuse_nothing(self) -> None:
        if not self.pieces:
            problem = f"{self._model}'s stream ended before it began"
            raise UnparseableAnswerError(problem)

    def _again(self, error: Exception) -> bool:
        failure = self._attempts.failed(error, self.pieces)
        again = not self.pieces and self._attempts.again(failure)
        self._failure = None if again else failure
        return again


def _each(pieces: Iterable[Any]) -> Generator[Any]:
    """Yield pieces; to close this closes what yields them, if that is possible."""
    yield from pieces


class Attempts:
    """The attempts at one call: what each has cost, and whether there is another.

    Args:
        requester: Makes them.
        model: Name of the model.
        carried: Whether a batch of the provider carries them; no rate limit is then
            waited for.
    """

    def __init__(
        self, requester: Requester, model: str, *, carried: bool = False
    ) -> None:
        self._requester, self._model, self._carried = requester, model, carried
        self._signals = CallSignals(requester.signals, model)
        self._clock: Clock | None = None  # of the attempt, once it is made
        self._earlier: tuple[Failure, ...] = ()
        self._uncounted = 0  # of these, those that the server refused for their signals
        self._longest = _FIRST_PAUSE
        self._pause: float | None = None
        self._over: Event | None = None
        self._given_up = False

    def run(self, *, shown: bool = False) -> Result:
        """Return the result of the call, a failure if its last attempt raised."""
        while True:
            result = self.make(shown=shown)
            try:
                if not (self.again(result) and self.wait()):
                    return result
            except BaseException as error:  # noqa: BLE001 - an interrupt in the pause
                return self.failed(error)

    async def arun(self, *, shown: bool = False) -> Result:
        """Return the result of the call, a failure if its last attempt raised."""
        while True:
            result = await self.amake(shown=shown)
            try:
                if not self.again(result):
                    return result
                await self.await_next()
            except BaseException as error:  # noqa: BLE001 - cancelled in the pause
                return self.failed(error)

    def make(self, *, shown: bool = False) -> Result:
        """Make one attempt; return its result."""
        self._clock, requester = None, self._requester
        try:
            if requester.rate_limiter is not None and not self._carried:
                requester.rate_limiter.acquire(blocking=True)
            answer = self.begin("call", shown=shown)()
            return self.ended(requester.result(self._model, answer))
        except BaseException as error:  # noqa: BLE001 - the caller decides what it ends
            return self.failed(error)

    async def amake(self, *, shown: bool = False) -> Result:
        """Make one attempt; return its result."""
        self._clock, requester = None, self._requester
        try:
            if requester.rate_limiter is not None and not self._carried:
                await requester.rate_limiter.aacquire(blocking=True)
            answer = await self.begin("acall", shown=shown)()
            return self.ended(requester.result(self._model, answer))
        except BaseException as error:  # noqa: BLE001 - the caller decides what it ends
            return self.failed(error)

    def begin(self, verb: Verb, *, shown: bool) -> Callable[[], Any]:
        """Return a call that is made now."""
        self._clock = None
        call = self._requester.prepare(self._model, verb, shown=shown)
        self._clock = Clock()
        return call

    def ended(self, result: Result) -> Result:
        """Return the result of the call, whose last attempt was answered."""
        result = self._timed(result)
        if isinstance(result, Failure):
            result = self._charged(result)
        else:
            self._signals.answered()
        return result._replace(earlier=self._earlier) if self._earlier else result

    def failed(self, error: BaseException, pieces: Sequence[Any] = ()) -> Failure:
        """Return the result of the call, which ended by an error.

        In an attempt, or in the pause before one, which is then never made.
        """
        if self._pause is not None:
            return Failure(error, earlier=self._earlier)
        explain(self._model, error)
        failure = self._requester.failed(self._model, pieces, error)
        failure = self._charged(self._timed(failure))
        return failure._replace(earlier=self._earlier)

    def again(self, result: Result) -> bool:
        """Whether there is another attempt; then a pause comes before it.

        There is one only where the budget, if there is any, has room for it. One that
        may do without what was refused, for nothing, is made at once, and not counted.
        """
        failure = result if isinstance(result, Failure) else None
        if failure is None or self._given_up:
            return False
        at_once = self._signals.dropped(failure.error) and not failure.paid
        counted = len(self._earlier) - self._uncounted
        if not at_once and not (
            may_succeed_later(failure)
            and counted < self._requester.retries(self._model)
        ):
            return False
        allowance = self._requester.allowance(self._model)
        if allowance is not None and not allowance.repeat(failure.paid):
            return False
        self._earlier = (*self._earlier, failure._replace(earlier=()))
        if at_once:
            self._requester.plain.add(self._model)
            self._uncounted, self._pause = self._uncounted + 1, 0.0
            return True
        drawn = random.uniform(self._longest / 2, self._longest)  # noqa: S311 - no secret
        self._longest = min(_LONGEST_PAUSE, 2 * self._longest)
        self._pause = seconds_asked_for(failure.error) or drawn
        return True

    def wait(self) -> bool:
        """Wait out the pause; False if the call was given up meanwhile."""
        over = self._over = Event()
        if self._given_up or over.wait(self._pause):
            return False
        self._pause = None
        return True

    async def await_next(self) -> None:
        """Wait out the pause."""
        await asyncio.sleep(self._pause or 0.0)
        self._pause = None

    def go_on_with(self, requester: Requester) -> None:
        """Make further attempts live, by another requester of the same item."""
        self._requester, self._carried = requester, False

    def skip_pause(self) -> None:
        """Make the next attempt at once, where something else makes it late enough."""
        self._pause = None

    def give_up(self) -> None:
        """Make no further attempt: the call ends with the one that it is at."""
        self._given_up = True
        if self._over is not None:
            self._over.set()

    def _timed(self, result: R) -> R:
        """Return a result with its timing, if the attempt was made at all."""
        if self._clock is None or result.timing is not None:
            return result
        return self._clock.timed(result)

    def _charged(self, failure: Failure) -> Failure:
        """Return a failure at its most, where nobody told whether it was billed."""
        if not is_untold(failure):
            return failure
        most = self._requester.worst_case(self._model)
        return failure if most == 0 else failure._replace(unknown=most or 0.0)
