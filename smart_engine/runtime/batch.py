"""Whole batches: one session a task, and the answers in the order of the items.

A batch opens its sessions, drives them, closes them, and finishes its items; only
driving and finishing differ between sync and async.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import (
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Sequence,
)
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import chain, product
from typing import Any, TypeVar

from typing_extensions import override

from smart_engine.batch.self_agreement import SelfAgreement, SelfAgreementSession
from smart_engine.calls import Call, Served
from smart_engine.equivalence import Equivalence
from smart_engine.errors import InvalidInputError
from smart_engine.jobs.record import TaskRecord
from smart_engine.money.budget import Budget
from smart_engine.money.ledger import LedgerScope
from smart_engine.money.reservations import Allowance, Reservations
from smart_engine.money.spending import note_cost
from smart_engine.runtime.drive import Caller, adrive, drive
from smart_engine.runtime.lanes.members import Lanes
from smart_engine.runtime.progress_bar import progress_bar
from smart_engine.runtime.requester import Requester
from smart_engine.serving.books import Books
from smart_engine.serving.config import ServingConfig
from smart_engine.serving.repeated import first_places
from smart_engine.serving.resume import AnswerStore, ResumedSession
from smart_engine.serving.shared import SharedTask
from smart_engine.store.store import Store
from smart_engine.strategies import Strategy

__all__ = [
    "Batch",
    "Job",
    "Measurement",
    "OneByOne",
]

T = TypeVar("T")

_ROUNDS = 12
"""Most waves of a batch whose calls providers carry, where nothing else is said.

Measured on 5,250 recorded comments at δ = .05 (.10), means of 5 seeds: as many waves
as pay, 9.2 (19.0), cost 9.4 (6.0) USD; 12 at most cost 9.4 (6.6) in 6.0 (7.8) waves; 6
cost 10.0 (7.2) in 4.6 (4.0).
"""


@dataclass
class Job(Caller):
    """The items of one task, and what an adapter knows of them.

    Attributes:
        task: Name of the task.
        rule: How answers are compared.
        scope: Where its calls are entered.
        places: Per item, its place in the whole batch.
        limit: Most calls in flight at once.
        label: Its name as the user knows it, if it has one.
        slices: Per item, the name of its slice, if slices are promised.
        alike: Whether its models answer the same request alike, as far as is known.
        identify: Returns per model its name and a text that identifies it.
        config: The settings of its task; set by its batch.
        session: Says which calls to make; set before the job is driven.
        reservations: What its calls have reserved, if there is a budget.
        contexts: Per item, where who asks about it is; empty: all where the batch is.
        stopped: Has why no further call may start, as soon as there is a reason.
        served: What is handed out per item, once the job is done.
        refused: Per item that could not begin, why: the user's callbacks raised it.
    """

    task: str
    rule: Equivalence
    scope: LedgerScope
    places: Sequence[int]
    limit: int
    label: str | None = None
    alike: bool = False
    slices: Sequence[str] | None = field(default=None, kw_only=True)
    identify: Callable[[], Sequence[tuple[str, str]]] = field(kw_only=True)
    config: ServingConfig = field(init=False)
    session: Any = field(init=False, default=None)
    reservations: Reservations | None = field(init=False, default=None)
    contexts: Sequence[Context] = field(init=False, default=())
    stopped: Sequence[BaseException] = field(init=False, default=())
    served: Sequence[Served] = field(init=False, default=())
    refused: dict[int, Exception] = field(init=False, default_factory=dict)

    @override
    def begin(self, item: int) -> tuple[Requester, Context]:
        def step() -> tuple[Requester, Context]:
            self.start(item)
            return self._begun(item)

        return self.run(item, step)

    @override
    async def abegin(self, item: int) -> tuple[Requester, Context]:
        await self.arun(item, self.astart(item))
        return self.run(item, partial(self._begun, item))

    def _begun(self, item: int) -> tuple[Requester, Context]:
        for reason in self.stopped:
            raise reason
        requester = self.requester(item)
        return requester, requester.context()

    def start(self, item: int) -> None:
        """Prepare an item, before each of its calls and before its answer."""

    async def astart(self, item: int) -> None:
        """Prepare an item, before each of its calls and before its answer."""

    @abstractmethod
    def requester(self, item: int) -> Requester:
        """Return what puts an item to models."""

    def run(self, item: int, step: Callable[[], T]) -> T:
        """Take a step of an item where who asks about it is."""
        return self.contexts[item].run(step) if self.contexts else step()

    async def arun(self, item: int, step: Coroutine[Any, Any, T]) -> T:
        """Take a step of an item where who asks about it is."""
        if not self.contexts:
            return await step
        return await asyncio.create_task(step, context=self.contexts[item])

    @abstractmethod
    def worst_case(self, call: Call) -> float | None:
        """Return the most a call can cost, in USD; None where only its run shows.

        Raises:
            InvalidInputError: If nothing limits that.
        """

    @cached_property
    def identities(self) -> Sequence[tuple[str, str]]:
        """Per model, its name and a text that identifies it."""
        return self.identify()

    def allowance(self, item: int, model: str) -> Allowance | None:
        """Return what a model's call in flight may spend, if there is a budget."""
        reserved = self.reservations
        return None if reserved is None else reserved.allowance(Call(item, model))

    def contents(self) -> Iterable[str]:
        """Return texts that identify what is asked with every item."""
        return ()

    @abstractmethod
    def requests(self) -> Iterable[str]:
        """Yield per item a text that identifies what is asked about it."""

    @abstractmethod
    def write(self, answer: Any) -> str:
        """Return an answer as text, for a store."""

    @abstractmethod
    def read(self, text: str) -> Any:
        """Return the answer in such a text."""

    @abstractmethod
    def output(self, served: Served, smart: dict[str, Any], *, bought: bool) -> Any:
        """Return an item's answer as its user gets it, marked with who answered.

        Args:
            served: The answer.
            smart: What its metadata say.
            bought: Whether it was bought for this item; else it used nothing.
        """

    def finish(self, item: int, output: Any) -> Coroutine[Any, Any, None] | None:
        """End an item with its output or error; what it returns has to be awaited."""

    def outputs(self) -> list[Any]:
        """Return per item its answer, or why there is none."""
        certificate = self.session.certificate
        common = {"task": self.task, "certificate": certificate.id}
        self.served = self.session.answers
        return [
            self.refused.get(served.item)
            or served.error
            or self._output(served, _mark(served, certificate, common))
            for served in self.served
        ]

    def _output(self, served: Served, smart: dict[str, Any]) -> Any:
        bought = served.tier in dict(self.session.bought(served.item))
        return self.output(served, smart, bought=bought)


def _mark(served: Served, certificate: Any, common: dict[str, Any]) -> dict[str, Any]:
    """Return what an answer's metadata say."""
    saved = certificate.saved_by(served.cost)
    mark = {"model": served.tier, "role": served.role, "cost": served.cost}
    mark |= {**common, "saved": saved}
    return mark | ({"estimated": served.estimated} if served.estimated else {})


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
            job.config = self._config(job)

    def run(self, *, return_exceptions: bool) -> list[Any]:
        """Return per input its answer; see `_deliver`."""
        self._open_all()
        for job in self.jobs:
            with self._bar(job) as recorded:
                self._place(job, _outputs(job, recorded, self._close))
        return _deliver(self.results, return_exceptions=return_exceptions)

    async def arun(self, *, return_exceptions: bool) -> list[Any]:
        """Return per input its answer; see `_deliver`."""
        self._open_all()
        for job in self.jobs:
            with self._bar(job) as recorded:
                self._place(job, await _aoutputs(job, recorded, self._close))
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
        job.session = config.session(
            len(job.places),
            job.rule,
            job.task,
            scope=job.scope,
            books=self.books,
            reservations=job.reservations,
            seed=config.batch_seed(stored),
            firsts=firsts,
            job=decide,
            slices=job.slices,
        )
        if stored is not None:
            job.session = ResumedSession(job.session, stored, firsts)

    def _config(self, job: Job) -> ServingConfig:
        return self.config_of(job, carried=bool(self.lanes.carriers))

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
        if config.shares_promise(len(job.places), job.label):
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
        return firsts, job.config.job(
            job.rule, job.task, chain(models, asked, requests)
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
        config.check_named(job.label)
        if key is None or not self._named(job):
            return None

        def kept() -> bool:
            return self.store is not None and job.session.kept_all

        shares = config.shares_promise(len(job.places), job.label)
        return config.decided(
            self.books, self._task(job), job.task, key, kept if shares else None
        )

    def _task(self, job: Job) -> SharedTask:
        """Return what the batches of a job's task share."""
        models, asked = [*map(repr, job.identities)], [*job.contents()]
        return job.config.shared_task(
            self.books, job.rule, job.task, models, asked, self.store
        )

    def history(self, job: Job) -> TaskRecord:
        """Return what the jobs of a job's task have shared so far.

        Raises:
            StoreError: If it cannot be read.
        """
        with self._task(job).step() as task:
            return task.shared()

    def _close(self, job: Job) -> list[Any]:
        outputs = job.outputs()
        self.books.end_batch(job.scope, job.session.certificate)
        return outputs


def _outputs(
    job: Job, recorded: Callable[[], None] | None, close: Callable[[Job], list[Any]]
) -> list[Any]:
    """Drive the session of a job, finish its items, and return their outputs.

    Args:
        job: The job.
        recorded: Called after each result is recorded, if anything is.
        close: Returns the outputs of a job whose session is done.
    """
    try:
        drive(job.session, job, job.limit, recorded)
        for item in range(len(job.places)):
            with suppress(Exception):  # which is kept
                # One that shares its answers was not called for.
                job.run(item, partial(job.start, item))
        outputs = close(job)
    except BaseException as error:
        errors = [error] * len(job.places)
        _finish(job, errors, enumerate(errors))
        raise
    _finish(job, outputs, _noted(job, outputs))
    return outputs


async def _aoutputs(
    job: Job, recorded: Callable[[], None] | None, close: Callable[[Job], list[Any]]
) -> list[Any]:
    """Drive the session of a job as `_outputs` does, in asynchronous code."""
    try:
        await adrive(job.session, job, job.limit, recorded)
        for item in range(len(job.places)):
            with suppress(Exception):
                await job.arun(item, job.astart(item))
        outputs = close(job)
    except BaseException as error:
        errors = [error] * len(job.places)
        await _afinish(job, errors, enumerate(errors))
        raise
    await _afinish(job, outputs, _noted(job, outputs))
    return outputs


def _noted(job: Job, outputs: Iterable[Any]) -> Iterator[tuple[int, Any]]:
    """Yield items and outputs, each error with its item's cost: it may be shared."""
    costs = {served.item: served.cost for served in job.served}
    for item, output in enumerate(outputs):
        if isinstance(output, BaseException):
            note_cost(output, costs.get(item, 0.0))
        yield item, output


def _finish(job: Job, outputs: list[Any], ended: Iterable[tuple[int, Any]]) -> None:
    """Finish items; what their callbacks raise takes the place of their outputs."""
    for item, output in ended:
        try:
            job.run(item, partial(job.finish, item, output))
        except Exception as error:  # noqa: BLE001 - it is the item's
            outputs[item] = error


async def _afinish(
    job: Job, outputs: list[Any], ended: Iterable[tuple[int, Any]]
) -> None:
    """Finish items as `_finish` does, in asynchronous code."""
    for item, output in ended:
        try:
            ending = job.run(item, partial(job.finish, item, output))
            if ending is not None:
                await job.arun(item, ending)
        except Exception as error:  # noqa: BLE001 - it is the item's
            outputs[item] = error


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


@dataclass
class Measurement:
    """Asks the reference twice about each item of a job, and enters what that shows.

    Attributes:
        job: The items, and once more the same; no budget and no store limits it.
        reference: Name of the reference.
        confidence: Confidence of the interval.
        books: Where it is entered.
        lanes: How the reference is asked.
    """

    job: Job
    reference: str
    confidence: float
    books: Books
    lanes: Lanes = field(default_factory=Lanes)

    def run(self) -> SelfAgreement:
        """Measure in synchronous code."""
        self._open()
        _outputs(self.job, None, _answers)
        return self._close()

    async def arun(self) -> SelfAgreement:
        """Measure in asynchronous code."""
        self._open()
        await _aoutputs(self.job, None, _answers)
        return self._close()

    def _open(self) -> None:
        job, items = self.job, len(self.job.places) // 2
        job.dispatcher = self.lanes.dispatcher(None)
        job.session = SelfAgreementSession(items, self.reference, job.rule, job.scope)

    def _close(self) -> SelfAgreement:
        result: SelfAgreement = self.job.session.result(self.job.task, self.confidence)
        self.books.enter_noise(result)
        return result


def _answers(job: Job) -> list[Any]:
    return [*map(job.session.answer_or_error, range(len(job.places)))]
