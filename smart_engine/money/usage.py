"""A usage as messages report it: totals, and details by kind of token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from smart_engine.money.pricing import Usage

__all__ = ["from_cache", "reported_usage"]


def from_cache(reported: Mapping[str, Any] | None) -> bool:
    """Whether a reply came from a cache of the caller: it is marked by a cost of 0."""
    return reported is not None and reported.get("total_cost") == 0


def reported_usage(reported: Mapping[str, Any]) -> Usage | None:
    """Return the tokens that a message reports, None if it reports none.

    Details may have a service tier in their names. Providers report what was written to
    a cache in total, by duration, or both.

    Example:
        ```python
        details = {"flex_cache_read": 5, "ephemeral_1h_input_tokens": 3}
        reported = {
            "input_tokens": 9,
            "output_tokens": 1,
            "input_token_details": details,
        }
        assert reported_usage(reported) == Usage(9, 1, cache_read=5, cache_write_1h=3)
        ```
    """
    if "input_tokens" not in reported:
        return None  # a reply from a cache that reported nothing
    read = _counts(reported.get("input_token_details"))
    written = _counts(reported.get("output_token_details"))
    one_hour = read.get("ephemeral_1h_input_tokens") or 0
    short = read.get("ephemeral_5m_input_tokens") or 0
    cached = max(read.get("cache_creation") or 0, short + one_hour)
    return Usage(
        reported["input_tokens"],
        reported["output_tokens"],
        cache_read=read.get("cache_read") or 0,
        cache_write=cached - one_hour,
        cache_write_1h=one_hour,
        input_audio=read.get("audio") or 0,
        output_audio=written.get("audio") or 0,
        reasoning=written.get("reasoning") or 0,
    )


def _counts(details: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return counts of tokens by kind, without the service tier in their names."""
    counts = dict(details or {})
    for tier in ("priority_", "flex_"):
        counts |= {k.removeprefix(tier): n for k, n in counts.items() if tier in k}
    return counts
