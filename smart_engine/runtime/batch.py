"""Whole batches: one session a task, and the answers in the order of the items.

A batch opens the sessions of its jobs, drives one after the other, closes them, and
delivers a result per input; only driving and finishing differ between sync and async.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from itertools import chain, product
from typing import Any

from smart_engine.calls import Call
from smart_engine.errors import InvalidInputError
from smart_engine.jobs.record import TaskRecord
from smart_engine.money.budget import Budget
from smart_engine.money.reservations import Reservations
from smart_engine.runtime.job import Job, aoutputs_of, outputs_of
from smart_engine.runtime.lanes.members import Lanes
from smart_engine.runtime.progress_bar import progress_bar
from smart_engine.serving.books import Books
from smart_engine.serving.config import ServingConfig
from smart_engine.serving.promises import (
    check_named,
    decided,
    shared_task,
    shares_promise,
)
from smart_engine.serving.repeated import first_places
from smart_engine.serving.resume import AnswerStore, ResumedSession
from smart_engine.serving.sessions import begin_session, job_key, wrapped
from smart_engine.serving.shared import SharedTask
from smart_engine.store.store import Store
from smart_engine.strategies import Strategy

__all__ = ["Batch", "OneByOne"]

_ROUNDS = 12
"""Most waves of a batch whose calls providers carry, where nothing else is said.

Measured on 15 sets of recorded answers at four guarantees each: 12 at most cost what as
many as pay do, within 1 %, in about 6 waves; 6 at most cost 5 % more, in about 4.
"""


@dataclass
class Batch:
    """One call of a batch verb.

    Attributes:
        config: The settings.
        books: Where certificates are entered.
        store: Where answers outlive the process, if anywhere.
        jobs: A job a task.
        results: Per input None, or why it cannot be used.
        budget: What all its jobs may spend together, if that is limited.
        progress: Whether a bar shows where each job stands.
        dedupe: Whether items of a job with the same request are asked once; None:
            where its models answer them alike.
        lanes: How its models are asked.
        watch: Returns what to call after each record of a job, if anything is.
    """

    config: ServingConfig
    books: Books
    store: Store | None
    jobs: Sequence[Job]
    results: list[Any]
    budget: Budget | None = None
    progress: bool = False
    dedupe: bool | None = None
    lanes: Lanes = field(default_factory=Lanes)
    watch: Callable[[Job], Callable[[], None]] | None = None

    def __post_init__(self) -> None:
        """Give each job the settings of its task."""
        for job in self.jobs:
            job.config = self.config_of(job, carried=bool(self.lanes.carriers))

    def run(self, *, return_exceptions: bool) -> list[Any]:
        """Return per input its answer; see `_deliver`."""
        self._open_all()
        for job in self.jobs:
            with self._bar(job) as recorded:
                self._place(job, outputs_of(job, recorded, self._close))
        return _deliver(self.results, return_exceptions=return_exceptions)

    async def arun(self, *, return_exceptions: bool) -> list[Any]:
        """Return per input its answer; see `_deliver`."""
        self._open_all()
        for job in self.jobs:
            with self._bar(job) as recorded:
                self._place(job, await aoutputs_of(job, recorded, self._close))
        return _deliver(self.results, return_exceptions=return_exceptions)

    def _open_all(self) -> None:
        """Check and open all jobs before any is driven."""
        for job in self.jobs:
            self._open(job)

    def _place(self, job: Job, outputs: list[Any]) -> None:
        for place, output in zip(job.places, outputs, strict=True):
            self.results[place] = output

    @contextmanager
    def _bar(self, job: Job) -> Iterator[Callable[[], None] | None]:
        """Show where a job stands, if wanted; yield what to call after each record."""
        watching = None if self.watch is None else self.watch(job)
        if not self.progress:
            yield watching
            return
        status = None if job.dispatcher is None else job.dispatcher.status
        with progress_bar(job.session, job.label, status) as shown:

            def recorded() -> None:
                shown()
                if watching is not None:
                    watching()

            yield recorded

    def _open(self, job: Job) -> None:
        if self.budget is not None:
            for item, model in product(range(len(job.places)), self.config.models):
                job.worst_case(Call(item, model))  # raises if there is no bound
            lock = self.books.new_lock()
            job.reservations = Reservations(self.budget, job.worst_case, lock)
        config = job.config
        firsts, key = self._identified(job)
        decide, stored, submissions = self._deciding(job, key), None, None
        if self.store is not None and key is not None:
            stored = self.store.answers(key, job.write, job.read)
            submissions = self.store.submissions(key)
        job.dispatcher = self.lanes.dispatcher(submissions)
        session = begin_session(
            config,
            len(job.places),
            job.rule,
            job.task,
            scope=job.scope,
            books=self.books,
            seed=config.batch_seed(stored),
            firsts=firsts,
            decide=decide,
            slices=job.slices,
        )
        needed = None  # under a promise of its task, a job may not ask the reference
        if not shares_promise(config, len(job.places), job.label):
            places = range(len(job.places))
            needed = (Call(item, config.models[0]) for item in places)
        reserved = job.reservations
        job.session = wrapped(
            session, config, firsts=firsts, reservations=reserved, needed=needed
        )
        if stored is not None:
            job.session = ResumedSession(job.session, stored, firsts)

    def config_of(self, job: Job, *, carried: bool) -> ServingConfig:
        """Return the settings of a job: where waves take long, they are limited.

        Args:
            job: The job.
            carried: Whether its calls are carried in batches of providers.
        """
        config = self.config.of(job.task)
        open_ended = config.max_rounds is None and config.strategy == "audit"
        if not (carried and open_ended) or config.guarantee.labels:
            return config
        if shares_promise(config, len(job.places), job.label):
            return config
        return replace(config, max_rounds=_ROUNDS)

    def known(self, job: Job) -> tuple[Sequence[int] | None, AnswerStore | None]:
        """Return which items of a job ask the same, and where its answers are stored.

        The first is None where every item is asked, the second where nothing is stored.
        """
        firsts, key = self._identified(job)
        if self.store is None or key is None:
            return firsts, None
        return firsts, self.store.answers(key, job.write, job.read)

    def _identified(self, job: Job) -> tuple[Sequence[int] | None, str | None]:
        """Return which items of a job ask the same, and what identifies it.

        The second is None where nothing depends on that.
        """
        dedupe = job.alike if self.dedupe is None else self.dedupe
        named = self._named(job)
        if not dedupe and self.store is None and not named:
            return None, None
        try:
            requests = [*job.requests()]
        except InvalidInputError:
            if dedupe or self.store is not None:
                raise
            return None, f"batch {job.scope.batch}"
        firsts = first_places(requests) if dedupe else None
        if self.store is None and not named:
            return firsts, None
        models, asked = [*map(repr, job.identities)], [*job.contents()]
        return firsts, job_key(
            job.config, job.rule, job.task, chain(models, asked, requests)
        )

    def _named(self, job: Job) -> bool:
        """Whether a job belongs to a task whose batches learn from each other.

        Where waves are limited, or labels or slices have promises, each batch is by
        itself.
        """
        config, named = job.config, job.label is not None
        apart = config.max_rounds is not None or config.batches_alone
        audited = config.strategy == "audit" and not apart
        return named and audited and len(job.places) > 0

    def _deciding(self, job: Job, key: str | None) -> Strategy | None:
        """Return what decides on a job in place of the strategy."""
        config = job.config
        check_named(config, job.label)
        if key is None or not self._named(job):
            return None

        def kept() -> bool:
            return self.store is not None and job.session.kept_all

        shares = shares_promise(config, len(job.places), job.label)
        return decided(
            config, self.books, self._task(job), job.task, key, kept if shares else None
        )

    def _task(self, job: Job) -> SharedTask:
        """Return what the batches of a job's task share."""
        models, asked = [*map(repr, job.identities)], [*job.contents()]
        return shared_task(
            job.config, self.books, job.rule, job.task, models, asked, self.store
        )

    def history(self, job: Job) -> TaskRecord | None:
        """Return what the jobs of a job's task have shared so far.

        None where a job by itself neither begins nor continues a promise of its task.

        Raises:
            StoreError: If it cannot be read.
        """
        if not self._named(job):
            return None
        with self._task(job).step() as task:
            known = task.shared()
        shares = shares_promise(job.config, len(job.places), job.label)
        return known if shares or known.finished else None

    def _close(self, job: Job) -> list[Any]:
        outputs = job.outputs()
        self.books.end_batch(job.scope, job.session.certificate)
        return outputs


@dataclass
class OneByOne:
    """A call of a batch verb in which no session decides, but each item by itself.

    Attributes:
        answer: Returns the answer to an item.
        aanswer: Does so in asynchronous code.
        items: Number of items.
        limit: Most items at once.
    """

    answer: Callable[[int], Any]
    aanswer: Callable[[int], Awaitable[Any]]
    items: int
    limit: int

    def run(self, *, return_exceptions: bool) -> list[Any]:
        """Return per item its answer; see `_deliver`."""
        pool = ThreadPoolExecutor(min(self.limit, self.items) or 1, "smart")
        try:
            made = [
                pool.submit(copy_context().run, self._result, item)
                for item in range(self.items)
            ]
            results = [future.result() for future in made]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        return _deliver(results, return_exceptions=return_exceptions)

    def _result(self, item: int) -> Any:
        try:
            return self.answer(item)
        except Exception as error:  # noqa: BLE001 - it is the item's
            return error

    async def arun(self, *, return_exceptions: bool) -> list[Any]:
        """Return per item its answer; see `_deliver`."""
        free = asyncio.Semaphore(self.limit)

        async def result(item: int) -> Any:
            async with free:
                try:
                    return await self.aanswer(item)
                except Exception as error:  # noqa: BLE001 - it is the item's
                    return error

        results = await asyncio.gather(*map(result, range(self.items)))
        return _deliver(results, return_exceptions=return_exceptions)


def _deliver(results: list[Any], *, return_exceptions: bool) -> list[Any]:
    """Return one result per input, or raise the first exception.

    A raised exception carries all results in its attribute `smart_results`: answers
    that were paid for are not lost with it.
    """
    errors = [result for result in results if isinstance(result, BaseException)]
    if errors and not return_exceptions:
        if not hasattr(errors[0], "smart_results"):
            errors[0].add_note(
                f"{len(results) - len(errors)} of {len(results)} items were answered: "
                "see smart_results, or call it with return_exceptions=True"
            )
        errors[0].smart_results = results  # type: ignore[attr-defined]
        raise errors[0]
    return results
