"""The most a call can cost: what a budget sets aside before the call starts.

A token is at least one byte of text, and an answer ends at `max_tokens`.
"""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.messages import BaseMessage

from langchain_smart.members import ChatMember
from langchain_smart.requests import Request
from smart_engine.errors import InvalidInputError
from smart_engine.pricing import Price

__all__ = ["most", "most_output"]

_AROUND = 16
"""Tokens that a provider may put around a message, a tool or a schema."""


def most(
    member: ChatMember, messages: Sequence[BaseMessage], request: Request
) -> float:
    """Return the most a call can cost, in USD.

    Tools and schema are counted with the messages. A picture given by its address is
    not: its tokens are unknown.

    Args:
        member: Who is asked.
        messages: What is sent.
        request: What is asked beside them.

    Raises:
        InvalidInputError: If nothing limits the answer.
    """
    parts = [
        f"{message.content}{message.name or ''}{getattr(message, 'tool_calls', '')}"
        for message in messages
    ]
    parts += [str(tool) for tool in request.tools or ()]
    parts += [str(request.schema)] if request.schema is not None else []
    sent = sum(len(part.encode()) + _AROUND for part in parts)
    said = most_output(member, request.arguments.get("max_tokens"))
    return member.price.most(sent, said)


def most_output(member: ChatMember, max_tokens: int | None) -> int:
    """Return the most tokens that a member's answer can have.

    Args:
        member: The member.
        max_tokens: The limit of the call, if one is set.

    Raises:
        InvalidInputError: If there is no limit.
    """
    model = member.model
    if member.price == Price.free():
        return 0
    own = [getattr(model, name, None) for name in ("max_tokens", "max_output_tokens")]
    by_provider = (model.profile or {}).get("max_output_tokens")
    for limit in (max_tokens, *own, by_provider):
        if isinstance(limit, int) and limit > 0:
            return limit
    hint = (
        f"budget_usd can only be kept if an answer's length is limited, and nothing "
        f"limits {member.name}'s: set max_tokens"
    )
    raise InvalidInputError("max_tokens", max_tokens, hint)
