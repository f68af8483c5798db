"""How messages are compared: by their text, their tool calls or their object."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, message_chunk_to_message
from typing_extensions import override

from langchain_smart.chat.structured import Schema, object_of
from langchain_smart.chat.tools import Tools
from smart_engine.equivalence.kinds import ByKind, refuse_incomplete
from smart_engine.errors import UnparseableAnswerError
from smart_engine.serving.answer_text import as_text

__all__ = ["MessageReading", "read_answer", "write_answer"]


@dataclass(frozen=True, slots=True)
class MessageReading(ByKind):
    """Reads messages: their tool calls, the object that was asked for, or their texts.

    A refusal, an empty message, a call of a tool that was not offered and an object
    that does not fit the schema cannot be read: a candidate's item then escalates to
    the reference. A single call of a tool that only makes an object is that object.

    Args:
        inner: The user's equivalence.
        schema: The object that was asked for.
        tools: The tools that were offered.
    """

    schema: Schema | None = None
    tools: Tools | None = None

    @property
    @override
    def name(self) -> str:
        if self.schema is not None:
            return f"{self.of_objects.name} of {self.schema.name or 'the object'}"
        if self.tools is not None:
            made = f", {', '.join(self._schemas)} by {self.of_objects.name}"
            objects = made if self._schemas else ""
            return f"same tool calls as JSON{objects}, else {self.inner.name}"
        return self.inner.name

    @override
    def read(self, answer: AIMessage) -> tuple[str, Any]:
        if answer.additional_kwargs.get("refusal"):
            raise UnparseableAnswerError("the model refused to answer")
        refuse_incomplete(answer.response_metadata)
        if answer.invalid_tool_calls:
            raise UnparseableAnswerError("a tool call's arguments are no JSON")
        calls = [{"name": c["name"], "args": c["args"]} for c in answer.tool_calls]
        for called in (call["name"] for call in answer.tool_calls):
            if not self._offered(called):
                raise UnparseableAnswerError(f"the tool {called!r} was not offered")
        if calls and self.schema is not None and calls[0]["name"] == self.schema.name:
            return "objects", [self.schema.read(calls[0]["args"])]
        if len(calls) == 1 and (name := calls[0]["name"]) in self._schemas:
            made = object_of(self._schemas[name], calls[0]["args"])
            return f"object of {name}", [made]
        if calls:
            return "tool calls", calls
        text = str(answer.text)
        if not text.strip():
            raise UnparseableAnswerError("the message has no text")
        if self.schema is not None:
            return "objects", [self.schema.read_text(text)]
        return "text", text

    @property
    def _schemas(self) -> dict[str, Any]:
        return {} if self.tools is None else self.tools.schemas

    def _offered(self, name: str) -> bool:
        """Whether a tool may be called; without any, members may have their own."""
        if self.schema is not None and self.schema.name is not None:
            return name == self.schema.name
        return self.tools is None or self.tools.offer(name)


def write_answer(answer: AIMessage) -> str:
    """Return a message as text, for a store."""
    message = message_chunk_to_message(answer)
    # Objects within it are read back by alias, where they have any.
    form: dict[str, Any] = {"serialize_as_any": True, "by_alias": True}
    fields = message.model_dump(**form, round_trip=True, warnings=False)
    if message.additional_kwargs.get("parsed") is not None:
        with suppress(ValueError):  # as it was written: a dump of it may not tell all
            fields["additional_kwargs"]["parsed"] = json.loads(str(message.text))
    return as_text(fields)


def read_answer(text: str) -> AIMessage:
    """Return the message in such a text."""
    return AIMessage.model_validate(json.loads(text))
