"""Which task an item belongs to: each prompt template is a task of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from llama_index.core.base.llms.types import MessageRole
from llama_index.core.output_parsers.selection import SelectionOutputParser
from llama_index.core.prompts import (
    BasePromptTemplate,
    ChatPromptTemplate,
    SelectorPromptTemplate,
)
from llama_index.core.prompts.utils import get_template_vars

from llama_index_smart.request import Ask

__all__ = [
    "class_of_template",
    "constant_part",
    "default_task",
    "task_of_template",
    "with_template",
]

_IN_USE: ContextVar[tuple[str | None, type[Any] | None]] = ContextVar(
    "smart_template_in_use", default=(None, None)
)
"""The task of a template, and the class of the objects that it asks for, or of their
parser."""


def task_of_template() -> str | None:
    """Return the task of the template that is in use, if any is."""
    return _IN_USE.get()[0]


def class_of_template() -> type[Any] | None:
    """Return the class of the objects that the template in use asks for, if any."""
    return _IN_USE.get()[1]


@contextmanager
def with_template(
    prompt: BasePromptTemplate, llm: Any, output_cls: type[Any] | None = None
) -> Iterator[None]:
    """Name the task after a template while that is in use.

    Args:
        prompt: The template.
        llm: The LLM that it is formatted for.
        output_cls: The class of the objects that are asked for, if any are: a
            structured LLM puts every question into a template without words of its own.
    """
    kind = prompt.metadata.get("prompt_type", "custom")
    text = _constant_text(prompt, llm)
    if output_cls is not None:
        text = f"{output_cls.__name__} {text}"
    task = f"{getattr(kind, 'value', None) or kind}:{_short(text)}"
    if output_cls is None and isinstance(prompt.output_parser, SelectionOutputParser):
        output_cls = SelectionOutputParser  # a selector reads its answer by it
    token = _IN_USE.set((task, output_cls))
    try:
        yield
    finally:
        _IN_USE.reset(token)


def default_task(asks: Iterable[Ask[Any]]) -> str:
    """Return a name for the task of some items, where the caller gave none.

    It stands for the system messages and for the names of the tools.
    """
    parts: set[str] = set()
    for ask in asks:
        parts |= {f"system {content}" for content in _systems(ask)}
        parts |= {f"tool {tool.metadata.name}" for tool in ask.tools or ()}
    return f"task-{_short(repr(sorted(parts)))}"


def constant_part(ask: Ask[Any], template: str | None) -> str:
    """Return what is asked beside the item itself, as a text.

    Args:
        ask: What is asked.
        template: Task of the template in use, if any is: what fills its gaps belongs to
            the item, also in system messages.
    """
    return repr((template or _systems(ask), ask.tool_specs))


def _systems(ask: Ask[Any]) -> list[Any]:
    """Return the contents of the system messages."""
    return [
        message.content
        for message in ask.messages or ()
        if message.role == MessageRole.SYSTEM
    ]


def _constant_text(prompt: BasePromptTemplate, llm: Any) -> str:
    """Return the part of a template that is the same every time.

    Chat engines put the conversation so far into a new template for each turn: of a
    chat, only system messages and those with a gap to fill stand for it.
    """
    if isinstance(prompt, SelectorPromptTemplate):
        prompt = prompt.select(llm)
    if not isinstance(prompt, ChatPromptTemplate):
        return prompt.get_template(llm=llm)
    return repr(
        [
            (message.role.value, message.content)
            for message in prompt.message_templates
            if message.role == MessageRole.SYSTEM
            or get_template_vars(message.content or "")
        ]
    )


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
