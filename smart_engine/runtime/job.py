"""A job: the items of one task in a batch, from the first call to the last callback.

What an adapter knows of the items is in a subclass of `Job`; a session decides which
calls are made. Whatever happens, every item is finished once, with its output or with
the error that took its place.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, TypeVar

from typing_extensions import override

from smart_engine.calls import Call, Served
from smart_engine.equivalence import Equivalence
from smart_engine.money.ledger import LedgerScope
from smart_engine.money.reservations import Allowance, Reservations
from smart_engine.money.spending import note_cost
from smart_engine.runtime.drive import Caller, adrive, drive
from smart_engine.runtime.requester import Requester
from smart_engine.serving.config import ServingConfig

__all__ = ["Job", "aoutputs_of", "outputs_of"]

T = TypeVar("T")


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
            self.prepare(item)
            return self._unless_stopped(item)

        return self.run(item, step)

    @override
    async def abegin(self, item: int) -> tuple[Requester, Context]:
        await self.arun(item, self.aprepare(item))
        return self.run(item, partial(self._unless_stopped, item))

    def _unless_stopped(self, item: int) -> tuple[Requester, Context]:
        for reason in self.stopped:
            raise reason
        requester = self.requester(item)
        return requester, requester.context()

    def prepare(self, item: int) -> None:
        """Prepare an item, before each of its calls and before its answer."""

    async def aprepare(self, item: int) -> None:
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


def outputs_of(
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
                job.run(item, partial(job.prepare, item))
        outputs = close(job)
    except BaseException as error:
        errors = [error] * len(job.places)
        _finish(job, errors, enumerate(errors))
        raise
    _finish(job, outputs, _noted(job, outputs))
    return outputs


async def aoutputs_of(
    job: Job, recorded: Callable[[], None] | None, close: Callable[[Job], list[Any]]
) -> list[Any]:
    """Drive the session of a job as `outputs_of` does, in asynchronous code."""
    try:
        await adrive(job.session, job, job.limit, recorded)
        for item in range(len(job.places)):
            with suppress(Exception):
                await job.arun(item, job.aprepare(item))
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
