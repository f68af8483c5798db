"""One item at a time: members are asked, the books are kept, the answer is marked.

Who is asked is decided elsewhere; sync and async share all that is not a call. The
user sees one answer: pieces are shown only of the answer that is handed out, and an
answer that depends on what several candidates say is shown whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from time import perf_counter, time
from typing import Any

from pydantic import ValidationError
from smart_engine.runtime.steps import Steps

from llama_index_smart.members import (
    Estimate,
    LLMMember,
    Response,
    outcome,
    usage_of,
)
from llama_index_smart.request import Ask
from smart_engine.calls import Call, Failure, Outcome
from smart_engine.errors import UnparseableAnswerError
from smart_engine.money.pricing import Usage
from smart_engine.runtime.asker import Clock
from smart_engine.serving.item import SingleItem

__all__ = ["Single", "marked"]

stepped = Steps(asyncio.get_running_loop)
"""Takes steps of sessions."""


@dataclass
class Single:
    """One answer in the making.

    Attributes:
        ask: What is asked.
        item: Says who is asked, and whose answer is handed out.
        members: The models by name.
        estimate: Returns what a call may have used that reports nothing; None if the
            user did not allow that.
    """

    ask: Ask[Any]
    item: SingleItem
    members: dict[str, LLMMember]
    estimate: Estimate | None = None
    _last: Response | None = None
    _usage: Usage | None = None
    _shown: list[str] = field(default_factory=list)

    # -- whole answers ---------------------------------------------------------

    def whole(self) -> Response:
        """Return the answer."""
        with self.item.admitted(shown=False):
            while calls := self.item.next_calls():
                first, *others = calls
                with self._beside(others):
                    self._call(first)
            return self._result()

    async def awhole(self) -> Response:
        """Return the answer."""
        async with self._admitted(shown=False):
            while calls := await stepped(self.item, self.item.next_calls):
                async with self._abeside(calls):
                    pass
            return await stepped(self.item, self._result)

    def _result(self) -> Response:
        """Return the answer as the smart model's own."""
        response = self.item.settle()
        return marked(response, self.item.said.values(), self.item.told)

    # -- answers that come piece by piece --------------------------------------

    def pieces(self) -> Generator[Response]:
        """Yield the answer piece by piece, as it comes."""
        with self.item.admitted(shown=True):
            while calls := self.item.next_calls():
                live = self.item.live(calls)
                with self._beside([call for call in calls if call != live]):
                    if live is not None:
                        yield from self._live(live)
            yield self._ending()

    async def apieces(self) -> AsyncGenerator[Response]:
        """Yield the answer piece by piece, as it comes."""
        async with self._admitted(shown=True):
            while calls := await stepped(self.item, self.item.next_calls):
                live = self.item.live(calls)
                async with self._abeside([call for call in calls if call != live]):
                    if live is not None:
                        pieces = self._alive(live)
                        try:
                            async for piece in pieces:
                                yield piece
                        finally:
                            await pieces.aclose()
            yield await stepped(self.item, self._ending)

    def _live(self, call: Call) -> Generator[Response]:
        """Make one call and yield what it brings."""
        with self._recording_failure(call) as clock:
            pieces = self.ask.stream_of(self.members[call.tier])
            try:
                for piece in pieces:
                    yield self._piece(call.tier, piece)
            finally:
                if isinstance(pieces, Generator):
                    pieces.close()
            self._refuse_nothing(call)
        self._close(call, clock)

    async def _alive(self, call: Call) -> AsyncGenerator[Response]:
        """Make one call and yield what it brings."""
        async with self._arecording_failure(call) as clock:
            pieces = await self.ask.astream_of(self.members[call.tier])
            try:
                async for piece in pieces:
                    yield self._piece(call.tier, piece)
            finally:
                if isinstance(pieces, AsyncGenerator):
                    await pieces.aclose()
            self._refuse_nothing(call)
        await stepped(self.item, self._close, call, clock)

    def _refuse_nothing(self, call: Call) -> None:
        """Raise if a stream ended without a single piece."""
        if self._last is None:
            raise _nothing(call)

    def _piece(self, name: str, piece: Response) -> Response:
        """Keep a piece and return it; the ending tells the usage, once."""
        self._last = piece
        self._usage = usage_of(piece) or self._usage
        self._shown.append(name)
        told = {
            key: value
            for key, value in piece.additional_kwargs.items()
            if not key.endswith("_tokens")
        }
        told["smart"] = {"model": name, "task": self.item.task}
        return piece.model_copy(update={"additional_kwargs": told})

    @contextmanager
    def _recording_failure(self, call: Call) -> Iterator[Clock]:
        """Record a call that fails, or is broken off, with the usage told so far."""
        clock = Clock(time, perf_counter)
        try:
            yield clock
        except BaseException as error:
            self._break_off(call, error, clock)
            if self._told(error):
                raise

    @asynccontextmanager
    async def _arecording_failure(self, call: Call) -> AsyncIterator[Clock]:
        """Record a call that fails, or is broken off, with the usage told so far."""
        clock = Clock(time, perf_counter)
        try:
            yield clock
        except BaseException as error:
            await stepped(self.item, self._break_off, call, error, clock)
            if self._told(error):
                raise

    def _break_off(self, call: Call, error: BaseException, clock: Clock) -> None:
        """Record a call that was shown and has failed, and what it used so far."""
        if self._last is None and isinstance(error, ValidationError):
            error = _nothing(call)  # LlamaIndex cannot tell of an end without a piece
        failure = Failure(error)
        known = self._usage is not None or self.estimate is not None
        if self._last is not None and known:
            billed = self._outcome(call, self._counted(self._last))
            failure = Failure(error, billed.paid, billed.usage)
        self.item.record(call, clock.timed(failure))

    def _told(self, error: BaseException) -> bool:
        """Whether an error is the caller's: what was shown cannot be withdrawn."""
        return bool(self._shown) or not isinstance(error, Exception)

    def _close(self, call: Call, clock: Clock) -> None:
        """Record a call that was shown to its end; one that failed is recorded."""
        if self._last is None:
            return
        brought = self._outcome(call, self._counted(self._last))
        self.item.record(call, clock.timed(brought))
        if isinstance(brought, Failure):
            raise brought.error

    def _counted(self, last: Response) -> Response:
        """Return the last piece with the usage that any piece has told."""
        if self._usage is None:
            return last
        told = {**last.additional_kwargs, **_tokens(self._usage)}
        return last.model_copy(update={"additional_kwargs": told})

    def _ending(self) -> Response:
        """Return the whole answer, and what it cost; new is what was not shown yet."""
        response = self._result()
        if self._shown:
            return response.model_copy(update={"delta": ""})
        text = getattr(response, "text", None)
        if text is None:
            text = response.message.content or ""  # type: ignore[union-attr]
        return response.model_copy(update={"delta": text})

    # -- calls -----------------------------------------------------------------

    def _call(self, call: Call) -> None:
        """Make one call and record what it brings."""
        clock = Clock(time, perf_counter)
        try:
            brought = self._outcome(call, self.ask.of(self.members[call.tier]))
        except BaseException as error:
            self.item.record(call, clock.timed(Failure(error)))
            if not isinstance(error, Exception):
                raise
        else:
            self.item.record(call, clock.timed(brought))

    async def _acall(self, call: Call) -> None:
        """Make one call and record what it brings."""
        clock = Clock(time, perf_counter)
        try:
            brought = self._outcome(call, await self.ask.aof(self.members[call.tier]))
        except BaseException as error:
            failure = clock.timed(Failure(error))
            await stepped(self.item, self.item.record, call, failure)
            if not isinstance(error, Exception):
                raise
        else:
            await stepped(self.item, self.item.record, call, clock.timed(brought))

    @asynccontextmanager
    async def _admitted(self, *, shown: bool) -> AsyncIterator[None]:
        """Let the item in; see that it is closed whatever happens."""
        try:
            await stepped(self.item, self.item.arrive, shown=shown)
            yield
        except BaseException:
            await stepped(self.item, self.item.abandon)
            raise

    @contextmanager
    def _beside(self, calls: Sequence[Call]) -> Iterator[None]:
        """Make calls in threads meanwhile."""
        if not calls:
            yield
            return
        with ThreadPoolExecutor(len(calls), "smart") as pool:
            for call in calls:
                pool.submit(copy_context().run, self._call, call)
            yield

    @asynccontextmanager
    async def _abeside(self, calls: Sequence[Call]) -> AsyncIterator[None]:
        """Make calls in tasks meanwhile."""
        tasks = [asyncio.create_task(self._acall(call)) for call in calls]
        try:
            yield
            await asyncio.gather(*tasks)
        except Exception:
            await asyncio.gather(*tasks, return_exceptions=True)  # they are paid for
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _outcome(self, call: Call, response: Response) -> Outcome | Failure:
        """Return what a response brought, priced."""
        return outcome(self.members[call.tier], response, self.estimate)


def _nothing(call: Call) -> UnparseableAnswerError:
    """Return what is wrong with a stream without a single piece."""
    return UnparseableAnswerError(f"{call.tier}'s stream ended before it began")


def marked(response: Response, said: Any, told: dict[str, Any]) -> Response:
    """Return a copy of a member's response as the smart model's own.

    Args:
        response: The member's.
        said: The responses of all members that answered: their usage is summed, as far
            as it can be true.
        told: What the user is told of the item.
    """
    found = [usage for usage in map(usage_of, said) if usage is not None]
    usages = [usage for usage in found if usage.problem is None]
    own, counts = response.additional_kwargs, _tokens(Usage())
    kept = {name: value for name, value in own.items() if name not in counts}
    kept["smart"] = told
    if usages:
        sent = sum(usage.input_tokens for usage in usages)
        answered = sum(usage.output_tokens for usage in usages)
        kept |= _tokens(Usage(sent, answered))
    return response.model_copy(update={"additional_kwargs": kept})


def _tokens(usage: Usage) -> dict[str, float]:
    """Return a usage as LlamaIndex's counters look for it."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
    }
