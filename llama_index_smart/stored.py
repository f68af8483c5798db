"""Responses as text, for a store: what was said and what it used, not the raw form."""

from __future__ import annotations

import json

from llama_index.core.base.llms.types import ChatResponse, CompletionResponse

from llama_index_smart.members import Response, usage_of
from smart_engine.serving.answer_text import as_text

__all__ = ["read_response", "write_response"]

_KEPT = {"message", "text", "additional_kwargs", "logprobs"}


def write_response(response: Response) -> str:
    """Return a response as text."""
    kind = "chat" if isinstance(response, ChatResponse) else "completion"
    told = response.model_dump(include=_KEPT, warnings=False)
    usage = usage_of(response)  # which the raw form may be alone to tell
    if usage is not None and usage.problem is None:
        told["additional_kwargs"] |= {
            "prompt_tokens": usage.input_tokens,
            "completion_tokens": usage.output_tokens,
        }
    return as_text({"kind": kind, **told})


def read_response(text: str) -> Response:
    """Return the response in such a text."""
    told = json.loads(text)
    if told.pop("kind") == "chat":
        return ChatResponse.model_validate(told)
    return CompletionResponse.model_validate(told)
