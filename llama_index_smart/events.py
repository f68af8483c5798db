"""Callbacks: one LLM event an item, with the usage of all members together.

Instrumentation (`llama_index.core.instrumentation`) sees each call that is made, as its
model reports it, inside the smart model's span.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload

from llama_index_smart.members import Response
from llama_index_smart.request import Ask

__all__ = ["ItemEvent", "item_event"]


class ItemEvent:
    """The event of one item.

    Attributes:
        response: The answer, once there is one.
    """

    response: Response | None = None


@contextmanager
def item_event(
    manager: CallbackManager, ask: Ask[Any], serialized: dict[str, Any]
) -> Iterator[ItemEvent]:
    """Report an item to callbacks: when it begins, and how it ends.

    Args:
        manager: The callbacks.
        ask: What is asked.
        serialized: The model as callbacks see it.
    """
    event, chat = ItemEvent(), ask.prompt is None
    asked: dict[str, Any] = (
        {EventPayload.MESSAGES: ask.messages}
        if chat
        else {EventPayload.PROMPT: ask.prompt}
    )
    with manager.as_trace("chat" if chat else "completion"):
        started = {
            **asked,
            EventPayload.ADDITIONAL_KWARGS: ask.arguments,
            EventPayload.SERIALIZED: serialized,
        }
        event_id = manager.on_event_start(CBEventType.LLM, payload=started)
        ended: dict[str, Any] = {}
        try:
            yield event
            key = EventPayload.RESPONSE if chat else EventPayload.COMPLETION
            ended = {**asked, key: _summed(event.response)}
        except BaseException as error:
            ended = {EventPayload.EXCEPTION: error}
            raise
        finally:
            manager.on_event_end(CBEventType.LLM, payload=ended, event_id=event_id)


def _summed(response: Response | None) -> Response | None:
    """Return a response in whose raw form counters find the usage of all members."""
    if response is None or "prompt_tokens" not in response.additional_kwargs:
        return response
    counts = response.additional_kwargs.items()
    usage = {name: value for name, value in counts if name.endswith("_tokens")}
    return response.model_copy(update={"raw": {"usage": usage}})
