"""Callbacks: one LLM event an item, with the usage of all members together.

Instrumentation (`llama_index.core.instrumentation`) sees each call that is made, as its
model tells of it, inside the smart model's span.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload

from llama_index_smart.members import Response
from llama_index_smart.request import Ask

__all__ = ["Event", "told_of"]


class Event:
    """The event of one item.

    Attributes:
        response: The answer, once there is one.
    """

    def __init__(self) -> None:
        """Nothing was answered yet."""
        self.response: Response | None = None


@contextmanager
def told_of(
    manager: CallbackManager, ask: Ask[Any], serialized: dict[str, Any]
) -> Iterator[Event]:
    """Tell callbacks of an item: when it begins, and how it ends.

    Args:
        manager: The callbacks.
        ask: What is asked.
        serialized: What is told of the model.
    """
    event = Event()
    given: dict[str, Any] = {
        EventPayload.MESSAGES: ask.messages,
        EventPayload.PROMPT: ask.prompt,
    }
    given = {name: value for name, value in given.items() if value is not None}
    with manager.as_trace("chat" if ask.prompt is None else "completion"):
        details: dict[str, Any] = {
            EventPayload.ADDITIONAL_KWARGS: ask.arguments,
            EventPayload.SERIALIZED: serialized,
        }
        begun = manager.on_event_start(CBEventType.LLM, payload={**given, **details})
        try:
            yield event
        except BaseException as error:
            ended: dict[str, Any] = {EventPayload.EXCEPTION: error}
            manager.on_event_end(CBEventType.LLM, payload=ended, event_id=begun)
            raise
        key = EventPayload.RESPONSE if ask.prompt is None else EventPayload.COMPLETION
        ended = {**given, key: _summed(event.response)}
        manager.on_event_end(CBEventType.LLM, payload=ended, event_id=begun)


def _summed(response: Response | None) -> Response | None:
    """Return a response in whose raw form counters find the usage of all members."""
    if response is None or "prompt_tokens" not in response.additional_kwargs:
        return response
    usage = {
        name: value
        for name, value in response.additional_kwargs.items()
        if name.endswith("_tokens")
    }
    return response.model_copy(update={"raw": {"usage": usage}})
