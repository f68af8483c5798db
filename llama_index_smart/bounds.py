"""The most a call can cost: what a budget sets aside before the call starts.

A token is at least one byte of text, and an answer ends at `max_tokens`.
"""

from __future__ import annotations

import json
from typing import Any

from llama_index_smart.asks import Ask
from llama_index_smart.members import LLMMember
from smart_engine.errors import InvalidInputError
from smart_engine.pricing import Price

__all__ = ["most", "most_output"]

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
    parts = [ask.prompt or ""]
    for message in ask.messages or ():
        parts += [f"{block}" for block in message.blocks]
        parts.append(f"{message.additional_kwargs}")
    parts += [json.dumps(tool.metadata.to_openai_tool()) for tool in ask.tools or ()]
    sent = sum(len(part.encode()) + _AROUND for part in parts)
    said = most_output(member, ask.arguments.get("max_tokens"))
    return member.price.most(sent, said)


def most_output(member: LLMMember, max_tokens: Any = None) -> int:
    """Return the most tokens that a member's answer can have.

    Args:
        member: The member.
        max_tokens: The limit of the call, if one is set.

    Raises:
        InvalidInputError: If there is no limit.
    """
    if member.price == Price.free():
        return 0
    own = getattr(member.model, "max_tokens", None)
    for limit in (max_tokens, own):
        if isinstance(limit, int) and limit > 0:
            return limit
    hint = (
        "budget_usd can only be kept if an answer's length is limited, and nothing "
        f"limits {member.name}'s: set max_tokens on that LLM"
    )
    raise InvalidInputError("max_tokens", max_tokens, hint)
