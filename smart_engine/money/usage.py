"""What LangChain's messages report of their usage, for both adapters.

One wraps LangChain's models, the other LlamaIndex's, which may be LangChain's in turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["cache_writes", "from_cache", "token_counts"]


def from_cache(reported: Mapping[str, Any] | None) -> bool:
    """Whether core has marked a reply as one from its cache, usage or not."""
    return reported is not None and reported.get("total_cost") == 0


def token_counts(told: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return kinds of tokens by name, whatever service tier of OpenAI they are of.

    Example:
        ```python
        assert token_counts({"flex_reasoning": 5})["reasoning"] == 5
        ```
    """
    found = dict(told or {})
    for tier in ("priority_", "flex_"):
        found |= {k.removeprefix(tier): n for k, n in found.items() if tier in k}
    return found


def cache_writes(asked: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return how many input tokens were put into a cache, and how many for an hour.

    Args:
        asked: Kinds of input tokens by name. Some report what was written in total,
            some by how long, some both.

    Example:
        ```python
        assert cache_writes({"cache_creation": 7}) == (7, 0)
        assert cache_writes({"ephemeral_1h_input_tokens": 3}) == (3, 3)
        ```
    """
    for_an_hour = asked.get("ephemeral_1h_input_tokens") or 0
    briefly = asked.get("ephemeral_5m_input_tokens") or 0
    return max(asked.get("cache_creation") or 0, briefly + for_an_hour), for_an_hour
