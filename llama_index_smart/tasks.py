"""Which task an item belongs to: each prompt template is a task of its own.

Its name is the template's prompt type; else that of the evaluator or extractor whose
default it is, or of the class of the objects that are asked for; else a hash.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, NamedTuple

from llama_index.core.base.llms.types import MessageRole
from llama_index.core.output_parsers import PydanticOutputParser
from llama_index.core.output_parsers.selection import SelectionOutputParser
from llama_index.core.prompts import (
    BasePromptTemplate,
    ChatPromptTemplate,
    SelectorPromptTemplate,
)
from llama_index.core.prompts.prompt_type import PromptType
from llama_index.core.prompts.utils import get_template_vars

from llama_index_smart.request import Ask
from smart_engine.warn import warn

__all__ = [
    "Template",
    "constant_part",
    "default_task",
    "template_in_use",
    "warn_of_names",
    "with_template",
]

_CUSTOM = PromptType.CUSTOM.value

_COMPONENTS = (
    ("llama_index.core.evaluation.base", "BaseEvaluator"),
    ("llama_index.core.extractors.interface", "BaseExtractor"),
)
"""Where components stand whose templates have no type, and their base class."""


class Template(NamedTuple):
    """A template that is in use.

    Attributes:
        task: Name of its task.
        stream: What tells it from other templates of that name.
        output_cls: The class of the objects that it asks for, or of their parser.
    """

    task: str
    stream: str
    output_cls: type[Any] | None


_IN_USE: ContextVar[Template | None] = ContextVar("smart_template", default=None)


def template_in_use() -> Template | None:
    """Return the template that is in use, if any is."""
    return _IN_USE.get()


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
    kind = prompt.metadata.get("prompt_type", _CUSTOM)
    kind = str(getattr(kind, "value", None) or kind)
    text = _constant_text(prompt, llm)
    name = _component(text) if kind == _CUSTOM else kind
    if output_cls is not None:
        name, text = name or output_cls.__name__, f"{output_cls.__name__} {text}"
    elif isinstance(prompt.output_parser, SelectionOutputParser):
        output_cls = SelectionOutputParser  # a selector reads its answer by it
    elif isinstance(prompt.output_parser, PydanticOutputParser):
        output_cls = prompt.output_parser.output_cls
    stream = f"{name or kind}:{_short(text)}"
    token = _IN_USE.set(Template(name or stream, stream, output_cls))
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


def constant_part(ask: Ask[Any], template: Template | None) -> str:
    """Return what is asked beside the item itself, as a text.

    Args:
        ask: What is asked.
        template: The template in use, if any is: what fills its gaps belongs to the
            item, also in system messages.
    """
    return repr((template.stream if template else _systems(ask), ask.tool_specs))


def warn_of_names(names: Iterable[str]) -> None:
    """Warn of each name that is nearly that of a type of LlamaIndex's templates."""
    types = [kind.value for kind in PromptType]
    for name in names:
        near = get_close_matches(name, types, n=1, cutoff=0.8)
        if near and name not in types:
            warn(
                f"tasks={{{name!r}: …}}: no template of LlamaIndex has this name; did "
                f"you mean {near[0]!r}?"
            )


@lru_cache(maxsize=256)
def _component(text: str) -> str | None:
    """Return the class of LlamaIndex's whose default template this is, if any.

    Only what was imported is looked at: a component that asks was.
    """
    for module, base in _COMPONENTS:
        loaded = sys.modules.get(module)
        for kind in getattr(loaded, base).__subclasses__() if loaded else ():
            if kind.__module__.startswith("llama_index.") and text in _defaults(kind):
                return str(kind.__name__)
    return None


def _defaults(component: type[Any]) -> list[str]:
    """Return a component's default templates: of its fields, or beside its class."""
    if fields := getattr(component, "model_fields", None):
        return [field.default for field in fields.values()]
    beside = vars(sys.modules[component.__module__]).values()
    templates = (each for each in beside if isinstance(each, BasePromptTemplate))
    return [_constant_text(template, None) for template in templates]


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
