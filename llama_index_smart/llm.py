"""`SmartLLM`: a LlamaIndex LLM that answers as its reference would, for less."""

from __future__ import annotations

import pickle
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from contextlib import aclosing, closing
from contextvars import copy_context
from functools import partial
from typing import Any, Self, TypeVar, cast

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
)
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.tools import BaseTool
from llama_index.core.types import PydanticProgramMode, TokenAsyncGen, TokenGen
from llama_index_instrumentation import get_dispatcher
from pydantic import (
    ConfigDict,
    PrivateAttr,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
)
from typing_extensions import override

from llama_index_smart.call import LLMJob, LLMRequester, ending, piece, whole
from llama_index_smart.compare import ResponseReading
from llama_index_smart.cost import member_settings, worst_case
from llama_index_smart.events import one_span, reporting
from llama_index_smart.history import first_author
from llama_index_smart.logprobs import has_logprobs
from llama_index_smart.members import (
    LLMMember,
    asked_once,
    carried,
    identity_of,
    read_model,
    shared_metadata,
)
from llama_index_smart.request import OUTPUT, TOOLS, Ask
from llama_index_smart.structured import (
    has_native_mode,
    object_in,
    object_so_far,
)
from llama_index_smart.tasks import (
    constant_part,
    default_task,
    template_in_use,
    warn_of_names,
    with_template,
)
from llama_index_smart.tools import classes_of, conversation, selected_tools
from smart_engine.batch.self_agreement import SelfAgreement, drawn_twice
from smart_engine.calls import Call
from smart_engine.equivalence import Normalized
from smart_engine.equivalence.identity import identity
from smart_engine.errors import InvalidInputError, check_batch, check_whole
from smart_engine.money.pricing import Price
from smart_engine.offline.estimate import SIZES, Estimate
from smart_engine.runtime.batch import Batch, OneByOne
from smart_engine.runtime.estimation import Estimation
from smart_engine.runtime.gathering import SingleCall
from smart_engine.runtime.item import ItemRun
from smart_engine.runtime.lanes.members import Lanes
from smart_engine.runtime.loop import turn
from smart_engine.runtime.measurement import Measurement
from smart_engine.runtime.settings import Settings
from smart_engine.runtime.submitted import SubmittedJob
from smart_engine.serving.members import find_members, model_identity
from smart_engine.serving.repeated import always_alike
from smart_engine.serving.slices import slice_of
from smart_engine.serving.tasks import pooled

__all__ = ["SmartLLM"]

R = TypeVar("R")
_END = object()
_dispatcher = get_dispatcher(__name__)


class SmartLLM(Settings, FunctionCallingLLM):
    """An LLM that answers as its reference would, for less.

    Put it into `Settings.llm`, or hand it to a query engine, chat engine, extractor,
    evaluator or agent. Each prompt template is a task, and each task a stream: with
    probability `confidence`, after every answer, at most the share `max_disagreement`
    of the task's answers so far differs from what the reference would have said.
    `report().streams` says where each stream stands. Jobs of many items have
    `chat_batch` and `complete_batch`: the whole batch is one session, which costs less.

    A template's task has the name of its `prompt_type`, such as `text_qa`, `refine` or
    one of your own; else that of the evaluator or extractor whose default it is, such
    as `CorrectnessEvaluator` or `TitleExtractor`; else that of the class of the objects
    that are asked for; else a hash. A second template of one name has a stream of its
    own, whose name has a hash.

    Each response says in `additional_kwargs["smart"]` which `model` answered, in which
    `role` (`profiled`, `applied`, `escalated`, `reference`, `shadow`, `named` or
    `uncertified`), for which `task`, what the item `cost` and what it `saved`
    (estimated) in USD, and the id of the batch's `certificate`. Its token counts are
    those of the served model's call alone; `callback_manager` and instrumentation see
    every member's call, once.

    Answers are compared by their texts; where tools were called, by the calls; where
    objects of a class were asked for, by the objects, but selections of a selector by
    the choices, not by the reasons. Every verb takes
    `smart_task="…"`, which names the task, and `smart_model="…"`, which names the
    member that must answer.

    Args:
        reference: The LLM whose answers define "right": LlamaIndex's, or a LangChain
            chat model, also with arguments or a config bound to it.
        candidates: Cheaper LLMs that may stand in for it.
        max_disagreement: Tolerated share of differing answers.
        confidence: Probability with which that holds.
        recall: Label → share, in batches: of the items to which the reference would
            give that label, at least that share gets it. All of it holds together with
            `confidence`; `max_disagreement=None` promises labels only.
        precision: Label → share, in batches: of the answers with that label, at least
            that share is what the reference would have said.
        label_of: A function from the text of an answer, or from its object, to its
            label. By default that is what `Label`, `Normalized` or `Exact` read in it.
        slices: A function from an item, its prompt or its messages, to the name of its
            slice, such as a tenant, a language or a source: in batches,
            `max_disagreement` then holds in each slice by itself, all together with
            `confidence`. Small slices save little: below some 100 items at 5 % they go
            to the reference.
        strategy: `"audit"`, `"mix"`, `"efficient"`, `"exhaustive"` or `"reference"`.
        looks: `"corrected"` keeps the promise; `"paper"` is the paper's way.
        mode: `"serve"`; `"shadow"`: every model is asked about every item, one by one,
            the reference answers, and `report().shadows` says what streams would have
            served and saved; `"strict"`: see `budget_usd`.
        budget_usd: The most that a batch, and a task's stream, may cost, as for
            `SmartChatModel`: each member's answers must be limited by `max_tokens`.
            What cannot be foreseen is refused here, unless it is free: a judge, a
            picture, audio or a file in a message.
        equivalence: When two answers mean the same: `Normalized()`, `Exact()`,
            `Label([...])`, `Number(...)`, `Json()`, or a function of two texts. Objects
            are compared by their values, or by your `Json(fields=…)` or function.
        prices: Model name → `Price` in USD per million tokens.
        min_saving: Least share of the reference's cost that candidates must be expected
            to save: where they cannot, the reference answers alone, and trying them
            in vain costs a hundredth of what could be saved, as a rule. With 0,
            candidates are tried from the first item on, and serve where they save
            anything.
        max_rounds: Most waves of calls that a batch may take, for calls that take long,
            as in a provider's batches: 2 or more, for the strategy `"audit"`. Few waves
            draw somewhat more. None: as many as pay; in providers' batches, 12.
        seed: Seed of all draws, which makes a run repeatable. Left out, it comes from
            the operating system, so that nobody can foresee what is audited; the
            certificate has it at the end.
        max_concurrency: Most calls of a batch in flight at once.
        progress: Whether a bar shows where a batch stands: what is settled, spent
            and saved, and how many answers may differ, of those allowed.
        task: Name of the task, if all that is asked is one task, with one rule.
        tasks: What single tasks have of their own, by name: `equivalence`,
            `max_disagreement`, `confidence`, `strategy` (`"reference"`: no candidate is
            asked) and `min_saving`. `{"answers": {"pool": ["text_qa", "refine"], …}}`
            makes several tasks one, under one promise; each of them may keep its own
            `equivalence`.
        sticky: Whether a conversation that the reference began stays with it, as
            prompt caches like it: its later turns are answered by the reference, and
            are no part of the stream. One that a candidate began goes on as its stream
            decides, whose audits show an answer of the reference now and then. Every
            answer's message then says in `additional_kwargs` who wrote it.
        store: A file or a database (`Store`) in which batches and streams outlive the
            process and are shared by several, as for `SmartChatModel`.
        promise: `"batch"`, or `"task"`: one guarantee for all batches of a named task,
            kept after each of them; left out: for its small batches, as for
            `SmartChatModel`.
        accept_noise: Serve also where `self_agreement` found that the reference differs
            from itself on more items than `max_disagreement` allows.
        dedupe: Whether a batch asks once about items with the same messages or prompt,
            as for `SmartChatModel`.
        gather_ms: Milliseconds that a single call waits for others, always, as it does
            in `batching()`, which see. Left out: it does not.
        signals: What candidates are asked for beside their answers, at no cost, to tell
            how sure they are: `"logprobs"`, of those whose class declares such a field
            (chat completions; no reasoning model), unless it is set there, or None. A
            server that refuses them is asked no more. Answers are handed out without
            them, unless they were set.
        on_drift: Called with a `Drift` where a stream's recent audits detect errors
            clearly more often than its past ones: an alarm, no promise, which comes
            falsely in about one of 10,000 audits.
        lane: How the members are asked, as for `SmartChatModel`: `"live"`; `"batch"`:
            `chat_batch` and `complete_batch` by batches of the provider, which are
            cheaper and may take hours; `"auto"`: the same for 100 calls or more that
            can be made at once; or `"flex"`.
        estimate_usage: Where an LLM reports no usage that can be priced, estimate it
            from the texts, and mark what rests on that, as for `SmartChatModel`: as
            `estimated` in each response's `additional_kwargs["smart"]` (USD). Otherwise
            such a call has failed.
        books: The `books` of another smart model: both then share one ledger, one
            report and their streams.

    Raises:
        InvalidInputError: At construction, if anything cannot be used.

    Example:
        ```python
        from llama_index.core.llms.mock import MockLLM


        class Small(MockLLM):
            @classmethod
            def class_name(cls):
                return "Small"


        smart = SmartLLM(
            reference=MockLLM(),
            candidates=[Small()],
            prices={"MockLLM": Price.free(), "Small": Price.free()},
        )
        assert smart.complete("yes").text == "yes"
        assert smart.report().spend["MockLLM"].calls == 1
        ```
    """

    model_config = ConfigDict(extra="forbid")  # a misspelt guarantee must not pass

    sticky: bool = False

    _members: dict[str, LLMMember] = PrivateAttr()

    @override
    def model_post_init(self, context: Any, /) -> None:
        """Check everything before anything is spent."""
        found = find_members(self.reference, self.candidates, self.prices, read_model)
        self._members = {member.name: asked_once(member) for member in found}
        self.prices = {**self.prices, **{each.name: each.price for each in found}}
        self._open()
        warn_of_names([*self.tasks, *pooled(self.tasks)])

    @override
    def _check_budget(self, budget_usd: float) -> None:
        for member in self._members.values():
            member.check_budget(budget_usd, member_settings(member, {}))

    @override
    def _read_lanes(self) -> Lanes:
        return Lanes.read(self.lane, self._members, carried)

    @property
    @override
    def _reporting_logprobs(self) -> Iterator[str]:
        return (n for n in self._names[1:] if has_logprobs(self._members[n]))

    @property
    @override
    def _names(self) -> tuple[str, ...]:
        return tuple(self._members)

    @property
    @override
    def _member_prices(self) -> dict[str, Price]:
        return {name: member.price for name, member in self._members.items()}

    @property
    def _identities(self) -> list[tuple[str, str]]:
        return [identity_of(member) for member in self._members.values()]

    # -- one item at a time ----------------------------------------------------

    @override
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return self._answer(Ask.chat(messages, kwargs))

    @override
    async def achat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponse:
        return await self._aanswer(Ask.chat(messages, kwargs))

    @override
    def stream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponseGen:
        return self._pieces(Ask.chat(messages, kwargs))

    @override
    async def astream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponseAsyncGen:
        return self._apieces(Ask.chat(messages, kwargs))

    @override
    def complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponse:
        return self._answer(Ask.completion(prompt, {"formatted": formatted, **kwargs}))

    @override
    async def acomplete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponse:
        ask = Ask.completion(prompt, {"formatted": formatted, **kwargs})
        return await self._aanswer(ask)

    @override
    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseGen:
        return self._pieces(Ask.completion(prompt, {"formatted": formatted, **kwargs}))

    @override
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        return self._apieces(Ask.completion(prompt, {"formatted": formatted, **kwargs}))

    def _answer(self, ask: Ask[R]) -> R:
        return self._gathered(partial(self._single, ask), partial(self._alone, ask))

    async def _aanswer(self, ask: Ask[R]) -> R:
        single, alone = partial(self._single, ask), partial(self._aalone, ask)
        return await self._agathered(single, alone)

    def _single(self, ask: Ask[Any]) -> SingleCall | None:
        """Return a call that others may be answered with; None if its model is set."""
        if ask.model is not None or self._pinned(ask) == self._names[0]:
            return None
        task, asked_by = self._task_of([ask]), (template_in_use(), ask.output_cls)
        extras = repr((ask.prompt is None, ask.tool_specs, ask.arguments))
        config = self._serving.of(self._serving.task_of(task))
        here = copy_context()  # has the template in use

        def batch(asks: list[Ask[Any]]) -> Batch:
            job = here.run(self._job, asks, self.max_concurrency)
            return self._batch([job], [None] * len(asks))

        kind = (id(self), task, asked_by, extras)
        label = self._label([ask])
        return SingleCall(kind, ask.content, ask, batch, config, label)

    def _pinned(self, ask: Ask[Any]) -> str | None:
        """Return the member that began a conversation, if that is to go on with it."""
        return first_author(ask.messages or ()) if self.sticky else None

    def _alone(self, ask: Ask[R]) -> R:
        if self.rate_limiter is not None:
            self.rate_limiter.acquire()
        run = self._item_run(ask)
        return cast("R", whole(run, run.answer(), signs=self.sticky))

    async def _aalone(self, ask: Ask[R]) -> R:
        await turn()
        if self.rate_limiter is not None:
            await self.rate_limiter.async_acquire()
        run = self._item_run(ask)
        return cast("R", whole(run, await run.aanswer(), signs=self.sticky))

    def _pieces(self, ask: Ask[R]) -> Generator[R]:
        """Answer an item piece by piece."""
        run = self._item_run(ask)  # now: the task is that of the template in use

        def pieces() -> Generator[R]:
            if self.rate_limiter is not None:
                self.rate_limiter.acquire()
            for response in run.stream():
                yield cast("R", piece(run, response, signs=self.sticky))
            yield cast("R", ending(run, signs=self.sticky))

        return pieces()

    def _apieces(self, ask: Ask[R]) -> AsyncGenerator[R]:
        """Answer an item piece by piece."""
        run = self._item_run(ask)

        async def pieces() -> AsyncGenerator[R]:
            await turn()
            if self.rate_limiter is not None:
                await self.rate_limiter.async_acquire()
            async with aclosing(run.astream()) as responses:
                async for response in responses:
                    yield cast("R", piece(run, response, signs=self.sticky))
            yield cast("R", ending(run, signs=self.sticky))

        return pieces()

    @property
    def _reporting(self) -> dict[str, LLMMember]:
        """The members as they are called: they report to this LLM's callbacks."""
        self._members = reporting(self._members, self.callback_manager)
        return self._members | reporting(self._lanes.single, self.callback_manager)

    def _item_run(self, ask: Ask[Any]) -> ItemRun:
        """Return one item, ready to be answered."""

        def bounded(call: Call) -> float:
            sent = ask.addressed_to(call.tier, self._names[0])
            return worst_case(self._members[call.tier], sent)

        named, template = bool(ask.task or self.task), template_in_use()
        task = self._task_of([ask])
        item = self._item(
            self._reading([ask], task),
            task,
            bounded,
            named=named,
            model=ask.model,
            identities=lambda: self._identities,
            prompt=partial(constant_part, ask, template),
            stream=None if named or template is None else template.stream,
            pinned=self._pinned(ask),
        )
        requester = LLMRequester(
            self._reporting,
            ask,
            self.estimate_usage,
            item.allowance,
            signals=self._signals,
        )
        return ItemRun(item, requester)

    # -- many items at once ----------------------------------------------------

    @_dispatcher.span
    def chat_batch(
        self,
        items: Sequence[Sequence[ChatMessage]],
        *,
        max_concurrency: int | None = None,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[ChatResponse]:
        """Answer many chats in one session.

        With probability at least `confidence`, at most the share `max_disagreement` of
        the answers differs from what the reference said or would have said. In shadow,
        or where `smart_model` names a model, items are answered one by one.

        Args:
            items: The messages of each item.
            max_concurrency: Most calls in flight at once; the model's if not given.
            return_exceptions: Return an item's exception in its place, instead of
                raising the first one after all items are done. A raised one carries
                all results in its attribute `smart_results`.
            **kwargs: Handed to every member; `smart_task` names the task.

        Raises:
            InvalidInputError: If an item is no list of messages.
        """
        work = self._work(_asks(items, _chat, kwargs), max_concurrency)
        return work.run(return_exceptions=return_exceptions)

    @_dispatcher.span
    async def achat_batch(
        self,
        items: Sequence[Sequence[ChatMessage]],
        *,
        max_concurrency: int | None = None,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[ChatResponse]:
        """Answer many chats in one session, as `chat_batch` does."""
        work = self._work(_asks(items, _chat, kwargs), max_concurrency)
        return await work.arun(return_exceptions=return_exceptions)

    @_dispatcher.span
    def complete_batch(
        self,
        prompts: Sequence[str],
        *,
        formatted: bool = False,
        max_concurrency: int | None = None,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[CompletionResponse]:
        """Answer many prompts in one session, as `chat_batch` does."""
        asks = _asks(prompts, _completion, {"formatted": formatted, **kwargs})
        work = self._work(asks, max_concurrency)
        return work.run(return_exceptions=return_exceptions)

    @_dispatcher.span
    async def acomplete_batch(
        self,
        prompts: Sequence[str],
        *,
        formatted: bool = False,
        max_concurrency: int | None = None,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[CompletionResponse]:
        """Answer many prompts in one session, as `chat_batch` does."""
        asks = _asks(prompts, _completion, {"formatted": formatted, **kwargs})
        work = self._work(asks, max_concurrency)
        return await work.arun(return_exceptions=return_exceptions)

    def submit(
        self,
        items: Sequence[str] | Sequence[Sequence[ChatMessage]],
        *,
        formatted: bool = False,
        max_concurrency: int | None = None,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> SubmittedJob[Any]:
        """Answer a batch while this process does something else.

        It does what `complete_batch` does with prompts, and `chat_batch` with chats.
        With `lane="batch"` it may take a day. `job.status()` says where it stands;
        `job.results()` and `await job` wait for it. `job.leave()` ends it here: with a
        `store`, whoever submits the same items later, in any process, goes on from
        there, with the provider's batches that are under way.

        Args:
            items: Prompts, or the messages of each chat.
            formatted: Whether prompts are formatted for the model already.
            max_concurrency: Most calls in flight at once; the model's if not given.
            return_exceptions: See `chat_batch`.
            **kwargs: Handed to every member; `smart_task` names the task.

        Raises:
            InvalidInputError: If an item is neither, or of another kind than the first.

        Example:
            ```python
            from llama_index.core.llms.mock import MockLLM


            class Small(MockLLM):
                @classmethod
                def class_name(cls):
                    return "Small"


            smart = SmartLLM(
                reference=MockLLM(),
                candidates=[Small()],
                prices={"MockLLM": Price.free(), "Small": Price.free()},
            )
            job = smart.submit(["Is it?"] * 20)
            assert [answer.text for answer in job.results()] == ["Is it?"] * 20
            assert job.status().state == "done"
            ```
        """
        asks: list[Ask[Any]]
        if any(isinstance(item, str) for item in items[:1]):
            kwargs |= {"formatted": formatted}
            asks = _asks(items, _completion, kwargs)
        else:
            asks = _asks(items, _chat, kwargs)
        work = self._work(asks, max_concurrency)
        return SubmittedJob(work, len(asks), return_exceptions=return_exceptions)

    def self_agreement(
        self,
        items: Sequence[str | Sequence[ChatMessage]],
        *,
        n: int = 100,
        max_concurrency: int | None = None,
        **kwargs: Any,
    ) -> SelfAgreement:
        """Ask the reference twice about a few items, and compare its answers.

        From then on a `max_disagreement` that is demonstrably below the reference's own
        disagreement with itself is refused for this task, here and in all copies,
        unless `accept_noise=True`. What it costs is in `report()`, and in no batch's or
        stream's `budget_usd`.

        Args:
            items: Prompts, or the messages of chats, of one task.
            n: Most items to ask about, drawn at random.
            max_concurrency: Most calls in flight at once; the model's if not given.
            **kwargs: Handed to the reference; `smart_task` names the task.

        Raises:
            InvalidInputError: If there is no item.
            SmartError: If no item got two answers of its own.
        """
        return self._twice(items, n, max_concurrency, kwargs).run()

    async def aself_agreement(
        self,
        items: Sequence[str | Sequence[ChatMessage]],
        *,
        n: int = 100,
        max_concurrency: int | None = None,
        **kwargs: Any,
    ) -> SelfAgreement:
        """Ask the reference twice about a few items, as `self_agreement` does."""
        return await self._twice(items, n, max_concurrency, kwargs).arun()

    def estimate(
        self,
        items: Sequence[str | Sequence[ChatMessage]],
        *,
        n: int = 50,
        sizes: Sequence[int] = SIZES,
        shares: Sequence[float] = (),
        max_concurrency: int | None = None,
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
            items: All prompts, or the messages of all chats, of one task.
            n: Most items to ask about, drawn at random.
            sizes: Numbers of items for which the share saved is estimated, too; `CURVE`
                of `smart_engine.offline.estimate` goes from 20 to 100,000.
            shares: Other shares that may differ (`max_disagreement`), to choose among.
            max_concurrency: Most calls in flight at once; the model's if not given.
            **kwargs: Handed to every member; `smart_task` names the task.

        Raises:
            InvalidInputError: If an argument cannot be used, or the items are of
                several tasks.
            SmartError: If the reference answered none of them.
        """
        estimating = self._estimating(items, n, sizes, shares, max_concurrency, kwargs)
        return estimating.run()

    async def aestimate(
        self,
        items: Sequence[str | Sequence[ChatMessage]],
        *,
        n: int = 50,
        sizes: Sequence[int] = SIZES,
        shares: Sequence[float] = (),
        max_concurrency: int | None = None,
        **kwargs: Any,
    ) -> Estimate:
        """Say what a job would cost, as `estimate` does."""
        estimating = self._estimating(items, n, sizes, shares, max_concurrency, kwargs)
        return await estimating.arun()

    def _work(self, asks: list[Ask[R]], limit: int | None) -> Batch | OneByOne:
        """Return what answers a batch."""
        if self.mode == "shadow" or any(ask.model is not None for ask in asks):
            return OneByOne(
                lambda item: self._answer(asks[item]),
                lambda item: self._aanswer(asks[item]),
                len(asks),
                self._limit(limit),
            )
        return self._batch([self._job(asks, self._limit(limit))], [None] * len(asks))

    def _twice(
        self, items: Sequence[Any], n: int, limit: int | None, kwargs: dict[str, Any]
    ) -> Measurement:
        drawn = drawn_twice("items", _asks(items, _either, kwargs), n, self.seed)
        return self._measurement(self._job(drawn, self._limit(limit)))

    def _estimating(
        self,
        items: Sequence[Any],
        n: int,
        sizes: Sequence[int],
        shares: Sequence[float],
        limit: int | None,
        kwargs: dict[str, Any],
    ) -> Estimation:
        asks = _asks(items, _either, kwargs)
        jobs = [self._job(asks, self._limit(limit))] if asks else []
        return self._estimation("items", jobs, n, sizes, shares)

    def _limit(self, limit: int | None) -> int:
        """Return how many calls may be in flight."""
        if limit is None:
            return self.max_concurrency
        check_whole("max_concurrency", limit, 1)
        return limit

    def _job(self, asks: Sequence[Ask[Any]], limit: int) -> LLMJob:
        name, lanes = self._task_of(asks), {**self._lanes.in_batches}
        task = self._serving.task_of(name)
        members = self._reporting | reporting(lanes, self.callback_manager)
        return LLMJob(
            task,
            self._reading(asks, name),
            self._scope(task),
            range(len(asks)),
            limit,
            self._label(asks) and task,
            asks=asks,
            members=members,
            silent=lanes,
            by_itself={name: self._reporting[name] for name in self._lanes.carriers},
            signals=self._signals,
            reserved=members | {n: self._members[n] for n in self._lanes.auto},
            estimates=self.estimate_usage,
            signs=self.sticky,
            identify=lambda: self._identities,
            slices=self._slices_of(asks),
            alike=all(
                always_alike(member_settings(member, ask.arguments))
                for member in self._members.values()
                for ask in asks[:1]  # the same arguments come with each
            ),
        )

    def _slices_of(self, asks: Sequence[Ask[Any]]) -> list[str] | None:
        """Return the slice of each item, if slices are promised."""
        if self.slices is None:
            return None
        given = [ask.messages if ask.prompt is None else ask.prompt for ask in asks]
        return [slice_of(self.slices, one, item) for item, one in enumerate(given)]

    def _reading(self, asks: Sequence[Ask[Any]], task: str) -> ResponseReading:
        """Return how answers to some items of a task are compared."""
        tools = [tool for ask in asks for tool in ask.offered]
        offered = frozenset(tool.metadata.get_name() for tool in tools)
        template = None if tools else template_in_use()
        output_cls = asks[0].output_cls if asks else None
        output_cls = output_cls or (template and template.output_cls)
        if output_cls is not None:
            self._serving.check_objects()
        rule = self._serving.rule_of(task)
        return ResponseReading(rule, offered, classes_of(tools), output_cls)

    def _task_of(self, asks: Sequence[Ask[Any]]) -> str:
        """Return the task of some items, which is one."""
        return self._label(asks) or default_task(asks)

    def _label(self, asks: Sequence[Ask[Any]]) -> str | None:
        """Return the name of their task: the user's, or that of the template in use."""
        named = next((ask.task for ask in asks if ask.task is not None), None)
        template = template_in_use()
        return named or self.task or (template and template.task)

    # -- tools -----------------------------------------------------------------

    @override
    def _prepare_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        messages = conversation(chat_history, user_msg)
        return {
            "messages": messages,
            TOOLS: list(tools),
            "verbose": verbose,
            "allow_parallel_tool_calls": allow_parallel_tool_calls,
            "tool_required": tool_required,
            **kwargs,
        }

    @override
    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        return selected_tools(response, required=error_on_no_tool_call)

    # -- prompts: each template is a task --------------------------------------

    @one_span
    @override
    def predict(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        with with_template(prompt, self):
            return super().predict(prompt, **prompt_args)

    @one_span
    @override
    async def apredict(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        with with_template(prompt, self):
            return await super().apredict(prompt, **prompt_args)

    @one_span
    @override
    def stream(self, prompt: BasePromptTemplate, **prompt_args: Any) -> TokenGen:
        with with_template(prompt, self):
            return super().stream(prompt, **prompt_args)

    @one_span
    @override
    async def astream(
        self, prompt: BasePromptTemplate, **prompt_args: Any
    ) -> TokenAsyncGen:
        with with_template(prompt, self):
            return await super().astream(prompt, **prompt_args)

    @one_span
    @override
    def structured_predict(
        self,
        output_cls: type[Any],
        prompt: Any,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Any:
        with with_template(prompt, self, output_cls):
            if self._asks_natively:
                asked = self._structured(output_cls, prompt, llm_kwargs, prompt_args)
                return object_in(self.chat(**asked), output_cls)
            return super().structured_predict(
                output_cls, prompt, llm_kwargs, **prompt_args
            )

    @one_span
    @override
    async def astructured_predict(
        self,
        output_cls: type[Any],
        prompt: Any,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Any:
        with with_template(prompt, self, output_cls):
            if self._asks_natively:
                asked = self._structured(output_cls, prompt, llm_kwargs, prompt_args)
                return object_in(await self.achat(**asked), output_cls)
            return await super().astructured_predict(
                output_cls, prompt, llm_kwargs, **prompt_args
            )

    @property
    def _asks_natively(self) -> bool:
        """Whether each member is asked for objects in its own form."""
        models = (member.model for member in self._members.values())
        default = self.pydantic_program_mode == PydanticProgramMode.DEFAULT
        return default and any(map(has_native_mode, models))

    def _structured(
        self,
        output_cls: type[Any],
        prompt: Any,
        llm_kwargs: dict[str, Any] | None,
        prompt_args: dict[str, Any],
    ) -> dict[str, Any]:
        """Return with what a chat verb is called for an object."""
        messages = self._extend_messages(prompt.format_messages(**prompt_args))
        return {**(llm_kwargs or {}), "messages": messages, OUTPUT: output_cls}

    @override
    def _structured_stream_call(
        self,
        output_cls: type[Any],
        prompt: Any,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Generator[Any]:
        if not self._asks_natively:
            yield from super()._structured_stream_call(
                output_cls, prompt, llm_kwargs, **prompt_args
            )
            return
        asked = self._structured(output_cls, prompt, llm_kwargs, prompt_args)
        made = None
        with closing(self.stream_chat(**asked)) as pieces:
            for response in pieces:
                made = object_so_far(response, output_cls, made, self)
                yield made

    @override
    async def _structured_astream_call(
        self,
        output_cls: type[Any],
        prompt: Any,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> AsyncGenerator[Any]:
        if not self._asks_natively:
            return await super()._structured_astream_call(
                output_cls, prompt, llm_kwargs, **prompt_args
            )
        asked = self._structured(output_cls, prompt, llm_kwargs, prompt_args)
        pieces = await self.astream_chat(**asked)

        async def objects() -> AsyncGenerator[Any]:
            made = None
            async with aclosing(pieces):
                async for response in pieces:
                    made = object_so_far(response, output_cls, made, self)
                    yield made

        return objects()

    @one_span
    @override
    def stream_structured_predict(
        self, output_cls: type[Any], prompt: Any, *args: Any, **prompt_args: Any
    ) -> Generator[Any]:
        # The call is made when the first object is asked for, not now.
        with with_template(prompt, self, output_cls):
            context = copy_context()
        objects = super().stream_structured_predict(
            output_cls, prompt, *args, **prompt_args
        )
        try:
            while (found := context.run(next, objects, _END)) is not _END:
                yield found
        finally:
            context.run(objects.close)

    @one_span
    @override
    async def astream_structured_predict(
        self, output_cls: type[Any], prompt: Any, *args: Any, **prompt_args: Any
    ) -> AsyncGenerator[Any]:
        objects = await super().astream_structured_predict(
            output_cls, prompt, *args, **prompt_args
        )

        async def named() -> AsyncGenerator[Any]:
            try:
                while True:
                    with with_template(prompt, self, output_cls):
                        found = await anext(objects, _END)
                    if found is _END:
                        return
                    yield found
            finally:
                await objects.aclose()

        return named()

    # -- what LlamaIndex asks of an LLM ----------------------------------------

    @classmethod
    @override
    def class_name(cls) -> str:
        return "SmartLLM"

    @property
    @override
    def metadata(self) -> LLMMetadata:
        return shared_metadata([*self._members.values()])

    @override
    def to_payload(self) -> dict[str, Any]:
        return {**super().to_payload(), "members": list(self._names)}

    @model_serializer(mode="wrap")
    @override
    def custom_model_dump(
        self, handler: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        """Return the settings: no member, hence no secret; see `from_dict`.

        The hash differs if members, their settings or addresses, or the equivalence
        do: keys of an `IngestionCache` are made of dumps, nested ones too.
        """
        marks = {
            name: (model_identity(member.model).mark, member.arguments)
            for name, member in self._members.items()
        }
        return {
            **handler(self),
            "class_name": self.class_name(),
            "members": list(self._names),
            "equivalence": self._serving.rule.name,
            "tasks": sorted(self.tasks),
            "identity": identity((marks, self._serving.rule, self.tasks)).mark,
        }

    @classmethod
    @override
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> Self:
        """Return a smart LLM of these settings.

        Args:
            data: What `to_dict` returned.
            **kwargs: `reference` and `candidates`, which are not among the settings, as
                they hold secrets; `equivalence`, if it was not `Normalized()`; and
                `tasks`, if there were any.

        Raises:
            InvalidInputError: If one of them is missing.
        """
        data = dict(data)
        members, rule = data.pop("members", None), data.pop("equivalence", None)
        data.pop("identity", None)  # of the models that were dumped
        for name in ("reference", "candidates"):
            if name not in kwargs:
                hint = f"a stored SmartLLM holds no models; give them again ({members})"
                raise InvalidInputError(
                    name, None, f"{hint}: from_dict(data, {name}=…)"
                )
        unstored = {"tasks": data.pop("tasks", None) or None}
        unstored["equivalence"] = None if rule == Normalized().name else rule
        for name, value in unstored.items():
            if value is not None and name not in kwargs:
                hint = f"it is not stored; give it again: from_dict(data, {name}=…)"
                raise InvalidInputError(name, value, hint)
        return super().from_dict(data, **kwargs)

    @override
    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled; nothing may be left out without a word."""
        for name in ("reference", "candidates", "equivalence", "tasks"):
            try:
                pickle.dumps(getattr(self, name))
            except Exception as error:
                hint = f"it cannot be pickled ({error}), and without it nothing holds"
                raise InvalidInputError(
                    name, type(getattr(self, name)), hint
                ) from error
        return super().__getstate__()

    @override
    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Return a copy with the same members, which hold connections, and books."""
        return self.model_copy(update={"prices": dict(self.prices)})


def _asks(
    items: Sequence[Any],
    ask: Callable[[Any, dict[str, Any]], Ask[R]],
    kwargs: dict[str, Any],
) -> list[Ask[R]]:
    """Return what is asked about each item."""
    check_batch("items", items)
    return [ask(item, kwargs) for item in items]


def _chat(item: Any, kwargs: dict[str, Any]) -> Ask[ChatResponse]:
    listed = isinstance(item, Sequence) and not isinstance(item, str)
    if not listed or not all(isinstance(message, ChatMessage) for message in item):
        hint = "each item is a list of ChatMessage; use complete_batch for prompts"
        raise InvalidInputError("items", item, hint)
    return Ask.chat(item, kwargs)


def _completion(item: Any, kwargs: dict[str, Any]) -> Ask[CompletionResponse]:
    if not isinstance(item, str):
        hint = "each item is a text; use chat_batch for messages"
        raise InvalidInputError("items", item, hint)
    return Ask.completion(item, kwargs)


def _either(item: Any, kwargs: dict[str, Any]) -> Ask[Any]:
    return (_completion if isinstance(item, str) else _chat)(item, kwargs)
