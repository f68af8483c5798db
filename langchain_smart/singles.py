"""One item at a time: members are asked, the books are kept, one answer is handed out.

Who is asked is decided elsewhere, and how they are asked, too; sync and async share
all that is not a call. The user sees one answer: pieces are shown only of the answer
that is handed out, and one that depends on several candidates is shown whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from langchain_smart.runs import aeach_in, each_in, quiet_context
from smart_engine.calls import Call, Failure, Outcome
from smart_engine.runtime.steps import Steps
from smart_engine.serving.item import SingleItem
from smart_engine.serving.members import UnpricedError

__all__ = ["Asker", "Single"]

stepped = Steps(asyncio.get_running_loop)
"""Takes steps of sessions."""


class Asker(Protocol):
    """Puts one item to any member; all that depends on what a member is."""

    @property
    def watched(self) -> bool:
        """Whether somebody shows answers while they are made, whatever was called."""
        ...

    def streamed(self, name: str) -> bool:
        """Whether any of a member's answer has been shown, if it may be."""
        ...

    def ask(self, name: str, *, shown: bool = False) -> Outcome | Failure:
        """Return what a member brings; its answer may be shown while it is made."""
        ...

    async def aask(self, name: str, *, shown: bool = False) -> Outcome | Failure:
        """Return what a member brings; its answer may be shown while it is made."""
        ...

    def stream(self, name: str) -> Iterator[Any]:
        """Yield a member's answer piece by piece."""
        ...

    def astream(self, name: str) -> AsyncGenerator[Any]:
        """Yield a member's answer piece by piece."""
        ...

    def whole(self, name: str, pieces: Sequence[Any]) -> Outcome | Failure:
        """Return what a streamed answer brought."""
        ...

    def broken_off(
        self, name: str, pieces: Sequence[Any], error: BaseException
    ) -> Failure:
        """Return what an answer brought that ended by an error."""
        ...


@dataclass
class Single:
    """One answer in the making.

    Attributes:
        item: Says who is asked, and whose answer is handed out.
        asker: Asks them.
        shows: Name of the member whose answer is being shown, as soon as any is.
    """

    item: SingleItem
    asker: Asker
    shows: str | None = field(init=False, default=None)
    _shown: list[Any] = field(init=False, default_factory=list)
    _fatal: BaseException | None = field(init=False, default=None)

    # -- whole answers ---------------------------------------------------------

    def ask(self) -> Any:
        """Return the answer."""
        with self.item.admitted(shown=self.asker.watched):
            while calls := self._next_calls():
                live = self._live(calls)
                first = live or calls[0]
                with self._beside([c for c in calls if c != first]):
                    self._call(first, shown=first == live)
            return self.item.settle()

    async def aask(self) -> Any:
        """Return the answer."""
        async with self._admitted(shown=self.asker.watched):
            while calls := await stepped(self.item, self._next_calls):
                async with self._abeside(calls, self._live(calls)):
                    pass
            return await stepped(self.item, self.item.settle)

    def _live(self, calls: Sequence[Call]) -> Call | None:
        """Return the call whose answer may be shown while it is made, if any may."""
        return self.item.live(calls) if self.asker.watched else None

    def _next_calls(self) -> list[Call]:
        """Return the calls that may start now, unless something has ended it all."""
        if self._fatal is not None:
            raise self._fatal
        return self.item.next_calls()

    # -- answers that come piece by piece --------------------------------------

    def stream(self) -> Iterator[Any]:
        """Yield the answer piece by piece, as it comes."""
        with self.item.admitted(shown=True):
            while calls := self._next_calls():
                live = self.item.live(calls)
                with self._beside([c for c in calls if c != live]):
                    if live is not None:
                        yield from self._pieces(live)
            whole = self.item.settle()
            if self.shows is None:
                self.shows = self.item.told["model"]
                yield whole

    async def astream(self) -> AsyncGenerator[Any]:
        """Yield the answer piece by piece, as it comes."""
        async with self._admitted(shown=True):
            while calls := await stepped(self.item, self._next_calls):
                live = self.item.live(calls)
                async with self._abeside([c for c in calls if c != live]):
                    if live is not None:
                        async with aclosing(self._apieces(live)) as pieces:
                            async for piece in pieces:
                                yield piece
            whole = await stepped(self.item, self.item.settle)
            if self.shows is None:
                self.shows = self.item.told["model"]
                yield whole

    def _pieces(self, call: Call) -> Iterator[Any]:
        """Make one call and yield what it brings."""
        with self._recording_failure(call):
            for piece in each_in(quiet_context(), self.asker.stream(call.tier)):
                self._show(call, piece)
                yield piece
        self._close(call)

    async def _apieces(self, call: Call) -> AsyncGenerator[Any]:
        """Make one call and yield what it brings."""
        async with self._arecording_failure(call):
            asked = self.asker.astream(call.tier)
            async with aclosing(aeach_in(quiet_context(), asked)) as pieces:
                async for piece in pieces:
                    self._show(call, piece)
                    yield piece
        await stepped(self.item, self._close, call)

    def _show(self, call: Call, piece: Any) -> None:
        """Keep a piece that is about to be shown."""
        self.shows = call.tier
        self._shown.append(piece)

    @contextmanager
    def _recording_failure(self, call: Call) -> Iterator[None]:
        """Record a call that fails, or is broken off, with the usage told so far."""
        try:
            yield
        except BaseException as error:
            self._break_off(call, error)
            if self._told(call, error):
                raise

    @asynccontextmanager
    async def _arecording_failure(self, call: Call) -> AsyncIterator[None]:
        """Record a call that fails, or is broken off, with the usage told so far."""
        try:
            yield
        except BaseException as error:
            await stepped(self.item, self._break_off, call, error)
            if self._told(call, error):
                raise

    def _break_off(self, call: Call, error: BaseException) -> None:
        """Record a call that was shown and has failed."""
        self.item.record(call, self.asker.broken_off(call.tier, self._shown, error))

    def _told(self, call: Call, error: BaseException) -> bool:
        """Whether an error is the caller's: what was shown cannot be withdrawn."""
        shown = bool(self._shown) or self._seen(call)
        return shown or not isinstance(error, Exception)

    def _seen(self, call: Call) -> bool:
        """Whether somebody has seen models at work on an answer to be shown."""
        return self.asker.watched and self.asker.streamed(call.tier)

    def _close(self, call: Call) -> None:
        """Record a call that was shown to its end; one that failed is recorded."""
        if not self._shown:
            return
        brought = self.asker.whole(call.tier, self._shown)
        self.item.record(call, brought)
        if isinstance(brought, Failure):
            raise brought.error

    # -- calls -----------------------------------------------------------------

    def _call(self, call: Call, *, shown: bool = False) -> None:
        """Make one call and record what it brings."""
        try:
            ask = partial(self.asker.ask, call.tier, shown=shown)
            brought = quiet_context().run(ask)
        except BaseException as error:
            self._record(call, self.asker.broken_off(call.tier, [], error), shown)
            if not isinstance(error, Exception):
                raise
        else:
            self._record(call, brought, shown)

    async def _acall(self, call: Call, *, shown: bool = False) -> None:
        """Make one call and record what it brings."""
        try:
            brought = await self.asker.aask(call.tier, shown=shown)
        except BaseException as error:
            failure = self.asker.broken_off(call.tier, [], error)
            await stepped(self.item, self._record, call, failure, shown)
            if not isinstance(error, Exception):
                raise
        else:
            await stepped(self.item, self._record, call, brought, shown)

    def _record(self, call: Call, brought: Outcome | Failure, shown: bool) -> None:
        """Record what a call brought.

        What was shown cannot be withdrawn, and without a price nothing can be asked.
        """
        self.item.record(call, brought)
        if not isinstance(brought, Failure):
            return
        if (shown and self._seen(call)) or isinstance(brought.error, UnpricedError):
            self._fatal = brought.error

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
    async def _abeside(
        self, calls: Sequence[Call], live: Call | None = None
    ) -> AsyncIterator[None]:
        """Make calls in tasks meanwhile."""
        tasks = [
            asyncio.create_task(
                self._acall(call, shown=call == live), context=quiet_context()
            )
            for call in calls
        ]
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
