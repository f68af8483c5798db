"""Whole batches: one session a task, sync and async, whatever road leads there."""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Generic

from langchain_core.runnables import RunnableConfig, RunnableSerializable
from langchain_core.runnables.config import get_config_list
from langchain_core.runnables.utils import AnyConfigurableField, Input, Output
from typing_extensions import override

from langchain_smart.configured import ConfiguredFields
from langchain_smart.driver import adrive, drive
from langchain_smart.jobs import Job, Share
from langchain_smart.promise import Promise
from langchain_smart.tasks import named_task
from smart_engine.errors import check_whole
from smart_engine.runtime.progress_bar import progress_bar
from smart_engine.serving.session import Session

__all__ = ["Batches"]


class Batches(Promise, RunnableSerializable[Input, Output], Generic[Input, Output]):
    """The verbs that take many items at once, for all that keeps a promise."""

    @override
    def batch(
        self,
        inputs: list[Input],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Output]:
        """Answer a batch in one session; see the class for what is promised.

        Items that name different tasks are answered in one session a task.

        Args:
            inputs: The items.
            config: One config for all, or one per item; `max_concurrency` is honoured.
            return_exceptions: Return an item's exception in its place instead of
                raising the first one after all items are done.
            **kwargs: Handed to every member, such as `stop`.
        """
        if kwargs.get("model") or self.mode == "shadow":  # no batch decides
            options: dict[str, Any] = {"return_exceptions": return_exceptions}
            return super().batch(inputs, config, **options, **kwargs)
        results, jobs = self._prepare(inputs, config, return_exceptions, kwargs)
        for job in jobs:
            outputs = self._run(job)
            for place, output in zip(job.share.places, outputs, strict=True):
                results[place] = output
        return _deliver(results, return_exceptions)

    @override
    async def abatch(
        self,
        inputs: list[Input],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Output]:
        """Answer a batch in one session, as `batch` does."""
        if kwargs.get("model") or self.mode == "shadow":
            options: dict[str, Any] = {"return_exceptions": return_exceptions}
            return await super().abatch(inputs, config, **options, **kwargs)
        results, jobs = self._prepare(inputs, config, return_exceptions, kwargs)
        for job in jobs:
            outputs = await self._arun(job)
            for place, output in zip(job.share.places, outputs, strict=True):
                results[place] = output
        return _deliver(results, return_exceptions)

    def _run(self, job: Job) -> list[Any]:
        """Answer the items of one task."""
        try:
            with self._shown(job) as session:
                limit = self._limit(job.share)
                drive(session, job.begin, job.ask, job.broken_off, limit)
            outputs = job.results()
        except BaseException as error:
            for run in job.begun:
                job.end(run, error)
            raise
        self._books.end_batch(job.scope, job.session.certificate)
        for run, output in zip(job.runs, outputs, strict=True):
            if run is not None:  # else nobody was asked: the budget had ended
                job.end(run, output)
        return outputs

    async def _arun(self, job: Job) -> list[Any]:
        """Answer the items of one task."""
        try:
            with self._shown(job) as session:
                limit = self._limit(job.share)
                await adrive(session, job.abegin, job.aask, job.broken_off, limit)
            outputs = job.results()
        except BaseException as error:
            for run in job.begun:
                if (ending := job.end(run, error)) is not None:
                    await ending
            raise
        self._books.end_batch(job.scope, job.session.certificate)
        for run, output in zip(job.runs, outputs, strict=True):
            if run is None:
                continue
            if (ending := job.end(run, output)) is not None:
                await ending
        return outputs

    @override
    def batch_as_completed(  # type: ignore[override]
        self,
        inputs: Sequence[Input],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> Iterator[tuple[int, Output | Exception]]:
        """Answer a batch in one session, then yield each answer with its index.

        Which model may serve an item is known only when the batch has been profiled,
        and what it saved only at the end: all answers complete together.
        """
        yield from enumerate(
            self.batch(
                list(inputs),
                config,  # type: ignore[arg-type]
                return_exceptions=return_exceptions,
                **kwargs,
            )
        )

    @override
    async def abatch_as_completed(  # type: ignore[override]
        self,
        inputs: Sequence[Input],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> AsyncIterator[tuple[int, Output | Exception]]:
        """Answer a batch in one session, as `batch_as_completed` does."""
        answers = await self.abatch(
            list(inputs),
            config,  # type: ignore[arg-type]
            return_exceptions=return_exceptions,
            **kwargs,
        )
        for indexed in enumerate(answers):
            yield indexed

    @override
    def configurable_fields(
        self, **kwargs: AnyConfigurableField
    ) -> RunnableSerializable[Input, Output]:
        """Let a config set fields; copies share these books, and batches stay whole."""
        core = super().configurable_fields(**kwargs)  # checks the names
        return ConfiguredFields(**core.__dict__)

    # -- jobs ------------------------------------------------------------------

    @abstractmethod
    def _read(self, given: Any) -> Any:
        """Return an input as members are given it; what it raises is the item's."""

    @abstractmethod
    def _job_maker(self, kwargs: dict[str, Any]) -> Callable[[Share], Job]:
        """Return what makes a task's share a job, for one call's arguments."""

    def _prepare(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None,
        return_exceptions: bool,
        kwargs: dict[str, Any],
    ) -> tuple[list[Any], list[Job]]:
        """Return per input why it cannot be used, and a job per task over the rest."""
        configs = get_config_list(config, len(inputs)) if inputs else []
        for its_config in configs:
            limit = its_config.get("max_concurrency")
            if limit is not None:
                check_whole("max_concurrency", limit, 1)
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
        make = self._job_maker(kwargs)
        shares = [
            Share(
                task,
                places,
                [read[place] for place in places],
                [configs[place] for place in places],
                one_config=not isinstance(config, Sequence),
            )
            for task, places in by_task.items()
        ]
        return results, [make(share) for share in shares]

    def _shown(self, job: Job) -> AbstractContextManager[Session]:
        """Return a job's session; to drive it shows where it stands, if wanted."""
        return progress_bar(job.session, job.share.task, shown=self.progress)

    def _limit(self, share: Share) -> int:
        """Return how many calls may be in flight."""
        wanted = [config.get("max_concurrency") for config in share.configs]
        return next((limit for limit in wanted if limit), None) or self.max_concurrency


def _deliver(results: list[Any], return_exceptions: bool) -> list[Any]:
    """Return one result per input, or raise the first exception.

    A raised exception carries all results in its attribute `smart_results`: answers
    that were paid for are not lost with it.
    """
    errors = [result for result in results if isinstance(result, BaseException)]
    if errors and not return_exceptions:
        if not hasattr(errors[0], "smart_results"):
            errors[0].add_note(
                f"{len(results) - len(errors)} of {len(results)} items were answered: "
                "see smart_results, or call batch(..., return_exceptions=True)"
            )
        errors[0].smart_results = results  # type: ignore[attr-defined]
        raise errors[0]
    return results
