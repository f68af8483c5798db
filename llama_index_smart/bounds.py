"""The most a call can cost: what a budget sets aside before the call starts.

A token is at least one byte of text, and an answer ends at `max_tokens`.
"""

from __future__ import annotations

import json
from typing import Any

from llama_index_smart.asks import Ask
from llama_index_smart.members import LLMMember
from smart_engine.errors import InvalidInputError

__all__ = ["limit_of", "most", "most_output", "most_sent"]

_AROUND = 16
"""Tokens that a provider may put around a message or a tool."""


def most(member: LLMMember, ask: Ask[Any]) -> float:
    """Return the most a call can cost, in USD.

    Tools are counted with the messages. A picture given by its address is not: its
    tokens are unknown.

    Args:
        member: Who is asked.
        ask: What is asked.

    Raises:
        InvalidInputError: If nothing limits the answer.
    """
    said = most_output(member, ask.arguments.get("max_tokens"))
    return member.price.most(most_sent(ask), said)


def most_sent(ask: Ask[Any]) -> int:
    """Return the most tokens that what is sent can have."""
    parts = [ask.prompt or ""]
    for message in ask.messages or ():
        parts += [f"{block}" for block in message.blocks]
        parts.append(f"{message.additional_kwargs}")
    parts += [json.dumps(tool) for tool in ask.told_tools]
    return sum(len(part.encode("utf-8", "surrogatepass")) + _AROUND for part in parts)


def most_output(member: LLMMember, max_tokens: Any = None) -> int:
    """Return the most tokens that a member's answer can have.

    Args:
        member: The member.
        max_tokens: The limit of the call, if one is set.

    Raises:
        InvalidInputError: If there is no limit.
    """
    if not member.price.by_token:
        return 0
    limit = limit_of(member, max_tokens)
    if limit is None:
        hint = (
            "budget_usd can only be kept if an answer's length is limited, and nothing "
            f"limits {member.name}'s: set max_tokens on that LLM"
        )
        raise InvalidInputError("max_tokens", max_tokens, hint)
    return limit


def limit_of(member: LLMMember, max_tokens: Any = None) -> int | None:
    """Return the most tokens that a member's answer can have, if there is a limit.

    Args:
        member: The member.
        max_tokens: The limit of the call, if one is set.
    """
    for limit in (max_tokens, getattr(member.model, "max_tokens", None)):
        if isinstance(limit, int) and limit > 0:
            return limit
    return None
