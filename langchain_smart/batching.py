"""The verbs that take many items at once: one session a task, one run an item.

They work behind a prompt, before a parser, and through `.bind()`, `.with_config()`,
`.with_retry()`, `.with_fallbacks()` and `.configurable_fields()`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import ChainMap, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Generic

from langchain_core.callbacks import AsyncCallbackManager, CallbackManager
from langchain_core.runnables import Runnable, RunnableConfig, RunnableSerializable
from langchain_core.runnables.config import (
    ensure_config,
    get_config_list,
    merge_configs,
    var_child_runnable_config,
)
from langchain_core.runnables.configurable import RunnableConfigurableFields
from langchain_core.runnables.utils import AnyConfigurableField, Input, Output
from pydantic import PrivateAttr
from typing_extensions import override

from smart_engine.batch.self_agreement import SelfAgreement, drawn_twice
from smart_engine.equivalence import Equivalence
from smart_engine.errors import check_batch, check_whole
from smart_engine.offline.estimate import SIZES, Estimate
from smart_engine.runtime.batch import Batch, OneByOne
from smart_engine.runtime.estimation import Estimation
from smart_engine.runtime.gathering import SingleCall
from smart_engine.runtime.job import Job
from smart_engine.runtime.measurement import Measurement
from smart_engine.runtime.requester import Verb
from smart_engine.runtime.settings import Settings
from smart_engine.runtime.submitted import SubmittedJob
from smart_engine.serving.slices import slice_of

__all__ = [
    "CORE_VERBS",
    "TASK",
    "JobMaker",
    "RunnableJob",
    "SmartBatching",
    "named_task",
    "with_threads",
]

TASK = "smart_task"
"""Argument, or key in a config, that names the task."""

CORE_VERBS: Mapping[Verb, str] = {
    "call": "invoke",
    "acall": "ainvoke",
    "stream": "stream",
    "astream": "astream",
}
"""How a Runnable is asked, by what the runtime calls that."""

JobMaker = tuple[
    Callable[..., Job],
    Callable[[Equivalence], Equivalence],
    Callable[[Sequence[Any]], str],
]
"""Makes a job; applies the user's rule to its answers; names a task without a name."""

Configs = RunnableConfig | list[RunnableConfig] | None


def named_task(kwargs: Mapping[str, Any], config: RunnableConfig | None) -> str | None:
    """Return the task that a call names, by argument or by config, if it names one."""
    places = (kwargs, *_keys(config or {}))
    found = [place[TASK] for place in places if place.get(TASK) is not None]
    return str(found[0]) if found else None


def _keys(config: RunnableConfig) -> list[Mapping[str, Any]]:
    """Return where a config's keys are looked up, one after the other."""
    return [config.get("configurable") or {}, config.get("metadata") or {}]


@dataclass(kw_only=True)
class RunnableJob(Job):
    """The items of one task in a batch, each of which is a run.

    Attributes:
        inputs: Per item, its input as models take it.
        configs: Per item, its config.
    """

    inputs: Sequence[Any]
    configs: Sequence[RunnableConfig]

    def __post_init__(self) -> None:
        self._runs: list[Any] = [None] * len(self.places)

    @override
    def prepare(self, item: int) -> None:
        with self._unless_refused(item):
            if self._runs[item] is None:
                self._runs[item] = _only(self._start_run(item, CallbackManager))

    @override
    async def aprepare(self, item: int) -> None:
        with self._unless_refused(item):
            if self._runs[item] is None:
                self._runs[item] = _only(
                    await self._start_run(item, AsyncCallbackManager)
                )

    @contextmanager
    def _unless_refused(self, item: int) -> Iterator[None]:
        """Begin an item whose handlers have not yet refused that, else raise why."""
        if item in self.refused:
            raise self.refused[item]
        try:
            yield
        except Exception as error:
            self.refused[item] = error
            raise

    @abstractmethod
    def _start_run(self, item: int, kind: type[Any]) -> Any:
        """Begin an item's run with a callback manager of that kind."""


def _only(run: Any) -> Any:
    """Return a run; runs of chat models begin in lists."""
    return run[0] if isinstance(run, list) else run


class _Threads(int):
    """How many items core runs at once in `batching`; it limits no call of ours."""


@contextmanager
def with_threads(block: AbstractContextManager[None], threads: int) -> Iterator[None]:
    """Let core run so many items at once in a block of `batching`."""
    limit = RunnableConfig(max_concurrency=_Threads(threads))
    config: Any = {**limit, **(var_child_runnable_config.get() or {})}
    with block:
        token = var_child_runnable_config.set(config)
        try:
            yield
        finally:
            var_child_runnable_config.reset(token)


class SmartBatching(
    Settings, RunnableSerializable[Input, Output], Generic[Input, Output]
):
    """The batch verbs of all smart Runnables."""

    _slice_keys: ClassVar[str | None] = "each input's config metadata"

    @override
    def batch(
        self,
        inputs: list[Input],
        config: Configs = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Output]:
        """Answer a batch in one session; see the class for its guarantee.

        Items that name different tasks are answered in one session a task. In shadow
        mode, or where a model is named, items are answered one by one.

        Args:
            inputs: The items.
            config: One config for all, or one per item; `max_concurrency` is honoured.
            return_exceptions: Return an item's exception in its place instead of
                raising the first one after all items are done.
            **kwargs: Passed to every model, such as `stop`.
        """
        work = self._work(inputs, config, kwargs, return_exceptions=return_exceptions)
        return work.run(return_exceptions=return_exceptions)

    @override
    async def abatch(
        self,
        inputs: list[Input],
        config: Configs = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Output]:
        """Answer a batch in one session, as `batch` does."""
        work = self._work(inputs, config, kwargs, return_exceptions=return_exceptions)
        return await work.arun(return_exceptions=return_exceptions)

    def submit(
        self,
        inputs: Sequence[Input],
        config: Configs = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> SubmittedJob[Output]:
        """Answer a batch as `batch` does, while this process does something else.

        With `lane="batch"` it may take a day. `job.status()` says where it stands;
        `job.results()` and `await job` wait for it. `job.leave()` ends it here: with a
        `store`, whoever submits the same inputs later, in any process, goes on from
        there, with the provider's batches that are under way.

        Args:
            inputs: The items.
            config: One config for all, or one per item.
            return_exceptions: See `batch`.
            **kwargs: Passed to every model.

        Example:
            ```python
            from langchain_core.language_models import FakeListChatModel

            free = {"big": Price.free(), "small": Price.free()}
            big, small = (FakeListChatModel(name=n, responses=["yes"]) for n in free)
            smart = SmartChatModel(reference=big, candidates=[small], prices=free)
            job = smart.submit(["Is it?"] * 20)
            assert [answer.text for answer in job.results()] == ["yes"] * 20
            assert job.status().state == "done"
            ```
        """
        check_batch("inputs", inputs)
        read = list(inputs)
        work = self._work(read, config, kwargs, return_exceptions=return_exceptions)
        return SubmittedJob(work, len(read), return_exceptions=return_exceptions)

    @override
    def batch_as_completed(  # type: ignore[override]
        self,
        inputs: Sequence[Input],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        **kwargs: Any,
    ) -> Iterator[tuple[int, Output | Exception]]:
        """Answer a batch in one session, then yield each answer with its index.

        Which model may serve an item is known only when the batch has been profiled,
        and what it saved only at the end: all answers complete together.
        """
        yield from enumerate(self.batch(list(inputs), config, **kwargs))  # type: ignore[arg-type]

    @override
    async def abatch_as_completed(  # type: ignore[override]
        self,
        inputs: Sequence[Input],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[tuple[int, Output | Exception]]:
        """Answer a batch in one session, as `batch_as_completed` does."""
        for indexed in enumerate(await self.abatch(list(inputs), config, **kwargs)):  # type: ignore[arg-type]
            yield indexed

    def self_agreement(
        self,
        inputs: Sequence[Input],
        config: RunnableConfig | None = None,
        *,
        n: int = 100,
        **kwargs: Any,
    ) -> SelfAgreement:
        """Ask the reference twice about a few items, and compare its answers.

        From then on a `max_disagreement` that is demonstrably below the reference's own
        disagreement with itself is refused for this task, here and in all copies,
        unless `accept_noise=True`. What it costs is in `report()`, but counts against
        no `budget_usd`. Items with a reply from a cache are left out, and counted.

        Args:
            inputs: Items of one task, such as those of a batch.
            config: The config to ask with; it may name the task.
            n: Most items to ask about, drawn at random.
            **kwargs: Passed to the reference with every call.

        Raises:
            InvalidInputError: If there is no item.
            SmartError: If no item got two answers of its own.
        """
        return self._twice(inputs, config, n, kwargs).run()

    async def aself_agreement(
        self,
        inputs: Sequence[Input],
        config: RunnableConfig | None = None,
        *,
        n: int = 100,
        **kwargs: Any,
    ) -> SelfAgreement:
        """Ask the reference twice about a few items, as `self_agreement` does."""
        return await self._twice(inputs, config, n, kwargs).arun()

    def estimate(
        self,
        inputs: Sequence[Input],
        config: Configs = None,
        *,
        n: int = 50,
        sizes: Sequence[int] = SIZES,
        shares: Sequence[float] = (),
        **kwargs: Any,
    ) -> Estimate:
        """Ask all models about a few items; say what all of them would cost in a batch.

        The estimate has the share of the reference's cost that the job is expected to
        save, with a range, from which size on such jobs pay, what more or fewer of them
        would save, and, where earlier jobs of the task are known, what these change.
        It is no promise. `report()` shows it, with a curve, and what it costs, which
        counts against no `budget_usd`. With a store, a batch of the same items does not
        buy the answers again.

        Args:
            inputs: All items of the job.
            config: One config for all, or one per item, as for `batch`.
            n: Most items to ask about, drawn at random.
            sizes: Numbers of items for which the share saved is estimated, too; `CURVE`
                of `smart_engine.offline.estimate` goes from 20 to 100,000.
            shares: Other shares that may differ (`max_disagreement`), to choose among.
            **kwargs: Passed to every model with every call.

        Raises:
            InvalidInputError: If an argument cannot be used, or the items are of
                several tasks.
            SmartError: If the reference answered none of them.
        """
        return self._estimating(inputs, config, n, sizes, shares, kwargs).run()

    async def aestimate(
        self,
        inputs: Sequence[Input],
        config: Configs = None,
        *,
        n: int = 50,
        sizes: Sequence[int] = SIZES,
        shares: Sequence[float] = (),
        **kwargs: Any,
    ) -> Estimate:
        """Say what a job would cost, as `estimate` does."""
        estimating = self._estimating(inputs, config, n, sizes, shares, kwargs)
        return await estimating.arun()

    # -- single calls that are made at once --------------------------------------

    @override
    def batching(
        self, *, gather_ms: float | None = None, max_items: int = 1000
    ) -> AbstractContextManager[None]:
        """Answer single calls that are made at once in one batch; see the guide.

        In this block `.batch()` of any chain or graph runs up to `max_items` items at
        once, unless its config says otherwise by `max_concurrency`. How many calls of
        this model are in flight is still limited by its own `max_concurrency`.

        Args:
            gather_ms: Milliseconds without a further call of the same task and with the
                same settings after which those that wait are answered: in a batch, if
                `max_disagreement` of them is five or more; else as single items. If
                left out, this model's own, or 500.
            max_items: Most calls in one batch, which then does not wait for more.

        Raises:
            InvalidInputError: If an argument cannot be used.

        Example:
            ```python
            from langchain_core.language_models import FakeListChatModel
            from langchain_core.runnables import RunnablePassthrough

            free = {"big": Price.free(), "small": Price.free()}
            big, small = (FakeListChatModel(name=n, responses=["yes"]) for n in free)
            smart = SmartChatModel(reference=big, candidates=[small], prices=free)
            chain = RunnablePassthrough.assign(odd=(lambda item: item["text"]) | smart)
            with smart.batching():
                answers = chain.batch([{"text": f"is {n} odd?"} for n in range(100)])
            assert answers[7]["odd"].text == "yes"
            assert smart.report().certificates[0].items == 100
            ```
        """
        block = super().batching(gather_ms=gather_ms, max_items=max_items)
        return with_threads(block, max_items)

    def _single(
        self, given: Any, config: RunnableConfig | None, kwargs: dict[str, Any]
    ) -> SingleCall | None:
        """Return a call that others may be answered with; None if its model is set."""
        config, read = ensure_config(config), self._read(given)
        if kwargs.get("model") or self._pinned(read) == self._names[0]:
            return None
        task, content, text = self._identified(read, kwargs)
        label = named_task(kwargs, config) or self.task
        task = label or task

        def batch(items: Sequence[tuple[Any, RunnableConfig]]) -> Batch:
            inputs, configs = map(list, zip(*items, strict=True))
            jobs = self._jobs(inputs, configs, dict(kwargs))
            return self._batch(jobs, [None] * len(items))

        serving = self._serving.of(self._serving.task_of(task))
        kind = (id(self), task, content)
        return SingleCall(kind, text, (given, config), batch, serving, label)

    def _pinned(self, given: Any) -> str | None:  # noqa: ARG002
        """Return the model that began a conversation, if that is to go on with it."""
        return None

    @abstractmethod
    def _identified(self, given: Any, kwargs: Mapping[str, Any]) -> tuple[str, ...]:
        """Return a call's task, where none is named, what comes with it, and its item.

        All are texts; equal ones stand for the same.
        """

    @override
    def configurable_fields(
        self, **kwargs: AnyConfigurableField
    ) -> RunnableSerializable[Input, Output]:
        """Let a config set fields; copies share ledger and streams with this object."""
        core = super().configurable_fields(**kwargs)  # checks the names
        return _ConfiguredFields(**core.__dict__)

    # -- jobs ------------------------------------------------------------------

    _members: dict[str, Any] = PrivateAttr()

    @property
    @override
    def _names(self) -> tuple[str, ...]:
        return tuple(self._members)

    @property
    @abstractmethod
    def _identities(self) -> list[tuple[str, str]]:
        """Per member, its name and a text that identifies it with its settings."""

    @abstractmethod
    def _read(self, given: Any) -> Any:
        """Return an input as models take it; what it raises is the item's error."""

    @abstractmethod
    def _job_maker(self, kwargs: dict[str, Any]) -> JobMaker:
        """Return what makes a job, reads answers, and names inputs without a name.

        Args:
            kwargs: The arguments of the batch.
        """

    def _work(
        self,
        inputs: Sequence[Any],
        config: Configs,
        kwargs: dict[str, Any],
        *,
        return_exceptions: bool,
    ) -> Batch | OneByOne:
        """Return what answers a batch."""
        check_batch("inputs", inputs)
        if kwargs.get("model") or self.mode == "shadow":
            configs, limit = self._configs(inputs, config)
            return OneByOne(
                lambda item: self.invoke(inputs[item], configs[item], **kwargs),
                lambda item: self.ainvoke(inputs[item], configs[item], **kwargs),
                len(inputs),
                limit,
            )
        results: list[Any] = [None] * len(inputs)
        raised = results if return_exceptions else None
        return self._batch(self._jobs(inputs, config, kwargs, raised), results)

    def _jobs(
        self,
        inputs: Sequence[Any],
        config: Configs,
        kwargs: dict[str, Any],
        raised: list[Any] | None = None,
        *,
        sliced: bool = True,
    ) -> list[Job]:
        """Return one job a task, over the inputs that can be read.

        Args:
            inputs: The items.
            config: One config for all, or one per item.
            kwargs: Further arguments of every call.
            raised: Gets in each unreadable item's place why; else that is raised.
            sliced: Whether each item needs its slice, if slices are promised.
        """
        configs, limit = self._configs(inputs, config)
        read: dict[int, Any] = {}
        slices: dict[int, str] = {}
        for place, given in enumerate(inputs):
            try:
                item = self._read(given)
                if sliced and self.slices is not None:
                    keys = ChainMap(*map(dict, _keys(configs[place])))
                    slices[place] = slice_of(self.slices, given, place, keys)
                read[place] = item
            except Exception as error:
                if raised is None:
                    raise
                raised[place] = error
        by_task: dict[str | None, list[int]] = defaultdict(list)
        for place in read:
            by_task[named_task(kwargs, configs[place]) or self.task].append(place)
        new_job, compared_by, name_of = self._job_maker(kwargs)
        settings, pools = self._serving, dict[Any, list[Any]]()
        for label, places in by_task.items():
            name = label or name_of([read[place] for place in places])
            task, rule = settings.task_of(name), settings.rule_of(name)
            pool = pools.setdefault((task, id(rule)), [label and task, rule, []])
            pool[-1] += places
        return [
            new_job(
                task=task,
                rule=compared_by(rule),
                scope=self._scope(task),
                places=places,
                limit=limit,
                label=label,
                inputs=[read[place] for place in places],
                configs=[configs[place] for place in places],
                slices=[slices[place] for place in places] if slices else None,
            )
            for (task, _), (label, rule, places) in pools.items()
        ]

    def _twice(
        self,
        inputs: Sequence[Any],
        config: RunnableConfig | None,
        n: int,
        kwargs: dict[str, Any],
    ) -> Measurement:
        drawn = drawn_twice("inputs", list(inputs), n, self.seed)
        (job,) = self._jobs(drawn, config, kwargs, sliced=False)
        return self._measurement(job)

    def _estimating(
        self,
        inputs: Sequence[Any],
        config: Configs,
        n: int,
        sizes: Sequence[int],
        shares: Sequence[float],
        kwargs: dict[str, Any],
    ) -> Estimation:
        check_batch("inputs", inputs)
        jobs = self._jobs(list(inputs), config, kwargs)
        return self._estimation("inputs", jobs, n, sizes, shares)

    def _configs(
        self, inputs: Sequence[Any], config: Configs
    ) -> tuple[list[RunnableConfig], int]:
        """Return each input's config, and the most calls in flight at once."""
        configs = get_config_list(config, len(inputs)) if inputs else []
        limits = [its_config.get("max_concurrency") for its_config in configs]
        set_limits = [
            limit
            for limit in limits
            if limit is not None and not isinstance(limit, _Threads)
        ]
        for limit in set_limits:
            check_whole("max_concurrency", limit, 1)
        return configs, next(iter(set_limits), self.max_concurrency)


class _ConfiguredFields(RunnableConfigurableFields):  # type: ignore[type-arg]
    """Answers a batch in one call per choice of settings, not item by item."""

    @override
    def batch(
        self, inputs: list[Any], config: Configs = None, **kwargs: Any
    ) -> list[Any]:
        results: dict[int, Any] = {}
        for places, model, chosen, configs in self._groups(inputs, config):
            outputs = model.batch(chosen, configs, **kwargs)
            results.update(zip(places, outputs, strict=True))
        return [results[place] for place in range(len(inputs))]

    @override
    async def abatch(
        self, inputs: list[Any], config: Configs = None, **kwargs: Any
    ) -> list[Any]:
        results: dict[int, Any] = {}
        for places, model, chosen, configs in self._groups(inputs, config):
            outputs = await model.abatch(chosen, configs, **kwargs)
            results.update(zip(places, outputs, strict=True))
        return [results[place] for place in range(len(inputs))]

    def _groups(
        self, inputs: list[Any], config: Configs
    ) -> Iterator[tuple[list[int], Runnable[Any, Any], list[Any], Configs]]:
        """Yield per choice of settings its places, model, inputs and configs."""
        ids = {field.id for field in self.fields.values()}
        configs = get_config_list(config, len(inputs)) if inputs else []
        merged = [merge_configs(self.config, its_config) for its_config in configs]
        choices: list[tuple[dict[str, Any], list[int]]] = []
        for place, its_config in enumerate(merged):
            given = its_config.get("configurable") or {}
            chosen = {name: value for name, value in given.items() if name in ids}
            same = (places for settings, places in choices if settings == chosen)
            if (places := next(same, None)) is None:
                choices.append((chosen, [place]))
            else:
                places.append(place)
        for _, places in choices:
            its_configs = [merged[place] for place in places]
            model, _ = self.prepare(its_configs[0])
            yield places, model, [inputs[place] for place in places], its_configs
