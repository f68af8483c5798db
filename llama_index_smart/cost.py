"""The most a call can cost: what a budget sets aside before the call starts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from llama_index_smart.members import LLMMember
from llama_index_smart.request import Ask
from smart_engine.errors import InvalidInputError
from smart_engine.money.limits import (
    SETTINGS,
    max_input_tokens,
    max_output_tokens,
    refuse_unbounded,
    setting_texts,
)

__all__ = ["check_bounded", "limit_of", "most", "output_limit"]


def check_bounded(members: Iterable[LLMMember], asks: Iterable[Ask[Any]]) -> None:
    """Raise unless it can be said what each call of a batch can cost at most.

    Args:
        members: Who may be asked.
        asks: What is asked.

    Raises:
        InvalidInputError: If nothing limits an answer, or more than text is sent.
    """
    priced = [member for member in members if member.price.by_token]
    for ask in asks if priced else ():
        refuse_unbounded(_kinds(ask))
        for member in priced:
            output_limit(member, ask.arguments)


def most(member: LLMMember, ask: Ask[Any]) -> float:
    """Return the most a call can cost, in USD.

    Tools and settings are counted with the messages.

    Args:
        member: Who is asked.
        ask: What is asked.

    Raises:
        InvalidInputError: If nothing limits the answer, or more than text is sent.
    """
    if not member.price.by_token:
        return member.price.most(0, 0)
    refuse_unbounded(_kinds(ask))
    parts = [ask.prompt or ""]
    for message in ask.messages or ():
        parts += [f"{block}" for block in message.blocks]
        parts.append(f"{message.additional_kwargs}")
    parts += [json.dumps(tool) for tool in ask.told_tools]
    settings = setting_texts(_places(member, ask.arguments))
    sent = max_input_tokens([*parts, *settings], tools=bool(ask.told_tools))
    return member.price.most(sent, output_limit(member, ask.arguments))


def output_limit(member: LLMMember, arguments: Mapping[str, Any]) -> int:
    """Return the most tokens that a member can say in a call.

    Args:
        member: The member.
        arguments: What it is called with.

    Raises:
        InvalidInputError: If there is no limit.
    """
    if not member.price.by_token:
        return 0
    limit = limit_of(member, arguments)
    if limit is None:
        hint = (
            "budget_usd can only be kept if an answer's length is limited, and nothing "
            f"limits {member.name}'s: set max_tokens on that LLM"
        )
        raise InvalidInputError("max_tokens", arguments.get("max_tokens"), hint)
    return limit


def limit_of(member: LLMMember, arguments: Mapping[str, Any]) -> int | None:
    """Return the most tokens that a member can say in a call, if there is a limit.

    Args:
        member: The member.
        arguments: What it is called with.
    """
    return max_output_tokens(_places(member, arguments))


def _places(member: LLMMember, arguments: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return where settings of a call stand, those that take precedence first."""
    places: list[Mapping[str, Any]] = [arguments]
    inner = getattr(member.model, "model", None)  # a LangChain model, or a name
    for model in (member.model, inner):
        kept = (getattr(model, n, None) for n in ("additional_kwargs", "model_kwargs"))
        own = {name: getattr(model, name, None) for name in SETTINGS}
        told = {name: value for name, value in own.items() if value}
        places += [place for place in (*kept, told) if place]
    return places


def _kinds(ask: Ask[Any]) -> Iterator[str]:
    """Yield what the parts of messages are called, those within others, too."""
    for message in ask.messages or ():
        yield from _kinds_in(message.blocks)


def _kinds_in(blocks: Iterable[Any]) -> Iterator[str]:
    for block in blocks:
        yield str(getattr(block, "block_type", ""))
        inside = getattr(block, "content", None)
        yield from _kinds_in(inside if isinstance(inside, list) else ())
