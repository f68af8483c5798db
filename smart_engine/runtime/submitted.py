"""A batch that goes on in a thread while its caller does something else.

It can be left: then batches of a provider that are under way go on, and whoever submits
the same inputs again, in another process, too, takes them up where a store remembers
them.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextvars import copy_context
from time import monotonic
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from smart_engine.errors import SmartError
from smart_engine.runtime.batch import Batch, OneByOne
from smart_engine.runtime.job import Job

__all__ = ["JobStatus", "LeftError", "SubmittedJob"]

T = TypeVar("T")

_EVERY = 0.2
"""Seconds between two looks at where it stands."""


class LeftError(SmartError):
    """A submitted batch was left before it was done."""


class JobStatus(NamedTuple):
    """Where a submitted batch stands.

    Attributes:
        state: `"running"`, `"done"`, `"failed"` or `"left"`.
        items: Number of items, in all its tasks.
        settled: Items whose answer, or lasting error, is known and stays.
        spent: USD spent by all models.
        batches: Where batches at providers are, in a few words; empty if there is none.
    """

    state: Literal["running", "done", "failed", "left"]
    items: int
    settled: int
    spent: float
    batches: str = ""


class SubmittedJob(Generic[T]):
    """A batch that was submitted, as `submit` of a smart model returns it.

    A process that ends waits for it, unless it was left.

    Args:
        work: What answers the batch.
        items: Number of items.
        return_exceptions: Whether an item's exception is a result, or raised.

    Example:
        ```python
        import asyncio

        work = OneByOne(lambda item: item + 1, None, items=3, limit=1)
        job = SubmittedJob(work, 3, return_exceptions=False)
        assert job.results() == asyncio.run(job.wait()) == [1, 2, 3]
        assert job.status().state == "done"
        ```
    """

    def __init__(
        self, work: Batch | OneByOne, items: int, *, return_exceptions: bool
    ) -> None:
        self._work, self._items = work, items
        self._future: Future[list[T]] = Future()
        self._seen = {id(job): (0, 0.0, "") for job in self._jobs}
        self._left: LeftError | None = None
        if isinstance(work, Batch):
            work.watch = self._watch
        run = copy_context().run
        thread = threading.Thread(
            target=run, args=(self._run, return_exceptions), name="smart-job"
        )
        thread.start()

    @property
    def _jobs(self) -> list[Job]:
        return [*self._work.jobs] if isinstance(self._work, Batch) else []

    def _run(self, return_exceptions: bool) -> None:
        try:
            results = self._work.run(return_exceptions=return_exceptions)
        except BaseException as error:  # noqa: BLE001 - who asks for results gets it
            self._future.set_exception(error)
        else:
            self._future.set_result(results)

    def _watch(self, job: Job) -> Callable[[], None]:
        """Return what to call after each record of a job."""
        looked = -_EVERY

        def recorded() -> None:
            nonlocal looked
            if monotonic() - looked >= _EVERY:
                looked = monotonic()
                self._look(job)

        return recorded

    def _look(self, job: Job) -> None:
        now, dispatcher = job.session.progress(), job.dispatcher
        status = "" if dispatcher is None else dispatcher.status()
        self._seen[id(job)] = now.settled, now.spent, status

    def status(self) -> JobStatus:
        """Return where it stands, as of a moment ago."""
        state: Literal["running", "done", "failed", "left"] = "running"
        if self._future.done():
            state = "failed" if self._future.exception() else "done"
            for job in self._jobs if state == "done" else ():
                self._look(job)
        if self._left is not None and state != "done":
            state = "left"
        settled = sum(seen[0] for seen in self._seen.values())
        spent = sum(seen[1] for seen in self._seen.values())
        batches = ", ".join(seen[2] for seen in self._seen.values() if seen[2])
        return JobStatus(state, self._items, settled, spent, batches)

    @property
    def done(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self._future.done()

    def results(self, timeout: float | None = None) -> list[T]:
        """Wait for its end; return what `batch` returns, or raise what it raises.

        Args:
            timeout: Seconds to wait; without limit if left out.

        Raises:
            TimeoutError: If it is not done by then; it goes on.
            LeftError: If it was left.
        """
        return self._future.result(timeout)

    async def wait(self) -> list[T]:
        """Wait for its end in asynchronous code, as `await job` does."""
        return await asyncio.wrap_future(self._future)

    def __await__(self) -> Generator[Any, None, list[T]]:
        return self.wait().__await__()

    def leave(self) -> None:
        """End it here; return once the calls in flight have ended.

        Batches at providers go on where a store remembers them, else they are
        cancelled.
        """
        self._left = LeftError("the job was left: submit the same inputs to go on")
        for job in self._jobs:
            job.stopped = (self._left,)
            if job.dispatcher is not None:
                job.dispatcher.interrupt(self._left)
        self._future.exception()
