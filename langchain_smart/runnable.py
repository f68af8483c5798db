"""`SmartRunnable`: a chain that answers as the reference chain would, for less."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Annotated, Any, cast

from langchain_core.callbacks import (
    AsyncCallbackManagerForChainRun,
    CallbackManagerForChainRun,
)
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.utils import (
    ConfigurableFieldSpec,
    get_unique_config_specs,
)
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SkipValidation
from typing_extensions import override

from langchain_smart.chain_batch import ChainJob
from langchain_smart.chain_items import ChainAsker
from langchain_smart.chain_store import Answers, identity_of
from langchain_smart.jobs import Share
from langchain_smart.outputs import reading_of_outputs
from langchain_smart.requests import TASK
from langchain_smart.self_agreement import SelfAgreeing
from langchain_smart.singles import Single
from langchain_smart.tasks import named_task
from langchain_smart.tiers import ChainMember, find_chains
from smart_engine.calls import Call
from smart_engine.equivalence import Equivalence
from smart_engine.errors import InvalidInputError
from smart_engine.money.reservations import Allowance, Reservations
from smart_engine.runtime.turns import turn
from smart_engine.serving.item import SingleItem
from smart_engine.serving.profile import Persistence
from smart_engine.serving.resume import ResumedSession
from smart_engine.serving.session import AnySession
from smart_engine.store.store import Store

__all__ = ["SmartRunnable"]

Chain = Runnable[Any, Any] | Callable[[Any], Any]


class SmartRunnable(SelfAgreeing[Any, Any]):
    """A chain that answers as its reference chain would, for less.

    What `SmartChatModel` is for models, this is for whole chains, its tiers: a long
    prompt and a short one, retrieval with and without reranking, an agent and a single
    call. Batches and streams, `strategy`, `mode` and all other settings mean the same.
    Answers are handed out as the tier gave them; `report()` says who answered how
    often, by tier, and under `inside` what each model was asked and what it cost.

    A call of a tier costs what every model called inside it really used, by
    `prices[model name]`; cached replies cost nothing, and what was used before a
    failure is booked. What costs money beside models, such as a reranker, is told by
    `prices[tier name] = Price.per_call(usd)`; embeddings, which report no usage, as
    well. A tier that calls no model needs `Price.free()` or a price per call. Models
    that can be found in a chain at construction are looked up, as by `SmartChatModel`,
    if you give no price. A model without a price is an error: at construction, or when
    it is first called by a function that makes it for itself.

    Texts are compared by the equivalence, messages by their tool calls or else by their
    texts, everything else as JSON; a function of your own gets the answers as they are.

    Tiers run below this run. Tracers and callback handlers see every model's run, as in
    any chain, so what a token counter counts is what was really spent. `stream`,
    `astream_events` and LangGraph show only the answer that is handed out, piece by
    piece where the tier streams: of tiers that are asked only in order to compare they
    see nothing, and handlers are not told their tokens.

    Within a `budget_usd`, each model's run sets aside the most it can cost before it
    begins, and each call of a tier its price per call; where that does not fit, the
    call ends there, and with it the batch, as for `SmartChatModel`. So every model in a
    tier needs `max_tokens`. The first calls of a tier in a batch are made one by one:
    they show what it needs.

    Several tiers may run on one item: they should have no effect but their answer.

    Args:
        reference: The chain whose answers define "right": a Runnable or a function. Its
            name is `run_name` of `with_config`, or its own; or give both, as in
            `{"long prompt": chain}`.
        candidates: Cheaper chains that may stand in for it: a list, or a dict with a
            name for each.
        max_disagreement: Tolerated share of differing answers.
        confidence: Probability with which that holds.
        strategy: As for `SmartChatModel`.
        looks: As for `SmartChatModel`.
        mode: `"serve"` or `"shadow"`, as for `SmartChatModel`.
        equivalence: When two answers mean the same.
        prices: Model name → `Price` in USD per million tokens; tier name → price per
            call.
        seed: Seed of all randomness.
        max_concurrency: Most calls of tiers in flight at once.
        progress: Whether a bar shows where a batch stands: what is settled, spent
            and saved, and how many answers may differ, of those allowed.
        task: Name of the task, where neither the call (`bind(smart_task=…)`) nor its
            config (`configurable` or `metadata`) gives one; this object's name if
            nobody does.
        accept_noise: As for `SmartChatModel`.
        estimate_usage: As for `SmartChatModel`; by tier, what a call cost is marked as
            a whole if any model in it reported no usage.
        budget_usd: The most that a batch, and a task's stream, may cost; see above.
        store: As for `SmartChatModel`. Inputs must be plain data, messages or pydantic
            objects. Answers are kept if they would come back the same: texts, plain
            data, messages, documents, and objects of the reference's `OutputType`;
            others are bought again, as a warning says.
        version: Name of the chains as they are, needed where there is a `store`: it
            cannot see prompts, tools, retrievers or code. Name them anew whenever one
            of these changes; models and their settings are seen.
        books: The books of another smart object, to keep them together.

    Raises:
        InvalidInputError: At construction, if anything cannot be used.

    Example:
        ```python
        from langchain_core.language_models import FakeListChatModel
        from langchain_core.output_parsers import StrOutputParser
        from langchain_core.prompts import ChatPromptTemplate

        model = FakeListChatModel(responses=["spam"], name="big")
        long = ChatPromptTemplate.from_template("Ten examples … Sort this: {mail}")
        short = ChatPromptTemplate.from_template("Sort this: {mail}")
        smart = SmartRunnable(
            reference={"long prompt": long | model | StrOutputParser()},
            candidates={"short prompt": short | model | StrOutputParser()},
            prices={"big": Price.free()},
        )
        assert smart.batch([{"mail": "Win a prize!"}] * 3) == ["spam"] * 3
        assert list(smart.report().spend) == ["long prompt", "short prompt"]
        ```
    """

    model_config = ConfigDict(extra="forbid")

    reference: Annotated[Chain | Mapping[str, Chain], SkipValidation] = Field(
        frozen=True
    )
    candidates: Annotated[Sequence[Chain] | Mapping[str, Chain], SkipValidation] = (
        Field(frozen=True)
    )

    version: str | None = None

    _tiers: tuple[ChainMember, ...] = PrivateAttr()

    @override
    def model_post_init(self, context: Any, /) -> None:
        """Check everything before anything is spent."""
        if self.store is not None and self.version is None:
            hint = (
                "a store must tell these chains from others: name them, as in "
                "version='1', and name them anew whenever a prompt, a tool, a "
                "retriever or code of theirs changes"
            )
            raise InvalidInputError("version", None, hint)
        self._tiers = find_chains(
            self.reference,
            self.candidates,
            self.prices,
            capped=self.budget_usd is not None,
            estimate=self.estimate_usage,
        )
        self._open()

    @property
    @override
    def _names(self) -> tuple[str, ...]:
        return tuple(tier.name for tier in self._tiers)

    # -- one item at a time ----------------------------------------------------

    @override
    def invoke(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Any:
        def answer(
            given: Any, run_manager: CallbackManagerForChainRun, config: RunnableConfig
        ) -> Any:
            del run_manager  # the config knows it
            return self._single(given, config, kwargs).ask()

        return self._call_with_config(answer, input, config)

    @override
    async def ainvoke(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Any:
        async def answer(
            given: Any,
            run_manager: AsyncCallbackManagerForChainRun,
            config: RunnableConfig,
        ) -> Any:
            del run_manager  # the config knows it
            return await self._single(given, config, kwargs).aask()

        await turn(asyncio.get_running_loop())
        return await self._acall_with_config(answer, input, config)

    @override
    def stream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        def pieces(
            inputs: Iterator[Any],
            run_manager: CallbackManagerForChainRun,
            config: RunnableConfig,
        ) -> Iterator[Any]:
            del run_manager  # the config knows it
            yield from self._single(next(inputs), config, kwargs).stream()

        yield from self._transform_stream_with_config(iter([input]), pieces, config)

    @override
    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        async def once() -> AsyncIterator[Any]:
            yield input

        async def pieces(
            inputs: AsyncIterator[Any],
            run_manager: AsyncCallbackManagerForChainRun,
            config: RunnableConfig,
        ) -> AsyncIterator[Any]:
            del run_manager  # the config knows it
            single = self._single(await anext(inputs), config, kwargs)
            async with aclosing(single.astream()) as answer:
                async for piece in answer:
                    yield piece

        await turn(asyncio.get_running_loop())
        stream = self._atransform_stream_with_config(once(), pieces, config)
        async with aclosing(stream):  # type: ignore[type-var]
            async for piece in stream:
                yield piece

    def _single(
        self, given: Any, config: RunnableConfig, kwargs: dict[str, Any]
    ) -> Single:
        """Return one item, ready to be answered."""
        task = named_task(kwargs, config) or self.task or self.get_name()
        terms = self._terms
        rule = reading_of_outputs(terms.rule)
        arguments = _arguments(kwargs)
        router = terms.router(
            self._books, rule, task, most=_unknown, keeping=self._keeping(arguments)
        )
        item = SingleItem(router, self._books, terms.models[0], task)
        asker = ChainAsker(
            self._by_name, item.inside, given, config, arguments, item.allowance
        )
        return Single(item, asker)

    # -- whole batches ---------------------------------------------------------

    @override
    def _read(self, given: Any) -> Any:
        return given

    @override
    def _job_maker(self, kwargs: dict[str, Any]) -> Callable[[Share], ChainJob]:
        terms = self._terms
        rule = reading_of_outputs(terms.rule)
        arguments = _arguments(kwargs)
        budget = terms.budget(self._books)

        def make(share: Share) -> ChainJob:
            task = share.task or self.get_name()
            scope = self._books.batch(terms.models[0], task)
            items = len(share.places)
            books = self._books
            reservations = None
            if budget is not None:
                reservations = Reservations(budget, _unknown, books.new_lock())
            session = terms.session(items, rule, task, scope, books, reservations)
            return ChainJob(
                share,
                self._resumed(session, share, task, rule, arguments),
                scope,
                task,
                rule,
                tiers=self._by_name,
                name=self.get_name(),
                arguments=arguments,
                allowance=_unlimited
                if reservations is None
                else reservations.allowance,
            )

        return make

    # -- what outlives the process -----------------------------------------------

    def _models_told(self) -> Iterator[tuple[str, str]]:
        """Yield each tier's name, and a text that tells what it is."""
        for tier in self._tiers:
            yield tier.name, repr((self.version, tier.models))

    def _keeping(self, arguments: dict[str, Any]) -> Persistence | None:
        """Return how streams are kept, if there is a store."""
        if not isinstance(self.store, Store):
            return None
        return Persistence(
            self.store, self._models_told, lambda: identity_of(arguments)
        )

    def _resumed(
        self,
        session: AnySession,
        share: Share,
        task: str,
        rule: Equivalence,
        arguments: dict[str, Any],
    ) -> AnySession:
        """Return a session that goes on where it was cut off, if there is a store."""
        if not isinstance(self.store, Store):
            return session
        asked = [*map(repr, self._models_told()), identity_of(arguments)]
        asked += map(identity_of, share.given)
        job = self._terms.job(rule, task, asked)
        answers = Answers(self.OutputType)
        stored = self.store.answers(job, answers.write, answers.read)
        return ResumedSession(session, stored)

    @property
    def _by_name(self) -> dict[str, ChainMember]:
        """The tiers by name."""
        return {tier.name: tier for tier in self._tiers}

    # -- what it takes and gives: as the reference does --------------------------

    @property
    @override
    def InputType(self) -> Any:
        return self._tiers[0].chain.InputType

    @property
    @override
    def OutputType(self) -> Any:
        return self._tiers[0].chain.OutputType

    @override
    def get_input_schema(self, config: RunnableConfig | None = None) -> type[BaseModel]:
        schema = self._tiers[0].chain.get_input_schema(config)
        return cast("type[BaseModel]", schema)

    @override
    def get_output_schema(
        self, config: RunnableConfig | None = None
    ) -> type[BaseModel]:
        schema = self._tiers[0].chain.get_output_schema(config)
        return cast("type[BaseModel]", schema)

    @property
    @override
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        specs = [spec for tier in self._tiers for spec in tier.chain.config_specs]
        return get_unique_config_specs(specs)


def _unknown(call: Call) -> None:
    """Tell the most a call of a chain can cost: nobody knows before it has ended."""
    del call


def _unlimited(call: Call) -> Allowance | None:
    """Tell what a call may spend where there is no budget."""
    del call
    return None


def _arguments(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what tiers are called with: everything but the task's name."""
    return {name: value for name, value in kwargs.items() if name != TASK}
