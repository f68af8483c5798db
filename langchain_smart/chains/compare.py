"""How outputs of chains are compared: as texts, messages or objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from typing_extensions import override

from langchain_smart.chat.compare import MessageReading
from smart_engine.equivalence import Equivalence, Json, Number
from smart_engine.errors import UnparseableAnswerError

__all__ = ["OutputReading", "compared_outputs"]


def compared_outputs(rule: Equivalence) -> Equivalence:
    """Return how outputs are compared; a user's own rule gets them unchanged."""
    readable = isinstance(rule, Json) or getattr(rule, "reads_text", False)
    return OutputReading(rule) if readable else rule


@dataclass(frozen=True, slots=True)
class OutputReading(MessageReading):
    """Reads any output of a chain.

    Messages are read as by `MessageReading`; what is no text and no message is an
    object, in which a message counts by its text and its tool calls only.

    Args:
        inner: The user's equivalence.
    """

    @property
    @override
    def name(self) -> str:
        own = self.inner.name
        return own if isinstance(self.inner, Json) else f"{own}; objects as JSON"

    @override
    def read(self, answer: Any) -> tuple[str, Any]:
        if isinstance(answer, AIMessage):
            return MessageReading.read(self, answer)
        if isinstance(answer, BaseMessage):
            return "text", str(answer.text)
        if isinstance(answer, str) and not answer.strip():
            raise UnparseableAnswerError("the text is empty")
        number = isinstance(self.inner, Number) and isinstance(answer, int | float)
        if number or isinstance(answer, str):
            return "text", answer
        return "objects", [_without_ids(answer)]


def _without_ids(value: Any) -> Any:
    """Return a value whose messages are reduced to their texts and tool calls."""
    if isinstance(value, BaseMessage):
        calls = getattr(value, "tool_calls", [])
        made = [{"name": call["name"], "args": call["args"]} for call in calls]
        return {"type": value.type, "text": str(value.text), "tool_calls": made}
    if isinstance(value, Mapping):
        return {key: _without_ids(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_ids(part) for part in value]
    return value
