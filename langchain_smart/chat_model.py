"""`SmartChatModel`: a chat model that answers as the reference would, for less."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    CallbackManagerForLLMRun,
)
from langchain_core.globals import get_llm_cache
from langchain_core.language_models import (
    LangSmithParams,
    LanguageModelInput,
    ModelProfile,
)
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    SystemMessage,
)
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.outputs import (
    ChatGenerationChunk,
    ChatResult,
    LLMResult,
)
from langchain_core.prompt_values import ChatPromptValue
from langchain_core.runnables import Runnable, RunnableConfig, ensure_config
from langchain_core.tools import BaseTool
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SkipValidation
from typing_extensions import override

from langchain_smart.batching import TASK, JobMaker, SmartBatching, named_task
from langchain_smart.callbacks import RUN, Run, recorded, started
from langchain_smart.chat.cache import cached
from langchain_smart.chat.call import ChatJob, ChatRequester, ending, piece, result
from langchain_smart.chat.cost import worst_case
from langchain_smart.chat.history import first_author, history_for
from langchain_smart.chat.members import (
    ChatMember,
    identity_of,
    read_model,
    shared_profile,
)
from langchain_smart.chat.request import SCHEMA, Request, as_sent, task_of
from langchain_smart.chat.structured import Parsed, Schema
from langchain_smart.chat.tools import Tools, ToolsUnsupportedError
from smart_engine.equivalence.identity import identity
from smart_engine.money.limits import settings_of
from smart_engine.money.pricing import Price
from smart_engine.runtime.clients import once
from smart_engine.runtime.item import ItemRun
from smart_engine.runtime.lanes.members import Lanes
from smart_engine.runtime.loop import turn
from smart_engine.runtime.signals import reports_logprobs
from smart_engine.serving.members import find_members
from smart_engine.serving.repeated import always_alike

__all__ = ["SmartChatModel"]


class SmartChatModel(SmartBatching[LanguageModelInput, AIMessage], BaseChatModel):
    """A chat model that answers as its reference would, for less.

    `batch` and `abatch` answer the whole batch in one session: the reference and the
    candidates answer some items, which shows how often they agree; the rest goes to the
    cheapest mix of models under which, with probability `confidence`, at most the share
    `max_disagreement` of the answers differs from the reference's. This works behind a
    prompt, before a parser, and through `.bind()`, `.with_config()`, `.with_retry()`
    and `.with_fallbacks()`.

    One item at a time (`invoke`, `stream`, and all that calls them) belongs to its
    task's stream: with the same probability, after every answer, at most that share of
    the task's answers so far differs. `report().streams` says where each stream stands.
    With `strategy="reference"` the reference answers; `model="…"` names another member.

    Each answer says in `response_metadata["smart"]` which `model` answered, in which
    `role` (`profiled`, `applied`, `escalated`, `reference`, `shadow`, `named` or, after
    the end of a budget, `uncertified`), for which `task`, what the item `cost` and what
    it `saved` (estimated) in USD, and the id of the batch's `certificate`. Its
    `usage_metadata` is that of the served model's call alone. Usage callbacks and
    tracers see the run of every member that was asked, once and under its own name,
    below the item's run, which has no tokens.

    Answers are compared by their texts; where tools were called, by the calls; where
    an object was asked for with `with_structured_output`, by the objects.

    Args:
        reference: The model whose answers define "right": a chat model, also with
            arguments or a config bound to it, or a string for `init_chat_model`.
        candidates: Cheaper models that may stand in for it, the same way.
        max_disagreement: Tolerated share of differing answers.
        confidence: Probability with which that holds.
        recall: Label → share, in batches: of the items to which the reference would
            give that label, at least that share gets it. All of it holds together with
            `confidence`; `max_disagreement=None` promises labels only.
        precision: Label → share, in batches: of the answers with that label, at least
            that share is what the reference would have said.
        label_of: A function from the text of an answer, or from its object, to its
            label. By default that is what `Label`, `Normalized` or `Exact` read in it.
        slices: A function from an input, or a key in its config's metadata,
            to the name of its slice, such as a tenant, a language or a source: in
            batches, `max_disagreement` then holds in each slice by itself, all together
            with `confidence`. Small slices save little: below some 100 items at 5 %
            they go to the reference.
        strategy: `"audit"`, `"mix"`, `"efficient"`, `"exhaustive"` or `"reference"`.
        looks: `"corrected"` keeps the guarantee; `"paper"` is the paper's way.
        mode: `"serve"`; `"shadow"`: every model answers every item, the reference's
            answer is returned, and `report().shadows` says what streams would have
            served and saved; `"strict"`: see `budget_usd`.
        budget_usd: The most that a batch, all its tasks together, and the stream of a
            task may cost; calls in flight count with their worst-case cost, so answers
            must be limited by `max_tokens`. Where it ends, answers that were bought are
            returned, marked `uncertified`; items without an answer, and with
            `mode="strict"` all items that the guarantee does not cover, raise
            `BudgetExceededError`. Costs without a bound are refused, unless they are
            zero: a judge, a picture, audio or a file in a message, a tool that the
            provider runs, and what a client that cannot be stopped repeats by itself.
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
            the operating system, so that no one can foresee what is audited; the
            certificate has it at the end.
        max_concurrency: Most calls in flight at once, where the config sets none; the
            audit sizes its waves by it.
        progress: Whether a bar shows where a batch stands: items settled, USD spent and
            saved, and how many answers may differ, of those allowed.
        task: Name of the task, where neither the call (`bind(smart_task=…)`) nor its
            config (`configurable` or `metadata`) gives one. A batch whose items name
            different tasks is answered in one session a task.
        tasks: What single tasks have of their own, by name: `equivalence`,
            `max_disagreement`, `confidence`, `strategy` (`"reference"`: no candidate is
            asked) and `min_saving`. `{"mail": {"pool": ["spam", "tone"], …}}` makes
            several tasks one, under one promise; each of them may keep its own
            `equivalence`.
        temperature: Passed to every member with each call, as are the next three.
        max_tokens: Most tokens of an answer.
        timeout: Seconds that a call may take.
        stop: Texts at which an answer is cut off.
        max_retries: How often a member's failed call is made again where waiting may
            help; by default as often as the member's own client would. Its client does
            not try again by itself: each attempt is a row of the ledger.
        streaming: Whether `invoke` streams, too.
        sticky: Whether a conversation that the reference began stays with it, as
            prompt caches like it: its later turns are answered by the reference, and
            are no part of the stream. One that a candidate began goes on as its stream
            decides, whose audits show an answer of the reference now and then.
        store: A file or a database (`Store`) in which batches and streams outlive the
            process. The same batch, started again, buys nothing twice and ends as it
            would have. A task's stream goes on where it was, and several processes, on
            several machines if the database is a server, share it with its guarantee
            and its `budget_usd`. It serves the same task, models with their settings,
            system message, tools, schema, `equivalence`, guarantee and seed; anything
            else starts anew, with a warning that says why. After a process is killed
            the stream counts its open items at their worst. Neither inputs nor the
            answers of a stream are stored.
        promise: `"batch"`: each batch keeps the guarantee by itself. `"task"`: all
            batches of a named task keep it together: after each of them, at most the
            tolerated share of all their answers so far differs. Later batches then need
            fewer answers of the reference than the first. With a `store`, that goes
            for all processes that use it. Left out: batches of a named task in which
            fewer than 12 answers may differ (239 items at 5 %) keep one together, all
            others one each. Single items keep the promise of a stream.
        accept_noise: Serve also where `self_agreement` found that the reference differs
            from itself on more items than `max_disagreement` allows.
        dedupe: Whether a batch puts the same messages to a model once, and hands its
            answer to all items of a task that have them. Each item still counts in the
            guarantee. Left out: where every member's `temperature` is set to 0.
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
        lane: How the members are asked: `"live"`, as they are by themselves; `"batch"`:
            `batch` and `abatch` by batches of the provider, which are cheaper and may
            take hours, at the price `Price(…, batch=Price(…))`, while single calls,
            those that name a model, and shadow mode stay live; `"auto"`: the same where
            100 calls or more can be made at once, fewer are made live; or `"flex"`:
            each call by the service tier of that name, and where that is refused by the
            standard one. `{"big": "batch"}` is for some. Without a `store`, whoever
            interrupts a batch cancels what is under way at the provider.
        estimate_usage: Where a model reports no usage that can be priced, estimate it
            from the texts, and mark what rests on that: as `estimated` in each answer's
            `response_metadata["smart"]` (USD), in ledger, certificates and report.
            Otherwise such a call has failed. An answer that broke off is estimated as
            far as it came. Hidden reasoning is in no estimate: a model that thinks
            costs more.
        books: The `books` of another smart model: both then share one ledger, one
            report and their streams.
        cache: The cache of the members that have no such setting of their own; where
            it is left out, LangChain's global cache is, if there is one. A smart model
            itself is never cached: every question counts in its stream or batch.

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

    model_config = ConfigDict(extra="forbid")

    reference: Annotated[Runnable[Any, Any] | str, SkipValidation] = Field(
        exclude=True, repr=False, frozen=True
    )
    candidates: Annotated[Sequence[Runnable[Any, Any] | str], SkipValidation] = Field(
        exclude=True, repr=False, frozen=True
    )
    temperature: float | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    timeout: float | None = None
    stop: list[str] | None = None
    max_retries: Annotated[int, Field(ge=0)] | None = None
    streaming: bool = False
    sticky: bool = False

    _members: dict[str, ChatMember] = PrivateAttr()
    _cached: dict[str, ChatMember] = PrivateAttr()

    @override
    def model_post_init(self, context: Any, /) -> None:
        found = find_members(self.reference, self.candidates, self.prices, read_model)
        given = (self.reference, *self.candidates)
        reference, *candidates = (
            member.model if isinstance(each, str) else each
            for member, each in zip(found, given, strict=True)
        )
        found = tuple(map(once, found))
        self._members = {member.name: member for member in found}
        self._cached = {each.name: cached(each, self.cache) for each in found}
        prices = self.prices | {member.name: member.price for member in found}
        self.__dict__.update(reference=reference, candidates=candidates, prices=prices)
        self._open()

    @override
    def _check_budget(self, budget_usd: float) -> None:
        for member in self._members.values():
            member.check_budget(budget_usd, member.settings(self._defaults))

    @override
    def _read_lanes(self) -> Lanes:
        return Lanes.read(self.lane, self._members)

    @property
    @override
    def _reporting_logprobs(self) -> Iterator[str]:
        for name in self._names[1:]:
            member = self._members[name]
            if reports_logprobs(member.model, member.arguments):
                yield name

    @property
    @override
    def _member_prices(self) -> dict[str, Price]:
        return {name: member.price for name, member in self._members.items()}

    @property
    @override
    def _identities(self) -> list[tuple[str, str]]:
        return [identity_of(member) for member in self._members.values()]

    @property
    def _defaults(self) -> dict[str, Any]:
        """Arguments of every call that the fields set."""
        names = ("temperature", "max_tokens", "timeout", "stop", "max_retries")
        given = {name: getattr(self, name) for name in names}
        return {name: value for name, value in given.items() if value not in (None, [])}

    # -- caches: of the members, never of this model -----------------------------

    @property
    def _requested(self) -> dict[str, ChatMember]:
        """The members as they are called: with their caches, where there are any."""
        return self._called(self._lanes.single)

    def _called(self, in_lanes: Mapping[str, ChatMember]) -> dict[str, ChatMember]:
        """Return the members as they are called, where some are in a lane."""
        models = (member.model for member in self._members.values())
        caches = (get_llm_cache(), self.cache, *(model.cache for model in models))
        if all(cache is None for cache in caches):
            return {**self._members, **in_lanes}
        own = {name: cached(each, self.cache) for name, each in in_lanes.items()}
        return {**self._cached, **own}

    @property
    def _uncached(self) -> SmartChatModel:
        """This model as core runs it."""
        unused = self.cache is None and get_llm_cache() is None
        return self if unused else self.model_copy(update={"cache": False})

    @override
    def generate(self, *args: Any, **kwargs: Any) -> LLMResult:
        return super(SmartChatModel, self._uncached).generate(*args, **kwargs)

    @override
    async def agenerate(self, *args: Any, **kwargs: Any) -> LLMResult:
        return await super(SmartChatModel, self._uncached).agenerate(*args, **kwargs)

    # -- one item at a time ----------------------------------------------------

    @override
    def invoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        def alone() -> AIMessage:
            named = self._named(config, kwargs)
            return super(SmartChatModel, self).invoke(input, **named)

        return self._gathered(partial(self._single, input, config, kwargs), alone)

    @override
    async def ainvoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        async def alone() -> AIMessage:
            await turn()
            named = self._named(config, kwargs)
            return await super(SmartChatModel, self).ainvoke(input, **named)

        return await self._agathered(
            partial(self._single, input, config, kwargs), alone
        )

    @override
    def stream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        return super().stream(input, **self._named(config, kwargs))

    @override
    async def astream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        await turn()
        chunks = super().astream(input, **self._named(config, kwargs))
        async with aclosing(chunks):  # type: ignore[type-var]
            async for chunk in chunks:
                yield chunk

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        run = self._item_run(messages, stop, run_manager, kwargs)
        return result(run, run.answer())

    @override
    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        run = self._item_run(messages, stop, run_manager, kwargs)
        return result(run, await run.aanswer())

    @override
    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        run = self._item_run(messages, stop, run_manager, kwargs)
        for number, chunk in enumerate(run.stream()):
            yield piece(run, chunk, first=number == 0)
        yield ending(run)

    @override
    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        run = self._item_run(messages, stop, run_manager, kwargs)
        first = True
        async with aclosing(run.astream()) as chunks:
            async for chunk in chunks:
                yield piece(run, chunk, first=first)
                first = False
        yield ending(run)

    def _named(
        self, config: RunnableConfig | None, kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        """Return the arguments of a call, its config too, with its run and its task."""
        config, run = started(ensure_config(config), self.callbacks)
        task = named_task(kwargs, config)
        named = {} if task is None else {TASK: task}
        return {**kwargs, **run, **named, "config": config}

    def _item_run(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        run: Run | None,
        kwargs: dict[str, Any],
    ) -> ItemRun:
        run = kwargs.pop(RUN, None) or (run and recorded(run))
        request = Request.read(stop, kwargs, self._defaults)
        given = ChatPromptValue(messages=messages)
        task = request.task or self.task or task_of([given], request, self.name)

        def prompt() -> str:
            systems = [m.content for m in messages if isinstance(m, SystemMessage)]
            return repr((systems, request.tools, request.schema, self._defaults))

        item = self._item(
            request.compared_by(self._serving.rule_of(task)),
            task,
            lambda call: worst_case(
                self._members[call.tier],
                history_for(call.tier, messages, self._names[0]),
                request,
            ),
            named=bool(request.task or self.task),
            model=request.model,
            identities=lambda: self._identities,
            prompt=prompt,
            pinned=self._pinned(given),
        )
        requester = ChatRequester(
            self._requested,
            request,
            given,
            run,
            self.estimate_usage,
            item.allowance,
            task=item.task,
            signals=self._signals,
        )
        return ItemRun(item, requester)

    # -- many items at once ------------------------------------------------------

    @override
    def _read(self, given: LanguageModelInput) -> ChatPromptValue:
        # Members take a prompt value as it is: items are converted once, not per call.
        return ChatPromptValue(messages=self._convert_input(given).to_messages())

    @override
    def _pinned(self, given: ChatPromptValue) -> str | None:
        return first_author(given.messages) if self.sticky else None

    @override
    def _identified(self, given: Any, kwargs: Mapping[str, Any]) -> tuple[str, ...]:
        request = Request.read(None, dict(kwargs), self._defaults)
        sent = [as_sent(message) for message in given.messages]
        content = repr((request.content, request.retries))
        return task_of([given], request, self.name), content, repr(sent)

    @override
    def _job_maker(self, kwargs: dict[str, Any]) -> JobMaker:
        request = Request.read(kwargs.pop("stop", None), kwargs, self._defaults)
        members = self._called(self._lanes.in_batches)
        # What a member cannot take is an error before any call.
        bound = [request.bound_to(member) for member in members.values()]
        shown = {k: v for k, v in kwargs.items() if k != "ls_structured_output_format"}
        shown["stop"] = stop = request.arguments.get("stop")
        options: dict[str, Any] = {"stop": stop}
        if request.schema is not None and request.schema.json_schema is not None:
            options["ls_structured_output_format"] = request.schema.shown
        new_job = partial(
            ChatJob,
            members=members,
            request=request,
            identify=lambda: self._identities,
            manager_settings={
                "local_callbacks": self.callbacks,
                "verbose": self.verbose,
                "local_tags": self.tags,
                "local_metadata": {
                    **self._get_ls_params_with_defaults(**shown),
                    **(self.metadata or {}),
                },
            },
            run_settings={
                "serialized": self._serialized,
                "invocation_params": self._get_invocation_params(**shown),
                "options": options,
            },
            estimates=self.estimate_usage,
            signals=self._signals,
            rate_limiter=self.rate_limiter,
            by_itself={name: self._requested[name] for name in self._lanes.carriers},
            reserved=members | {n: self._members[n] for n in self._lanes.auto},
            output_version=self.output_version,
            alike=all(
                always_alike(settings_of(each.arguments, each.model)) for each in bound
            ),
        )
        name = partial(task_of, request=request, own=self.name)
        return new_job, request.compared_by, name

    # -- tools and structured output -------------------------------------------

    @override
    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: Any = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Offer tools to every member.

        Each member binds the tools in its own form when it is first called, so that
        members may come from different providers.

        Args:
            tools: Tools in any form that the members know.
            tool_choice: Which tool must be called, as the members know it.
            **kwargs: Passed to each member's `bind_tools`.

        Raises:
            ToolsUnsupportedError: If a member cannot call tools; it is named.
        """
        for member in self._members.values():
            if type(member.model).bind_tools is BaseChatModel.bind_tools:
                raise ToolsUnsupportedError(member.name)
        if tool_choice is not None:
            kwargs["tool_choice"] = tool_choice
        names = kwargs.keys() & {"ls_structured_output_format", "model", TASK}
        own = {name: kwargs.pop(name) for name in names}
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
        """Return objects of a schema; they are compared as objects.

        A batch stays in one session, also with `include_raw`.

        Args:
            schema: The schema, in any form that the members know.
            method: How members are asked for it; by default each in its own way.
            include_raw: Return a dict with the message (`raw`), the object (`parsed`)
                and the `parsing_error`, instead of raising it.
            strict: Whether the schema is enforced, where the members know that.
            **kwargs: Passed to each member's `with_structured_output`.

        Raises:
            StructuredOutputError: If a member cannot do that; it is named.
            ToolsUnsupportedError: If a member needs tools for that and cannot call any.
            InvalidInputError: If labels are promised, and no `label_of` reads them.
        """
        self._serving.check_objects()
        chosen = {"method": method, "strict": strict}
        chosen = {name: value for name, value in chosen.items() if value is not None}
        form = Schema(schema, {**chosen, **kwargs})
        for member in self._members.values():
            form.bound_to(member)
        own: dict[str, Any] = {SCHEMA: form}
        if schema is not None:
            own["ls_structured_output_format"] = {"kwargs": chosen, "schema": schema}
        return self.bind(**own) | Parsed(form, include_raw=include_raw)

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
                {
                    "name": member.name,
                    **member.model._identifying_params,  # noqa: SLF001
                    **({"bound": identity(bound).mark} if bound else {}),
                }
                for member in self._members.values()
                for bound in [member.arguments]
            ],
            "max_disagreement": self.max_disagreement,
            "confidence": self.confidence,
            **({"recall": dict(self.recall)} if self.recall else {}),
            **({"precision": dict(self.precision)} if self.precision else {}),
            "strategy": self.strategy,
            "looks": self.looks,
            "equivalence": self._serving.rule.name,
            "seed": self.seed,
            **({} if self.task is None else {"task": self.task}),
            **({"tasks": identity(self.tasks).mark} if self.tasks else {}),
            **self._defaults,
        }

    @override
    def _get_invocation_params(
        self, stop: list[str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        params = super()._get_invocation_params(stop=stop, **kwargs)
        params.pop(RUN, None)
        tools, schema = params.get("tools"), params.pop(SCHEMA, None)
        if isinstance(tools, Tools):
            params.update({**tools.options, "tools": list(tools)})
        if schema is not None:
            params["response_format"] = schema.shown
        return params

    @override
    def _get_ls_params(
        self, stop: list[str] | None = None, **kwargs: Any
    ) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop or self.stop, **kwargs)
        params["ls_provider"] = "smart"
        params.setdefault("ls_model_name", self.get_name())
        return params

    @override
    def _resolve_model_profile(self) -> ModelProfile | None:
        return shared_profile([*self._members.values()])

    @override
    def get_token_ids(self, text: str) -> list[int]:
        return self._reference.get_token_ids(text)

    @override
    def get_num_tokens(self, text: str) -> int:
        """Count tokens as the reference does, or roughly where that fails offline."""
        try:
            return self._reference.get_num_tokens(text)
        except Exception:  # noqa: BLE001 - such as a tokenizer that cannot be fetched
            return math.ceil(len(text) / 4)

    @override
    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[Any] | None = None
    ) -> int:
        """Count tokens as the reference does, or roughly where that fails offline."""
        try:
            return self._reference.get_num_tokens_from_messages(messages, tools)
        except Exception:  # noqa: BLE001 - such as a tokenizer that cannot be fetched
            return count_tokens_approximately(messages)

    @property
    def _reference(self) -> BaseChatModel:
        return self._members[self._names[0]].model
