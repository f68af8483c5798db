"""Gathers single calls that are made at once, and answers them in one batch.

A call waits until no other of its kind has come for a while. Where those that wait are
enough for a batch to save anything, one batch answers them all; else each goes on by
itself. Their number alone decides that, before anything is drawn, so every item counts
in one guarantee: its batch's or its stream's. No call waits for a particular other one,
so calls that are made one after the other, or within each other, cannot block. Who
leaves before the batch begins is no part of it; who leaves later changes nothing, and
when all have left in asynchronous code, the batch ends.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Awaitable, Callable, Hashable, Iterator
from concurrent.futures import Future, InvalidStateError, wait
from contextlib import contextmanager, suppress
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from threading import Thread
from typing import Any, TypeVar

from smart_engine.errors import InvalidInputError, check_whole
from smart_engine.money.budget import Budget
from smart_engine.runtime.batch import Batch
from smart_engine.serving.books import Books
from smart_engine.serving.config import ServingConfig
from smart_engine.serving.promises import worth_a_batch
from smart_engine.store.forks import fork_safe_lock

__all__ = ["Gathering", "SingleCall", "gathering", "gathering_of"]

T = TypeVar("T")

_GATHER_MS = 500.0

_STEPS = 8
"""Looks without a further call after which those that wait are answered."""

_HALVED = 4
"""How often the wait is halved, after as many groups that were too small."""

_ALONE = object()
"""The result of a call that has to go on by itself."""


@dataclass(frozen=True, slots=True)
class SingleCall:
    """A call that may be answered with others.

    Attributes:
        kind: Calls of one kind can be items of one batch.
        text: What is asked. A batch has its items in the order of their texts: the same
            items, gathered again, are the same batch for a store and a seed.
        item: What `batch` takes a list of.
        batch: Returns the batch of such items.
        config: Says whether so many items are worth a batch.
        label: The name of its task as the user knows it, if it has one.
    """

    kind: Hashable
    text: str
    item: Any
    batch: Callable[[list[Any]], Batch]
    config: ServingConfig
    label: str | None


@dataclass(eq=False, slots=True)
class _Waiting:
    """A call, where it was made, and what will be its answer or error."""

    call: SingleCall
    context: Context = field(default_factory=copy_context)
    future: Future[Any] = field(default_factory=Future)
    left: bool = False


@dataclass(eq=False, slots=True)
class _Group:
    """Calls of one kind that wait for each other."""

    key: Hashable
    step: float
    most: int
    waiting: list[_Waiting] = field(default_factory=list)
    full: Future[None] = field(default_factory=Future)
    task: asyncio.Task[None] | None = None
    _steps: int = 0
    _grew: int = 0
    _seen: int = 0

    def grows(self) -> bool:
        """Whether to wait for further calls; asked every `step` seconds.

        Many calls that start at once keep a machine busy, and come with pauses, in
        which nobody else gets a turn either: so turns are counted, not seconds. And the
        longer calls have been coming, the longer they are waited for.
        """
        self._steps += 1
        if len(self.waiting) > self._seen:
            self._seen, self._grew = len(self.waiting), self._steps
        quiet = self._steps - self._grew >= max(_STEPS, self._grew / 2)
        return not quiet and len(self.waiting) < self.most

    def leave(self, left: _Waiting) -> bool:
        """Let a caller go, and return whether nobody is left."""
        left.left = True
        return all(each.left for each in self.waiting)


class Gathering:
    """Where single calls meet.

    Args:
        gather_ms: Milliseconds without a further call after which those that wait are
            answered; 500 if left out.
        most: Most calls in one batch.
        context: Where batches run; each item's calls run where its caller is.

    Raises:
        InvalidInputError: If an argument cannot be used.

    Attributes:
        most: Most calls in one batch.
    """

    def __init__(
        self,
        gather_ms: float | None = None,
        most: int = 1000,
        context: Context | None = None,
    ) -> None:
        gather_ms = _GATHER_MS if gather_ms is None else gather_ms
        if not isinstance(gather_ms, int | float) or not 0 < gather_ms < math.inf:
            hint = "must be more than 0 milliseconds; leave it out to wait for no call"
            raise InvalidInputError("gather_ms", gather_ms, hint)
        check_whole("max_items", most, 1)
        self._gather_ms, self.most = gather_ms, most
        self._context = context or Context()
        self._lock = fork_safe_lock()
        self._open: dict[Hashable, _Group] = {}
        self._in_vain = 0
        self._budgets: dict[float | None, Budget | None] = {}
        self._stopped: list[BaseException] = []

    def __reduce__(self) -> tuple[type[Gathering], tuple[float, int]]:
        """Return how to start without any call."""
        return Gathering, (self._gather_ms, self.most)

    def answer(self, call: SingleCall, alone: Callable[[], T]) -> T:
        """Return the answer to a call, from a thread.

        Args:
            call: The call.
            alone: Makes the call by itself.
        """
        waiting, group, first = self._join(call, None)
        if first:
            run = self._context.copy().run
            try:
                Thread(target=run, args=(self._serve, group), name="smart").start()
            except RuntimeError:  # as many threads as the system allows
                self._end(group, None)
        try:
            result = waiting.future.result()
        except BaseException:
            waiting.future.cancel()
            raise
        return alone() if result is _ALONE else _value(result)

    async def aanswer(self, call: SingleCall, alone: Callable[[], Awaitable[T]]) -> T:
        """Return the answer to a call, from a task."""
        waiting, group, first = self._join(call, asyncio.get_running_loop())
        if first:
            serving, context = self._aserve(group), self._context.copy()
            group.task = asyncio.create_task(serving, context=context)
        try:
            result = await asyncio.wrap_future(waiting.future)
        except asyncio.CancelledError:
            if group.leave(waiting) and group.task is not None:
                self._close(group)  # first: who calls again now joins another one
                group.task.cancel()
            raise
        return await alone() if result is _ALONE else _value(result)

    def stop(self, reason: BaseException) -> None:
        """Let no batch make a further call."""
        self._stopped.append(reason)

    def _join(self, call: SingleCall, loop: Any) -> tuple[_Waiting, _Group, bool]:
        """Let a call wait with its kind; also return whether it is the first."""
        key, waiting = (os.getpid(), loop, call.kind), _Waiting(call)
        with self._lock:
            if key not in self._open:
                seconds = self._gather_ms / 1000 / 2 ** min(self._in_vain, _HALVED)
                self._open[key] = _Group(key, seconds / _STEPS, self.most)
            group = self._open[key]
            group.waiting.append(waiting)
            if len(group.waiting) == self.most:
                del self._open[key]
                group.full.set_result(None)
            return waiting, group, len(group.waiting) == 1

    def _serve(self, group: _Group) -> None:
        results: Any
        try:
            while group.grows():
                wait([group.full], group.step)
            batch = self._batch(group)
            results = batch and batch.run(return_exceptions=True)
        except BaseException as error:  # noqa: BLE001 - it is the callers'
            results = error
        self._end(group, results)

    async def _aserve(self, group: _Group) -> None:
        results: Any
        try:
            full = asyncio.wrap_future(group.full)
            while group.grows():
                await asyncio.wait([full], timeout=group.step)
            batch = self._batch(group)
            results = batch and await batch.arun(return_exceptions=True)
        except BaseException as error:  # noqa: BLE001 - it is the callers'
            results = error
        self._end(group, results)

    def _close(self, group: _Group) -> None:
        """Let no further call join a group."""
        with self._lock:
            if self._open.get(group.key) is group:
                del self._open[group.key]

    def _batch(self, group: _Group) -> Batch | None:
        """Return what answers a group together; None: each call goes on by itself."""
        self._close(group)
        group.waiting = [each for each in group.waiting if not each.future.cancelled()]
        group.waiting.sort(key=lambda each: each.call.text)
        first = next((each.call for each in group.waiting), None)
        if first is None:
            return None
        if not worth_a_batch(first.config, len(group.waiting)):
            self._in_vain += 1
            return None
        self._in_vain = 0
        batch = first.batch([each.call.item for each in group.waiting])
        batch.budget = self._budgets.setdefault(first.config.budget_usd, batch.budget)
        for job in batch.jobs:
            job.stopped = self._stopped
            job.contexts = [group.waiting[place].context for place in job.places]
        return batch

    def _end(self, group: _Group, results: Any) -> None:
        """Set the results of all calls of a group, or one error for all."""
        self._close(group)
        if not isinstance(results, list):
            results = [_ALONE if results is None else results] * len(group.waiting)
        for each, result in zip(group.waiting, results, strict=True):
            with suppress(InvalidStateError):  # whose caller has left
                each.future.set_result(result)


def _value(result: Any) -> Any:
    """Return a result, or raise it if it is an error."""
    if isinstance(result, BaseException):
        raise result
    return result


_blocks: ContextVar[dict[Any, Gathering]] = ContextVar("smart_blocks", default={})  # noqa: B039 - never changed
"""By its books, where the calls of a smart object meet."""


def gathering_of(books: Books) -> Gathering | None:
    """Return where the calls of a smart object meet, if this is in such a block."""
    return _blocks.get().get(books)


@contextmanager
def gathering(books: Books, gather_ms: float | None, most: int) -> Iterator[None]:
    """Let calls meet that are made in this block, or where its context was copied.

    Args:
        books: The books of the smart objects that are called.
        gather_ms: See `Gathering`.
        most: See `Gathering`.
    """
    block = Gathering(gather_ms, most, copy_context())
    token = _blocks.set({**_blocks.get(), books: block})
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as error:
        block.stop(error)
        raise
    finally:
        _blocks.reset(token)
