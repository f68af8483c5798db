"""How a response is read, compared and stored: its text, tool calls or objects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
)
from llama_index.core.output_parsers import PydanticOutputParser
from pydantic import BaseModel

from llama_index_smart.cost import usage_of
from llama_index_smart.members import Response
from llama_index_smart.tools import tool_calls
from smart_engine.equivalence import Equivalence
from smart_engine.equivalence.objects import calls_in_any_order, rule_for_objects
from smart_engine.errors import UnparseableAnswerError
from smart_engine.serving.answer_text import as_text
from smart_engine.serving.endings import refuse_incomplete, reported_ending

__all__ = ["ResponseReading", "ending_of", "read_response", "text_of", "write_response"]

_STORED = {"message", "text", "additional_kwargs", "logprobs"}


@dataclass(frozen=True, slots=True)
class ResponseReading:
    """Applies an equivalence to responses.

    Objects that were asked for are compared by their values if the equivalence reads
    texts only, and are handed to the equivalence otherwise. Where a response calls
    other tools, its calls are compared, by name and arguments; otherwise the texts are.
    An answer without any, one that calls a tool that was not offered, and an object
    that its class refuses, cannot be read: a candidate's item then escalates.

    Args:
        inner: The user's equivalence.
        tools: Names of the tools that were offered.
        classes: Classes of the objects that some of these tools make, by name.
        output_cls: The class of the object that a text holds, if it should.
    """

    inner: Equivalence
    tools: frozenset[str] = frozenset()
    classes: Mapping[str, type[BaseModel]] = field(default_factory=dict)
    output_cls: type[BaseModel] | None = None

    @property
    def name(self) -> str:
        """Name of what is compared."""
        if self.output_cls is not None:
            return f"{self._of_objects.name} of {self.output_cls.__name__}"
        if self.classes and self.classes.keys() == self.tools:
            return f"{self._of_objects.name} of {', '.join(sorted(self.tools))}"
        if self.tools:
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

    def parse(self, answer: Response) -> tuple[str, Any]:
        """Return which kind of answer it is, and what is compared."""
        refuse_incomplete(ending_of(answer))
        calls = tool_calls(answer) if self.tools else []
        for name in (call.tool_name for call in calls):
            if name not in self.tools:
                raise UnparseableAnswerError(f"the tool {name!r} was not offered")
        if calls and all(call.tool_name in self.classes for call in calls):
            return "objects", tuple(
                self._parse_object(self.classes[call.tool_name], call.tool_kwargs)
                for call in calls
            )
        if calls:
            values = [{"name": c.tool_name, "args": c.tool_kwargs} for c in calls]
            return "tool calls", calls_in_any_order(values)
        text = text_of(answer)
        if not text.strip():
            raise UnparseableAnswerError("the response has no text")
        if self.output_cls is not None:
            return "objects", (self._parse_object(self.output_cls, text),)
        return "text", self.inner.parse(text)

    def _parse_object(self, output_cls: type[BaseModel], written: Any) -> Any:
        """Return what is compared of an object, given its arguments or its text."""
        try:
            if isinstance(written, str):
                value = PydanticOutputParser(output_cls=output_cls).parse(written)
            else:
                value = output_cls.model_validate(written)
        except Exception as error:
            problem = f"{output_cls.__name__} refuses {str(written)[:80]!r}"
            raise UnparseableAnswerError(problem) from error
        return self._of_objects.parse(value)

    def same(self, left: tuple[str, Any], right: tuple[str, Any]) -> bool:
        """Whether both are of one kind and mean the same."""
        if left[0] != right[0]:
            return False
        if left[0] == "tool calls":
            return bool(left[1] == right[1])
        if left[0] == "objects":
            return len(left[1]) == len(right[1]) and all(
                map(self._of_objects.same, left[1], right[1])
            )
        return self.inner.same(left[1], right[1])


def ending_of(answer: Response) -> str | None:
    """Return why an answer ended, wherever its integration reports that."""
    raw = answer.raw
    choices = raw.get("choices") if isinstance(raw, Mapping) else None
    choices = choices or getattr(raw, "choices", None) or ()
    return reported_ending(raw, answer.additional_kwargs, *list(choices)[:1])


def text_of(response: Response) -> str:
    """Return the text of a response."""
    message = getattr(response, "message", None)
    if isinstance(message, ChatMessage):
        return message.content or ""
    return str(getattr(response, "text", "") or "")


def write_response(answer: Response) -> str:
    """Return a response as text, for a store: without its provider's raw form."""
    kind = "chat" if isinstance(answer, ChatResponse) else "completion"
    fields = answer.model_dump(include=_STORED, warnings=False)
    usage = usage_of(answer)  # which may stand in the raw form alone
    if usage is not None and usage.problem is None:
        fields["additional_kwargs"] |= {
            "prompt_tokens": usage.input_tokens,
            "completion_tokens": usage.output_tokens,
        }
    return as_text({"kind": kind, **fields})


def read_response(text: str) -> Response:
    """Return the response in such a text."""
    fields = json.loads(text)
    kind = {"chat": ChatResponse}.get(fields.pop("kind"), CompletionResponse)
    return kind.model_validate(fields)
