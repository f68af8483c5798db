"""Details of usage as providers report them, under names that differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["cache_writes", "from_cache", "token_counts"]


def from_cache(reported: Mapping[str, Any] | None) -> bool:
    """Whether a reply came from a cache of the caller: it is marked by a cost of 0."""
    return reported is not None and reported.get("total_cost") == 0


def token_counts(details: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return counts of tokens by kind, without the service tier in their names.

    Example:
        ```python
        assert token_counts({"flex_reasoning": 5})["reasoning"] == 5
        ```
    """
    counts = dict(details or {})
    for tier in ("priority_", "flex_"):
        counts |= {k.removeprefix(tier): n for k, n in counts.items() if tier in k}
    return counts


def cache_writes(counts: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return how many input tokens were written to a cache, and how many for an hour.

    Providers report writes in total, by duration, or both.

    Example:
        ```python
        assert cache_writes({"cache_creation": 7}) == (7, 0)
        assert cache_writes({"ephemeral_1h_input_tokens": 3}) == (3, 3)
        ```
    """
    one_hour = counts.get("ephemeral_1h_input_tokens") or 0
    short = counts.get("ephemeral_5m_input_tokens") or 0
    return max(counts.get("cache_creation") or 0, short + one_hour), one_hour
