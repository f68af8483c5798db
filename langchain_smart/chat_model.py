"""`SmartChatModel`: a chat model that answers as the reference would, for less."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import (
    Runnable,
    RunnableConfig,
    ensure_config,
)
from langchain_core.tools import BaseTool
from pydantic import BaseModel
from typing_extensions import override

from langchain_smart.bounds import most
from langchain_smart.chat_batches import ChatBatches
from langchain_smart.chat_items import ChatAsker, as_chunk, ending, piece, result
from langchain_smart.requests import SCHEMA, TASK
from langchain_smart.runs import RUN, Run, begun
from langchain_smart.singles import Single
from langchain_smart.structured import Parsed, Schema
from langchain_smart.tasks import fingerprint, named_task
from langchain_smart.tools import Tools, refuse_without_tools
from smart_engine.calls import Call
from smart_engine.runtime.turns import turn
from smart_engine.serving.item import SingleItem

__all__ = ["SmartChatModel"]


class SmartChatModel(ChatBatches):
    """A chat model that answers as its reference would, for less.

    `batch` and `abatch` hand the whole batch to one session: some items are answered
    by the reference and by the candidates, to learn who agrees with whom; the rest
    goes to the cheapest mix of models under which, with probability `confidence`, at
    most the share `max_disagreement` of the answers differs from the reference's. This
    works behind a prompt, before a parser, and through `.bind()`, `.with_config()`,
    `.with_retry()` and `.with_fallbacks()`.

    One item at a time (`invoke`, `stream`, and whatever calls them) belongs to its
    task's stream: with the same probability, after every answer, at most that share of
    the task's answers so far differs. `report().streams` says where each stream stands.
    With `strategy="reference"` the reference answers; `model="…"` names another member.

    Each answer says in `response_metadata["smart"]` which `model` answered, in which
    `role` (`profiled`, `applied`, `escalated`, `reference`, `shadow` or `named`), for
    which `task`, what the item `cost` and what it `saved` (estimated) in USD, and the
    id of the batch's `certificate`.

    Answers are compared by their texts; where tools were called, by the calls; where
    an object was asked for with `with_structured_output`, by the objects.

    Args:
        reference: The model whose answers define "right": a chat model, or a string
            for `init_chat_model`.
        candidates: Cheaper models that may stand in for it, the same way.
        max_disagreement: Tolerated share of differing answers.
        confidence: Probability with which that holds.
        strategy: `"audit"`, `"mix"`, `"efficient"`, `"exhaustive"` or `"reference"`.
        looks: `"corrected"` keeps the promise; `"paper"` is the paper's way.
        mode: `"serve"`; `"shadow"`: every model is asked about every item, the
            reference answers, and `report().shadows` says what streams would have
            served and saved; `"strict"`: see `budget_usd`.
        budget_usd: The most that a batch, all its tasks together, and the stream of a
            task may cost; calls in flight are counted with the most they can cost, so
            answers must be limited by `max_tokens`. Where it ends, what had been bought
            is handed out, marked `uncertified`; items without an answer, and with
            `mode="strict"` all items that the guarantee does not cover, raise
            `BudgetExceededError`. What cannot be foreseen is refused here, unless it is
            free: a judge, a picture, sound or a file in a message, a tool that the
            provider runs.
        equivalence: When two answers mean the same: `Normalized()`, `Exact()`,
            `Label([...])`, `Number(...)`, `Json()`, or a function of two texts. Objects
            are compared as JSON, or by a function of yours.
        prices: Model name → `Price` in USD per million tokens.
        seed: Seed of all randomness.
        max_concurrency: Most calls in flight at once, where the config sets none; the
            audit sizes its waves by it.
        progress: Whether a bar shows where a batch stands: what is settled, spent
            and saved, and how many answers may differ, of those allowed.
        task: Name of the task, where neither the call (`bind(smart_task=…)`) nor its
            config (`configurable` or `metadata`) gives one. A batch whose items name
            different tasks is answered in one session a task.
        temperature: Handed to every member with each call, as are the next three.
        max_tokens: Most tokens of an answer.
        timeout: Seconds that a call may take.
        stop: Where an answer is cut off.
        max_retries: How often a member's call that failed is made again, beside the
            member's own retries, where waiting may help.
        streaming: Whether `invoke` streams, too.
        store: A file or a database (`Store`) in which batches and streams outlive the
            process. The same batch, begun again after whatever ended it, buys nothing
            twice and ends as it would have. A task's stream goes on where it was, and
            several processes, on several machines if the database is a server, work on
            one: its promise and its `budget_usd` are kept by all of them together. It
            is good for the same task, models with their settings, system message,
            tools, schema, `equivalence`, guarantee and seed; anything else begins anew,
            with a warning that says why. A process that is killed costs the stream only
            the room for its open items, taken at their worst. What was asked is not
            stored, nor are the answers of a stream.
        accept_noise: Serve also where `self_agreement` found that the reference differs
            from itself on more items than `max_disagreement` allows.
        estimate_usage: Where a model reports no usage that can be priced, estimate it
            from what was sent and said, and mark what rests on that: as `estimated` in
            each answer's `response_metadata["smart"]` (USD), in ledger, certificates
            and report. Otherwise such a call has failed. An answer that broke off is
            estimated as far as it came. Hidden reasoning is in no estimate, for nobody
            sees it: of a model that thinks, the real cost is higher.
        books: The books of another smart model, to keep them together.

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
        config, kwargs = _told(config, kwargs)
        return super().invoke(input, config, stop=stop, **kwargs)

    @override
    async def ainvoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        await turn(asyncio.get_running_loop())
        config, kwargs = _told(config, kwargs)
        return await super().ainvoke(input, config, stop=stop, **kwargs)

    @override
    def stream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        config, kwargs = _told(config, kwargs)
        return super().stream(input, config, stop=stop, **kwargs)

    @override
    async def astream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        await turn(asyncio.get_running_loop())
        config, kwargs = _told(config, kwargs)
        chunks = super().astream(input, config, stop=stop, **kwargs)
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
        single = self._single(messages, stop, run_manager, kwargs)
        return result(single, single.ask())

    @override
    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        single = self._single(messages, stop, run_manager, kwargs)
        return result(single, await single.aask())

    @override
    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        single = self._single(messages, stop, run_manager, kwargs)
        for number, chunk in enumerate(single.stream()):
            yield piece(single, as_chunk(chunk), first=number == 0)
        yield ending(single)

    @override
    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        single = self._single(messages, stop, run_manager, kwargs)
        first = True
        async with aclosing(single.astream()) as chunks:
            async for chunk in chunks:
                yield piece(single, as_chunk(chunk), first=first)
                first = False
        yield ending(single)

    def _single(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        run: Run | None,
        kwargs: dict[str, Any],
    ) -> Single:
        """Return one item, ready to be answered."""
        run = run or kwargs.pop(RUN, None)
        request = self._request(stop, kwargs)
        task = request.task or self.task or fingerprint([messages], request)
        terms = self._terms
        rule = request.reading(terms.rule)
        members = {member.name: member for member in self._members}

        def bounded(call: Call) -> float:
            return most(members[call.tier], messages, request)

        keeping = self._keeping(messages, request)
        router = terms.router(self._books, rule, task, request.model, bounded, keeping)
        item = SingleItem(router, self._books, terms.models[0], task)
        asker = ChatAsker(
            members,
            request.put_to,
            messages,
            item.repeated,
            run,
            self._estimate(messages, request),
        )
        return Single(item, asker)


def _told(
    config: RunnableConfig | None, kwargs: dict[str, Any]
) -> tuple[RunnableConfig, dict[str, Any]]:
    """Return config and arguments of a call that tell its task and its run."""
    config, run = begun(ensure_config(config))
    task = named_task(kwargs, config)
    return config, {**kwargs, **run, **({} if task is None else {TASK: task})}
