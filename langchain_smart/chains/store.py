"""Chains in a store: how items are identified, and how answers become text.

An answer is stored only if it can be read back unchanged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from enum import Enum
from typing import Any

from langchain_core import messages
from langchain_core.documents import Document
from langchain_core.load import dumps, loads
from langchain_core.messages import BaseMessage
from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_jsonable_python

from langchain_smart.chat.request import as_sent
from smart_engine.errors import InvalidInputError, StoreError

__all__ = ["ChainAnswers", "identity_of"]

_MADE = (
    messages.AIMessage,
    messages.AIMessageChunk,
    messages.ChatMessage,
    messages.FunctionMessage,
    messages.HumanMessage,
    messages.SystemMessage,
    messages.ToolMessage,
    Document,
)
"""All classes, but one of the user's, that reading a store may instantiate."""


def identity_of(item: Any) -> str:
    """Return a text that identifies an item, the same in every process.

    Messages count by their texts and tool calls, not by their ids.

    Raises:
        InvalidInputError: If it holds something that has no such text.

    Example:
        ```python
        from langchain_core.messages import HumanMessage

        from langchain_smart.chains.store import identity_of

        one, other = HumanMessage("hi", id="1"), HumanMessage("hi", id="2")
        assert identity_of({"b": 1, "a": one}) == identity_of({"a": other, "b": 1})
        ```
    """
    try:
        plain = to_jsonable_python(_plain(item), bytes_mode="base64")
        return json.dumps(plain, sort_keys=True)
    except (PydanticSerializationError, TypeError, ValueError) as error:
        hint = (
            f"it cannot be identified ({error}): give texts, numbers, lists, dicts, "
            "messages or pydantic objects, or leave store out, and dedupe"
        )
        raise InvalidInputError("inputs", item, hint) from error


def _plain(value: Any) -> Any:
    """Return a value without ids of messages, with an order of sets, and with tags.

    Tags distinguish what JSON would write alike.
    """
    if isinstance(value, BaseMessage):
        return ["message", _plain(as_sent(value))]
    if isinstance(value, Mapping):
        pairs = [[_plain(key), _plain(part)] for key, part in value.items()]
        pairs.sort(key=lambda pair: json.dumps(pair, default=repr))
        return ["mapping", pairs]
    if isinstance(value, list | tuple):
        return ["list", [_plain(part) for part in value]]
    if isinstance(value, AbstractSet):
        return ["set", sorted((_plain(part) for part in value), key=repr)]
    if isinstance(value, str | bool | int | float | None):
        return value
    return [f"{type(value).__module__}.{type(value).__qualname__}", value]


class ChainAnswers:
    """Writes and reads the answers of one kind of chain.

    Plain data, messages and documents, in lists and dicts, are read back unchanged, as
    are objects of the class that the reference returns.

    Args:
        output_type: The reference's `OutputType`.
    """

    def __init__(self, output_type: Any) -> None:
        self._class: type[BaseModel] | None = None
        if isinstance(output_type, type) and issubclass(output_type, BaseModel):
            self._class = output_type

    def write(self, answer: Any) -> str:
        """Return an answer as text.

        Raises:
            StoreError: If it would not be read back unchanged.
        """
        try:
            if self._class is not None and type(answer) is self._class:
                text: str = answer.model_dump_json()
            else:
                text = _GENERAL + dumps(answer)
            if _unchanged(self.read(text), answer):
                return text
            problem = "it would not be read back unchanged"
        except Exception as error:  # noqa: BLE001 - classes of users raise anything
            problem = (str(error).splitlines() or ["no reason given"])[0][:200]
        hint = "use texts, plain data, messages, documents or objects of OutputType"
        kind = type(answer).__name__
        raise StoreError(f"an answer ({kind}) cannot be stored: {problem}; {hint}")

    def read(self, text: str) -> Any:
        """Return the answer in such a text."""
        if self._class is not None and not text.startswith(_GENERAL):
            return self._class.model_validate_json(text)
        return loads(text.removeprefix(_GENERAL), allowed_objects=_MADE)


def _unchanged(read: Any, answer: Any) -> bool:
    """Whether both are the same in each part, whatever their class takes for equal."""
    if isinstance(answer, Enum):
        return read is answer
    if isinstance(answer, BaseModel):
        parts = map(_unchanged, _parts(read), _parts(answer))
        return type(read) is type(answer) and all(parts)
    if isinstance(answer, dict):
        return read.keys() == answer.keys() and all(
            _unchanged(read[key], part) for key, part in answer.items()
        )
    if isinstance(answer, list):
        return len(read) == len(answer) and all(map(_unchanged, read, answer))
    return bool(read == answer)


def _parts(made: BaseModel) -> list[Any]:
    """Return what a model holds: all fields, also those that are left out of a dump."""
    fields = [getattr(made, name) for name in type(made).model_fields]
    return [*fields, made.model_extra, made.__pydantic_private__]


_GENERAL = "answer:"
"""How the text of an answer begins that is no object of the class."""
