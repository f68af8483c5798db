"""The verbs that take many items at once: one session a task, whatever verb leads here.

They work behind a prompt, before a parser, and through `.bind()`, `.with_config()`,
`.with_retry()`, `.with_fallbacks()` and `.configurable_fields()`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic

from langchain_core.runnables import Runnable, RunnableConfig, RunnableSerializable
from langchain_core.runnables.config import get_config_list, merge_configs
from langchain_core.runnables.configurable import RunnableConfigurableFields
from langchain_core.runnables.utils import AnyConfigurableField, Input, Output
from typing_extensions import override

from smart_engine.batch.self_agreement import SelfAgreement, drawn_twice
from smart_engine.errors import check_whole
from smart_engine.runtime.batch import Batch, Job, aeach, deliver, each
from smart_engine.runtime.self_agreement import Measurement
from smart_engine.runtime.settings import Settings
from smart_engine.store.store import Store

__all__ = ["TASK", "Share", "SmartBatching", "named_task"]

TASK = "smart_task"
"""Argument, or key in a config, that names the task."""

Configs = RunnableConfig | list[RunnableConfig] | None


def named_task(kwargs: Mapping[str, Any], config: RunnableConfig | None) -> str | None:
    """Return the task that a call names, None if it names none.

    Args:
        kwargs: The call's arguments, where `bind(smart_task=…)` arrives.
        config: Its config: `configurable` comes before `metadata`.
    """
    config = config or {}
    places = (kwargs, config.get("configurable") or {}, config.get("metadata") or {})
    found = [place[TASK] for place in places if place.get(TASK) is not None]
    return str(found[0]) if found else None


@dataclass(frozen=True, slots=True)
class Share:
    """One task's share of a batch.

    Attributes:
        task: Name of the task, if one was given.
        places: Per item, its place in the whole batch.
        inputs: Per item, its input as models take it.
        configs: Per item, the config it came with.
        one_config: Whether all items came with the same config.
        limit: Most calls in flight at once.
    """

    task: str | None
    places: Sequence[int]
    inputs: Sequence[Any]
    configs: Sequence[RunnableConfig]
    one_config: bool
    limit: int


class SmartBatching(
    Settings, RunnableSerializable[Input, Output], Generic[Input, Output]
):
    """The batch verbs of all smart Runnables."""

    @override
    def batch(
        self,
        inputs: list[Input],
        config: Configs = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Output]:
        """Answer a batch in one session; see the class for what is promised.

        Items that name different tasks are answered in one session a task. In shadow,
        or where a model is named, items are answered one by one.

        Args:
            inputs: The items.
            config: One config for all, or one per item; `max_concurrency` is honoured.
            return_exceptions: Return an item's exception in its place instead of
                raising the first one after all items are done.
            **kwargs: Handed to every model, such as `stop`.
        """
        if self._one_by_one(kwargs):
            configs = get_config_list(config, len(inputs)) if inputs else []

            def answer(item: int) -> Output:
                return self.invoke(inputs[item], configs[item], **kwargs)

            results = each(answer, len(inputs), self._limit(configs))
            return deliver(results, return_exceptions=return_exceptions)
        batch = self._batch(inputs, config, kwargs, return_exceptions=return_exceptions)
        return batch.run(return_exceptions=return_exceptions)

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
        if self._one_by_one(kwargs):
            configs = get_config_list(config, len(inputs)) if inputs else []

            async def answer(item: int) -> Output:
                return await self.ainvoke(inputs[item], configs[item], **kwargs)

            results = await aeach(answer, len(inputs), self._limit(configs))
            return deliver(results, return_exceptions=return_exceptions)
        batch = self._batch(inputs, config, kwargs, return_exceptions=return_exceptions)
        return await batch.arun(return_exceptions=return_exceptions)

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
        unless `accept_noise=True`. What it costs is in `report()`, and in no batch's or
        stream's `budget_usd`. Replies from a cache are no second answers: their items
        are left out, and counted.

        Args:
            inputs: Items of one task, such as those of a batch.
            config: The config to ask with; it may name the task.
            n: Most items to ask about, drawn at random.
            **kwargs: Handed to the reference with every call.

        Raises:
            InvalidInputError: If there is no item.
            SmartError: If no item got two answers of its own.
        """
        return self._measurement(inputs, config, n, kwargs).run()

    async def aself_agreement(
        self,
        inputs: Sequence[Input],
        config: RunnableConfig | None = None,
        *,
        n: int = 100,
        **kwargs: Any,
    ) -> SelfAgreement:
        """Ask the reference twice about a few items, as `self_agreement` does."""
        return await self._measurement(inputs, config, n, kwargs).arun()

    @override
    def configurable_fields(
        self, **kwargs: AnyConfigurableField
    ) -> RunnableSerializable[Input, Output]:
        """Let a config set fields; copies share ledger and streams with this object."""
        core = super().configurable_fields(**kwargs)  # checks the names
        return _ConfiguredFields(**core.__dict__)

    # -- jobs ------------------------------------------------------------------

    @abstractmethod
    def _read(self, given: Any) -> Any:
        """Return an input as models take it; what it raises is the item's error."""

    @abstractmethod
    def _job_maker(self, kwargs: dict[str, Any]) -> Callable[[Share], Job]:
        """Return what makes a share a job, for one call's arguments."""

    def _one_by_one(self, kwargs: Mapping[str, Any]) -> bool:
        """Whether no session decides who answers."""
        return bool(kwargs.get("model")) or self.mode == "shadow"

    def _batch(
        self,
        inputs: Sequence[Any],
        config: Configs,
        kwargs: dict[str, Any],
        *,
        return_exceptions: bool,
    ) -> Batch:
        """Return a batch: a job a task over the inputs that can be read."""
        configs = get_config_list(config, len(inputs)) if inputs else []
        limit = self._limit(configs)
        read: dict[int, Any] = {}
        results: list[Any] = [None] * len(inputs)
        for place, given in enumerate(inputs):
            try:
                read[place] = self._read(given)
            except Exception as error:
                if not return_exceptions:
                    raise
                results[place] = error
        by_task: dict[str | None, list[int]] = defaultdict(list)
        for place in read:
            by_task[named_task(kwargs, configs[place]) or self.task].append(place)
        one_config = not isinstance(config, Sequence)
        make = self._job_maker(kwargs)
        jobs = [
            make(
                Share(
                    task,
                    places,
                    [read[place] for place in places],
                    [configs[place] for place in places],
                    one_config,
                    limit,
                )
            )
            for task, places in by_task.items()
        ]
        store = self.store if isinstance(self.store, Store) else None
        return Batch(self._serving, self._books, store, jobs, results, self.progress)

    def _measurement(
        self,
        inputs: Sequence[Any],
        config: RunnableConfig | None,
        n: int,
        kwargs: dict[str, Any],
    ) -> Measurement:
        drawn = drawn_twice("inputs", list(inputs), n, self.seed)
        (job,) = self._batch(drawn, config, kwargs, return_exceptions=False).jobs
        return Measurement(job, self._names[0], self.confidence, self._books)

    def _limit(self, configs: Sequence[RunnableConfig]) -> int:
        """Return how many calls may be in flight."""
        limits = [config.get("max_concurrency") for config in configs]
        for limit in limits:
            if limit is not None:
                check_whole("max_concurrency", limit, 1)
        return next((limit for limit in limits if limit), None) or self.max_concurrency


class _ConfiguredFields(RunnableConfigurableFields):  # type: ignore[type-arg]
    """Answers a configured batch in one call per choice of settings.

    LangChain's own configurable Runnables answer it item by item.
    """

    @override
    def batch(
        self, inputs: list[Any], config: Configs = None, **kwargs: Any
    ) -> list[Any]:
        results: list[Any] = [None] * len(inputs)
        for places, model, configs in self._groups(len(inputs), config):
            chosen = [inputs[place] for place in places]
            outputs = model.batch(chosen, configs, **kwargs)
            for place, output in zip(places, outputs, strict=True):
                results[place] = output
        return results

    @override
    async def abatch(
        self, inputs: list[Any], config: Configs = None, **kwargs: Any
    ) -> list[Any]:
        results: list[Any] = [None] * len(inputs)
        for places, model, configs in self._groups(len(inputs), config):
            chosen = [inputs[place] for place in places]
            outputs = await model.abatch(chosen, configs, **kwargs)
            for place, output in zip(places, outputs, strict=True):
                results[place] = output
        return results

    def _groups(
        self, items: int, config: Configs
    ) -> Iterator[tuple[list[int], Runnable[Any, Any], list[RunnableConfig]]]:
        """Yield per choice of settings the items, the model and their configs."""
        ids = {field.id for field in self.fields.values()}
        configs = get_config_list(config, items) if items else []
        merged = [merge_configs(self.config, its_config) for its_config in configs]
        choices: list[tuple[dict[str, Any], list[int]]] = []
        for place, its_config in enumerate(merged):
            given = its_config.get("configurable") or {}
            chosen = {name: value for name, value in given.items() if name in ids}
            for settings, places in choices:
                if settings == chosen:
                    places.append(place)
                    break
            else:
                choices.append((chosen, [place]))
        for _, places in choices:
            model, _ = self.prepare(merged[places[0]])
            yield places, model, [merged[place] for place in places]
