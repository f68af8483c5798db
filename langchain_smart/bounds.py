"""The most a call can cost: what a budget sets aside before the call starts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage
from pydantic import BaseModel

from langchain_smart.members import ChatMember
from langchain_smart.requests import Request
from smart_engine.errors import InvalidInputError
from smart_engine.pricing import Price
from smart_engine.serving.limits import (
    SETTINGS,
    choices,
    longest,
    most_sent,
    refuse_unbounded,
    written,
)
from smart_engine.serving.members import Member, UnpricedError

__all__ = ["check_bounded", "most", "most_of_run", "most_output"]

_BESIDE = ("tools", "functions", "response_format", "tool_choice")
"""What is sent beside messages, as providers call it."""

_UNLIMITED = (
    "budget_usd can only be kept if an answer's length is limited, and nothing limits "
    "{}'s: set max_tokens"
)


def check_bounded(
    members: Iterable[ChatMember],
    prompts: Iterable[Sequence[BaseMessage]],
    request: Request,
) -> None:
    """Raise unless it can be said what each call of a batch can cost at most.

    Args:
        members: Who may be asked.
        prompts: The messages of each item.
        request: What is asked beside them.

    Raises:
        InvalidInputError: If nothing limits an answer, or more than text is sent.
    """
    priced = [member for member in members if member.price != Price.free()]
    for member in priced:
        _limit(member, request.arguments)
    for messages in prompts if priced else ():
        refuse_unbounded(_kinds(messages), _types(request.tools))


def most(
    member: ChatMember, messages: Sequence[BaseMessage], request: Request
) -> float:
    """Return the most a call can cost, in USD.

    Tools, schema and settings are counted with the messages.

    Args:
        member: Who is asked.
        messages: What is sent.
        request: What is asked beside them.

    Raises:
        InvalidInputError: If nothing limits the answer, or more than text is sent.
    """
    if member.price == Price.free():
        return 0.0
    refuse_unbounded(_kinds(messages), _types(request.tools))
    beside = [*(request.tools or ())]
    beside += [] if request.schema is None else [request.schema]
    places = _places(member, request.arguments)
    parts = [*_texts([*messages, *beside]), *written(places)]
    said = _limit(member, request.arguments) * choices(places)
    return member.price.most(most_sent(parts, tools=bool(beside)), said)


def most_of_run(
    name: str,
    price: Price,
    limit: int | None,
    sent: Sequence[Any],
    params: Mapping[str, Any],
) -> float:
    """Return the most a model's run within a chain can cost, in USD.

    Args:
        name: What the model is called.
        price: What the model charges.
        limit: Most tokens of its answer, where the run sets no limit of its own.
        sent: Messages or prompts.
        params: All other parameters of the run, as callbacks are told them.

    Raises:
        UnpricedError: If nothing limits the answer, or more than text is sent: what it
            can cost is unknown.
    """
    if price == Price.free():
        return 0.0
    places = [params, {"max_tokens": limit}]
    said = longest(places)
    if said is None:
        raise UnpricedError(name, _UNLIMITED.format(name))
    messages = [part for part in sent if isinstance(part, BaseMessage)]
    try:
        refuse_unbounded(_kinds(messages), _types(params.get("tools")))
    except InvalidInputError as error:
        raise UnpricedError(name, str(error)) from error
    beside = [params[name] for name in _BESIDE if params.get(name)]
    tokens = most_sent(_texts([*sent, *beside]), tools=bool(beside))
    return price.most(tokens, said * choices(places))


def most_output(member: Member[Any], max_tokens: int | None) -> int:
    """Return the most tokens that a member's answer can have.

    Args:
        member: The member.
        max_tokens: The limit of the call, if one is set.

    Raises:
        InvalidInputError: If there is no limit.
    """
    if member.price == Price.free():
        return 0
    return _limit(member, {"max_tokens": max_tokens})


def _limit(member: Member[Any], arguments: Mapping[str, Any]) -> int:
    """Return the most tokens that an answer can have; raise if nothing limits it."""
    profile = getattr(member.model, "profile", None) or {}
    by_provider = {"max_output_tokens": profile.get("max_output_tokens")}
    limit = longest([*_places(member, arguments), by_provider])
    if limit is None:
        hint = _UNLIMITED.format(member.name)
        raise InvalidInputError("max_tokens", arguments.get("max_tokens"), hint)
    return limit


def _places(
    member: Member[Any], arguments: Mapping[str, Any]
) -> list[Mapping[str, Any]]:
    """Return where settings of a call stand, those that take precedence first."""
    model = member.model
    own = {name: getattr(model, name, None) for name in SETTINGS}
    told = {name: value for name, value in own.items() if value}
    return [arguments, getattr(model, "model_kwargs", None) or {}, told]


def _texts(parts: Iterable[Any]) -> Iterator[str]:
    """Yield messages, and what is sent with them, as texts."""
    for part in parts:
        if isinstance(part, BaseMessage):
            calls = getattr(part, "tool_calls", ""), part.additional_kwargs
            broken = getattr(part, "invalid_tool_calls", "")
            yield f"{part.content}{part.name or ''}{calls}{broken}"
        elif isinstance(part, list):
            yield from map(str, part)
        elif isinstance(part, type) and issubclass(part, BaseModel):
            yield str(part.model_json_schema())
        else:
            yield str(part)


def _types(tools: Sequence[Any] | None) -> list[str]:
    """Return the types of tools, or what stands in their place."""
    told = [tool for tool in tools or () if isinstance(tool, dict)]
    named = ("function" if "name" in tool else next(iter(tool), "") for tool in told)
    return [str(tool.get("type", name)) for tool, name in zip(told, named, strict=True)]


def _kinds(messages: Iterable[BaseMessage]) -> Iterator[str]:
    """Yield what the parts of messages are called, those within others, too."""
    for message in messages:
        yield from _kinds_in(message.content)
        yield from message.additional_kwargs.keys() & {"audio"}


def _kinds_in(content: Any) -> Iterator[str]:
    """Yield what the parts of a content are called."""
    for block in content if isinstance(content, list) else ():
        if isinstance(block, dict):
            yield str(block.get("type") or list(block))
            yield from _kinds_in(block.get("content"))
