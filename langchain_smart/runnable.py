"""`SmartRunnable`: a chain that answers as the reference chain would, for less."""

from __future__ import annotations

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

from langchain_smart.batching import TASK, Share, SmartBatching, named_task
from langchain_smart.chains.call import ChainAsker, ChainJob
from langchain_smart.chains.compare import compared_outputs
from langchain_smart.chains.store import ChainAnswers, identity_of
from langchain_smart.chains.tiers import ChainMember, find_chains
from smart_engine.calls import Call
from smart_engine.errors import InvalidInputError
from smart_engine.runtime.item import ItemRun
from smart_engine.runtime.loop import turn

__all__ = ["SmartRunnable"]

Chain = Runnable[Any, Any] | Callable[[Any], Any]


class SmartRunnable(SmartBatching[Any, Any]):
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
        exclude=True, repr=False, frozen=True
    )
    candidates: Annotated[Sequence[Chain] | Mapping[str, Chain], SkipValidation] = (
        Field(exclude=True, repr=False, frozen=True)
    )

    version: str | None = None

    _chains: dict[str, ChainMember] = PrivateAttr()

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
        found = find_chains(
            self.reference,
            self.candidates,
            self.prices,
            capped=self.budget_usd is not None,
            estimate=self.estimate_usage,
        )
        self._chains = {chain.name: chain for chain in found}
        self._open()

    @property
    @override
    def _names(self) -> tuple[str, ...]:
        return tuple(self._chains)

    # -- one item at a time ----------------------------------------------------

    @override
    def invoke(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Any:
        def answer(
            given: Any, run_manager: CallbackManagerForChainRun, config: RunnableConfig
        ) -> Any:
            del run_manager  # the config knows it
            return self._item_run(given, config, kwargs).answer()

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
            return await self._item_run(given, config, kwargs).aanswer()

        await turn()
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
            yield from self._item_run(next(inputs), config, kwargs).stream()

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
            run = self._item_run(await anext(inputs), config, kwargs)
            async with aclosing(run.astream()) as answer:
                async for piece in answer:
                    yield piece

        await turn()
        stream = self._atransform_stream_with_config(once(), pieces, config)
        async with aclosing(stream):  # type: ignore[type-var]
            async for piece in stream:
                yield piece

    def _item_run(
        self, given: Any, config: RunnableConfig, kwargs: dict[str, Any]
    ) -> ItemRun:
        """Return one item, ready to be answered."""
        arguments = _arguments(kwargs)
        item = self._item(
            compared_outputs(self._rule),
            named_task(kwargs, config) or self.task or self.get_name(),
            _unknown,
            model=None,
            identities=lambda: self._identities,
            prompt=lambda: identity_of(arguments),
        )
        asker = ChainAsker(
            self._chains,
            item.record_inner_call,
            given,
            config,
            arguments,
            item.allowance,
        )
        return ItemRun(item, asker)

    # -- many items at once ------------------------------------------------------

    @override
    def _read(self, given: Any) -> Any:
        return given

    @override
    def _job_maker(self, kwargs: dict[str, Any]) -> Callable[[Share], ChainJob]:
        rule = compared_outputs(self._rule)
        answers = ChainAnswers(self.OutputType)

        def make(share: Share) -> ChainJob:
            task = share.task or self.get_name()
            return ChainJob(
                task,
                rule,
                self._books.batch(self._names[0], task),
                share.places,
                share.limit,
                share.task,
                share=share,
                chains=self._chains,
                name=self.get_name(),
                arguments=_arguments(kwargs),
                identities=self._identities,
                answers=answers,
            )

        return make

    @property
    def _identities(self) -> list[tuple[str, str]]:
        """Per chain, its name and a text that identifies it."""
        chains = self._chains.values()
        return [(each.name, repr((self.version, each.models))) for each in chains]

    @property
    def _reference(self) -> Runnable[Any, Any]:
        return self._chains[self._names[0]].chain

    # -- what it takes and gives: as the reference does --------------------------

    @property
    @override
    def InputType(self) -> Any:
        return self._reference.InputType

    @property
    @override
    def OutputType(self) -> Any:
        return self._reference.OutputType

    @override
    def get_input_schema(self, config: RunnableConfig | None = None) -> type[BaseModel]:
        schema = self._reference.get_input_schema(config)
        return cast("type[BaseModel]", schema)

    @override
    def get_output_schema(
        self, config: RunnableConfig | None = None
    ) -> type[BaseModel]:
        schema = self._reference.get_output_schema(config)
        return cast("type[BaseModel]", schema)

    @property
    @override
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        specs = [
            spec for each in self._chains.values() for spec in each.chain.config_specs
        ]
        return get_unique_config_specs(specs)


def _unknown(call: Call) -> None:
    """Tell the most a call of a chain can cost: nobody knows before it has ended."""
    del call


def _arguments(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what tiers are called with: everything but the task's name."""
    return {name: value for name, value in kwargs.items() if name != TASK}
