"""What is asked, in no member's own form: messages or a prompt, tools, arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Generic, TypeVar

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
)
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.program.function_program import get_function_tool
from llama_index.core.tools import BaseTool
from pydantic import BaseModel

from llama_index_smart.history import history_for
from llama_index_smart.members import LLMMember
from llama_index_smart.structured import structured_call
from smart_engine.errors import SmartError

__all__ = ["MODEL", "OUTPUT", "TASK", "TOOLS", "Ask", "ToolsUnsupportedError"]

R = TypeVar("R")

TASK = "smart_task"
"""Argument of any verb that names the task."""

MODEL = "smart_model"
"""Argument of any verb that names the member that must answer."""

TOOLS = "smart_tools"
"""Argument that carries raw tools from `chat_with_tools` to the call."""

OUTPUT = "smart_output"
"""Argument that carries the class of an object from a structured verb to the call."""


class ToolsUnsupportedError(SmartError, NotImplementedError):
    """A member cannot call tools."""


@dataclass(frozen=True, slots=True)
class Ask(Generic[R]):
    """One item, and what comes with it.

    Attributes:
        messages: The messages of a chat, or None.
        prompt: The prompt of a completion, or None.
        tools: Tools that may be called, each member binds them in its own form.
        arguments: What every member is called with beside them.
        model: The member that must answer, if one was named.
        task: The task's name, if the call names one.
        output_cls: The class of the object that is asked for, if each member is asked
            for it in its own form.
    """

    messages: Sequence[ChatMessage] | None = None
    prompt: str | None = None
    tools: Sequence[BaseTool] | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    model: str | None = None
    task: str | None = None
    output_cls: type[BaseModel] | None = None

    @staticmethod
    def chat(
        messages: Sequence[ChatMessage], kwargs: dict[str, Any]
    ) -> Ask[ChatResponse]:
        """Return what a chat verb was called with."""
        arguments, own = _split(kwargs)
        own |= {"tools": arguments.pop(TOOLS, None)}
        own |= {"output_cls": arguments.pop(OUTPUT, None)}
        return Ask(messages=list(messages), arguments=arguments, **own)

    @staticmethod
    def completion(prompt: str, kwargs: dict[str, Any]) -> Ask[CompletionResponse]:
        """Return what a completion verb was called with."""
        arguments, own = _split(kwargs)
        return Ask(prompt=prompt, arguments=arguments, **own)

    @property
    def offered(self) -> list[BaseTool]:
        """The tools that may be called, also the one that makes the object."""
        made = [] if self.output_cls is None else [get_function_tool(self.output_cls)]
        return [*(self.tools or ()), *made]

    @property
    def tool_specs(self) -> list[dict[str, Any]]:
        """The tools that may be called, in OpenAI's form."""
        unlimited = {"skip_length_check": True}  # some providers have no limit
        return [tool.metadata.to_openai_tool(**unlimited) for tool in self.offered]

    @property
    def content(self) -> str:
        """A text that tells what is asked from anything else."""
        messages = [message.model_dump() for message in self.messages or ()]
        return repr((messages, self.prompt, self.tool_specs, self.arguments))

    def addressed_to(self, member: str, reference: str) -> Ask[R]:
        """Return the same, with the messages as a member is given them."""
        if self.messages is None:
            return self
        return replace(self, messages=history_for(member, self.messages, reference))

    def put_to(self, member: LLMMember, form: str) -> Callable[[], Any]:
        """Return the call of a member, ready to be made.

        Args:
            member: Who is asked.
            form: What its verb's name begins with: `""`, `"a"`, `"stream_"` or
                `"astream_"`.

        Raises:
            ToolsUnsupportedError: If there are tools and it cannot call any.
        """
        model, arguments = member.model, {**member.arguments, **self.arguments}
        if "stream" in form:
            arguments = _with_usage(member, arguments)
        if self.prompt is not None:
            return partial(getattr(model, f"{form}complete"), self.prompt, **arguments)
        messages = list(self.messages or ())
        if self.output_cls is not None:
            verb, given, arguments = structured_call(
                model, self.output_cls, messages, arguments
            )
            return partial(getattr(model, f"{form}{verb}"), *given, **arguments)
        if self.tools is None:
            return partial(getattr(model, f"{form}chat"), messages, **arguments)
        if not isinstance(model, FunctionCallingLLM):
            hint = "leave it out of the candidates where tools are used"
            raise ToolsUnsupportedError(f"{member.name} cannot call tools: {hint}")
        verb, arguments = (
            f"{form}chat_with_tools",
            {**arguments, "chat_history": messages},
        )
        return partial(getattr(model, verb), self.tools, **arguments)


def _split(kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arguments for members, and those for us."""
    arguments = dict(kwargs)
    own = {"task": arguments.pop(TASK, None), "model": arguments.pop(MODEL, None)}
    return arguments, own


def _with_usage(member: LLMMember, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return a streamed call's arguments; with the usage unless the user chose."""
    by_openai = any(  # chat completions: the Responses API reports it always
        base.__module__ == "llama_index.llms.openai.base"
        for base in type(member.model).__mro__
    )
    chosen = {**getattr(member.model, "additional_kwargs", {}), **arguments}
    if not by_openai or "stream_options" in chosen:
        return arguments
    return {"stream_options": {"include_usage": True}, **arguments}
