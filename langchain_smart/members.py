"""Chat models as members: how they are given, what their messages report."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

from langchain_core.language_models import ModelProfile
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata

from smart_engine.calls import Failure, Outcome
from smart_engine.errors import InvalidInputError
from smart_engine.money.price_list import at_list_price
from smart_engine.money.pricing import Usage
from smart_engine.money.usage import cache_writes, from_cache, token_counts
from smart_engine.serving.members import Member, Named

__all__ = [
    "ChatMember",
    "Estimate",
    "answer_in",
    "confidence_of",
    "load_model",
    "outcome",
    "read_model",
    "shared_profile",
    "usage_in",
    "usage_of",
]

ChatMember = Member[BaseChatModel]
"""A LangChain chat model behind a smart model."""


Estimate = Callable[[ChatMember, AIMessage | None], Usage]
"""Returns what a member may have used for an answer, as far as it came."""


def outcome(
    member: ChatMember, message: AIMessage, estimate: Estimate | None = None
) -> Outcome | Failure:
    """Return what a message brought, priced by the usage it reports.

    A usage that cannot be true is taken out of the message.

    Args:
        member: Whose message it is.
        message: The message.
        estimate: Asked where it reports none that can be priced, if that is allowed.
    """
    reported, sure = message.usage_metadata, confidence_of(message)
    usage = None if reported is None else usage_of(reported)
    cached = from_cache(reported)
    allowed = estimate and partial(estimate, member, message)
    if usage is not None and usage.problem is not None:
        # Whoever adds it up, or keeps it, would stumble over it.
        message = message.model_copy(update={"usage_metadata": None})
    return member.outcome(message, usage, sure, cached=cached, estimate=allowed)


def usage_of(reported: UsageMetadata) -> Usage | None:
    """Return the tokens that a message reports, by kind; those not told are none."""
    if "input_tokens" not in reported:
        return None  # core has marked a reply from its cache that reported nothing
    asked = token_counts(reported.get("input_token_details"))
    said = token_counts(reported.get("output_token_details"))
    in_all, for_an_hour = cache_writes(asked)
    return Usage(
        reported["input_tokens"],
        reported["output_tokens"],
        cache_read=asked.get("cache_read") or 0,
        cache_write=in_all - for_an_hour,
        cache_write_1h=for_an_hour,
        input_audio=asked.get("audio") or 0,
        output_audio=said.get("audio") or 0,
        reasoning=said.get("reasoning") or 0,
    )


def usage_in(error: BaseException) -> Usage | None:
    """Return the usage of an answer that came, but was refused by its model's class.

    An object cut off by its limit of tokens, or by a filter, is billed all the same:
    OpenAI's classes hang the reply on the error.
    """
    reply = getattr(error, "response", None)
    try:
        told = reply.json()["usage"]  # type: ignore[union-attr]
        asked = told.get("prompt_tokens_details") or {}
        said = told.get("completion_tokens_details") or {}
        return Usage(
            told["prompt_tokens"],
            told["completion_tokens"],
            cache_read=asked.get("cached_tokens") or 0,
            cache_write=asked.get("cache_write_tokens") or 0,
            input_audio=asked.get("audio_tokens") or 0,
            output_audio=said.get("audio_tokens") or 0,
            reasoning=said.get("reasoning_tokens") or 0,
        )
    except (AttributeError, LookupError, TypeError, ValueError):
        return None  # there was no reply, or none that tells it


def answer_in(error: BaseException) -> AIMessage | None:
    """Return such an answer itself, as far as it tells what it used."""
    reply = getattr(error, "response", None)
    try:
        return AIMessage(str(reply.json()["choices"][0]["message"]))  # type: ignore[union-attr]
    except (AttributeError, LookupError, TypeError, ValueError):
        return None


def confidence_of(message: AIMessage) -> float | None:
    """Return a model's own score of its answer, 0 to 1, if its message carries one.

    `response_metadata["confidence"]` wins. Otherwise it is the geometric mean of the
    probabilities of the answer's tokens: unlike their product it does not sink with
    the answer's length, so that scores of long and short answers can be compared; on
    an answer of one token, such as a label, both are the same.
    """
    metadata = message.response_metadata
    stated = metadata.get("confidence")
    if isinstance(stated, int | float) and not isinstance(stated, bool):
        return float(stated)
    try:
        logs = [float(token["logprob"]) for token in metadata["logprobs"]["content"]]
        return math.exp(min(0.0, sum(logs) / len(logs)))
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None  # none asked for, or none of the form that OpenAI has set


def shared_profile(members: Sequence[ChatMember]) -> ModelProfile | None:
    """Return what all members can do, None where that is unknown of one of them."""
    profiles = [member.model.profile for member in members]
    if any(profile is None for profile in profiles):
        return None
    tables: list[dict[str, Any]] = [dict(profile or {}) for profile in profiles]
    shared = {}
    for key, value in tables[0].items():
        values = [table.get(key) for table in tables]
        if isinstance(value, bool):
            shared[key] = all(values)
        elif isinstance(value, int) and all(isinstance(v, int) for v in values):
            shared[key] = min(v for v in values if v is not None)
        elif all(other == value for other in values):
            shared[key] = value
    return cast("ModelProfile", shared)


def read_model(field: str, given: Any) -> Named:
    """Return the model that the user gave for a field.

    Args:
        field: Where it was given.
        given: A chat model, or a string for `init_chat_model`.

    Raises:
        InvalidInputError: If it is neither, or names no known model.
    """
    model = load_model(field, given) if isinstance(given, str) else given
    if not isinstance(model, BaseChatModel):
        hint = "give a LangChain chat model or a string such as 'openai:gpt-5-mini'"
        raise InvalidInputError(field, type(model).__name__, hint)
    params = model._get_ls_params()  # noqa: SLF001 - core's own
    official, provider = params.get("ls_model_name"), params.get("ls_provider")
    if provider == "openai" and not _at_list_price(model):
        provider = None
    name = model.name or official or type(model).__name__
    return Named(name, model, official, provider, given if model is not given else None)


def _at_list_price(model: BaseChatModel) -> bool:
    """Whether a model of OpenAI's class is OpenAI's, and of its usual service tier."""
    address = getattr(getattr(model, "root_client", None), "base_url", None)
    places = [getattr(model, n, None) or {} for n in ("model_kwargs", "extra_body")]
    tiers = [getattr(model, "service_tier", None)]
    return at_list_price(address, tiers + [p.get("service_tier") for p in places])


def load_model(field: str, name: str, **settings: Any) -> BaseChatModel:
    """Return the model that a string names.

    Args:
        field: Where it was given.
        name: A string for `init_chat_model`.
        **settings: Settings of the model.

    Raises:
        InvalidInputError: If it names no known model, or one that cannot be made.
    """
    try:
        from langchain.chat_models import init_chat_model
    except ModuleNotFoundError as error:
        hint = "naming a model by a string needs: pip install langchain"
        raise InvalidInputError(field, name, hint) from error
    try:
        return cast("BaseChatModel", init_chat_model(name, **settings))
    except Exception as error:
        hint = f"init_chat_model could not make this model: {error}"
        raise InvalidInputError(field, name, hint) from error
