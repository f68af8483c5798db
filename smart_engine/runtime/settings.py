"""The settings that all smart objects share, whatever their framework."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from difflib import get_close_matches
from os import PathLike
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SkipValidation,
    ValidationError,
)

from smart_engine.equivalence import (
    Equivalence,
    EquivalenceLike,
    Normalized,
    as_equivalence,
)
from smart_engine.equivalence.labelling import LabelOf
from smart_engine.errors import InvalidInputError, check_whole
from smart_engine.guarantee import Guarantee
from smart_engine.money.ledger import Ledger, LedgerScope
from smart_engine.money.pricing import Price, Usage
from smart_engine.money.reservations import WorstCase
from smart_engine.report.report import Report
from smart_engine.runtime.batch import Batch
from smart_engine.runtime.estimation import Estimation
from smart_engine.runtime.gathering import (
    Gathering,
    SingleCall,
    gathering,
    gathering_of,
)
from smart_engine.runtime.job import Job
from smart_engine.runtime.lanes.members import Lanes
from smart_engine.runtime.measurement import Measurement
from smart_engine.runtime.signals import Signals
from smart_engine.serving.books import Books
from smart_engine.serving.checks import check
from smart_engine.serving.config import ServingConfig
from smart_engine.serving.item import SingleItem
from smart_engine.serving.profile import Persistence
from smart_engine.serving.promises import check_named, worth_a_batch
from smart_engine.serving.routing import single_item
from smart_engine.serving.sessions import batch_budget
from smart_engine.serving.slices import SliceOf, check_slices
from smart_engine.serving.tasks import read_tasks
from smart_engine.store.forks import fork_safe_lock
from smart_engine.store.store import Store, as_store
from smart_engine.stream.drift import Drift
from smart_engine.tiers import MIN_SAVING
from smart_engine.warn import warn

__all__ = ["PlainErrors", "Settings", "refuse_smart"]

T = TypeVar("T")

_TYPICAL = Usage(input_tokens=500, output_tokens=100)
"""What a call may use: enough to compare the prices of models."""


def fresh_seed() -> int:
    """Return a seed from the operating system, which nobody can foresee."""
    return secrets.randbits(63)


class PlainErrors(BaseModel):
    """A model whose constructor raises `InvalidInputError` and nothing else.

    Pydantic's own errors show every argument, keys among them. Unknown arguments are
    errors, too: a misspelt guarantee must not pass unseen. A class with further bases
    repeats that in its `model_config`, for they may say otherwise.
    """

    model_config = ConfigDict(extra="forbid")

    if not TYPE_CHECKING:  # type checkers see the fields as arguments

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            if args:
                hint = "name each argument, such as reference=…"
                raise InvalidInputError(type(self).__name__, "…", hint)
            try:
                super().__init__(**kwargs)
            except ValidationError as error:
                raise _plain(error, type(self)) from None


_PERCENT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*")


def _plain(error: ValidationError, model: type[BaseModel]) -> InvalidInputError:
    """Return the first of pydantic's errors as one of ours."""
    first = error.errors()[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InvalidInputError):
        return cause
    parts = [str(part) for part in first["loc"]]
    field = ".".join(part for part in parts if "[" not in part)  # no type of pydantic's
    value = first["input"]
    if first["type"] == "missing":
        return InvalidInputError(field, None, "this argument is needed")
    if first["type"] == "extra_forbidden":
        harmless = value is None or isinstance(value, int | float)  # others hold keys
        hint = f"no such parameter; {_nearest(field, list(model.model_fields))}"
        return InvalidInputError(field, value if harmless else "…", hint)
    if first["type"] == "dataclass_type":
        return InvalidInputError(
            field, value, f"give a {first['ctx']['class_name']}(…)"
        )
    if not field:  # a check of the whole failed: its input is every argument
        return InvalidInputError(model.__name__, "…", str(cause or first["msg"]))
    hint = first["msg"].replace("Input should be", "must be")
    if first["type"] == "dict_type":
        hint = "must be a dictionary by name, {'name': …}; leave it out for none"
    if first["type"] == "float_parsing" and (share := _PERCENT.fullmatch(value)):
        hint = f"write a share: {float(share[1]) / 100:g}"
    return InvalidInputError(field, value, hint)


def _nearest(field: str, known: list[str]) -> str:
    if near := get_close_matches(field, known, n=1, cutoff=0.75):
        return f"did you mean {near[0]}?"
    return f"give a model's own settings to that model; there are {', '.join(known)}"


class Settings(PlainErrors):
    """Settings, ledger and streams of a smart object.

    `SmartChatModel` and `SmartLLM` document what each setting means. A subclass calls
    `_open` once it knows its models, before anything is spent.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    reference: Annotated[Any, SkipValidation] = Field(
        exclude=True, repr=False, frozen=True
    )
    candidates: Annotated[Any, SkipValidation] = Field(
        exclude=True, repr=False, frozen=True
    )
    max_disagreement: float | None = 0.05
    confidence: float = 0.95
    recall: Annotated[Mapping[str, float], SkipValidation] = Field(default_factory=dict)
    precision: Annotated[Mapping[str, float], SkipValidation] = Field(
        default_factory=dict
    )
    label_of: Annotated[LabelOf | None, SkipValidation] = Field(
        default=None, exclude=True
    )
    slices: Annotated[SliceOf | None, SkipValidation] = Field(
        default=None, exclude=True
    )
    strategy: str = "audit"
    looks: str = "corrected"
    mode: str = "serve"
    budget_usd: float | None = None
    equivalence: Annotated[EquivalenceLike, SkipValidation] = Field(
        default_factory=Normalized, exclude=True
    )
    prices: dict[str, Price] = Field(default_factory=dict)
    seed: int | None = None
    max_concurrency: int = 32
    progress: bool = False
    task: str | None = None
    store: Annotated[Store | str | PathLike[str] | None, SkipValidation] = Field(
        default=None, exclude=True
    )
    min_saving: float = MIN_SAVING
    max_rounds: int | None = None
    tasks: Annotated[Mapping[str, Any], SkipValidation] = Field(
        default_factory=dict, exclude=True
    )
    promise: Literal["batch", "task"] | None = None
    accept_noise: bool = False
    dedupe: bool | None = None
    gather_ms: float | None = None
    signals: Literal["logprobs"] | None = "logprobs"
    on_drift: Annotated[Callable[[Drift], None] | None, SkipValidation] = Field(
        default=None, exclude=True, repr=False
    )
    lane: Annotated[str | Mapping[str, str], SkipValidation] = "live"
    estimate_usage: bool = False
    books: Annotated[Books | None, SkipValidation] = Field(
        default=None, exclude=True, repr=False
    )

    _slice_keys: ClassVar[str | None] = None
    """Where a key that names an item's slice is looked up; None: nowhere."""

    _always: Gathering | None = PrivateAttr(default=None)

    def batching(
        self, *, gather_ms: float | None = None, max_items: int = 1000
    ) -> AbstractContextManager[None]:
        """Answer single calls that are made at once in one batch.

        In this block, and in threads and tasks that copy its context, a call waits
        until no other of its task, with the same settings, has come for `gather_ms`.
        If `max_disagreement` of those that wait is five or more, they become a batch,
        with its price, guarantee and certificate; else they go on as single items of
        the task's stream. So what a framework makes of one item, in whatever shape,
        costs what a batch does where it is run for many at once. Streamed calls, and
        those that name a model, never wait. All batches of a block share one
        `budget_usd`. An answer comes when its batch is done.

        Run as many items at once as there are: four workers make groups of four. In
        async code use async functions: others run in the loop's few threads.

        Args:
            gather_ms: Milliseconds; if left out, this object's own, or 500. Calls that
                wait in vain wait less each time, down to a sixteenth.
            max_items: Most calls in one batch, which then does not wait for more.

        Raises:
            InvalidInputError: If an argument cannot be used.
        """
        chosen = self.gather_ms if gather_ms is None else gather_ms
        return gathering(self._books, chosen, max_items)

    def _gathered(
        self, read: Callable[[], SingleCall | None], alone: Callable[[], T]
    ) -> T:
        """Answer a single call, in a batch with others where it meets enough of them.

        Args:
            read: Returns the call; None if it has to be made by itself.
            alone: Makes it by itself.
        """
        met = self._met(read)
        return alone() if met is None else met[0].answer(met[1], alone)

    async def _agathered(
        self, read: Callable[[], SingleCall | None], alone: Callable[[], Awaitable[T]]
    ) -> T:
        """Answer a single call from a task, as `_gathered` does."""
        met = self._met(read)
        return await (alone() if met is None else met[0].aanswer(met[1], alone))

    def _met(
        self, read: Callable[[], SingleCall | None]
    ) -> tuple[Gathering, SingleCall] | None:
        """Return where a call meets others, and the call, if it is to wait for any."""
        meeting = gathering_of(self._books) or self._always
        if meeting is None or (call := read()) is None:
            return None
        if not worth_a_batch(call.config, meeting.most):
            return None
        check_named(call.config, call.label)
        return meeting, call

    def report(self) -> Report:
        """Return what was asked, paid and saved so far, with all certificates."""
        return self._books.report()

    def ledger(self) -> Ledger:
        """Return every call so far, one by one and in sums.

        Each attempt has a row, as has each model's run within a chain, where what a
        provider's own client retries is seen once. `report()` is made of the same rows.
        """
        return self._books.ledger()

    _serving: ServingConfig = PrivateAttr()
    _batch_costs: tuple[float | None, ...] = PrivateAttr(default=())
    _lanes: Lanes = PrivateAttr(default_factory=Lanes)
    _signals: Signals = PrivateAttr(default_factory=Signals)

    def _open(self) -> None:
        """Check the settings, open the ledger and the store."""
        check_slices(self.slices, keys=self._slice_keys)
        if self.task == "":
            hint = "give it a name, or leave it out"
            raise InvalidInputError("task", self.task, hint)
        if self.on_drift is not None and not callable(self.on_drift):
            hint = "give a function that is told of a Drift, such as drift_event"
            raise InvalidInputError("on_drift", self.on_drift, hint)
        rule, tasks = as_equivalence(self.equivalence), read_tasks(self.tasks)
        self._lanes = self._read_lanes()
        self._signals = Signals(self._reporting_logprobs if self.signals else ())
        serving = ServingConfig(
            models=self._names,
            guarantee=Guarantee(
                self.max_disagreement, self.confidence, self.recall, self.precision
            ),
            rule=rule,
            strategy=self.strategy,
            looks=self.looks,
            mode=self.mode,
            budget_usd=self.budget_usd,
            seed=self.seed,
            fresh_seed=fresh_seed,
            max_concurrency=self.max_concurrency,
            min_saving=self.min_saving,
            max_rounds=self.max_rounds,
            costs=tuple(map(self._typical_cost, self._names)),
            accept_noise=self.accept_noise,
            label_of=self.label_of,
            slices=self.slices,
            tasks=tasks,
            promise=self.promise,
            on_drift=self.on_drift,
        )
        check(serving)
        if self.budget_usd is not None:
            self._check_budget(self.budget_usd)
        books = self.books or Books(fork_safe_lock, process=os.getpid())
        books.admit(self._names)
        store = as_store(self.store)
        set_now = {"equivalence": rule, "tasks": tasks, "books": books, "store": store}
        self.__dict__.update(set_now)
        self._serving = serving
        self._batch_costs = tuple(map(self._batch_cost, self._names))
        given = self.gather_ms
        self._always = None if given is None else Gathering(given)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a field; a setting is checked as at construction, or stays as it was."""
        before = self.__dict__.get(name)
        super().__setattr__(name, value)
        if name in Settings.model_fields and hasattr(self, "_serving"):
            try:
                self._open()
            except BaseException:
                self.__dict__[name] = before
                raise

    def model_copy(
        self, *, update: Mapping[str, Any] | None = None, deep: bool = False
    ) -> Self:
        """Return a copy; settings that it changes are checked as at construction."""
        copy = super().model_copy(update=update, deep=deep)
        if not Settings.model_fields.keys().isdisjoint(update or ()):
            copy._open()  # noqa: SLF001 - of the same class
        return copy

    def _read_lanes(self) -> Lanes:
        """Return how batches ask the members.

        Raises:
            InvalidInputError: If they cannot be asked in that way.
        """
        raise NotImplementedError

    @property
    def _reporting_logprobs(self) -> Iterable[str]:
        """Names of the candidates that can be asked for logprobs."""
        raise NotImplementedError

    def _check_budget(self, budget_usd: float) -> None:
        """Raise InvalidInputError unless the members can keep a budget."""
        raise NotImplementedError

    def __repr_args__(self) -> Any:
        """Show models by name: what they show of themselves may be secret."""
        yield "models", list(self._names)
        yield from super().__repr_args__()

    @property
    def _names(self) -> tuple[str, ...]:
        """Names of all models, the reference first."""
        raise NotImplementedError

    @property
    def _books(self) -> Books:
        if self.books is None:
            raise InvalidInputError("books", None, "leave it out to start new ones")
        return self.books

    def _item(
        self,
        rule: Equivalence,
        task: str,
        worst_case: WorstCase,
        *,
        named: bool,
        model: str | None,
        identities: Callable[[], Iterable[tuple[str, str]]],
        prompt: Callable[[], str],
        stream: str | None = None,
        pinned: str | None = None,
    ) -> SingleItem:
        """Return a single item of a task; see `single_item`.

        `named` says whether the user named the task; if not, `stream` may tell it from
        others of its name. For a store, `identities` and `prompt` identify the models
        with their settings and what is asked beside the item itself.
        """
        self._enter_process()
        settings = self._serving
        task = settings.task_of(task)
        config, named = settings.of(task), named or task in settings.tasks
        if config.pooled:
            stream, prompt = None, lambda: f"all of {config.rule.name}"
        if stream is not None:
            task = self._books.label(task, stream)
        if not named and self._books.is_last_unnamed(task):
            warn(
                "20 tasks without a name, each of which learns for itself: is there a "
                "date or a name in the system message, or in the template? Name the "
                "task: task=…"
            )
        store = self._store
        persistence = None if store is None else Persistence(store, identities, prompt)
        return single_item(
            config,
            self._books,
            rule,
            task,
            worst_case,
            model=model,
            persistence=persistence,
            stream=stream,
            pinned=pinned,
        )

    def _batch(self, jobs: Sequence[Job], results: list[Any]) -> Batch:
        """Return a batch of some jobs; see `Batch`."""
        return Batch(
            replace(self._serving, costs=self._batch_costs),
            self._books,
            self._store,
            jobs,
            results,
            batch_budget(self._serving, self._books),
            self.progress,
            self.dedupe,
            self._lanes,
        )

    def _measurement(self, job: Job) -> Measurement:
        """Return what measures the reference's agreement with itself."""
        confidence = self._serving.of(job.task).guarantee.confidence
        return Measurement(job, self._names[0], confidence, self._books, self._lanes)

    def _estimation(
        self,
        field: str,
        jobs: Sequence[Job],
        n: int,
        sizes: Sequence[int],
        shares: Sequence[float],
    ) -> Estimation:
        """Return what says what a job would cost, from answers to `n` of its items.

        Raises:
            InvalidInputError: If there is not one job in `field`, or another argument
                cannot be used.
        """
        if len(jobs) != 1:
            tasks = [job.task for job in jobs]
            hint = "give all items of one task: each task is a job of its own"
            raise InvalidInputError(field, tasks, hint)
        check_whole("n", n, 1)
        for size in sizes:
            check_whole("sizes", size, 1)
        for share in shares:
            Guarantee(share)  # raises if it is no share
        return Estimation(self._batch(jobs, []), n, self._member_prices, sizes, shares)

    @property
    def _member_prices(self) -> dict[str, Price]:
        """Model → its price, where it has one."""
        return {}

    def _scope(self, task: str) -> LedgerScope:
        """Return where the calls of a batch that begins now are entered."""
        self._enter_process()
        return self._books.batch(self._serving.models[0], task)

    def _enter_process(self) -> None:
        """Warn once where a copy in another process can share nothing."""
        if self._books.enter_process(os.getpid()) and self._store is None:
            warn(
                "this process has a copy of a smart model: its ledger, its streams and "
                "its budget are its own; with a store=, processes share streams and "
                "budgets"
            )

    @property
    def _store(self) -> Store | None:
        return self.store if isinstance(self.store, Store) else None

    def _typical_cost(self, name: str) -> float | None:
        """What a call may cost, in USD, to compare models before any was made."""
        price = self._lanes.price(name, batch=False) or self.prices.get(name)
        return None if price is None else price.cost(_TYPICAL)

    def _batch_cost(self, name: str) -> float | None:
        """What a call may cost in a batch, in USD."""
        price = self._lanes.price(name, batch=True)
        return self._typical_cost(name) if price is None else price.cost(_TYPICAL)


def refuse_smart(field: str, model: Any) -> None:
    """Raise if a model is a smart one: what its own models cost would not be booked.

    Raises:
        InvalidInputError: It names the field and the way out.
    """
    if isinstance(model, Settings):
        hint = (
            "a smart model asks several models, whose calls a member cannot book: name "
            "its reference and its candidates here, as candidates"
        )
        raise InvalidInputError(field, type(model).__name__, hint)
