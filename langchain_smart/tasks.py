"""Which task an item belongs to: each task is learnt about on its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage, SystemMessage
from langchain_core.runnables import RunnableConfig

from langchain_smart.requests import TASK, Request

__all__ = ["fingerprint", "named_task"]


def named_task(kwargs: Mapping[str, Any], config: RunnableConfig | None) -> str | None:
    """Return the task that a call names, None if it names none.

    Args:
        kwargs: The call's arguments, where `bind(smart_task=…)` arrives.
        config: Its config: `configurable` comes before `metadata`.
    """
    config = config or {}
    places = (kwargs, config.get("configurable") or {}, config.get("metadata") or {})
    found = [place[TASK] for place in places if place.get(TASK) is not None]
    return str(found[0]) if found else None


def fingerprint(items: Iterable[Sequence[BaseMessage]], request: Request) -> str:
    """Return a name for what is asked of some items, where nobody gave one.

    It stands for the system messages and for the names of tools and schema.

    Args:
        items: The messages of each item.
        request: What is asked beside them.
    """
    systems = {
        str(message.content)
        for messages in items
        for message in messages
        if isinstance(message, SystemMessage)
    }
    names = [tool.get("function", tool).get("name") for tool in request.tools or []]
    schema = request.schema and request.schema.name
    told = repr((sorted(systems), names, schema))
    return "task-" + hashlib.sha256(told.encode()).hexdigest()[:12]
