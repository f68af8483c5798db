"""`SmartChatModel`: a chat model that answers as the reference would, for less."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForLLMRun,
    CallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import LangSmithParams, LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import get_config_list
from pydantic import Field, PrivateAttr, SkipValidation
from typing_extensions import override

from langchain_smart.answers import MessageText
from langchain_smart.batch import BatchJob, llm_result, marked, to_prompt
from langchain_smart.clear_errors import ClearErrorsChatModel
from langchain_smart.driver import adrive, drive
from langchain_smart.members import Member, find_members
from langchain_smart.runs import member_config, quiet_context
from smart_engine.calls import Failure
from smart_engine.certificate import Spend
from smart_engine.equivalence import EquivalenceLike, Normalized, as_equivalence
from smart_engine.errors import InvalidInputError
from smart_engine.guarantee import Guarantee
from smart_engine.pricing import Price, Usage
from smart_engine.report import Ledger, Report
from smart_engine.session import BatchSession
from smart_engine.tiers import Tier

__all__ = ["SmartChatModel"]


class SmartChatModel(ClearErrorsChatModel):
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

    reference: Annotated[BaseChatModel | str, SkipValidation] = Field(frozen=True)
    candidates: Annotated[Sequence[BaseChatModel | str], SkipValidation] = Field(
        frozen=True
    )
    max_disagreement: float = 0.05
    confidence: float = 0.95
    strategy: str = "audit"
    looks: str = "corrected"
    equivalence: Annotated[EquivalenceLike, SkipValidation] = Field(
        default_factory=Normalized
    )
    prices: dict[str, Price] = Field(default_factory=dict, frozen=True)
    seed: int = 0
    max_concurrency: int = 32

    _members: tuple[Member, ...] = PrivateAttr()
    _ledger: Ledger = PrivateAttr()
    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    @override
    def model_post_init(self, context: Any, /) -> None:
        """Check everything before anything is spent."""
        self._members = find_members(self.reference, self.candidates, self.prices)
        reference, *candidates = (member.model for member in self._members)
        self.__dict__.update(reference=reference, candidates=candidates)
        self.equivalence = as_equivalence(self.equivalence)
        _check_concurrency(self.max_concurrency)
        self._ledger = Ledger([member.name for member in self._members])
        self._session(0)  # checks the guarantee, the strategy, the looks and the seed

    def report(self) -> Report:
        """Return what was asked, paid and saved so far, with all certificates."""
        with self._lock:
            return self._ledger.report()

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

        Args:
            inputs: The items.
            config: One config for all, or one per item; `max_concurrency` is honoured.
            return_exceptions: Return an item's exception in its place instead of
                raising the first one after all items are done.
            **kwargs: Handed to every member, such as `stop`.
        """
        if not inputs:
            return []
        job, unusable = self._prepare(inputs, config, return_exceptions, kwargs)

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
            self._enter(job.session.spend)
            for run in filter(None, job.runs):
                run.on_llm_error(error)
            raise
        with self._lock:
            self._ledger.add_batch(job.session.certificate)
        for run, output in zip(job.runs, outputs, strict=True):
            if isinstance(output, BaseException):
                run.on_llm_error(output)
            elif run.handlers:
                run.on_llm_end(llm_result(output))
        return _deliver(unusable, outputs, return_exceptions)

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
        if not inputs:
            return []
        job, unusable = self._prepare(inputs, config, return_exceptions, kwargs)

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
            self._enter(job.session.spend)
            for run in filter(None, job.runs):
                await run.on_llm_error(error)
            raise
        with self._lock:
            self._ledger.add_batch(job.session.certificate)
        for run, output in zip(job.runs, outputs, strict=True):
            if isinstance(output, BaseException):
                await run.on_llm_error(output)
            elif run.handlers:
                await run.on_llm_end(llm_result(output))
        return _deliver(unusable, outputs, return_exceptions)

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
    ) -> tuple[BatchJob, list[BaseException | None]]:
        """Return the job over all usable inputs, and per input why it is not one."""
        configs = get_config_list(config, len(inputs))
        for its_config in configs:
            _check_concurrency(its_config.get("max_concurrency"))
        prompts, kept = [], []
        unusable: list[BaseException | None] = []
        for given, its_config in zip(inputs, configs, strict=True):
            try:
                prompts.append(to_prompt(self, given))
            except Exception as error:
                if not return_exceptions:
                    raise
                unusable.append(error)
            else:
                kept.append(its_config)
                unusable.append(None)
        session = self._session(len(prompts))
        kwargs.pop("ls_structured_output_format", None)
        kwargs = _member_arguments(kwargs.pop("stop", None), kwargs)
        members = {member.name: member for member in self._members}
        tracing = {
            "serialized": self._serialized,
            "params": self._get_invocation_params(**{"stop": None, **kwargs}),
            "metadata": self._get_ls_params_with_defaults(**{"stop": None, **kwargs}),
        }
        one_config = not isinstance(config, Sequence)
        job = BatchJob(session, members, prompts, kept, kwargs, tracing, one_config)
        return job, unusable

    def _session(self, n_items: int) -> BatchSession:
        """Return a fresh session over that many items."""
        reference, *candidates = (member.name for member in self._members)
        return BatchSession(
            n_items,
            [Tier(reference, role="reference"), *map(Tier, candidates)],
            Guarantee(self.max_disagreement, self.confidence),
            strategy=self.strategy,
            looks=self.looks,
            seed=self.seed,
            equivalence=MessageText(as_equivalence(self.equivalence)),
        )

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

    def _enter(self, spend: Mapping[str, Spend]) -> None:
        """Enter in the ledger what was spent outside a finished batch."""
        with self._lock:
            self._ledger.add(spend)

    # -- one item at a time: the reference -------------------------------------

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        config = member_config(run_manager)
        arguments = _member_arguments(stop, kwargs)
        invoke = self._members[0].model.invoke
        with self._counting_failure():
            message = quiet_context().run(invoke, messages, config, **arguments)
        return self._single(message)

    @override
    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        config = member_config(run_manager)
        arguments = _member_arguments(stop, kwargs)
        answering = self._members[0].model.ainvoke(messages, config, **arguments)
        with self._counting_failure():
            message = await asyncio.create_task(answering, context=quiet_context())
        return self._single(message)

    @contextmanager
    def _counting_failure(self) -> Iterator[None]:
        """Enter a failed call of the reference in the ledger."""
        try:
            yield
        except BaseException:
            self._enter({self._members[0].name: Spend(calls=1, failures=1)})
            raise

    def _single(self, message: AIMessage) -> ChatResult:
        """Enter a call of the reference in the ledger and return its answer."""
        member = self._members[0]
        outcome = member.outcome(message)
        usage = outcome.usage or Usage()
        spend = Spend(
            calls=1,
            failures=isinstance(outcome, Failure),
            cost=outcome.paid,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
        )
        self._enter({member.name: spend})
        if isinstance(outcome, Failure):
            raise outcome.error
        answer = marked(
            message,
            None,
            message.usage_metadata,
            model=member.name,
            role="reference",
            cost=outcome.paid,
            saved=0.0,
            certificate=None,
        )
        return ChatResult(generations=[ChatGeneration(message=answer)])

    # -- what LangChain asks of a chat model -----------------------------------

    @property
    @override
    def _llm_type(self) -> str:
        return "smart"

    @property
    @override
    def _identifying_params(self) -> dict[str, Any]:
        return {
            "models": [
                {"name": member.name, **member.model._identifying_params}  # noqa: SLF001
                for member in self._members
            ],
            "max_disagreement": self.max_disagreement,
            "confidence": self.confidence,
            "strategy": self.strategy,
            "looks": self.looks,
            "equivalence": as_equivalence(self.equivalence).name,
            "seed": self.seed,
        }

    @override
    def _get_ls_params(
        self, stop: list[str] | None = None, **kwargs: Any
    ) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = "smart"
        params["ls_model_name"] = self.get_name()
        return params


def _check_concurrency(limit: int | None) -> None:
    """Raise unless at least one call is allowed, or no limit is set."""
    if limit is not None and limit < 1:
        hint = "at least one call must be allowed"
        raise InvalidInputError("max_concurrency", limit, hint)


def _member_arguments(stop: list[str] | None, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return what a member is called with."""
    return {**kwargs, "stop": stop} if stop is not None else kwargs


def _deliver(
    unusable: list[BaseException | None],
    outputs: list[AIMessage | BaseException],
    return_exceptions: bool,
) -> list[AIMessage]:
    """Return one result per input, or raise the first exception.

    A raised exception carries all results in its attribute `smart_results`: answers
    that were paid for are not lost with it.
    """
    answered = iter(outputs)
    results: list[Any] = [error or next(answered) for error in unusable]
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
