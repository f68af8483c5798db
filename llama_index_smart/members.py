"""LLMs as members: how they are given, what their responses report."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from llama_index.core.base.llms.types import (
    ChatResponse,
    CompletionResponse,
    LLMMetadata,
)
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms import LLM
from pydantic import BaseModel

from smart_engine.calls import Failure, Outcome
from smart_engine.equivalence.identity import identity
from smart_engine.errors import InvalidInputError
from smart_engine.money.price_list import at_list_price
from smart_engine.money.pricing import Usage
from smart_engine.serving.members import Member, Named, addresses

__all__ = [
    "Estimate",
    "LLMMember",
    "Response",
    "outcome",
    "read_model",
    "settings_of",
    "shared_metadata",
    "usage_of",
]

LLMMember = Member[LLM]
"""A LlamaIndex LLM behind a smart one."""

Response = ChatResponse | CompletionResponse

Estimate = Callable[[LLMMember, Response], Usage]
"""Returns what a member may have used for a response, as far as it came."""

_INPUT = ("prompt_tokens", "input_tokens", "prompt_token_count")
_OUTPUT = ("completion_tokens", "output_tokens", "candidates_token_count")
_READ = ("cache_read_input_tokens",)
_FOR_AN_HOUR = ("ephemeral_1h_input_tokens",)


def read_model(field: str, given: Any) -> Named:
    """Return the LLM that the user gave for a field, without callbacks of its own.

    The smart LLM tells its callbacks of each item once; members share their clients
    and settings with the models that were given.

    Args:
        field: Where it was given.
        given: A LlamaIndex LLM, or a LangChain chat model.

    Raises:
        InvalidInputError: If it is neither.
    """
    if "langchain_core" in sys.modules:
        from langchain_core.language_models.chat_models import BaseChatModel

        if isinstance(given, BaseChatModel):
            from llama_index_smart.langchain_llm import LangChainLLM

            given = LangChainLLM(model=given)
    if not isinstance(given, LLM):
        hint = "give a LlamaIndex LLM, such as OpenAI(model=…), or a LangChain model"
        raise InvalidInputError(field, type(given).__name__, hint)
    silent = given.model_copy(update={"callback_manager": CallbackManager([])})
    name = given.metadata.model_name
    if not name or name == "unknown":
        name = getattr(given, "model", None) or given.class_name()
    return Named(str(name), silent, str(name), _provider(given))


def _provider(model: LLM) -> str | None:
    """Return who serves a model, where its own integration says so for sure."""
    module = type(model).__module__
    if module.startswith("llama_index.llms.openai."):
        told = getattr(model, "additional_kwargs", None) or {}
        address, tier = getattr(model, "api_base", None), told.get("service_tier")
        return "openai" if at_list_price(address, [tier]) else None
    return "anthropic" if module.startswith("llama_index.llms.anthropic.") else None


def settings_of(model: LLM) -> str:
    """Return a text that tells a model's settings: all that may change what it says.

    Whose key it is asked with, how often and how long, does not.
    """
    params = getattr(getattr(model, "model", None), "_identifying_params", None)
    if params is not None:  # LangChain's own
        return repr((params, addresses(model.model)))  # type: ignore[attr-defined]
    fields = {
        name: value.model_dump() if isinstance(value, BaseModel) else value
        for name, value in model
        if name in type(model).model_fields and not _ASIDE.search(name)
    }
    return repr((model.class_name(), model.metadata, identity(fields).mark))


_ASIDE = re.compile(
    "key|secret|password|credential|token$|headers|client|timeout|retries|callback"
    "|rate_limiter"
)
"""Names of fields that do not change what a model says."""


def outcome(
    member: LLMMember, response: Response, estimate: Estimate | None = None
) -> Outcome | Failure:
    """Return what a response brought, priced by the usage it reports.

    Args:
        member: Whose response it is.
        response: The response.
        estimate: Asked where it reports none that can be priced, if that is allowed.
    """
    usage, sure = usage_of(response), _confidence(response)
    cached = usage is not None and not usage.total_tokens  # no call reads nothing
    allowed = estimate and partial(estimate, member, response)
    return member.outcome(response, usage, sure, cached=cached, estimate=allowed)


def usage_of(response: Response) -> Usage | None:
    """Return the usage that a response reports, wherever its integration puts it."""
    inside = _first_of(response.raw, "usage", "usage_metadata")
    for told in (inside, response.additional_kwargs):
        sent, said = _first(told, _INPUT), _first(told, _OUTPUT)
        if sent is not None and said is not None:
            return _by_kind(told, sent, said)
    return None


def _by_kind(told: Any, sent: float, said: float) -> Usage:
    """Return a usage with the kinds of tokens that it tells apart.

    OpenAI counts what was cached among the input, Anthropic beside it; LiteLLM, which
    tells it by both names, among it. Gemini counts what was thought beside the answer.
    """
    asked = _first_of(told, "prompt_tokens_details", "input_tokens_details")
    answered = _first_of(told, "completion_tokens_details", "output_tokens_details")
    among, beside = _first(asked, ("cached_tokens",)), _first(told, _READ)
    written = _first(told, ("cache_creation_input_tokens",)) or 0
    for_an_hour = _first(_first_of(told, "cache_creation"), _FOR_AN_HOUR) or 0
    within = _first(told, ("cached_content_token_count",)) or 0
    thought = _first(told, ("thoughts_token_count",)) or 0
    added = 0 if None not in (among, beside) else (beside or 0) + written
    return Usage(
        sent + added,
        said + thought,
        cache_read=beside or within or among or 0,
        cache_write=written - for_an_hour,
        cache_write_1h=for_an_hour,
        input_audio=_first(asked, ("audio_tokens",)) or 0,
        output_audio=_first(answered, ("audio_tokens",)) or 0,
        reasoning=thought or _first(answered, ("reasoning_tokens",)) or 0,
    )


def _first_of(told: Any, *names: str) -> Any:
    """Return the first part that goes by one of these names."""
    mapping = isinstance(told, Mapping)
    parts = (told.get(n) if mapping else getattr(told, n, None) for n in names)
    return next((part for part in parts if part is not None), None)


def _first(told: Any, names: Sequence[str]) -> int | float | None:
    """Return the first number that goes by one of these names."""
    for name in names:
        mapping = isinstance(told, Mapping)
        value = told.get(name) if mapping else getattr(told, name, None)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value
    return None


def _confidence(response: Response) -> float | None:
    """Return the geometric mean of the probabilities of an answer's tokens, if told.

    Unlike their product it does not sink with the answer's length.
    """
    logs = []
    with suppress(AttributeError, IndexError, TypeError):  # OpenAI's own form
        logs = [token.logprob for token in _raw(response).choices[0].logprobs.content]
    logs = logs or [token[0].logprob for token in response.logprobs or () if token]
    return math.exp(min(0.0, sum(logs) / len(logs))) if logs else None


def _raw(response: Response) -> Any:
    """Return what the provider sent."""
    return response.raw


def shared_metadata(members: Sequence[LLMMember]) -> LLMMetadata:
    """Return what all members can do."""
    tables = [member.model.metadata for member in members]
    return LLMMetadata(
        context_window=min(table.context_window for table in tables),
        num_output=min(table.num_output for table in tables),
        is_chat_model=all(table.is_chat_model for table in tables),
        is_function_calling_model=all(
            table.is_function_calling_model for table in tables
        ),
        model_name="smart",
        system_role=tables[0].system_role,
    )
