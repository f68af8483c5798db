"""`SmartLLM`: a LlamaIndex LLM that answers as its reference would, for less."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Sequence
from contextvars import copy_context
from typing import Any, TypeVar, cast

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
)
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.tools import BaseTool
from llama_index.core.types import TokenAsyncGen, TokenGen
from smart_engine.runtime.turns import turn
from typing_extensions import override

from llama_index_smart.call import Single
from llama_index_smart.compare import selected_tools
from llama_index_smart.events import told_of
from llama_index_smart.request import TOOLS, Ask, conversation
from llama_index_smart.self_agreement import SelfAgreeing
from llama_index_smart.tasks import asking_with

__all__ = ["SmartLLM"]

R = TypeVar("R")
_END = object()


class SmartLLM(SelfAgreeing):
    """An LLM that answers as its reference would, for less.

    Put it into `Settings.llm`, or hand it to a query engine, chat engine, extractor,
    evaluator or agent. Each prompt template is a task, and each task a stream: with
    probability `confidence`, after every answer, at most the share `max_disagreement`
    of the task's answers so far differs from what the reference would have said.
    `report().streams` says where each stream stands. Jobs of many items have
    `chat_batch` and `complete_batch`: the whole batch is one session, which costs less.

    Each response says in `additional_kwargs["smart"]` which `model` answered, in which
    `role` (`profiled`, `applied`, `escalated`, `reference`, `shadow`, `named` or
    `uncertified`), for which `task`, what the item `cost` and what it `saved`
    (estimated) in USD, and the id of the batch's `certificate`. Its token counts are
    those of all models asked.

    Answers are compared by their texts; where tools were called, by the calls. Every
    verb takes `smart_task="…"`, which names the task, and `smart_model="…"`, which
    names the member that must answer.

    Args:
        reference: The LLM whose answers define "right": LlamaIndex's, or a LangChain
            chat model.
        candidates: Cheaper LLMs that may stand in for it.
        max_disagreement: Tolerated share of differing answers.
        confidence: Probability with which that holds.
        strategy: `"audit"`, `"mix"`, `"efficient"`, `"exhaustive"` or `"reference"`.
        looks: `"corrected"` keeps the promise; `"paper"` is the paper's way.
        mode: `"serve"`; or `"shadow"`: every model is asked about every item, the
            reference answers, and `report().shadows` says what streams would have
            served and saved; `"strict"`: see `budget_usd`.
        budget_usd: The most that a batch, and a task's stream, may cost; calls in
            flight are counted with the most they can cost, so each member's answers
            must be limited by `max_tokens`. Where it ends, what had been bought is
            handed out, marked `uncertified`; items without an answer, and with
            `mode="strict"` all items that the guarantee does not cover, raise
            `BudgetExceededError`. What cannot be foreseen is refused here, unless it is
            free: a judge, a picture, sound or a file in a message.
        equivalence: When two answers mean the same: `Normalized()`, `Exact()`,
            `Label([...])`, `Number(...)`, `Json()`, or a function of two texts.
        prices: Model name → `Price` in USD per million tokens.
        seed: Seed of all randomness.
        max_concurrency: Most calls of a batch in flight at once.
        progress: Whether a bar shows where a batch stands: what is settled, spent
            and saved, and how many answers may differ, of those allowed.
        task: Name of the task, if all that is asked is one task.
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
        estimate_usage: Where an LLM reports no usage that can be priced, estimate it
            from what was sent and said, and mark what rests on that: as `estimated` in
            each response's `additional_kwargs["smart"]` (USD), in ledger, certificates
            and report. Otherwise such a call has failed. An answer that broke off is
            estimated as far as it came. Hidden reasoning is in no estimate, for nobody
            sees it: of an LLM that thinks, the real cost is higher.
        books: The books of another smart model, to keep them together.

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

    # -- one item at a time ----------------------------------------------------

    @override
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return self._whole(Ask.chat(messages, kwargs))

    @override
    async def achat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponse:
        return await self._awhole(Ask.chat(messages, kwargs))

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
        return self._whole(Ask.completion(prompt, {"formatted": formatted, **kwargs}))

    @override
    async def acomplete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponse:
        ask = Ask.completion(prompt, {"formatted": formatted, **kwargs})
        return await self._awhole(ask)

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

    def _whole(self, ask: Ask[R]) -> R:
        """Answer an item."""
        if self.rate_limiter is not None:
            self.rate_limiter.acquire()
        with told_of(self.callback_manager, ask, self.to_payload()) as event:
            event.response = self._single(ask).whole()
        return cast("R", event.response)

    async def _awhole(self, ask: Ask[R]) -> R:
        """Answer an item."""
        await turn(asyncio.get_running_loop())
        if self.rate_limiter is not None:
            await self.rate_limiter.async_acquire()
        with told_of(self.callback_manager, ask, self.to_payload()) as event:
            event.response = await self._single(ask).awhole()
        return cast("R", event.response)

    def _pieces(self, ask: Ask[R]) -> Generator[R]:
        """Answer an item piece by piece."""
        single = self._single(ask)  # now: the task is that of whoever asks

        def pieces() -> Generator[R]:
            if self.rate_limiter is not None:
                self.rate_limiter.acquire()
            with told_of(self.callback_manager, ask, self.to_payload()) as event:
                for piece in single.pieces():
                    event.response = piece
                    yield cast("R", piece)

        return pieces()

    def _apieces(self, ask: Ask[R]) -> AsyncGenerator[R]:
        """Answer an item piece by piece."""
        single = self._single(ask)

        async def pieces() -> AsyncGenerator[R]:
            await turn(asyncio.get_running_loop())
            if self.rate_limiter is not None:
                await self.rate_limiter.async_acquire()
            with told_of(self.callback_manager, ask, self.to_payload()) as event:
                answer = single.apieces()
                try:
                    async for piece in answer:
                        event.response = piece
                        yield cast("R", piece)
                finally:
                    await answer.aclose()

        return pieces()

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

    @override
    def predict(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        with asking_with(prompt, self):
            return super().predict(prompt, **prompt_args)

    @override
    async def apredict(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        with asking_with(prompt, self):
            return await super().apredict(prompt, **prompt_args)

    @override
    def stream(self, prompt: BasePromptTemplate, **prompt_args: Any) -> TokenGen:
        with asking_with(prompt, self):
            return super().stream(prompt, **prompt_args)

    @override
    async def astream(
        self, prompt: BasePromptTemplate, **prompt_args: Any
    ) -> TokenAsyncGen:
        with asking_with(prompt, self):
            return await super().astream(prompt, **prompt_args)

    @override
    def structured_predict(
        self, output_cls: type[Any], prompt: Any, *args: Any, **prompt_args: Any
    ) -> Any:
        with asking_with(prompt, self, output_cls):
            return super().structured_predict(output_cls, prompt, *args, **prompt_args)

    @override
    async def astructured_predict(
        self, output_cls: type[Any], prompt: Any, *args: Any, **prompt_args: Any
    ) -> Any:
        with asking_with(prompt, self, output_cls):
            return await super().astructured_predict(
                output_cls, prompt, *args, **prompt_args
            )

    @override
    def stream_structured_predict(
        self, output_cls: type[Any], prompt: Any, *args: Any, **prompt_args: Any
    ) -> Generator[Any]:
        # The call is made when the first object is asked for, not now.
        with asking_with(prompt, self, output_cls):
            context = copy_context()
        objects = super().stream_structured_predict(
            output_cls, prompt, *args, **prompt_args
        )
        try:
            while (found := context.run(next, objects, _END)) is not _END:
                yield found
        finally:
            context.run(objects.close)

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
                    with asking_with(prompt, self, output_cls):
                        found = await anext(objects, _END)
                    if found is _END:
                        return
                    yield found
            finally:
                await objects.aclose()

        return named()

    def _single(self, ask: Ask[Any]) -> Single:
        """Return one item, ready to be answered."""
        task = self._task_of([ask])
        item = self._item(ask, task)
        return Single(ask, item, self._by_name, self._estimate(ask))
