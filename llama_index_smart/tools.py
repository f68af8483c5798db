"""Tools in a chat: how it begins, and which of them a response calls."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    MessageRole,
    ToolCallBlock,
)
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.llms.utils import parse_partial_json
from llama_index.core.program.function_program import get_function_tool
from llama_index.core.tools import BaseTool, FunctionTool

from smart_engine.errors import UnparseableAnswerError

__all__ = ["calls_in", "classes_of", "conversation", "selected_tools", "tool_calls"]


def conversation(
    history: Sequence[ChatMessage] | None, message: str | ChatMessage | None
) -> list[ChatMessage]:
    """Return the messages of a chat with tools: its history and the new message."""
    messages = list(history or [])
    if isinstance(message, str):
        message = ChatMessage(role=MessageRole.USER, content=message)
    if message is not None:
        messages.append(message)
    return messages


def tool_calls(
    response: ChatResponse | CompletionResponse, *, partial: bool = False
) -> list[ToolSelection]:
    """Return the tools that a response calls, whichever integration wrote it.

    Args:
        response: The response.
        partial: It may still be written: arguments are read as far as they go.

    Raises:
        UnparseableAnswerError: If a call's arguments are no JSON object.
    """
    read = _arguments_so_far if partial else _arguments
    message = getattr(response, "message", None)
    return [
        ToolSelection(tool_id=id_ or "", tool_name=name, tool_kwargs=read(name, given))
        for id_, name, given in (() if message is None else calls_in(message))
    ]


def classes_of(tools: Iterable[BaseTool]) -> dict[str, type[Any]]:
    """Return the classes of tools that only make objects, by the tools' names.

    By such a tool LlamaIndex asks for structured output, whichever verb does.
    """
    return {
        tool.metadata.get_name(): schema
        for tool in tools
        if (schema := tool.metadata.fn_schema) is not None
        and isinstance(tool, FunctionTool)
        and getattr(tool.fn, "__module__", None) == get_function_tool.__module__
    }


def calls_in(message: ChatMessage) -> list[tuple[str | None, str, Any]]:
    """Return the id, the name and the arguments of each call, as they are written."""
    found: list[tuple[str | None, str, Any]] = [
        (block.tool_call_id, block.tool_name, block.tool_kwargs)
        for block in message.blocks
        if isinstance(block, ToolCallBlock)
    ]
    if not found:  # integrations that know no blocks keep the provider's own form
        for call in message.additional_kwargs.get("tool_calls") or []:
            function = _part(call, "function")
            if function is not None:
                name, given = _part(function, "name"), _part(function, "arguments")
                found.append((_part(call, "id"), name or "", given or {}))
    return found


def selected_tools(response: ChatResponse, *, required: bool) -> list[ToolSelection]:
    """Return the tools to call, as `get_tool_calls_from_response` has to.

    Raises:
        ValueError: If there are none, and one is required.
    """
    calls = tool_calls(response, partial=True)
    if required and not calls:
        raise ValueError("expected at least one tool call, but got none")
    return calls


def _part(call: Any, name: str) -> Any:
    return call.get(name) if isinstance(call, Mapping) else getattr(call, name, None)


def _arguments(name: str, given: Any) -> dict[str, Any]:
    try:
        value = json.loads(given or "{}") if isinstance(given, str) else given
    except ValueError as error:
        problem = f"the arguments of {name} are no JSON: {given[:80]!r}"
        raise UnparseableAnswerError(problem) from error
    if not isinstance(value, dict):
        raise UnparseableAnswerError(f"the arguments of {name} are no object")
    return value


def _arguments_so_far(name: str, given: Any) -> dict[str, Any]:  # noqa: ARG001
    if not isinstance(given, str):
        return dict(given)
    try:
        return parse_partial_json(given)
    except (ValueError, TypeError):
        return {}
