"""Structured output: one schema, which each member fills in by its own method."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableSequence
from langchain_core.runnables.utils import AddableDict
from langchain_core.utils.function_calling import (
    convert_to_json_schema,
    convert_to_openai_tool,
)
from langchain_core.utils.json import parse_json_markdown
from pydantic import BaseModel
from pydantic.v1 import BaseModel as BaseModelV1
from typing_extensions import override

from langchain_smart.chat.members import BoundModel, ChatMember, unwrapped
from langchain_smart.chat.tools import ToolsUnsupportedError
from smart_engine.errors import SmartError, UnparseableAnswerError

__all__ = ["Parsed", "Schema", "StructuredOutputError", "object_of"]


class StructuredOutputError(SmartError, ValueError):
    """A member cannot give this structured output."""


class Schema:
    """The object that is asked for.

    Args:
        schema: Anything that `with_structured_output` takes.
        options: Further arguments of it; without a method, each member chooses one.
    """

    def __init__(self, schema: Any, options: dict[str, Any]) -> None:
        self._schema = schema
        self._options = options
        self._bound: dict[str, tuple[object, BoundModel]] = {}
        self.name: str | None = None
        self.json_schema: dict[str, Any] | None = None
        with suppress(Exception):  # the members check it
            self.name = convert_to_openai_tool(schema)["function"]["name"]
            self.json_schema = convert_to_json_schema(schema)

    @property
    def object_type(self) -> Any:
        """Type of the objects."""
        return self._schema if isinstance(self._schema, type) else dict[str, Any]

    def bound_to(self, member: ChatMember) -> BoundModel:
        """Return the member as it answers with such an object.

        Raises:
            StructuredOutputError: If it cannot; the message says why.
            ToolsUnsupportedError: If it would need tools and cannot call any.
        """
        model, bound = self._bound.get(member.name, (None, None))
        if bound is None or model is not member.model:
            bound = self._bind(member)
            self._bound[member.name] = member.model, bound
        return bound

    def _bind(self, member: ChatMember) -> BoundModel:
        """Take apart what the member's own `with_structured_output` returns."""
        try:
            chain = member.model.with_structured_output(self._schema, **self._options)
        except NotImplementedError as error:
            raise ToolsUnsupportedError(member.name) from error
        except Exception as error:
            problem = f"{member.name} cannot give structured output: {error}"
            raise StructuredOutputError(problem) from error
        if isinstance(chain, RunnableSequence):
            first, *rest = chain.steps
            model, arguments = unwrapped(first)
            if isinstance(model, type(member.model)):
                parser = rest[0] if len(rest) == 1 else RunnableSequence(*rest)
                return BoundModel(model, arguments, parser)
        problem = (
            f"{member.name}.with_structured_output returns a {type(chain).__name__}, "
            "not the model followed by a parser"
        )
        raise StructuredOutputError(problem)

    def parser(self, message: AIMessage) -> Runnable[Any, Any]:
        """Return the parser of the member that gave a message."""
        name = message.response_metadata.get("smart", {}).get("model")
        _, bound = self._bound.get(name) or next(iter(self._bound.values()))
        if bound.parser is None:
            raise StructuredOutputError(f"{name} has no parser")
        return bound.parser

    def read(self, value: Any) -> Any:
        """Return an object of the schema; see `object_of`."""
        return object_of(self._schema, value)

    def read_text(self, text: str) -> Any:
        """Return the object in a text.

        Raises:
            UnparseableAnswerError: If there is none.
        """
        try:
            # A JSON text that was cut off is an error, not a part of an object.
            value = parse_json_markdown(text, parser=partial(json.loads, strict=False))
        except Exception as error:
            raise UnparseableAnswerError(f"no JSON in {text[:80]!r}") from error
        return self.read(value)

    @property
    def shown(self) -> dict[str, Any]:
        """The schema as tracers receive it, in the form core uses."""
        return {"kwargs": self._options, "schema": self.json_schema}

    def __repr__(self) -> str:
        """Show everything that identifies this schema."""
        return f"Schema({json.dumps(self.shown, sort_keys=True, default=repr)})"


def object_of(schema: Any, value: Any) -> Any:
    """Return an object of a schema: a model, where the schema is its class.

    Raises:
        UnparseableAnswerError: If the schema refuses it.
    """
    made = schema if isinstance(schema, type) else object
    try:
        if issubclass(made, BaseModel):
            return made.model_validate(value)
        if issubclass(made, BaseModelV1):
            return made.parse_obj(value)
    except Exception as error:
        problem = f"the schema refuses {str(value)[:80]!r}"
        raise UnparseableAnswerError(problem) from error
    return value


class Parsed(Runnable[AIMessage, Any]):
    """Parses each message as the member that gave it does.

    Args:
        schema: The object that was asked for.
        include_raw: Return the message and its parsing error beside the object.
    """

    def __init__(self, schema: Schema, *, include_raw: bool) -> None:
        self._schema = schema
        self._include_raw = include_raw

    @property
    @override
    def OutputType(self) -> Any:
        return dict[str, Any] if self._include_raw else self._schema.object_type

    @override
    def invoke(
        self, input: AIMessage, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Any:
        try:
            parsed = self._schema.parser(input).invoke(input, config)
        except Exception as error:
            if not self._include_raw:
                raise
            return _raw(input, error=error)
        return _raw(input, parsed) if self._include_raw else parsed

    @override
    async def ainvoke(
        self, input: AIMessage, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Any:
        try:
            parsed = await self._schema.parser(input).ainvoke(input, config)
        except Exception as error:
            if not self._include_raw:
                raise
            return _raw(input, error=error)
        return _raw(input, parsed) if self._include_raw else parsed

    @override
    def transform(
        self,
        input: Iterator[AIMessage],
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> Iterator[Any]:
        whole: Any = next(input)
        if not self._include_raw:
            chunks = itertools.chain([whole], input)
            yield from self._schema.parser(whole).transform(chunks, config)
            return
        yield AddableDict(raw=whole)
        for chunk in input:
            whole = whole + chunk
            yield AddableDict(raw=chunk)
        yield _without_raw(self.invoke(whole, config))

    @override
    async def atransform(
        self,
        input: AsyncIterator[AIMessage],
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[Any]:
        whole: Any = await anext(input)
        if not self._include_raw:
            chunks = _chained(whole, input)
            async for part in self._schema.parser(whole).atransform(chunks, config):
                yield part
            return
        yield AddableDict(raw=whole)
        async for chunk in input:
            whole = whole + chunk
            yield AddableDict(raw=chunk)
        yield _without_raw(await self.ainvoke(whole, config))


def _raw(
    message: AIMessage, parsed: Any = None, error: Exception | None = None
) -> dict[str, Any]:
    return {"raw": message, "parsed": parsed, "parsing_error": error}


def _without_raw(parsed: dict[str, Any]) -> AddableDict:
    return AddableDict({key: value for key, value in parsed.items() if key != "raw"})


async def _chained(
    first: AIMessage, rest: AsyncIterator[AIMessage]
) -> AsyncIterator[AIMessage]:
    yield first
    async for message in rest:
        yield message
