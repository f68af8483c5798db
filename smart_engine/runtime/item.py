"""One item at a time, from its arrival to its answer.

The life of an item is written once, as a flow: which calls start, which of them is the
live one, when the answer is handed out. One runner makes the calls with threads, one
with tasks. The user sees one answer: pieces are shown only of the answer that is handed
out, and one that depends on several candidates is shown whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from contextvars import Context
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from smart_engine.calls import Call, Failure, Result
from smart_engine.runtime.asker import Asker, acall, astream, call, stream
from smart_engine.runtime.drive import Flow
from smart_engine.runtime.loop import take
from smart_engine.serving.item import SingleItem
from smart_engine.serving.members import UnpricedError

__all__ = ["ItemRun"]

_END = object()


class _Step(NamedTuple):
    """Take a step of the item."""

    take: Callable[[], Any]


class _Calls(NamedTuple):
    """Make calls side by side; the user may see the pieces of the live one."""

    calls: Sequence[Call]
    live: Call | None


_Effect = _Step | _Calls


@dataclass
class ItemRun:
    """One item and its calls.

    Attributes:
        item: Says who is asked, and whose answer is handed out.
        asker: Asks them.
        shown_model: Name of the model whose answer the user sees, as soon as any is.
    """

    item: SingleItem
    asker: Asker
    shown_model: str | None = field(init=False, default=None)
    _pieces: list[Any] = field(init=False, default_factory=list)
    _answer: Any = field(init=False, default=None)
    _fatal: BaseException | None = field(init=False, default=None)

    # -- what happens, in which order --------------------------------------------

    def _life(self, *, shown: bool) -> Flow[_Effect, Any]:
        """The life of the item; returns its answer.

        Args:
            shown: Whether the user may see the answer while it is being written.
        """
        yield _Step(partial(self.item.arrive, shown=shown))
        while calls := (yield _Step(self._next_calls)):
            yield _Calls(calls, self.item.live(calls) if shown else None)
        return (yield _Step(self.item.settle))

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

    def _record_stream(self, made: Call, error: BaseException | None) -> None:
        """Record the result of a streamed call that ended, by an error or not.

        Raises:
            BaseException: What made the call fail, if the user has seen any of it.
        """
        if error is not None:
            failure = self.asker.failed(made.tier, self._pieces, error)
            self.item.record(made, failure)
            if self._pieces or self._seen(made) or not isinstance(error, Exception):
                raise error
        elif self._pieces:
            result = self.asker.joined(made.tier, self._pieces)
            self.item.record(made, result)
            if isinstance(result, Failure):
                raise result.error

    def _seen(self, made: Call) -> bool:
        """Whether the user has seen a model at work on a whole answer."""
        return self.asker.watched and self.asker.streamed(made.tier)

    def _show(self, made: Call, piece: Any) -> Any:
        self.shown_model = made.tier
        self._pieces.append(piece)
        return piece

    def _unseen(self, answer: Any) -> Iterator[Any]:
        """Yield the whole answer if no piece of it was shown."""
        if self.shown_model is None:
            self.shown_model = self.item.mark["model"]
            yield answer

    # -- with threads ------------------------------------------------------------

    def answer(self) -> Any:
        """Return the answer."""
        run = self._run(streams=False, shown=self.asker.watched)
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
        """Carry out the life of the item; yield pieces, return the answer."""
        life, result = self._life(shown=shown), None
        try:
            while True:
                try:
                    effect = life.send(result)
                except StopIteration as end:
                    return end.value
                result = None
                if isinstance(effect, _Step):
                    result = effect.take()
                else:
                    yield from self._make(effect, streams=streams)
        except BaseException:
            self.item.abandon()
            raise

    def _make(self, effect: _Calls, *, streams: bool) -> Iterator[Any]:
        """Make calls: the first one here, unless it is streamed, others in threads."""
        calls, live = effect
        first = live or (None if streams else calls[0])
        with self._beside([made for made in calls if made != first]):
            if first is not None and streams:
                yield from self._stream(first)
            elif first is not None:
                self.asker.context().run(self._call, first, shown=first == live)

    @contextmanager
    def _beside(self, calls: Sequence[Call]) -> Iterator[None]:
        if not calls:
            yield
            return
        with ThreadPoolExecutor(len(calls), "smart") as pool:
            for made in calls:
                pool.submit(self.asker.context().run, self._call, made)
            yield

    def _call(self, made: Call, *, shown: bool = False) -> None:
        self._record(made, call(self.asker, made.tier, shown=shown), shown=shown)

    def _stream(self, made: Call) -> Iterator[Any]:
        """Make one call and yield its pieces."""
        context, error = self.asker.context(), None
        pieces = stream(self.asker, made.tier)
        try:
            while (piece := context.run(next, pieces, _END)) is not _END:
                yield self._show(made, piece)
        except BaseException as ended:  # noqa: BLE001 - recorded, then raised
            error = ended
        finally:
            context.run(pieces.close)
        self._record_stream(made, error)

    # -- with tasks --------------------------------------------------------------

    async def aanswer(self) -> Any:
        """Return the answer."""
        async for _ in self._arun(streams=False, shown=self.asker.watched):
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
        """Carry out the life of the item; yield pieces."""
        life, result = self._life(shown=shown), None
        try:
            while True:
                try:
                    effect = life.send(result)
                except StopIteration as end:
                    self._answer = end.value
                    return
                if isinstance(effect, _Step):
                    result = await take(self.item, effect.take)
                else:
                    result = None
                    async with aclosing(self._amake(effect, streams=streams)) as pieces:
                        async for piece in pieces:
                            yield piece
        except BaseException:
            await take(self.item, self.item.abandon)
            raise

    async def _amake(self, effect: _Calls, *, streams: bool) -> AsyncGenerator[Any]:
        """Make calls, each in a task of its own."""
        calls, live = effect
        tasks = [
            asyncio.create_task(
                self._acall(made, shown=made == live), context=self.asker.context()
            )
            for made in calls
            if not (streams and made == live)
        ]
        try:
            if live is not None and streams:
                async with aclosing(self._astream(live)) as pieces:
                    async for piece in pieces:
                        yield piece
            await asyncio.gather(*tasks)
        except Exception:
            await asyncio.gather(*tasks, return_exceptions=True)  # they are paid for
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _acall(self, made: Call, *, shown: bool) -> None:
        result = await acall(self.asker, made.tier, shown=shown)
        await take(self.item, partial(self._record, made, result, shown=shown))

    async def _astream(self, made: Call) -> AsyncGenerator[Any]:
        """Make one call and yield its pieces."""
        error: BaseException | None = None
        pieces = _in_one_task(self.asker.context(), astream(self.asker, made.tier))
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    yield self._show(made, piece)
        except BaseException as ended:  # noqa: BLE001 - recorded, then raised
            error = ended
        await take(self.item, partial(self._record_stream, made, error))


async def _in_one_task(
    context: Context, pieces: AsyncGenerator[Any]
) -> AsyncGenerator[Any]:
    """Yield pieces from a generator that runs in one task, so that its scopes hold.

    It advances only when the next piece is asked for.
    """
    wanted, found = asyncio.Semaphore(0), asyncio.Queue[Any]()

    async def pump() -> None:
        async with aclosing(pieces):
            piece = None
            while piece is not _END:
                await wanted.acquire()
                piece = await anext(pieces, _END)
                found.put_nowait(piece)

    task = asyncio.create_task(pump(), context=context)
    task.add_done_callback(lambda _: found.put_nowait(_END))
    try:
        wanted.release()
        while (piece := await found.get()) is not _END:
            yield piece
            wanted.release()
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
