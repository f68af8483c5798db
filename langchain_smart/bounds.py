"""The most a call can cost: what a budget sets aside before the call starts.

A token is at least one byte of text, and an answer ends at `max_tokens`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage
from pydantic import BaseModel

from langchain_smart.members import ChatMember
from langchain_smart.requests import Request
from smart_engine.errors import InvalidInputError
from smart_engine.pricing import Price
from smart_engine.serving.members import Member, UnpricedError

__all__ = [
    "beside_run",
    "limit_of",
    "limit_of_run",
    "most",
    "most_of_run",
    "most_output",
    "most_sent",
    "texts_of",
]

_AROUND = 16
"""Tokens that a provider may put around a message, a tool or a schema."""

_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "num_predict")
"""What providers call the most tokens of an answer."""

_BESIDE = ("tools", "functions", "response_format", "tool_choice")
"""What is sent beside messages, as providers call it."""

_UNLIMITED = (
    "budget_usd can only be kept if an answer's length is limited, and nothing limits "
    "{}'s: set max_tokens"
)


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
    said = most_output(member, request.arguments.get("max_tokens"))
    return member.price.most(most_sent([*messages, *request.beside]), said)


def most_of_run(
    name: str, price: Price, sent: Sequence[Any], limit: int | None
) -> float:
    """Return the most a model's run within a chain can cost, in USD.

    Args:
        name: What the model is called.
        price: What the model charges.
        sent: Messages or prompts, and what is sent with them.
        limit: Most tokens that it can say; see `limit_of_run`.

    Raises:
        UnpricedError: If nothing limits that: what it can cost is unknown.
    """
    if limit is None and price.by_token:
        raise UnpricedError(name, _UNLIMITED.format(name))
    return price.most(most_sent(sent), limit or 0)


def beside_run(params: Mapping[str, Any]) -> list[Any]:
    """Return what is sent with the messages of a run, such as tools.

    Args:
        params: The parameters of the run, as callbacks are told them.
    """
    return [params[name] for name in _BESIDE if params.get(name)]


def limit_of_run(params: Mapping[str, Any], otherwise: int | None) -> int | None:
    """Return the most tokens that a model can say in a run, if there is a limit.

    Args:
        params: The parameters of the run, as callbacks are told them.
        otherwise: Most tokens of an answer where they set no limit.
    """
    set_here = [params.get(name) for name in _LIMITS]
    limits = [n for n in set_here if isinstance(n, int) and n > 0]
    limit = max(limits, default=otherwise)
    return None if limit is None else limit * (params.get("n") or 1)


def most_sent(parts: Sequence[Any]) -> int:
    """Return the most tokens that messages, and what is sent with them, can have."""
    texts = (text for part in parts for text in texts_of(part))
    return sum(len(text.encode("utf-8", "surrogatepass")) + _AROUND for text in texts)


def texts_of(part: Any) -> list[str]:
    """Return a message, or what is sent beside messages, as the texts that it is."""
    if isinstance(part, BaseMessage):
        calls = getattr(part, "tool_calls", ""), getattr(part, "tool_call_id", "")
        return [f"{part.content}{part.name or ''}{calls[0]}{calls[1]}"]
    if isinstance(part, list):
        return [str(one) for one in part]
    if isinstance(part, type) and issubclass(part, BaseModel):
        return [str(part.model_json_schema())]
    return [str(part)]


def most_output(member: Member[Any], max_tokens: int | None) -> int:
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
        hint = _UNLIMITED.format(member.name)
        raise InvalidInputError("max_tokens", max_tokens, hint)
    return limit


def limit_of(member: Member[Any], max_tokens: int | None) -> int | None:
    """Return the most tokens that a member's answer can have, if there is a limit.

    Args:
        member: The member.
        max_tokens: The limit of the call, if one is set.
    """
    model = member.model
    own = [getattr(model, name, None) for name in ("max_tokens", "max_output_tokens")]
    by_provider = (getattr(model, "profile", None) or {}).get("max_output_tokens")
    for limit in (max_tokens, *own, by_provider):
        if isinstance(limit, int) and limit > 0:
            return limit
    return None
