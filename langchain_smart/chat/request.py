"""A request: all that comes with the messages, the same for every member.

Each member gets it in its own form.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.messages import BaseMessage, SystemMessage
from langchain_core.prompt_values import ChatPromptValue

from langchain_smart.batching import TASK
from langchain_smart.callbacks import RUN
from langchain_smart.chat.compare import MessageReading
from langchain_smart.chat.history import author_of
from langchain_smart.chat.members import BoundModel, ChatMember
from langchain_smart.chat.structured import Schema
from langchain_smart.chat.tools import Tools, described
from smart_engine.equivalence import Equivalence
from smart_engine.errors import check_whole

__all__ = ["SCHEMA", "Request", "as_sent", "task_of"]

SCHEMA = "smart_schema"
"""Argument that carries a `Schema` from `with_structured_output` to the call."""


def as_sent(message: BaseMessage) -> dict[str, Any]:
    """Return the fields of a message that a model reads, and which member wrote it.

    Who wrote it decides what each member is given of it.
    """
    unsent = {"id", "response_metadata", "usage_metadata", "artifact"}
    author = author_of(message)
    mark = {} if author is None else {"smart": author}
    return message.model_dump(exclude=unsent) | mark


@dataclass(frozen=True, slots=True)
class Request:
    """All that comes with the messages.

    Attributes:
        arguments: Further arguments, the same for every member.
        tools: Tools that a member may call.
        schema: The object that is asked for.
        model: The member that must answer, if the caller named one.
        task: The task's name, if one was given.
        retries: How often a failed call is made again; None: as each member's client
            would.
    """

    arguments: dict[str, Any]
    tools: Tools | None = None
    schema: Schema | None = None
    model: str | None = None
    task: str | None = None
    retries: int | None = None

    @classmethod
    def read(
        cls, stop: list[str] | None, kwargs: dict[str, Any], defaults: dict[str, Any]
    ) -> Request:
        """Return the request that a call's keyword arguments make.

        Args:
            stop: Where the answer is cut off.
            kwargs: What the caller, `bind`, `bind_tools` and `with_structured_output`
                pass.
            defaults: What the smart model's own fields set; `kwargs` take precedence.
        """
        arguments = {**defaults, **kwargs}
        retries = arguments.pop("max_retries", None)
        if retries is not None:
            check_whole("max_retries", retries, 0)
        for unsent in ("ls_structured_output_format", RUN):
            arguments.pop(unsent, None)
        tools = arguments.pop("tools", None)
        if tools is not None and not isinstance(tools, Tools):
            names = arguments.keys() & {"tool_choice"}
            tools = Tools(tools, {name: arguments.pop(name) for name in names})
        if stop is not None:
            arguments["stop"] = stop
        return cls(
            tools=tools,
            schema=arguments.pop(SCHEMA, None),
            model=arguments.pop("model", None),
            task=arguments.pop(TASK, None),
            retries=retries,
            arguments=arguments,
        )

    @property
    def content(self) -> str:
        """A text that identifies this request."""
        return repr((described(self.arguments), self.tools, self.schema))

    @property
    def extras(self) -> list[Any]:
        """What is sent with the messages: tools, and the schema of an object."""
        return [part for part in (self.tools, self.schema) if part]

    def bound_to(self, member: ChatMember) -> BoundModel:
        """Return the member, ready to be called."""
        if self.schema is not None:
            bound = self.schema.bound_to(member)
        elif self.tools is not None:
            bound = self.tools.bound_to(member)
        else:
            bound = BoundModel(member.model)
        arguments = {**member.arguments, **bound.arguments, **self.arguments}
        return replace(bound, arguments=arguments)

    def compared_by(self, rule: Equivalence) -> Equivalence:
        """Return how answers to this request are compared."""
        return MessageReading(rule, self.schema, self.tools)


def task_of(
    prompts: Iterable[ChatPromptValue], request: Request, own: str | None
) -> str:
    """Return a name for a task without one: it identifies system messages and tools.

    Args:
        prompts: The messages of its items.
        request: What comes with them.
        own: The smart model's own name, if it was given one.
    """
    systems = {
        str(message.content)
        for prompt in prompts
        for message in prompt.messages
        if isinstance(message, SystemMessage)
    }
    names = [tool.get("function", tool).get("name") for tool in request.tools or []]
    schema = request.schema and request.schema.name
    if not (systems or names or schema):
        return own or "default"
    text = repr((sorted(systems), names, schema))
    readable = own or schema or ", ".join(map(str, names[:3])) or "system message"
    return f"{readable} #{hashlib.sha256(text.encode()).hexdigest()[:8]}"
