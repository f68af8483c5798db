"""The most a call can cost: what a budget sets aside before the call starts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage
from pydantic import BaseModel

from langchain_smart.members import ChatMember
from langchain_smart.requests import Request
from smart_engine.errors import InvalidInputError
from smart_engine.money.limits import (
    SETTINGS,
    max_input_tokens,
    max_output_tokens,
    refuse_unbounded,
    setting_texts,
)
from smart_engine.money.pricing import Price
from smart_engine.serving.members import Member, UnpricedError

__all__ = [
    "beside_run",
    "check_bounded",
    "limit_of",
    "limit_of_run",
    "most",
    "output_limit",
    "texts_of",
    "worst_case_of_run",
]

_BESIDE = ("tools", "functions", "response_format", "tool_choice", "extra_body")
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
    priced = [member for member in members if member.price.by_token]
    for member in priced:
        output_limit(member, request.arguments)
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
    if not member.price.by_token:
        return member.price.most(0, 0)
    refuse_unbounded(_kinds(messages), _types(request.tools))
    settings = setting_texts(_places(member, request.arguments))
    texts = [*_texts([*messages, *request.beside]), *settings]
    sent = max_input_tokens(texts, tools=bool(request.beside))
    return member.price.most(sent, output_limit(member, request.arguments))


def worst_case_of_run(
    name: str, price: Price, sent: Sequence[Any], limit: int | None
) -> float:
    """Return the most a model's run within a chain can cost, in USD.

    Args:
        name: What the model is called.
        price: What the model charges.
        sent: Messages or prompts, and what is sent with them.
        limit: Most tokens that it can say; see `limit_of_run`.

    Raises:
        UnpricedError: If nothing limits that, or more than text is sent: what it can
            cost is unknown.
    """
    if not price.by_token:
        return price.most(0, 0)
    if limit is None:
        raise UnpricedError(name, _UNLIMITED.format(name))
    messages = [part for part in sent if isinstance(part, BaseMessage)]
    tools = [tool for part in sent if isinstance(part, list) for tool in part]
    try:
        refuse_unbounded(_kinds(messages), _types(tools))
    except InvalidInputError as error:
        raise UnpricedError(name, str(error)) from error
    beside = any(not isinstance(part, str | BaseMessage) for part in sent)
    return price.most(max_input_tokens(_texts(sent), tools=beside), limit)


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
    return max_output_tokens([params, {"max_tokens": otherwise}])


def output_limit(member: Member[Any], arguments: Mapping[str, Any]) -> int:
    """Return the most tokens that a member can say in a call.

    Args:
        member: The member.
        arguments: What the call sets.

    Raises:
        InvalidInputError: If there is no limit.
    """
    if not member.price.by_token:
        return 0
    limit = limit_of(member, arguments)
    if limit is None:
        hint = _UNLIMITED.format(member.name)
        raise InvalidInputError("max_tokens", arguments.get("max_tokens"), hint)
    return limit


def limit_of(member: Member[Any], arguments: Mapping[str, Any]) -> int | None:
    """Return the most tokens that a member can say in a call, if there is a limit.

    Args:
        member: The member.
        arguments: What the call sets.
    """
    profile = getattr(member.model, "profile", None) or {}
    by_provider = {"max_output_tokens": profile.get("max_output_tokens")}
    return max_output_tokens([*_places(member, arguments), by_provider])


def texts_of(part: Any) -> list[str]:
    """Return a message, or what is sent beside messages, as the texts that it is."""
    return list(_texts([part]))


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
            answered = getattr(part, "tool_call_id", "")
            yield f"{part.content}{part.name or ''}{calls}{broken}{answered}"
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
