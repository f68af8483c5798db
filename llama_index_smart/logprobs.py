"""Logprobs of LLMs: who can be asked for them, and what they say of an answer."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from llama_index_smart.members import LLMMember, Response
from llama_index_smart.request import Ask
from smart_engine.runtime.signals import LOGPROBS, completes_chats, reports_logprobs

__all__ = [
    "confidence_of",
    "has_logprobs",
    "with_logprobs",
    "without_logprobs",
]


def has_logprobs(member: LLMMember) -> bool:
    """Whether a member can be asked for logprobs, and its user has left that open."""
    model: Any = member.model
    if isinstance(getattr(model, "model", None), BaseModel):  # LangChain's
        return reports_logprobs(model.model, member.arguments)
    modules = [sys.modules.get(kind.__module__) for kind in type(model).__mro__]
    thinking = (getattr(module, "O1_MODELS", ()) for module in modules)  # OpenAI's
    if not (model.metadata.is_chat_model and reports_logprobs(model, member.arguments)):
        return False
    return not any(model.model in names for names in thinking)


def with_logprobs(member: LLMMember, ask: Ask[Any]) -> Ask[Any]:
    """Return a call that asks for logprobs, too, where such calls do."""
    inner = getattr(member.model, "model", None)
    arguments = {**member.arguments, **ask.arguments}
    if not completes_chats(inner, arguments):
        return ask
    return replace(ask, arguments={**ask.arguments, LOGPROBS: True})


def confidence_of(pieces: Sequence[Response]) -> float | None:
    """Return the geometric mean of the probabilities of an answer's tokens, if known.

    Unlike their product it does not depend on the answer's length.

    Args:
        pieces: The pieces of its response, or all of it as one.
    """
    logs = [token.logprob for piece in pieces for token in _tokens_of(piece.raw)]
    whole = pieces[-1].logprobs or ()
    logs = logs or [token[0].logprob for token in whole if token]
    return math.exp(min(0.0, sum(logs) / len(logs))) if logs else None


def _tokens_of(raw: Any) -> Sequence[Any]:
    """Return the tokens in OpenAI's own form of a response, or of a piece of one."""
    with suppress(AttributeError, IndexError, TypeError):
        return [*raw.choices[0].logprobs.content]
    return ()


def without_logprobs(response: Response) -> Response:
    """Return a response as it is where nobody asks for logprobs."""
    update: dict[str, Any] = {LOGPROBS: None}
    raw: Any = response.raw
    if isinstance(raw, Mapping) and LOGPROBS in raw:
        update["raw"] = {name: raw[name] for name in raw if name != LOGPROBS}
    elif any(getattr(each, LOGPROBS, None) for each in getattr(raw, "choices", ())):
        choices = [each.model_copy(update={LOGPROBS: None}) for each in raw.choices]
        update["raw"] = raw.model_copy(update={"choices": choices})
    return response.model_copy(update=update)
