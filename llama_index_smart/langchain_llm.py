"""A LangChain chat model as a LlamaIndex LLM, so that one set of models serves both."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, aclosing, nullcontext
from typing import Any

from langchain_core.caches import BaseCache
from langchain_core.globals import get_llm_cache
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.ai import UsageMetadata
from langsmith import tracing_context
from llama_index.core.base.llms.generic_utils import (
    achat_to_completion_decorator,
    astream_chat_to_completion_decorator,
    chat_to_completion_decorator,
    stream_chat_to_completion_decorator,
)
from llama_index.core.base.llms.types import (
    CachePoint,
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    ImageBlock,
    LLMMetadata,
    LogProb,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.llms.callbacks import llm_chat_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.tools import BaseTool
from pydantic import Field, PrivateAttr
from typing_extensions import override

from llama_index_smart.history import ANSWERING
from llama_index_smart.tools import conversation, selected_tools, tool_calls
from smart_engine.errors import InvalidInputError
from smart_engine.money.usage import from_cache
from smart_engine.runtime.clients import reporting
from smart_engine.runtime.lanes.exchange import only_reading, only_writing
from smart_engine.serving.members import model_identity

__all__ = ["LangChainLLM"]

_NO_CONTENT = (CachePoint, ThinkingBlock, ToolCallBlock)
_CALLS = "tool_calls"

_CONTEXT = 3900
"""Context window where a model's profile has none: LlamaIndex's own default."""


class LangChainLLM(FunctionCallingLLM):
    """A LangChain chat model that LlamaIndex can use.

    `SmartLLM` wraps the LangChain models it is given by itself.

    Args:
        model: The chat model.

    Example:
        ```python
        from langchain_core.language_models import FakeListChatModel

        llm = LangChainLLM(model=FakeListChatModel(responses=["yes"]))
        assert llm.complete("Is it?").text == "yes"
        ```
    """

    model: BaseChatModel = Field(exclude=True, repr=False)
    _mark: str | None = PrivateAttr(default=None)

    @override
    def model_post_init(self, context: Any, /) -> None:
        self.model = reporting(self.model)

    @classmethod
    @override
    def class_name(cls) -> str:
        return "LangChainLLM"

    @property
    @override
    def metadata(self) -> LLMMetadata:
        profile = self.model.profile or {}
        official = self.model._get_ls_params().get("ls_model_name")  # noqa: SLF001
        binds = type(self.model).bind_tools is not BaseChatModel.bind_tools
        return LLMMetadata(
            context_window=profile.get("max_input_tokens", _CONTEXT),
            num_output=profile.get("max_output_tokens", -1),
            is_chat_model=True,
            is_function_calling_model=binds and profile.get("tool_calling", True),
            model_name=self.model.name or official or type(self.model).__name__,
        )

    # -- chat ------------------------------------------------------------------

    @override
    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        model, arguments = self._bound(kwargs)
        with _traced_once():
            return _response(model.invoke(self._messages(messages), **arguments))

    @override
    @llm_chat_callback()
    async def achat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponse:
        model, arguments = self._bound(kwargs)
        with _traced_once():
            return _response(await model.ainvoke(self._messages(messages), **arguments))

    @override
    @llm_chat_callback()
    def stream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponseGen:
        model, arguments = self._bound(kwargs)
        chunks = model.stream(self._messages(messages), **arguments)

        def pieces() -> ChatResponseGen:
            whole: AIMessageChunk | None = None
            for chunk in chunks:
                whole = chunk if whole is None else whole + chunk
                yield _response(whole, str(chunk.text))

        return pieces()

    @override
    @llm_chat_callback()
    async def astream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponseAsyncGen:
        model, arguments = self._bound(kwargs)
        chunks = model.astream(self._messages(messages), **arguments)

        async def pieces() -> ChatResponseAsyncGen:
            whole: AIMessageChunk | None = None
            async with aclosing(chunks):
                async for chunk in chunks:
                    whole = chunk if whole is None else whole + chunk
                    yield _response(whole, str(chunk.text))

        return pieces()

    # -- complete: a chat of one message ---------------------------------------

    @override
    def complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponse:
        return chat_to_completion_decorator(self.chat)(prompt, **kwargs)

    @override
    async def acomplete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponse:
        return await achat_to_completion_decorator(self.achat)(prompt, **kwargs)

    @override
    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseGen:
        return stream_chat_to_completion_decorator(self.stream_chat)(prompt, **kwargs)

    @override
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        answer = astream_chat_to_completion_decorator(self.astream_chat)
        return await answer(prompt, **kwargs)

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
        if tool_required and kwargs.get("tool_choice") is None:
            kwargs["tool_choice"] = "any"
        specs = [tool.metadata.to_openai_tool(skip_length_check=True) for tool in tools]
        return {"messages": messages, "tools": specs, **kwargs}

    @override
    def _validate_chat_with_tools_response(
        self,
        response: ChatResponse,
        tools: Sequence[BaseTool],
        allow_parallel_tool_calls: bool = False,
        **kwargs: Any,
    ) -> ChatResponse:
        calls = [b for b in response.message.blocks if isinstance(b, ToolCallBlock)]
        if allow_parallel_tool_calls or len(calls) < 2:
            return response
        rest = [b for b in response.message.blocks if b not in calls]
        with_call = {**response.message.additional_kwargs, _CALLS: calls[:1]}
        update = {"blocks": [*rest, calls[0]], "additional_kwargs": with_call}
        message = response.message.model_copy(update=update)
        return response.model_copy(update={"message": message})

    @override
    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[Any]:
        return selected_tools(response, required=error_on_no_tool_call)

    def _messages(self, messages: Sequence[ChatMessage]) -> list[BaseMessage]:
        """Return messages in LangChain's form.

        Where a cache may answer, the first one names the model, in metadata that no
        model is sent: LangChain's keys do not tell all models apart.
        """
        sent = [*map(_message, messages)]
        if sent and _cache_of(self.model) is not None:
            if self._mark is None:
                self._mark = model_identity(self.model).mark
            sent[0].response_metadata["model"] = self._mark
        return sent

    def _bound(self, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Return the model with its tools, and the other arguments of the call."""
        arguments, model = dict(kwargs), self.model
        if only_writing() and (model.callbacks or model.verbose):
            model = model.model_copy(update={"callbacks": None, "verbose": False})
        cache = _cache_of(model)
        if only_reading() and cache is not None:
            model = model.model_copy(update={"cache": _FilledCache(cache)})
        tools, choice = arguments.pop("tools", None), arguments.pop("tool_choice", None)
        if not tools:
            return model, arguments
        chosen = {} if choice is None else {"tool_choice": choice}
        return model.bind_tools(tools, **chosen), arguments


def _cache_of(model: BaseChatModel) -> BaseCache | None:
    """Return the cache that a model uses, if any."""
    if isinstance(model.cache, BaseCache):
        return model.cache
    return None if model.cache is False else get_llm_cache()


class _FilledCache(BaseCache):
    """A cache that is filled, but not asked.

    A reply that a batch has brought is read and paid for, though an equal one may be in
    the cache by now.
    """

    def __init__(self, cache: BaseCache) -> None:
        self._cache = cache

    @override
    def lookup(self, prompt: str, llm_string: str) -> None:
        return None

    @override
    async def alookup(self, prompt: str, llm_string: str) -> None:
        return None

    @override
    def update(self, prompt: str, llm_string: str, return_val: Any) -> None:
        self._cache.update(prompt, llm_string, return_val)

    @override
    async def aupdate(self, prompt: str, llm_string: str, return_val: Any) -> None:
        await self._cache.aupdate(prompt, llm_string, return_val)

    @override
    def clear(self, **kwargs: Any) -> None:
        self._cache.clear(**kwargs)


def _traced_once() -> AbstractContextManager[None]:
    """Trace no call that is made for its request alone."""
    return tracing_context(enabled=False) if only_writing() else nullcontext()


def _message(message: ChatMessage) -> BaseMessage:
    """Return a message in LangChain's form."""
    content = _content(message)
    if message.role in {MessageRole.SYSTEM, MessageRole.DEVELOPER}:
        return SystemMessage(content)
    if message.role in {MessageRole.TOOL, MessageRole.FUNCTION}:
        answered = message.additional_kwargs.get("tool_call_id", "")
        return ToolMessage(content, tool_call_id=answered)
    if message.role in ANSWERING:
        calls = [
            {"name": c.tool_name, "args": c.tool_kwargs, "id": c.tool_id}
            for c in tool_calls(ChatResponse(message=message))
        ]
        return AIMessage(content, tool_calls=calls)
    return HumanMessage(content)


def _content(message: ChatMessage) -> Any:
    """Return a message's text, or its parts if it has pictures.

    Raises:
        InvalidInputError: If it has parts that would be lost on the way.
    """
    parts: list[dict[str, Any]] = []
    for block in message.blocks:
        if isinstance(block, TextBlock):
            parts.append({"type": "text", "text": block.text})
        elif isinstance(block, ImageBlock):
            url = str(block.url or block.inline_url())
            parts.append({"type": "image_url", "image_url": {"url": url}})
        elif not isinstance(block, _NO_CONTENT):
            hint = "a LangChain model is given texts, pictures and tool calls only"
            raise InvalidInputError("messages", block, hint)
    if all(part["type"] == "text" for part in parts):
        return message.content or ""
    return parts


def _response(message: AIMessage, delta: str | None = None) -> ChatResponse:
    """Return a LangChain message in LlamaIndex's form."""
    calls = [  # arguments that are no JSON stay texts: their reader sees it
        ToolCallBlock(
            tool_call_id=call["id"],
            tool_name=call["name"] or "",
            tool_kwargs="" if call["args"] is None else call["args"],
        )
        for call in (*message.tool_calls, *message.invalid_tool_calls)
    ]
    usage = message.usage_metadata
    counts = _counts(usage)
    details: Any = {"total_cost": 0} if from_cache(usage) else usage or {}
    tokens = (message.response_metadata.get("logprobs") or {}).get("content") or []
    logprobs = [
        [LogProb(token=t["token"], logprob=t["logprob"], bytes=[])] for t in tokens
    ]
    answer = ChatMessage(
        role=MessageRole.ASSISTANT,
        blocks=[TextBlock(text=str(message.text)), *calls],
        additional_kwargs={_CALLS: calls} if calls else {},  # core looks there
    )
    return ChatResponse(
        message=answer,
        delta=delta,
        raw={
            **message.response_metadata,
            **({"usage": {**details, **counts}} if counts else {}),
        },
        logprobs=logprobs or None,
        additional_kwargs=counts,
    )


def _counts(usage: UsageMetadata | None) -> dict[str, int]:
    """Return the totals of a usage under LlamaIndex's names, if there are any."""
    if usage is None:
        return {}
    totals = (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"])
    if from_cache(usage):  # what came from a cache used nothing
        totals = (0, 0, 0)
    elif not usage["input_tokens"]:
        return {}  # no call reads nothing: the model has not counted
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    return dict(zip(names, totals, strict=True))
