"""How a response is read, compared and stored: its text, tool calls or objects."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llama_index.core.base.base_selector import MultiSelection, SingleSelection
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
)
from llama_index.core.output_parsers import PydanticOutputParser
from llama_index.core.output_parsers.selection import Answer, SelectionOutputParser
from pydantic import BaseModel
from typing_extensions import override

from llama_index_smart.cost import usage_of
from llama_index_smart.members import Response
from llama_index_smart.tools import tool_calls
from smart_engine.equivalence import Equivalence, Json
from smart_engine.equivalence.kinds import ByKind, refuse_incomplete, reported_ending
from smart_engine.equivalence.rule import KeyedRule
from smart_engine.errors import UnparseableAnswerError
from smart_engine.serving.answer_text import as_text

__all__ = [
    "ResponseReading",
    "SameScore",
    "ending_of",
    "read_response",
    "text_of",
    "write_response",
]

_SELECTIONS = {SelectionOutputParser, SingleSelection, MultiSelection}
"""What selectors read their answers by."""

_STORED = {"message", "text", "additional_kwargs", "logprobs"}


@dataclass(frozen=True, slots=True)
class ResponseReading(ByKind):
    """Reads responses: objects that were asked for, other tool calls, or their texts.

    An answer without any, one that calls a tool that was not offered, and an object
    that its class refuses, cannot be read: a candidate's item then escalates.

    Args:
        inner: The user's equivalence.
        tools: Names of the tools that were offered.
        classes: Classes of the objects that some of these tools make, by name.
        output_cls: The class of the object that a text holds, if it should, or
            `SelectionOutputParser`, by which selectors read it.
    """

    tools: frozenset[str] = frozenset()
    classes: Mapping[str, type[BaseModel]] = field(default_factory=dict)
    output_cls: type[Any] | None = None

    @property
    @override
    def name(self) -> str:
        if self.output_cls is not None:
            return f"{self.of_objects.name} of {self.output_cls.__name__}"
        if self.classes and self.classes.keys() == self.tools:
            return f"{self.of_objects.name} of {', '.join(sorted(self.tools))}"
        if self.tools:
            return f"same tool calls as JSON, else {self.inner.name}"
        return self.inner.name

    @property
    @override
    def by_value(self) -> Equivalence:
        made = {self.output_cls, *self.classes.values()} - {None}
        return _CHOICES if made and made <= _SELECTIONS else _JSON

    @override
    def read(self, answer: Response) -> tuple[str, Any]:
        refuse_incomplete(*_reports(answer))
        calls = tool_calls(answer) if self.tools else []
        for name in (call.tool_name for call in calls):
            if name not in self.tools:
                raise UnparseableAnswerError(f"the tool {name!r} was not offered")
        if calls and all(call.tool_name in self.classes for call in calls):
            kind = f"objects of {[call.tool_name for call in calls]}"
            made = ((self.classes[c.tool_name], c.tool_kwargs) for c in calls)
            kind = kind if self.output_cls is None else "objects"  # or as a text
            return kind, [_object(*each) for each in made]
        if calls:
            values = [{"name": c.tool_name, "args": c.tool_kwargs} for c in calls]
            return "tool calls", values
        text = text_of(answer)
        if not text.strip():
            raise UnparseableAnswerError("the response has no text")
        if self.output_cls is SelectionOutputParser:
            return "objects", _selections(text)
        if self.output_cls is not None:
            return "objects", [_object(self.output_cls, text)]
        return "text", text


@dataclass(frozen=True, slots=True)
class SameChoices(KeyedRule):
    """Selections are the same when the same is chosen, whatever the reasons.

    The choice is what a router or retriever acts on.
    """

    @override
    def parse(self, answer: Any) -> Any:
        return tuple(
            each.choice if isinstance(each, Answer) else each.index
            for each in getattr(answer, "selections", [answer])
        )


_JSON, _CHOICES = Json(), SameChoices()


@dataclass(frozen=True, slots=True)
class SameScore(KeyedRule):
    r"""Evaluations are the same when they have the same score, whatever the feedback.

    The score is the first line, as `CorrectnessEvaluator` reads it. Feedback of a
    candidate is then handed out with no promise: a choice that is the user's.

    Example:
        ```python
        from smart_engine.equivalence import agree

        assert agree(SameScore(), "4.0\nIt is right.", "4\nCorrect.")
        assert not agree(SameScore(), "4.0\nIt is right.", "3.5\nIt is right.")
        ```
    """

    @override
    def parse(self, answer: Any) -> float:
        line = str(answer).partition("\n")[0]
        try:
            score = float(line)
        except ValueError as error:
            problem = f"no score in the first line {line[:80]!r}"
            raise UnparseableAnswerError(problem) from error
        if not math.isfinite(score):
            raise UnparseableAnswerError(f"{line} is no score")
        return score


def _object(output_cls: type[BaseModel], written: Any) -> Any:
    """Return an object, given its arguments or its text."""
    try:
        if isinstance(written, str):
            return PydanticOutputParser(output_cls=output_cls).parse(written)
        return output_cls.model_validate(written)
    except Exception as error:
        problem = f"{output_cls.__name__} refuses {str(written)[:80]!r}"
        raise UnparseableAnswerError(problem) from error


def _selections(text: str) -> list[Any]:
    """Return the choices that a selector reads in a text, each with its reason."""
    try:
        return [*SelectionOutputParser().parse(text).parsed_output]
    except Exception as error:
        problem = f"no selection in {text[:80]!r}"
        raise UnparseableAnswerError(problem) from error


def ending_of(answer: Response) -> str | None:
    """Return why an answer ended, wherever its integration reports that."""
    return reported_ending(*_reports(answer))


def _reports(answer: Response) -> list[Any]:
    """Return where an answer's ending may be reported."""
    raw = answer.raw
    choices = raw.get("choices") if isinstance(raw, Mapping) else None
    choices = choices or getattr(raw, "choices", None) or ()
    return [raw, answer.additional_kwargs, *list(choices)[:1]]


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
