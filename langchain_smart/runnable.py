"""`SmartRunnable`: a chain that answers as the reference chain would, for less."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing, suppress
from functools import partial
from typing import Annotated, Any, cast

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.utils import (
    ConfigurableFieldSpec,
    get_unique_config_specs,
)
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SkipValidation
from typing_extensions import override

from langchain_smart.batching import TASK, JobMaker, SmartBatching, named_task
from langchain_smart.chains.cache import check_caches, confused
from langchain_smart.chains.call import ChainJob, ChainRequester
from langchain_smart.chains.compare import compared_outputs
from langchain_smart.chains.store import ChainAnswers, identity_of
from langchain_smart.chains.tiers import ChainMember, find_chains
from smart_engine.errors import InvalidInputError
from smart_engine.runtime.item import ItemRun
from smart_engine.runtime.lanes.members import Lanes
from smart_engine.runtime.loop import turn

__all__ = ["SmartRunnable"]

Chain = Runnable[Any, Any] | Callable[[Any], Any]


class SmartRunnable(SmartBatching[Any, Any]):
    """A chain that answers as its reference chain would, for less.

    What `SmartChatModel` is for models, this is for whole chains: a long prompt and a
    short one, retrieval with and without reranking, an agent and a single call. Answers
    are returned unchanged; `report()` says how often each chain answered and, under
    `inside`, how often each model was called and what it cost.

    A call of a chain costs what every model called inside it used, by
    `prices[model name]`; replies from a cache cost nothing, and what was used before a
    failure is paid for. What else costs money, such as a reranker, or embeddings, which
    report no usage, is `prices[chain name] = Price.per_call(usd)`. A chain that calls
    no model needs `Price.free()` or a price per call. Models that can be found in a
    chain at construction are looked up, as by `SmartChatModel`, if you give no price. A
    model without a price is an error: at construction, or when it is first called by a
    function that makes it.

    Texts are compared by the equivalence, messages by their tool calls or else by their
    texts, objects by their values; a function of your own gets the answers unchanged.

    Chains run below this run. Tracers and callback handlers see every model's run, as
    in any chain, so a token counter counts what was spent. `stream`, `astream_events`
    and LangGraph show only the answer that is handed out, piece by piece where the
    chain streams; chains that are called only in order to compare are not shown, nor
    is what they write to a graph's custom stream. Only the reference can ask a human by
    `interrupt()`: a candidate that does has failed.

    Within a `budget_usd`, each model's run reserves its worst-case cost before it
    begins, and each call of a chain its price per call; where that does not fit, the
    call ends there, and with it the batch, as for `SmartChatModel`. So every model in a
    chain needs `max_tokens`, and `max_retries=0`: what a client repeats by itself is
    seen by nobody, but each attempt of `.with_retry()` is. The first calls of a chain
    in a batch are made one by one: they show what it needs.

    Several chains may run on one item: their answer should be their only effect.

    Args:
        reference: The chain whose answers define "right": a Runnable or a function. Its
            name is `run_name` of `with_config`, or its own; or give both, as in
            `{"long prompt": chain}`.
        candidates: Cheaper chains that may stand in for it: a list, or a dict with a
            name for each.
        prices: Model name → `Price` in USD per million tokens; chain name → price per
            call.
        task: As for `SmartChatModel`; this object's name if none is given.
        tasks: As for `SmartChatModel`.
        budget_usd: The most that a batch, and a task's stream, may cost; see above.
        dedupe: Whether a batch calls a chain once for equal inputs, and hands its
            answer, or a copy where one can be made, to all items of a task that have
            them. Left out: no. Items whose config has another `configurable` differ.
        signals: As for `SmartChatModel`: a chain whose only model can be asked for
            logprobs asks for them, unless it has a price per call, or the model is
            within `.with_retry()` or `.with_fallbacks()`.
        estimate_usage: As for `SmartChatModel`; a chain's call is marked as a whole if
            any model in it reported no usage.
        store: As for `SmartChatModel`. Inputs must be plain data, messages or pydantic
            objects. Answers are stored if they can be read back unchanged: texts, plain
            data, messages, documents, and objects of the reference's `OutputType`;
            others are bought again, as a warning says.
        version: Name of the chains as they are, needed where there is a `store`: it
            cannot see prompts, tools, retrievers or code. Change the name whenever one
            of these changes; models and their settings are seen.
        **settings: All other settings are those of `SmartChatModel`.

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

    _members: dict[str, ChainMember] = PrivateAttr()
    _confused: list[Any] = PrivateAttr()

    @override
    def model_post_init(self, context: Any, /) -> None:
        if self.store is not None and self.version is None:
            hint = (
                "a store cannot see whether these chains have changed: name them, as "
                "in version='1', and change the name whenever a prompt, a tool, a "
                "retriever or code of theirs changes"
            )
            raise InvalidInputError("version", None, hint)
        self._members = self._chains(None)
        self._confused = confused(self._members.values())
        self._open()

    @override
    def _check_budget(self, budget_usd: float) -> None:
        self._chains(budget_usd)

    @override
    def _read_lanes(self) -> Lanes:
        if self.lane != "live":
            hint = (
                "a chain calls its models as it runs, one after the other: give the "
                "lane to a SmartChatModel within the chain, or as prompt | smart | …"
            )
            raise InvalidInputError("lane", self.lane, hint)
        return Lanes()

    @property
    @override
    def _reporting_logprobs(self) -> Iterator[str]:
        return (n for n in self._names[1:] if self._members[n].scored is not None)

    def _chains(self, budget_usd: float | None) -> dict[str, ChainMember]:
        estimate, given = self.estimate_usage, (self.reference, self.candidates)
        return find_chains(
            *given, self.prices, budget_usd=budget_usd, estimate=estimate
        )

    # -- one item at a time ----------------------------------------------------

    @override
    def invoke(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Any:
        def answer(given: Any, config: Any) -> Any:
            run, _ = self._item_run(given, config, kwargs)
            return run.answer()

        def alone() -> Any:
            return self._call_with_config(answer, input, config)

        return self._gathered(partial(self._single, input, config, kwargs), alone)

    @override
    async def ainvoke(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Any:
        async def answer(given: Any, config: Any) -> Any:
            run, _ = self._item_run(given, config, kwargs)
            return await run.aanswer()

        async def alone() -> Any:
            await turn()
            return await self._acall_with_config(answer, input, config)

        return await self._agathered(
            partial(self._single, input, config, kwargs), alone
        )

    @override
    def stream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        def pieces(_: Iterator[Any], config: Any) -> Iterator[Any]:
            run, requester = self._item_run(input, config, kwargs)
            with closing(run.stream()) as chunks:  # type: ignore[type-var]
                for piece in chunks:
                    yield requester.as_asked(run.shown_model, piece)

        yield from self._transform_stream_with_config(iter([input]), pieces, config)

    @override
    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        async def once() -> AsyncIterator[Any]:
            yield input

        async def pieces(_: AsyncIterator[Any], config: Any) -> AsyncIterator[Any]:
            run, requester = self._item_run(input, config, kwargs)
            async with aclosing(run.astream()) as chunks:
                async for piece in chunks:
                    yield requester.as_asked(run.shown_model, piece)

        await turn()
        stream = self._atransform_stream_with_config(once(), pieces, config)
        async with aclosing(stream):  # type: ignore[type-var]
            async for piece in stream:
                yield piece

    def _item_run(
        self, given: Any, config: RunnableConfig, kwargs: dict[str, Any]
    ) -> tuple[ItemRun, ChainRequester]:
        check_caches(self._confused)
        arguments = _arguments(kwargs)
        task = named_task(kwargs, config) or self.task or self.get_name()
        item = self._item(
            compared_outputs(self._serving.rule_of(task)),
            task,
            lambda call: None,  # noqa: ARG005 - what it will call shows as it runs
            named=True,
            model=None,
            identities=lambda: self._identities,
            prompt=lambda: identity_of(arguments),
        )
        booked, allowance = item.record_inner_call, item.allowance
        requester = ChainRequester(
            self._members,
            booked,
            given,
            config,
            arguments,
            allowance,
            item.task,
            self._signals,
        )
        return ItemRun(item, requester), requester

    # -- many items at once ------------------------------------------------------

    @override
    def _read(self, given: Any) -> Any:
        return given

    @override
    def _identified(self, given: Any, kwargs: Mapping[str, Any]) -> tuple[str, ...]:
        content, text = str(id(kwargs)), ""
        with suppress(InvalidInputError):  # such an argument is like no other call's
            content = identity_of(_arguments(kwargs))
        with suppress(InvalidInputError):
            text = identity_of(given)
        return self.get_name(), content, text

    @override
    def _job_maker(self, kwargs: dict[str, Any]) -> JobMaker:
        check_caches(self._confused)
        new_job = partial(
            ChainJob,
            chains=self._members,
            name=self.get_name(),
            arguments=_arguments(kwargs),
            signals=self._signals,
            identify=lambda: self._identities,
            answers=ChainAnswers(self.OutputType),
        )
        return new_job, compared_outputs, lambda inputs: self.get_name()  # noqa: ARG005

    @property
    @override
    def _identities(self) -> list[tuple[str, str]]:
        chains = self._members.values()
        return [(each.name, repr((self.version, each.models))) for each in chains]

    @property
    def _reference(self) -> Runnable[Any, Any]:
        return self._members[self._names[0]].chain

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
        return cast("type[BaseModel]", self._reference.get_input_schema(config))

    @override
    def get_output_schema(
        self, config: RunnableConfig | None = None
    ) -> type[BaseModel]:
        return cast("type[BaseModel]", self._reference.get_output_schema(config))

    @property
    @override
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        specs = (each.chain.config_specs for each in self._members.values())
        return get_unique_config_specs(itertools.chain.from_iterable(specs))


def _arguments(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what chains are called with: everything but the task's name."""
    return {name: value for name, value in kwargs.items() if name != TASK}
