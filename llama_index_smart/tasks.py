"""Which task an item belongs to: each prompt template is learnt about on its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from llama_index.core.base.llms.types import MessageRole
from llama_index.core.prompts import (
    BasePromptTemplate,
    ChatPromptTemplate,
    SelectorPromptTemplate,
)
from llama_index.core.prompts.utils import get_template_vars

from llama_index_smart.request import Ask

__all__ = ["asking_with", "fingerprint", "lasting", "task_of_prompt"]

_PROMPT: ContextVar[str | None] = ContextVar("smart_task_of_prompt", default=None)


def task_of_prompt() -> str | None:
    """Return the task of the template that is being asked with, if any is."""
    return _PROMPT.get()


@contextmanager
def asking_with(
    prompt: BasePromptTemplate, llm: Any, wanted: type[Any] | None = None
) -> Iterator[None]:
    """Name the task after a template while it is being asked with.

    Args:
        prompt: The template.
        llm: The LLM that it is formatted for.
        wanted: The class of the objects that are asked for, if any are: a structured
            LLM puts every question into a template that says nothing of its own.
    """
    kind = getattr(prompt.metadata.get("prompt_type", "custom"), "value", None)
    kind = kind or prompt.metadata.get("prompt_type", "custom")
    told = _lasting(prompt, llm)
    if wanted is not None:
        told = f"{wanted.__name__} {told}"
    token = _PROMPT.set(f"{kind}:{_short(told)}")
    try:
        yield
    finally:
        _PROMPT.reset(token)


def fingerprint(asks: Iterable[Ask[Any]]) -> str:
    """Return a name for what is asked of some items, where nobody gave one.

    It stands for the system messages and for the names of the tools.
    """
    told: set[str] = set()
    for ask in asks:
        told |= {f"system {said}" for said in _systems(ask)}
        told |= {f"tool {tool.metadata.name}" for tool in ask.tools or ()}
    return f"task-{_short(repr(sorted(told)))}"


def lasting(ask: Ask[Any], template: str | None) -> str:
    """Return a text that tells what is asked beside the item itself.

    Args:
        ask: What is asked.
        template: Task of the template that it is asked with, if any is: what fills its
            gaps is the item's, also where it is said in the system's name.
    """
    tools = [tool.metadata.to_openai_tool() for tool in ask.tools or ()]
    return repr((template or _systems(ask), tools))


def _systems(ask: Ask[Any]) -> list[Any]:
    """Return what the system's messages say."""
    return [
        message.content
        for message in ask.messages or ()
        if message.role == MessageRole.SYSTEM
    ]


def _lasting(prompt: BasePromptTemplate, llm: Any) -> str:
    """Return what a template says every time.

    Chat engines put the conversation so far into a template of its own for each turn:
    of a chat, only the system's messages and those with a gap to fill stand for it.
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
    """Return a short hash."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]
