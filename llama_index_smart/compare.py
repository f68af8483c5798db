"""How an equivalence reads a response: what it says, or which tools it calls."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ToolCallBlock
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.llms.utils import parse_partial_json

from llama_index_smart.members import Response
from smart_engine.equivalence import Equivalence, Json
from smart_engine.errors import UnparseableAnswerError

__all__ = ["ResponseReading", "calls_in", "selected_tools", "text_of", "tool_calls"]


@dataclass(frozen=True, slots=True)
class ResponseReading:
    """Applies an equivalence to responses.

    Where a response calls tools, its calls are compared, by name and arguments;
    otherwise the texts are. An answer without either, or one that calls what nobody
    offered, cannot be read: a candidate's item then escalates.

    Args:
        inner: The user's equivalence.
        tools: Names of the tools that were offered.
    """

    inner: Equivalence
    tools: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """Name of what is compared."""
        if self.tools:
            return f"same tool calls as JSON, else {self.inner.name}"
        return self.inner.name

    @property
    def keyed(self) -> bool:
        """Whether equal readings mean equal answers."""
        return bool(getattr(self.inner, "keyed", False))

    @property
    def waits(self) -> bool:
        """Whether comparing may wait for an answer from elsewhere."""
        return bool(getattr(self.inner, "waits", False))

    def parse(self, answer: Response) -> tuple[str, Any]:
        """Return which kind of answer it is, and what is compared."""
        calls = tool_calls(answer) if self.tools else []
        for name in (call.tool_name for call in calls):
            if name not in self.tools:
                raise UnparseableAnswerError(f"nobody offered a tool {name!r}")
        if calls:
            told = [{"name": c.tool_name, "args": c.tool_kwargs} for c in calls]
            return "tool calls", Json().parse(told)
        text = text_of(answer)
        if not text.strip():
            raise UnparseableAnswerError("the response has no text")
        return "text", self.inner.parse(text)

    def same(self, left: tuple[str, Any], right: tuple[str, Any]) -> bool:
        """Whether both are of one kind and mean the same."""
        if left[0] != right[0]:
            return False
        if left[0] == "tool calls":
            return bool(left[1] == right[1])
        return self.inner.same(left[1], right[1])


def text_of(response: Response) -> str:
    """Return what a response says."""
    message = getattr(response, "message", None)
    if isinstance(message, ChatMessage):
        return message.content or ""
    return str(getattr(response, "text", "") or "")


def tool_calls(response: Response, *, partial: bool = False) -> list[ToolSelection]:
    """Return the tools that a response calls, whichever integration wrote it.

    Args:
        response: The response.
        partial: It may still be written: arguments are read as far as they go.

    Raises:
        UnparseableAnswerError: If a call's arguments are no JSON object.
    """
    read = _so_far if partial else _arguments
    message = getattr(response, "message", None)
    if message is None:
        return []
    return [
        ToolSelection(
            tool_id=called or "", tool_name=name, tool_kwargs=read(name, given)
        )
        for called, name, given in calls_in(message)
    ]


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


def _part(told: Any, name: str) -> Any:
    """Return a part of a call, which is an object or a mapping."""
    return told.get(name) if isinstance(told, Mapping) else getattr(told, name, None)


def _arguments(name: str, given: Any) -> dict[str, Any]:
    """Return a call's arguments as an object."""
    try:
        value = json.loads(given or "{}") if isinstance(given, str) else given
    except ValueError as error:
        problem = f"the arguments of {name} are no JSON: {given[:80]!r}"
        raise UnparseableAnswerError(problem) from error
    if not isinstance(value, dict):
        raise UnparseableAnswerError(f"the arguments of {name} are no object")
    return value


def _so_far(name: str, given: Any) -> dict[str, Any]:
    """Return what there is of a call's arguments yet."""
    del name
    if not isinstance(given, str):
        return dict(given)
    try:
        return parse_partial_json(given)
    except (ValueError, TypeError):
        return {}


def selected_tools(response: Response, *, required: bool) -> list[ToolSelection]:
    """Return the tools to call, as `get_tool_calls_from_response` is to.

    Raises:
        ValueError: If there are none, and one is required.
    """
    called = tool_calls(response, partial=True)
    if required and not called:
        raise ValueError("expected at least one tool call, but got none")
    return called
