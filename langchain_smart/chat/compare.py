"""How messages are compared: by their text, their tool calls or their object."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, message_chunk_to_message

from langchain_smart.chat.structured import Schema
from langchain_smart.chat.tools import Tools
from smart_engine.equivalence import Equivalence
from smart_engine.equivalence.objects import calls_in_any_order, rule_for_objects
from smart_engine.errors import UnparseableAnswerError
from smart_engine.serving.answer_text import as_text
from smart_engine.serving.endings import refuse_incomplete, reported_ending

__all__ = ["MessageReading", "read_answer", "write_answer"]


@dataclass(frozen=True, slots=True)
class MessageReading:
    """Applies an equivalence to messages.

    Tool calls are compared by name and arguments. An object that was asked for is
    compared by its values if the equivalence reads texts only, and is handed to the
    equivalence otherwise. All other messages are compared by their texts.

    A refusal, an empty message, a call of a tool that was not offered and an object
    that does not fit the schema cannot be read: a candidate's item then escalates to
    the reference.

    Args:
        inner: The user's equivalence.
        schema: The object that was asked for.
        tools: The tools that were offered.
    """

    inner: Equivalence
    schema: Schema | None = None
    tools: Tools | None = None

    @property
    def name(self) -> str:
        """Name of what is compared."""
        if self.schema is not None:
            return f"{self._of_objects.name} of {self.schema.name or 'the object'}"
        if self.tools is not None:
            return f"same tool calls as JSON, else {self.inner.name}"
        return self.inner.name

    @property
    def keyed(self) -> bool:
        """Whether equal readings mean equal answers."""
        rules = (self.inner, self._of_objects)
        return all(bool(getattr(rule, "keyed", False)) for rule in rules)

    @property
    def _of_objects(self) -> Equivalence:
        """How objects are compared."""
        return rule_for_objects(self.inner)

    @property
    def waits(self) -> bool:
        """Whether comparing may wait for an answer from elsewhere."""
        return bool(getattr(self.inner, "waits", False))

    def parse(self, answer: AIMessage) -> tuple[str, Any]:
        """Return which kind of answer it is, and what is compared."""
        if answer.additional_kwargs.get("refusal"):
            raise UnparseableAnswerError("the model refused to answer")
        refuse_incomplete(reported_ending(answer.response_metadata))
        if answer.invalid_tool_calls:
            raise UnparseableAnswerError("a tool call's arguments are no JSON")
        calls = [{"name": c["name"], "args": c["args"]} for c in answer.tool_calls]
        for called in (call["name"] for call in answer.tool_calls):
            if not self._offered(called):
                raise UnparseableAnswerError(f"the tool {called!r} was not offered")
        if calls and self.schema is not None and calls[0]["name"] == self.schema.name:
            value = self.schema.read(calls[0]["args"])
            return "object", self._of_objects.parse(value)
        if calls:
            return "tool calls", calls_in_any_order(calls)
        text = str(answer.text)
        if not text.strip():
            raise UnparseableAnswerError("the message has no text")
        if self.schema is not None:
            return "object", self._of_objects.parse(self.schema.read_text(text))
        return "text", self.inner.parse(text)

    def _offered(self, name: str) -> bool:
        """Whether a tool may be called; without any, members may have their own."""
        if self.schema is not None and self.schema.name is not None:
            return name == self.schema.name
        return self.tools is None or self.tools.offer(name)

    def same(self, left: tuple[str, Any], right: tuple[str, Any]) -> bool:
        """Whether both are of one kind and mean the same."""
        kind = left[0]
        if kind != right[0]:
            return False
        if kind == "tool calls":
            return bool(left[1] == right[1])
        rule = self._of_objects if kind == "object" else self.inner
        return rule.same(left[1], right[1])


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
