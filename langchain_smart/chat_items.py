"""One item's answer as the smart chat model's own: marked, whole or in pieces."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from langchain_smart.batch import marked
from langchain_smart.singles import Single

__all__ = ["ending", "piece", "result"]


def result(single: Single, message: AIMessage) -> ChatResult:
    """Return a whole answer."""
    usage = _together(single.item.said.values())
    answer = marked(message, None, usage, **single.item.told)
    return ChatResult(generations=[ChatGeneration(message=answer)])


def piece(single: Single, chunk: AIMessageChunk, *, first: bool) -> ChatGenerationChunk:
    """Return a piece of an answer; the first one says who answers."""
    metadata = {k: v for k, v in chunk.response_metadata.items() if k != "smart"}
    if first:
        metadata["smart"] = {"model": single.shows, "task": single.item.task}
    # The ending tells the usage of all calls: whoever counts looks once.
    update: dict[str, Any] = {"id": None, "chunk_position": None}
    update |= {"usage_metadata": None, "response_metadata": metadata}
    return ChatGenerationChunk(message=chunk.model_copy(update=update))


def ending(single: Single) -> ChatGenerationChunk:
    """Return the piece that says what a settled answer cost."""
    told = single.item.told
    whole = single.item.said[told["model"]]
    shown_first = ("model", "task")
    smart = {name: value for name, value in told.items() if name not in shown_first}
    metadata: dict[str, Any] = {"smart": smart}
    if not whole.response_metadata.get("model_name"):
        metadata["model_name"] = told["model"]
    last = AIMessageChunk(
        content="" if isinstance(whole.content, str) else [],
        usage_metadata=_together(single.item.said.values()),
        response_metadata=metadata,
        chunk_position="last",
    )
    return ChatGenerationChunk(message=last)


def _together(said: Iterable[AIMessage]) -> UsageMetadata | None:
    """Return what all models used together."""
    usage = None
    for message in said:
        usage = add_usage(usage, message.usage_metadata)
    return usage
