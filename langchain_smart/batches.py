"""Whole batches: one session a task, sync and async, whatever road leads there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManager, CallbackManager
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.prompt_values import ChatPromptValue
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import get_config_list
from typing_extensions import override

from langchain_smart.answers import read_answer, write_answer
from langchain_smart.batch import BatchJob, llm_result, to_prompt
from langchain_smart.bounds import most
from langchain_smart.driver import adrive, drive
from langchain_smart.requests import Request
from langchain_smart.settings import SmartSettings
from langchain_smart.tasks import fingerprint, named_task
from smart_engine.calls import Call
from smart_engine.errors import check_whole
from smart_engine.serving.resumed import AnySession, ResumedSession
from smart_engine.stores import Store

__all__ = ["SmartBatches"]


class SmartBatches(SmartSettings):
    """The verbs that take many items at once; see `SmartChatModel`."""

    @override
    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
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
            for place, output in zip(job.places, outputs, strict=True):
                results[place] = output
        return _deliver(results, return_exceptions)

    @override
    async def abatch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """Answer a batch in one session, as `batch` does."""
        if kwargs.get("model") or self.mode == "shadow":
            options: dict[str, Any] = {"return_exceptions": return_exceptions}
            return await super().abatch(inputs, config, **options, **kwargs)
        results, jobs = self._prepare(inputs, config, return_exceptions, kwargs)
        for job in jobs:
            outputs = await self._arun(job)
            for place, output in zip(job.places, outputs, strict=True):
                results[place] = output
        return _deliver(results, return_exceptions)

    def _run(self, job: BatchJob) -> list[AIMessage | BaseException]:
        """Answer the items of one task."""

        def begin(item: int) -> None:
            if job.runs[item] is None:
                if job.manager is None or not job.one_config:
                    configure = self._configuration(job, item)
                    job.manager = CallbackManager.configure(**configure)
                started = job.manager.on_chat_model_start(**job.start(item))
                job.runs[item] = started[0]

        try:
            drive(job.session, begin, job.ask, self._limit(job))
            outputs = job.results()
        except BaseException as error:
            self._books.enter(job.session.spend, job.restored)
            for run in filter(None, job.runs):
                run.on_llm_error(error)
            raise
        self._books.enter_batch(job.session.certificate, job.restored)
        for run, output in zip(job.runs, outputs, strict=True):
            if run is None:  # nobody was asked: the budget had ended
                continue
            if isinstance(output, BaseException):
                run.on_llm_error(output)
            elif run.handlers:
                run.on_llm_end(llm_result(output))
        return outputs

    async def _arun(self, job: BatchJob) -> list[AIMessage | BaseException]:
        """Answer the items of one task."""

        async def begin(item: int) -> None:
            if job.runs[item] is None:
                if job.manager is None or not job.one_config:
                    configure = self._configuration(job, item)
                    job.manager = AsyncCallbackManager.configure(**configure)
                started = await job.manager.on_chat_model_start(**job.start(item))
                job.runs[item] = started[0]

        try:
            await adrive(job.session, begin, job.aask, self._limit(job))
            outputs = job.results()
        except BaseException as error:
            self._books.enter(job.session.spend, job.restored)
            for run in filter(None, job.runs):
                await run.on_llm_error(error)
            raise
        self._books.enter_batch(job.session.certificate, job.restored)
        for run, output in zip(job.runs, outputs, strict=True):
            if run is None:  # nobody was asked: the budget had ended
                continue
            if isinstance(output, BaseException):
                await run.on_llm_error(output)
            elif run.handlers:
                await run.on_llm_end(llm_result(output))
        return outputs

    @override
    def batch_as_completed(  # type: ignore[override]
        self,
        inputs: Sequence[LanguageModelInput],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> Iterator[tuple[int, AIMessage | Exception]]:
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
        inputs: Sequence[LanguageModelInput],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> AsyncIterator[tuple[int, AIMessage | Exception]]:
        """Answer a batch in one session, as `batch_as_completed` does."""
        answers = await self.abatch(
            list(inputs),
            config,  # type: ignore[arg-type]
            return_exceptions=return_exceptions,
            **kwargs,
        )
        for indexed in enumerate(answers):
            yield indexed

    def _prepare(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None,
        return_exceptions: bool,
        kwargs: dict[str, Any],
    ) -> tuple[list[Any], list[BatchJob]]:
        """Return per input why it cannot be used, and a job per task over the rest."""
        configs = get_config_list(config, len(inputs)) if inputs else []
        for its_config in configs:
            limit = its_config.get("max_concurrency")
            if limit is not None:
                check_whole("max_concurrency", limit, 1)
        prompts: dict[int, ChatPromptValue] = {}
        results: list[Any] = [None] * len(inputs)
        for place, given in enumerate(inputs):
            try:
                prompts[place] = to_prompt(self, given)
            except Exception as error:
                if not return_exceptions:
                    raise
                results[place] = error
        request = self._request(kwargs.pop("stop", None), kwargs)
        tracing = self._tracing(request, kwargs)
        members = {m.name: (m, request.put_to(m)) for m in self._members}
        terms = self._terms
        by_task: dict[str | None, list[int]] = defaultdict(list)
        for place in prompts:
            by_task[named_task(kwargs, configs[place]) or self.task].append(place)
        jobs = []
        for named, places in by_task.items():
            asked = [prompts[place] for place in places]
            task = named or fingerprint((p.messages for p in asked), request)
            rule = request.reading(terms.rule)
            bound = self._bound(asked, request)
            fresh = terms.session(len(places), rule, task, bound)
            session: AnySession = fresh
            if isinstance(self.store, Store):
                job_key = terms.job(rule, task, self._asked(asked, request))
                shelf = self.store.shelf(job_key, write_answer, read_answer)
                session = ResumedSession(fresh, shelf)
            job = BatchJob(
                session=session,
                members=members,
                places=places,
                prompts=asked,
                configs=[configs[place] for place in places],
                task=task,
                tracing=tracing,
                one_config=not isinstance(config, Sequence),
                rate_limiter=self.rate_limiter,
                output_version=self.output_version,
            )
            jobs.append(job)
        return results, jobs

    def _bound(
        self, prompts: Sequence[ChatPromptValue], request: Request
    ) -> Callable[[Call], float]:
        """Return how to find the most that a call for one of these items can cost."""
        members = {member.name: member for member in self._members}

        def bound(call: Call) -> float:
            return most(members[call.tier], prompts[call.item].messages, request)

        return bound

    def _asked(
        self, prompts: Sequence[ChatPromptValue], request: Request
    ) -> Iterator[str]:
        """Yield what is asked of whom, as texts."""
        for member in self._members:
            yield repr((member.name, member.model._identifying_params))  # noqa: SLF001
        yield repr((request.arguments, request.tools, request.schema))
        for prompt in prompts:
            yield repr([_identity(message) for message in prompt.messages])

    def _tracing(self, request: Request, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return what callbacks are told of every item's run."""
        told = {k: v for k, v in kwargs.items() if k != "ls_structured_output_format"}
        told["stop"] = stop = request.arguments.get("stop")
        options: dict[str, Any] = {"stop": stop}
        if request.schema is not None and request.schema.json_schema is not None:
            options["ls_structured_output_format"] = request.schema.told
        return {
            "serialized": self._serialized,
            "params": self._get_invocation_params(**told),
            "metadata": self._get_ls_params_with_defaults(**told),
            "options": options,
        }

    def _configuration(self, job: BatchJob, item: int) -> dict[str, Any]:
        """Return the arguments that configure the callbacks of an item's run."""
        config = job.configs[item]
        metadata = {**(config.get("metadata") or {}), **job.tracing["metadata"]}
        return {
            "inheritable_callbacks": config.get("callbacks"),
            "local_callbacks": self.callbacks,
            "verbose": self.verbose,
            "inheritable_tags": config.get("tags"),
            "local_tags": self.tags,
            "inheritable_metadata": metadata,
            "local_metadata": self.metadata,
        }

    def _limit(self, job: BatchJob) -> int:
        """Return how many calls may be in flight."""
        wanted = [config.get("max_concurrency") for config in job.configs]
        return next((limit for limit in wanted if limit), None) or self.max_concurrency


def _identity(message: BaseMessage) -> tuple[Any, ...]:
    """Return what tells a message from others."""
    calls = getattr(message, "tool_calls", None), getattr(message, "tool_call_id", None)
    return message.type, message.content, message.name, *calls


def _deliver(results: list[Any], return_exceptions: bool) -> list[AIMessage]:
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
