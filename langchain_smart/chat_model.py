"""`SmartChatModel`: a chat model that answers as the reference would, for less."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForLLMRun,
    CallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.prompt_values import ChatPromptValue
from langchain_core.runnables import Runnable, RunnableConfig, ensure_config
from langchain_core.runnables.config import get_config_list
from langchain_core.tools import BaseTool
from pydantic import BaseModel
from typing_extensions import override

from langchain_smart.batch import BatchJob, llm_result, to_prompt
from langchain_smart.driver import adrive, drive
from langchain_smart.requests import SCHEMA, TASK, Request
from langchain_smart.runs import Run
from langchain_smart.settings import SmartSettings, check_concurrency
from langchain_smart.singles import Single
from langchain_smart.structured import Parsed, Schema
from langchain_smart.tasks import fingerprint, named_task
from langchain_smart.tools import Tools, refuse_without_tools
from smart_engine.errors import InvalidInputError

__all__ = ["SmartChatModel"]


class SmartChatModel(SmartSettings):
    """A chat model that answers as its reference would, for less.

    `batch` and `abatch` hand the whole batch to one session: some items are answered
    by the reference and by the candidates, to learn who agrees with whom; the rest
    goes to the cheapest mix of models under which, with probability `confidence`, at
    most the share `max_disagreement` of the answers differs from the reference's. This
    works behind a prompt, before a parser, and through `.bind()`, `.with_config()`,
    `.with_retry()` and `.with_fallbacks()`. One item at a time (`invoke`, `stream`)
    goes to the reference.

    Each answer says in `response_metadata["smart"]` which `model` answered, in which
    `role` (`profiled`, `applied`, `escalated` or `reference`), what the item `cost`
    and what it `saved` (estimated) in USD, and the id of the batch's `certificate`.

    Args:
        reference: The model whose answers define "right": a chat model, or a string
            for `init_chat_model`.
        candidates: Cheaper models that may stand in for it, the same way.
        max_disagreement: Tolerated share of differing answers.
        confidence: Probability with which that holds.
        strategy: `"audit"`, `"mix"`, `"efficient"`, `"exhaustive"` or `"reference"`.
        looks: `"corrected"` keeps the promise; `"paper"` is the paper's way.
        equivalence: When two answers mean the same: `Normalized()`, `Exact()`,
            `Label([...])`, `Number(...)`, or a function of two texts.
        prices: Model name → `Price` in USD per million tokens.
        seed: Seed of all randomness.
        max_concurrency: Most calls in flight at once, where the config sets none.

    Raises:
        InvalidInputError: At construction, if anything cannot be used.

    Example:
        ```python
        from langchain_core.language_models import FakeListChatModel

        smart = SmartChatModel(
            reference=FakeListChatModel(responses=["spam"], name="big"),
            candidates=[FakeListChatModel(responses=["Spam."], name="small")],
            prices={"big": Price.free(), "small": Price.free()},
            equivalence=Label(["spam", "ham"]),
        )
        answers = smart.batch(["Win a prize!"] * 3)
        assert answers[0].content == "spam"
        ```
    """

    # -- tools and structured output -------------------------------------------

    @override
    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: Any = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Offer tools to whichever member answers.

        The tools are kept as given; each member binds them in its own form when it is
        first asked, so that members may come from different providers.

        Args:
            tools: Tools in any form that the members know.
            tool_choice: Which tool must be called, as the members know it.
            **kwargs: Handed to each member's `bind_tools`.

        Raises:
            ToolsUnsupportedError: If a member cannot call tools; it is named.
        """
        refuse_without_tools(self._members)
        if tool_choice is not None:
            kwargs["tool_choice"] = tool_choice
        hoisted = ("ls_structured_output_format", "model", TASK)
        own = {name: kwargs.pop(name) for name in hoisted if name in kwargs}
        return self.bind(tools=Tools(tools, kwargs), **own)

    @override
    def with_structured_output(
        self,
        schema: dict[str, Any] | type | None = None,
        *,
        method: str | None = None,
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """Return objects of a schema, whichever member answers.

        Answers are compared by their objects. The whole batch stays in one session,
        also with `include_raw`.

        Args:
            schema: The schema, in any form that the members know.
            method: How every member is asked for it; each member's own way if not
                given.
            include_raw: Return a dict with the message (`raw`), the object (`parsed`)
                and the `parsing_error`, instead of raising it.
            strict: Whether the schema is enforced, where the members know that.
            **kwargs: Handed to each member's `with_structured_output`.

        Raises:
            StructuredOutputError: If a member cannot do that; it is named.
            ToolsUnsupportedError: If a member would need tools for it and has none.
        """
        chosen = {"method": method, "strict": strict}
        chosen = {name: value for name, value in chosen.items() if value is not None}
        form = Schema(schema, {**chosen, **kwargs})
        for member in self._members:
            form.bound_to(member)
        told = {"ls_structured_output_format": {"kwargs": chosen, "schema": schema}}
        bound = self.bind(**{SCHEMA: form}, **(told if schema is not None else {}))
        return bound | Parsed(form, include_raw=include_raw)

    # -- whole batches ---------------------------------------------------------

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
        if kwargs.get("model"):  # one member was named: nothing is left to decide
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
        if kwargs.get("model"):
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
            self._books.enter(job.session.spend)
            for run in filter(None, job.runs):
                run.on_llm_error(error)
            raise
        self._books.enter_batch(job.session.certificate)
        for run, output in zip(job.runs, outputs, strict=True):
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
            self._books.enter(job.session.spend)
            for run in filter(None, job.runs):
                await run.on_llm_error(error)
            raise
        self._books.enter_batch(job.session.certificate)
        for run, output in zip(job.runs, outputs, strict=True):
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
            check_concurrency(its_config.get("max_concurrency"))
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
        by_task: dict[str | None, list[int]] = defaultdict(list)
        for place in prompts:
            by_task[named_task(kwargs, configs[place]) or self.task].append(place)
        jobs = []
        for task, places in by_task.items():
            asked = [prompts[place] for place in places]
            job = BatchJob(
                session=self._session(len(places), request.reading(self._rule)),
                members=members,
                places=places,
                prompts=asked,
                configs=[configs[place] for place in places],
                task=task or fingerprint((p.messages for p in asked), request),
                tracing=tracing,
                one_config=not isinstance(config, Sequence),
                rate_limiter=self.rate_limiter,
                output_version=self.output_version,
            )
            jobs.append(job)
        return results, jobs

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

    # -- one item at a time ----------------------------------------------------

    @override
    def invoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        return super().invoke(input, config, stop=stop, **_tasked(config, kwargs))

    @override
    async def ainvoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        tasked = _tasked(config, kwargs)
        return await super().ainvoke(input, config, stop=stop, **tasked)

    @override
    def stream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        return super().stream(input, config, stop=stop, **_tasked(config, kwargs))

    @override
    def astream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        return super().astream(input, config, stop=stop, **_tasked(config, kwargs))

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self._single(messages, stop, run_manager, kwargs).ask(messages)

    @override
    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return await self._single(messages, stop, run_manager, kwargs).aask(messages)

    @override
    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        yield from self._single(messages, stop, run_manager, kwargs).stream(messages)

    @override
    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        single = self._single(messages, stop, run_manager, kwargs)
        async with aclosing(single.astream(messages)) as chunks:
            async for chunk in chunks:
                yield chunk

    def _single(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        run: Run | None,
        kwargs: dict[str, Any],
    ) -> Single:
        """Decide which member answers one item; the only place that does."""
        request = self._request(stop, kwargs)
        task = request.task or self.task or fingerprint([messages], request)
        member, role = self._members[0], "reference"
        if request.model is not None:
            named = {other.name: other for other in self._members}
            if request.model not in named:
                hint = f"name one of the members: {', '.join(named)}"
                raise InvalidInputError("model", request.model, hint)
            member, role = named[request.model], "named"
        return Single(member, request.put_to(member), role, task, self._books, run)


def _tasked(config: RunnableConfig | None, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return a call's arguments with the task that it or its config names."""
    task = named_task(kwargs, ensure_config(config))
    return kwargs if task is None else {**kwargs, TASK: task}


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
