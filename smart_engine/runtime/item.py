"""One item at a time, from its arrival to its answer.

`SingleItem` decides which calls start, which of them is the live one, and when the
answer is handed out. One runner makes the calls with threads, one with tasks. The user
sees one answer: pieces are shown only of the answer that is handed out, and one that
depends on several candidates is shown whole. A caller that leaves cannot void an audit:
the calls that decide it are made to their end in the background.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from functools import partial
from threading import Thread
from time import monotonic
from typing import Any

from smart_engine.calls import Call, Failure, Result
from smart_engine.money.spending import note_cost
from smart_engine.runtime.loop import Pump, take
from smart_engine.runtime.requester import Attempts, Requester, Streaming
from smart_engine.serving.item import SingleItem
from smart_engine.serving.members import UnpricedError

__all__ = ["ItemRun"]

_GRACE = 120.0
"""Seconds for which an audit goes on without its caller; then it counts as an error."""

_END = object()
_finishing: set[asyncio.Task[None]] = set()


@dataclass
class ItemRun:
    """One item and its calls.

    Attributes:
        item: Says who is asked, and whose answer is handed out.
        requester: Asks them.
        shown_model: Name of the model whose answer the user sees, as soon as any is.
    """

    item: SingleItem
    requester: Requester
    shown_model: str | None = field(init=False, default=None)
    _answer: Any = field(init=False, default=None)
    _fatal: BaseException | None = field(init=False, default=None)
    _left: bool = field(init=False, default=False)
    _live: tuple[Call, Streaming] | None = field(init=False, default=None)
    _flying: dict[Call, Attempts] = field(init=False, default_factory=dict)

    # -- what a result means -----------------------------------------------------

    def _next_calls(self) -> list[Call]:
        if self._fatal is not None:
            raise self._fatal
        return self.item.next_calls()

    def _record(self, made: Call, result: Result, *, shown: bool = False) -> None:
        """Record a result.

        What the user has seen cannot be withdrawn, and without a price nothing can be
        asked: both end the item.
        """
        self.item.record(made, result)
        if not isinstance(result, Failure):
            return
        if not isinstance(result.error, Exception):
            raise result.error
        if (shown and self._seen(made)) or isinstance(result.error, UnpricedError):
            self._fatal = result.error

    def _record_stream(self, error: BaseException | None) -> BaseException | None:
        """Record the result of the streamed call that ended, by an error or not.

        Returns:
            What ends the item: an error after the user has seen any of the answer, or
            one from outside.
        """
        if self._live is None:
            return None
        (made, streaming), self._live = self._live, None
        result = streaming.result(error)
        self.item.record(made, result)
        if not isinstance(result, Failure):
            return None
        shown = streaming.pieces or self._seen(made)
        ends = shown or not isinstance(result.error, Exception)
        return result.error if ends else None

    def _seen(self, made: Call) -> bool:
        """Whether the user has seen a model at work on a whole answer."""
        return self.requester.watched and self.requester.streamed(made.tier)

    def _show(self, made: Call, piece: Any) -> Any:
        self.shown_model = made.tier
        return piece

    def _unseen(self, answer: Any) -> Iterator[Any]:
        """Yield the whole answer if no piece of it was shown."""
        if self.shown_model is None:
            self.shown_model = self.item.mark["model"]
            yield answer

    def _abandon(self, error: BaseException) -> None:
        """Close the item; a caller that leaves has used what it was shown."""
        left = not isinstance(error, Exception)
        self.item.abandon(shown=left and self.shown_model is not None)

    # -- with threads ------------------------------------------------------------

    def answer(self) -> Any:
        """Return the answer."""
        run = self._run(streams=False, shown=self.requester.watched)
        while True:
            try:
                next(run)
            except StopIteration as end:
                return end.value

    def stream(self) -> Iterator[Any]:
        """Yield the answer piece by piece, as it comes."""
        answer = yield from self._run(streams=True, shown=True)
        yield from self._unseen(answer)

    def _run(self, *, streams: bool, shown: bool) -> Generator[Any, None, Any]:
        """The life of the item: yield pieces, return the answer.

        Args:
            streams: Whether the live call is streamed.
            shown: Whether the user may see the answer while it is being written.
        """
        try:
            self.item.arrive(shown=shown)
            while calls := self._next_calls():
                live = self.item.live(calls)
                yield from self._make(calls, live, streams=streams)
            return self.item.settle()
        except BaseException as error:
            note_cost(error, self.item.cost)
            if not self._left:
                self._abandon(error)
            raise

    def _make(
        self, calls: Sequence[Call], live: Call | None, *, streams: bool
    ) -> Iterator[Any]:
        """Make calls: the first one here, unless it is streamed, others in threads.

        An interrupt waits for the others, which are paid for; a second one leaves them.
        """
        first = live or (None if streams else calls[0])
        others = [made for made in calls if made != first]
        pool = ThreadPoolExecutor(len(others) or 1, "smart")
        self._flying = {made: Attempts(self.requester, made.tier) for made in calls}
        beside = [
            pool.submit(self.requester.context().run, self._call, made)
            for made in others
        ]
        gone = False
        try:
            if first is not None and streams:
                yield from self._stream(first, pool)
            elif first is not None:
                self.requester.context().run(self._call, first, shown=first == live)
            if not self._left:
                wait(beside)
        except BaseException as left:
            try:
                if not isinstance(left, Exception):
                    self._give_up()
                wait(beside)
            except BaseException as again:
                gone = True
                self._break_off(again)
                raise
            raise
        finally:
            pool.shutdown(wait=not (self._left or gone))

    def _call(self, made: Call, *, shown: bool = False) -> None:
        attempts = self._flying[made]
        result = attempts.run(shown=shown)
        if self._flying.pop(made, None) is not None:
            self._record(made, result, shown=shown)

    def _give_up(self) -> None:
        """Make no further attempt at the calls in flight."""
        for attempts in list(self._flying.values()):
            attempts.give_up()

    def _break_off(self, error: BaseException) -> None:
        """Record the calls in flight, whose results nobody waits for."""
        for made in list(self._flying):
            if (attempts := self._flying.pop(made, None)) is not None:
                self.item.record(made, attempts.failed(error))

    def _stream(self, made: Call, beside: ThreadPoolExecutor | None) -> Iterator[Any]:
        """Make one call and yield its pieces, beside the calls of a pool."""
        context = self.requester.context()
        streaming = Streaming(self.requester, made.tier)
        self._live, pieces = (made, streaming), streaming.stream()
        self._flying.pop(made)
        error: BaseException | None = None
        try:
            while (piece := context.run(next, pieces, _END)) is not _END:
                yield self._show(made, piece)
        except GeneratorExit as left:
            if self.item.must_finish():
                self._left = True
                finish = partial(context.run, self._finish, pieces, beside)
                Thread(target=finish, name="smart", daemon=True).start()
                return
            error = left
        except BaseException as ended:  # noqa: BLE001 - recorded, then raised
            error = ended
        finally:
            if not self._left:
                context.run(pieces.close)
        if (ending := self._record_stream(error)) is not None:
            raise ending

    def _finish(self, pieces: Iterator[Any], beside: ThreadPoolExecutor | None) -> None:
        """Make the calls of an audit to their end, without the caller."""
        shown, until = self.shown_model is not None, monotonic() + _GRACE
        error: BaseException | None = None
        try:
            for _ in pieces:
                if monotonic() > until:
                    error = GeneratorExit("an audit took too long without its caller")
                    break
        except BaseException as ended:  # noqa: BLE001 - recorded
            error = ended
        with suppress(BaseException):
            self._record_stream(error)
        if beside is not None:
            beside.shutdown(wait=True)
        self.item.abandon(shown=shown)

    # -- with tasks --------------------------------------------------------------

    async def aanswer(self) -> Any:
        """Return the answer."""
        async for _ in self._arun(streams=False, shown=self.requester.watched):
            pass
        return self._answer

    async def astream(self) -> AsyncGenerator[Any]:
        """Yield the answer piece by piece, as it comes."""
        async with aclosing(self._arun(streams=True, shown=True)) as pieces:
            async for piece in pieces:
                yield piece
        for piece in self._unseen(self._answer):
            yield piece

    async def _arun(self, *, streams: bool, shown: bool) -> AsyncGenerator[Any]:
        """The life of the item, as `_run` has it; the answer is left in `_answer`."""
        item = self.item
        try:
            await take(item, partial(item.arrive, shown=shown))
            while calls := await take(item, self._next_calls):
                live = item.live(calls)
                async with aclosing(self._amake(calls, live, streams=streams)) as made:
                    async for piece in made:
                        yield piece
            self._answer = await take(item, item.settle)
        except BaseException as error:
            note_cost(error, item.cost)
            if not self._left:
                await take(item, partial(self._abandon, error))
            raise

    async def _amake(
        self, calls: Sequence[Call], live: Call | None, *, streams: bool
    ) -> AsyncGenerator[Any]:
        """Make calls, each in a task of its own."""
        tasks = [
            asyncio.create_task(
                self._acall(made, shown=made == live), context=self.requester.context()
            )
            for made in calls
            if not (streams and made == live)
        ]
        pump = None
        if live is not None and streams:
            streaming = Streaming(self.requester, live.tier)
            self._live = live, streaming
            pump = Pump(streaming.astream(), self.requester.context())
        try:
            if live is not None and pump is not None:
                async for piece in self._astream(live, pump):
                    yield piece
            if tasks:
                await asyncio.wait(tasks)
            for task in tasks:
                task.result()
        except Exception:
            if tasks:
                await asyncio.wait(tasks)  # they are paid for
            raise
        except BaseException as left:
            await self._leave(pump, tasks, left)
            raise

    async def _leave(
        self, pump: Pump | None, tasks: list[asyncio.Task[None]], left: BaseException
    ) -> None:
        """End the calls of an item without a caller, unless they decide an audit."""
        if self.item.must_finish():
            self._left = True
            finishing = asyncio.create_task(self._afinish(pump, tasks))
            _finishing.add(finishing)
            finishing.add_done_callback(_finishing.discard)
            return
        # Nothing is awaited before this is done: the loop itself may be ending.
        if self._live is not None:
            await take(self.item, partial(self._record_stream, left))
        if tasks:
            await _cancel(tasks)
        self._left = True
        await take(self.item, partial(self._abandon, left))
        if pump is not None:
            await pump.close()

    async def _acall(self, made: Call, *, shown: bool) -> None:
        attempts = Attempts(self.requester, made.tier)
        result = await attempts.arun(shown=shown)
        await take(self.item, partial(self._record, made, result, shown=shown))

    async def _astream(self, made: Call, pump: Pump) -> AsyncGenerator[Any]:
        """Yield the pieces of one call."""
        error: BaseException | None = None
        while True:
            try:
                piece = await pump.next()
            except Exception as ended:  # noqa: BLE001 - recorded, then raised
                error = ended
                break
            if piece is pump.END:
                break
            yield self._show(made, piece)
        ending = await take(self.item, partial(self._record_stream, error))
        if ending is not None:
            raise ending

    async def _afinish(
        self, pump: Pump | None, tasks: list[asyncio.Task[None]]
    ) -> None:
        """Make the calls of an audit to their end, without the caller."""
        shown = self.shown_model is not None
        try:
            async with asyncio.timeout(_GRACE):
                if self._live is not None and pump is not None:
                    with suppress(Exception):
                        async for _ in self._astream(self._live[0], pump):
                            pass
                if tasks:
                    await asyncio.wait(tasks)
        finally:
            await _cancel(tasks)
            if pump is not None:
                await pump.close()
            await take(self.item, partial(self.item.abandon, shown=shown))


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
