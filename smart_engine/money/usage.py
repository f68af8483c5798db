"""A usage as replies report it: totals, and details by kind of token."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from numbers import Real
from typing import Any, NamedTuple

from smart_engine.money.pricing import STANDARD_TIERS, Usage

__all__ = [
    "Billing",
    "first_of",
    "from_cache",
    "read_billing",
    "reported_usage",
    "service_tier",
]

_INPUT = ("prompt_tokens", "input_tokens", "prompt_token_count")
_OUTPUT = ("completion_tokens", "output_tokens", "candidates_token_count")
_TOTAL = ("total_tokens", "total_token_count")
_OF_INPUT = ("input_token_details", "prompt_tokens_details", "input_tokens_details")
_OF_OUTPUT = (
    "output_token_details",
    "completion_tokens_details",
    "output_tokens_details",
)
"""Names that LangChain, OpenAI, Anthropic and Gemini give to the parts of a usage."""

_TIER = ("service_tier", "serviceTier", "speed")
"""Names of the service tier in replies and requests."""

_ABSURD = 2**1000
"""An integer beyond this may be too large for a float."""

_MAPPINGS = (dict, Mapping)
"""The first of them is tested quickly."""


def _in_each_tier(*names: str) -> tuple[str, ...]:
    """Return names of details, before them those with a service tier in them."""
    return tuple(f"{tier}{n}" for tier in ("flex_", "priority_", "") for n in names)


_CACHED = _in_each_tier("cache_read", "cached_tokens")
_CREATED = _in_each_tier("cache_creation", "cache_write_tokens")
_FOR_AN_HOUR = _in_each_tier("ephemeral_1h_input_tokens")
_SHORT = _in_each_tier("ephemeral_5m_input_tokens")
_AUDIO = _in_each_tier("audio", "audio_tokens")
_REASONING = _in_each_tier("reasoning", "reasoning_tokens")


class Billing(NamedTuple):
    """What a reply tells of its cost.

    Attributes:
        usage: Tokens that it used; None if it reports none.
        cached: Whether it came from a cache of the caller.
        tier: The service tier that it was served at, if that is not the standard one.
    """

    usage: Usage | None
    cached: bool
    tier: str | None


def read_billing(reply: Any, *usages: Any) -> Billing:
    """Return what a reply tells of its cost.

    Args:
        reply: The reply, or what its framework keeps of it: a mapping or an object.
        *usages: Where its usage may stand, the strongest first, which also says whether
            it came from a cache.

    Example:
        ```python
        used = {"input_tokens": 9, "output_tokens": 1}
        reply = {"usage": {**used, "service_tier": "flex"}}
        assert read_billing(reply, None, used) == Billing(Usage(9, 1), False, "flex")
        ```
    """
    found = (usage for each in usages if (usage := reported_usage(each)) is not None)
    cached = isinstance(usages[0], _MAPPINGS) and from_cache(usages[0])
    tier = service_tier(reply, first_of(reply, ("usage",)))
    return Billing(next(found, None), cached, tier)


def from_cache(reported: Mapping[str, Any] | None) -> bool:
    """Whether a reply came from a cache of the caller: it is marked by a cost of 0."""
    return reported is not None and reported.get("total_cost") == 0


def reported_usage(reported: Any) -> Usage | None:
    """Return the tokens that a reply reports, None if it reports none.

    OpenAI counts what was cached among the input, Anthropic beside it; LiteLLM, which
    reports it under both names, among it; LangChain among it. Gemini counts thoughts
    beside the answer, and what its own tools read beside the prompt. What was written
    to a cache is reported in total, by duration, or both.

    A total that is larger than its parts holds: xAI counts reasoning in the total only.
    The rest is output, and shown as reasoning. A smaller total is ignored.

    Args:
        reported: A usage as LangChain or a provider forms it, a mapping or an object.

    Example:
        ```python
        details = {"flex_cache_read": 5, "ephemeral_1h_input_tokens": 3}
        reported = {
            "input_tokens": 9,
            "output_tokens": 1,
            "input_token_details": details,
        }
        assert reported_usage(reported) == Usage(9, 1, cache_read=5, cache_write_1h=3)
        xai = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 60}
        assert reported_usage(xai) == Usage(9, 51, reasoning=50)
        ```
    """
    sent, written = _number(reported, _INPUT), _number(reported, _OUTPUT)
    total = _number(reported, _TOTAL)
    if sent is None or (written is None and not total):
        return None  # Gemini leaves out the output of an answer that is all thoughts
    of_input, of_output = first_of(reported, _OF_INPUT), first_of(reported, _OF_OUTPUT)
    by_age = first_of(reported, ("cache_creation",)) or of_input
    one_hour = _number(by_age, _FOR_AN_HOUR) or 0
    short = _number(by_age, _SHORT) or 0
    among = _number(of_input, _CACHED)
    beside = _number(reported, ("cache_read_input_tokens",))
    created = _number(reported, ("cache_creation_input_tokens",)) or 0
    added = max(0, beside or 0) + max(0, created)  # nothing absurd makes a call cheaper
    added = 0 if None not in (among, beside) else added
    created = max(created, _number(of_input, _CREATED) or 0, short + one_hour)
    within = _number(reported, ("cached_content_token_count",)) or 0
    thoughts = _number(reported, ("thoughts_token_count",)) or 0
    read = _number(reported, ("tool_use_prompt_token_count",)) or 0
    sent += added + max(0, read)
    written = (written or 0) + max(0, thoughts)
    rest = max(0, (total or 0) - sent - written)
    return Usage(
        sent,
        written + rest,
        cache_read=beside or within or among or 0,
        cache_write=created - one_hour,
        cache_write_1h=one_hour,
        input_audio=_number(of_input, _AUDIO) or 0,
        output_audio=_number(of_output, _AUDIO) or 0,
        reasoning=max(thoughts or _number(of_output, _REASONING) or 0, rest),
    )


def service_tier(*parts: Any) -> str | None:
    """Return the first service tier but the standard one that is named in these parts.

    Args:
        *parts: Parts of a reply, or of a request: mappings or objects.

    Example:
        ```python
        assert service_tier({"service_tier": "default"}, None) is None
        assert service_tier({"serviceTier": {"type": "flex"}}) == "flex"
        usage = {"service_tier": "standard", "speed": "fast"}
        assert service_tier({}, usage) == "fast"
        ```
    """
    for value in (first_of(part, (name,)) for part in parts for name in _TIER):
        tier = value.get("type") if isinstance(value, _MAPPINGS) else value
        if isinstance(tier, str) and tier and tier not in STANDARD_TIERS:
            return tier
    return None


def first_of(reported: Any, names: tuple[str, ...]) -> Any:
    """Return what stands under the first of these names that is there, if any is."""
    if reported is None:
        return None
    mapping = isinstance(reported, _MAPPINGS)
    get = reported.get if mapping else partial(getattr, reported)
    for name in names:
        if (value := get(name, None)) is not None:
            return value
    return None


def _number(reported: Any, names: tuple[str, ...]) -> Any:
    value = first_of(reported, names)
    number = isinstance(value, int | float) or (value and isinstance(value, Real))
    if not number or isinstance(value, bool):
        return None
    if abs(value) > _ABSURD:  # else sums with floats overflow
        return math.inf if value > 0 else -math.inf
    return value
