"""A LangChain chat model as a LlamaIndex LLM, so that one set of models serves both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from llama_index.core.base.llms.generic_utils import (
    achat_to_completion_decorator,
    astream_chat_to_completion_decorator,
    chat_to_completion_decorator,
    stream_chat_to_completion_decorator,
)
from llama_index.core.base.llms.types import (
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
    ToolCallBlock,
)
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.tools import BaseTool
from pydantic import Field
from typing_extensions import override

from llama_index_smart.readings import selected_tools, tool_calls

__all__ = ["LangChainLLM"]

_CONTEXT = 3900
"""Context window where a model's profile tells none: LlamaIndex's own default."""


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
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        model, arguments = self._bound(kwargs)
        return _response(model.invoke(_to_langchain(messages), **arguments))

    @override
    async def achat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponse:
        model, arguments = self._bound(kwargs)
        return _response(await model.ainvoke(_to_langchain(messages), **arguments))

    @override
    def stream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponseGen:
        model, arguments = self._bound(kwargs)
        chunks = model.stream(_to_langchain(messages), **arguments)

        def pieces() -> ChatResponseGen:
            whole: AIMessageChunk | None = None
            for chunk in chunks:
                whole = chunk if whole is None else whole + chunk
                yield _response(whole, str(chunk.text))

        return pieces()

    @override
    async def astream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponseAsyncGen:
        model, arguments = self._bound(kwargs)
        chunks = model.astream(_to_langchain(messages), **arguments)

        async def pieces() -> ChatResponseAsyncGen:
            whole: AIMessageChunk | None = None
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
        messages = list(chat_history or [])
        if isinstance(user_msg, str):
            user_msg = ChatMessage(role=MessageRole.USER, content=user_msg)
        if user_msg is not None:
            messages.append(user_msg)
        if tool_required:
            kwargs.setdefault("tool_choice", "any")
        specs = [tool.metadata.to_openai_tool(skip_length_check=True) for tool in tools]
        return {"messages": messages, "tools": specs, **kwargs}

    @override
    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[Any]:
        return selected_tools(response, required=error_on_no_tool_call)

    def _bound(self, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Return the model with its tools, and the other arguments of the call."""
        arguments = dict(kwargs)
        tools, choice = arguments.pop("tools", None), arguments.pop("tool_choice", None)
        if not tools:
            return self.model, arguments
        chosen = {} if choice is None else {"tool_choice": choice}
        return self.model.bind_tools(tools, **chosen), arguments


def _to_langchain(messages: Sequence[ChatMessage]) -> list[BaseMessage]:
    """Return messages as LangChain knows them."""
    return [_message(message) for message in messages]


def _message(message: ChatMessage) -> BaseMessage:
    """Return a message as LangChain knows it."""
    content = _content(message)
    if message.role in {MessageRole.SYSTEM, MessageRole.DEVELOPER}:
        return SystemMessage(content)
    if message.role == MessageRole.TOOL:
        called = message.additional_kwargs.get("tool_call_id", "")
        return ToolMessage(content, tool_call_id=called)
    if message.role == MessageRole.ASSISTANT:
        calls = [
            {"name": c.tool_name, "args": c.tool_kwargs, "id": c.tool_id}
            for c in tool_calls(ChatResponse(message=message))
        ]
        return AIMessage(content, tool_calls=calls)
    return HumanMessage(content)


def _content(message: ChatMessage) -> Any:
    """Return a message's text, or its parts if it has pictures."""
    if not any(isinstance(block, ImageBlock) for block in message.blocks):
        return message.content or ""
    parts: list[dict[str, Any]] = []
    for block in message.blocks:
        if isinstance(block, TextBlock):
            parts.append({"type": "text", "text": block.text})
        elif isinstance(block, ImageBlock):
            url = str(block.url or block.inline_url())
            parts.append({"type": "image_url", "image_url": {"url": url}})
    return parts


def _response(message: AIMessage, delta: str | None = None) -> ChatResponse:
    """Return a LangChain message as LlamaIndex knows it."""
    blocks: list[Any] = [TextBlock(text=str(message.text))]
    blocks += [
        ToolCallBlock(
            tool_call_id=call["id"], tool_name=call["name"], tool_kwargs=call["args"]
        )
        for call in message.tool_calls
    ]
    told: dict[str, Any] = {}
    if message.usage_metadata is not None:
        told = {
            "prompt_tokens": message.usage_metadata["input_tokens"],
            "completion_tokens": message.usage_metadata["output_tokens"],
            "total_tokens": message.usage_metadata["total_tokens"],
        }
    content = (message.response_metadata.get("logprobs") or {}).get("content") or []
    logprobs = [
        [LogProb(token=t["token"], logprob=t["logprob"], bytes=[])] for t in content
    ]
    calls = {"tool_calls": blocks[1:]} if message.tool_calls else {}  # core looks there
    said = {"role": MessageRole.ASSISTANT, "blocks": blocks}
    return ChatResponse(
        message=ChatMessage(**said, additional_kwargs=calls),
        delta=delta,
        raw={"usage": told or None, **message.response_metadata},
        logprobs=logprobs or None,
        additional_kwargs=told,
    )
