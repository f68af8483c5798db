"""How an equivalence reads what a chain puts out: a text, a message or an object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage

from langchain_smart.chat.compare import MessageReading
from smart_engine.equivalence import Equivalence, Json, Number
from smart_engine.errors import UnparseableAnswerError

__all__ = ["OutputReading", "compared_outputs"]


def compared_outputs(rule: Equivalence) -> Equivalence:
    """Return how outputs are compared; a rule of the user's own gets them as they are.

    Args:
        rule: The user's equivalence.
    """
    readable = isinstance(rule, Json) or getattr(rule, "reads_text", False)
    return OutputReading(rule) if readable else rule


@dataclass(frozen=True, slots=True)
class OutputReading:
    """Applies an equivalence of texts to whatever comes out of a chain.

    Texts are compared by the rule; messages by their tool calls, or else their texts;
    everything else as JSON, in which a message counts by what it says and calls, for
    its id and its usage tell nothing.

    Args:
        inner: The user's equivalence.
    """

    inner: Equivalence

    @property
    def name(self) -> str:
        """Name of what is compared."""
        own = self.inner.name
        return own if isinstance(self.inner, Json) else f"{own}; objects as JSON"

    @property
    def keyed(self) -> bool:
        """Whether equal readings mean equal answers."""
        return bool(getattr(self.inner, "keyed", False))

    @property
    def waits(self) -> bool:
        """Whether comparing may wait for an answer from elsewhere."""
        return bool(getattr(self.inner, "waits", False))

    def parse(self, answer: Any) -> tuple[str, Any]:
        """Return which kind of answer it is, and what is compared."""
        if isinstance(answer, AIMessage):
            return MessageReading(self.inner).parse(answer)
        if isinstance(answer, BaseMessage):
            return "text", self.inner.parse(str(answer.text))
        if isinstance(answer, str):
            if not answer.strip():
                raise UnparseableAnswerError("the text is empty")
            return "text", self.inner.parse(answer)
        if isinstance(self.inner, Number) and isinstance(answer, int | float):
            return "text", self.inner.parse(answer)
        return "object", Json().parse(_without_ids(answer))

    def same(self, left: tuple[str, Any], right: tuple[str, Any]) -> bool:
        """Whether both are of one kind and mean the same."""
        return MessageReading(self.inner).same(left, right)


def _without_ids(value: Any) -> Any:
    """Return a value whose messages are only what they say and call."""
    if isinstance(value, BaseMessage):
        calls = getattr(value, "tool_calls", [])
        told = [{"name": call["name"], "args": call["args"]} for call in calls]
        return {"type": value.type, "text": str(value.text), "tool_calls": told}
    if isinstance(value, Mapping):
        return {key: _without_ids(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_ids(part) for part in value]
    return value
