"""Structured output: one schema, asked of each member by its own method."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
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

from langchain_smart.chat.bound_model import BoundModel, unwrapped
from langchain_smart.chat.members import ChatMember
from langchain_smart.chat.tools import ToolsUnsupportedError
from smart_engine.errors import SmartError, UnparseableAnswerError

__all__ = ["Parsed", "Schema", "StructuredOutputError"]


class StructuredOutputError(SmartError, ValueError):
    """A member cannot be asked for this structured output."""


class Schema:
    """The object that is asked for.

    Args:
        schema: Whatever `with_structured_output` takes.
        options: Further arguments of it; a method that is not given is the member's
            own choice.
    """

    def __init__(self, schema: Any, options: dict[str, Any]) -> None:
        """Bind nothing yet."""
        self._schema = schema
        self._options = options
        self._bound: dict[str, tuple[object, BoundModel]] = {}
        self.name: str | None = None
        self.json_schema: dict[str, Any] | None = None
        with suppress(Exception):  # whether it will do is for the members to say
            self.name = convert_to_openai_tool(schema)["function"]["name"]
            self.json_schema = convert_to_json_schema(schema)

    @property
    def object_type(self) -> Any:
        """Type of the objects."""
        return self._schema if isinstance(self._schema, type) else dict[str, Any]

    def bound_to(self, member: ChatMember) -> BoundModel:
        """Return the member as it answers with such an object.

        Raises:
            StructuredOutputError: If it cannot, and why.
            ToolsUnsupportedError: If it would need tools, and has none.
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
        """Return an object as JSON knows it, with the defaults of its schema.

        Raises:
            UnparseableAnswerError: If the schema refuses it.
        """
        try:
            if isinstance(self._schema, type):
                if issubclass(self._schema, BaseModel):
                    valid = self._schema.model_validate(value)
                    return valid.model_dump(mode="json")
                if issubclass(self._schema, BaseModelV1):
                    return json.loads(self._schema.parse_obj(value).json())
        except Exception as error:
            problem = f"the schema refuses {str(value)[:80]!r}"
            raise UnparseableAnswerError(problem) from error
        return value

    def read_text(self, text: str) -> Any:
        """Return the object in a text.

        Raises:
            UnparseableAnswerError: If there is none.
        """
        try:
            value = parse_json_markdown(text, parser=_whole_json)
        except Exception as error:
            raise UnparseableAnswerError(f"no JSON in {text[:80]!r}") from error
        return self.read(value)

    @property
    def told(self) -> dict[str, Any]:
        """What tracers are told of it, in the form core uses."""
        return {"kwargs": self._options, "schema": self.json_schema}

    def __repr__(self) -> str:
        """Show everything that tells this schema from others."""
        shown = json.dumps(self.told, sort_keys=True, default=repr)
        return f"Schema({shown})"


def _whole_json(text: str) -> Any:
    """Return what JSON says; one that was cut off says nothing."""
    return json.loads(text, strict=False)


class Parsed(Runnable[AIMessage, Any]):
    """Parses each message as the member that gave it does.

    Args:
        schema: The object that was asked for.
        include_raw: Return the message and its parsing error beside the object.
    """

    def __init__(self, schema: Schema, *, include_raw: bool) -> None:
        """Keep both."""
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
            return {"raw": input, "parsed": None, "parsing_error": error}
        return self._packed(input, parsed)

    @override
    async def ainvoke(
        self, input: AIMessage, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Any:
        try:
            parsed = await self._schema.parser(input).ainvoke(input, config)
        except Exception as error:
            if not self._include_raw:
                raise
            return {"raw": input, "parsed": None, "parsing_error": error}
        return self._packed(input, parsed)

    @override
    def transform(
        self,
        input: Iterator[AIMessage],
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> Iterator[Any]:
        if not self._include_raw:
            first = next(input)
            chunks = itertools.chain([first], input)
            yield from self._schema.parser(first).transform(chunks, config)
            return
        whole: Any = None
        for chunk in input:
            whole = chunk if whole is None else whole + chunk
            yield AddableDict(raw=chunk)
        packed = self.invoke(whole, config)
        yield AddableDict({k: v for k, v in packed.items() if k != "raw"})

    @override
    async def atransform(
        self,
        input: AsyncIterator[AIMessage],
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[Any]:
        if not self._include_raw:
            first = await anext(input)

            async def chunks() -> AsyncIterator[AIMessage]:
                yield first
                async for chunk in input:
                    yield chunk

            parser = self._schema.parser(first)
            async for part in parser.atransform(chunks(), config):
                yield part
            return
        whole: Any = None
        async for chunk in input:
            whole = chunk if whole is None else whole + chunk
            yield AddableDict(raw=chunk)
        packed = await self.ainvoke(whole, config)
        yield AddableDict({k: v for k, v in packed.items() if k != "raw"})

    def _packed(self, raw: AIMessage, parsed: Any) -> Any:
        """Return what was parsed, with the message if that was asked for."""
        if self._include_raw:
            return {"raw": raw, "parsed": parsed, "parsing_error": None}
        return parsed
