"""What a chat model's call costs: as reported, in the worst case, and as estimated.

Estimates follow LangChain's own rule of thumb, offline: some four characters a token, a
fixed number for a picture. They leave out hidden reasoning, which no text shows, and do
not exceed what a budget reserves for the call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, SystemMessage
from langchain_core.messages.utils import count_tokens_approximately
from pydantic import BaseModel

from langchain_smart.chat.members import ChatMember
from langchain_smart.chat.request import Request
from langchain_smart.logprobs import confidence_of
from smart_engine.calls import Outcome, Result
from smart_engine.errors import InvalidInputError
from smart_engine.money.limits import (
    Content,
    max_output_tokens,
    tool_types,
)
from smart_engine.money.pricing import Price, Usage
from smart_engine.money.usage import Billing, first_of, read_billing
from smart_engine.serving.members import Member, UnpricedError, unlimited

__all__ = [
    "counted",
    "estimated",
    "outcome",
    "reply_in",
    "worst_case",
    "worst_case_of_run",
]

# -- as reported -----------------------------------------------------------------------


def outcome(
    member: Member[Any], message: AIMessage, estimate: Callable[[], Usage] | None = None
) -> Result:
    """Return the result of a call, priced by its message's usage or by an estimate.

    A usage that cannot be true is removed from the message.
    """
    reported, score = message.usage_metadata, confidence_of(message)
    billing = read_billing(message.response_metadata, reported)
    result = member.outcome(
        message, confidence=score, estimate=estimate, **billing._asdict()
    )
    unusable = reported and not billing.cached and result.usage is not billing.usage
    if unusable and isinstance(result, Outcome):
        # It would corrupt sums, and could not be stored.
        message = message.model_copy(update={"usage_metadata": None})
        result = result._replace(answer=message)
    return result


def reply_in(error: BaseException) -> tuple[Billing, AIMessage | None]:
    """Return what the reply tells that OpenAI's classes attach to an error, if any.

    An object that was cut off by its limit of tokens, or by a filter, is billed. The
    reply as a message is for an estimate of its usage.
    """
    try:
        reply = error.response.json()  # type: ignore[attr-defined]
        billing = read_billing(reply, first_of(reply, ("usage",)))
    except (AttributeError, TypeError, ValueError):
        return Billing(None, cached=False, tier=None), None
    try:
        return billing, AIMessage(str(reply["choices"][0]["message"]))
    except (LookupError, TypeError):
        return billing, None


# -- in the worst case -----------------------------------------------------------------


def worst_case(
    member: ChatMember, messages: Sequence[BaseMessage], request: Request
) -> float:
    """Return the most a call can cost, in USD.

    Raises:
        InvalidInputError: If nothing limits the answer, or more than text is sent.
    """
    options = request.tools.options if request.tools else {}
    settings = member.settings({**options, **request.arguments})
    return member.worst_case(_content([*messages, *request.extras]), settings)


def worst_case_of_run(
    name: str,
    price: Price | None,
    sent: Sequence[Any],
    limit: int | None,
    settings: dict[str, Any],
) -> float:
    """Return the most a model's run within a chain can cost, in USD.

    Args:
        name: Its name.
        price: What it charges, if that is known.
        sent: Messages or prompts, and what is sent with them.
        limit: Most tokens of its answer, if there is a limit.
        settings: Parameters of the run that may leave it without a bound.

    Raises:
        UnpricedError: If its price is unknown, nothing limits the answer, or more than
            text is sent.
    """
    if price is None or (price.by_token and limit is None):
        raise UnpricedError(name, "" if price is None else unlimited(name))
    places = [{"max_tokens": limit}, settings]
    try:
        return Member(name, None, price).worst_case(_content(sent), places)
    except InvalidInputError as error:
        raise UnpricedError(name, str(error)) from error


def _content(sent: Sequence[Any]) -> Content:
    """Return the content of messages or prompts, lists of tools and a schema."""
    kinds: list[str] = []
    tools: list[str] = []
    for part in sent:
        if isinstance(part, BaseMessage):
            kinds += [*_kinds(part.content), *part.additional_kwargs.keys() & {"audio"}]
        elif isinstance(part, list):
            tools += tool_types(part)
    extras = any(not isinstance(part, str | BaseMessage) for part in sent)
    return Content([*_texts(sent)], kinds, tools, extras)


def _texts(parts: Iterable[Any]) -> Iterator[str]:
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


def _kinds(content: Any) -> Iterator[str]:
    """Yield the types of the parts of a message's content, nested ones included."""
    for block in content if isinstance(content, list) else [content]:
        if isinstance(block, dict):
            plain = [*block] == ["text"]  # as Google and Bedrock write it
            yield str(block.get("type") or ("text" if plain else [*block]))
            yield from _kinds(block.get("content"))
            yield from _kinds(block.get("output"))


# -- as estimated ----------------------------------------------------------------------


def estimated(
    messages: Sequence[BaseMessage],
    request: Request,
    member: ChatMember,
    answer: AIMessage | None,
) -> Usage:
    """Return what a member's call may have used; its answer may have broken off."""
    limit = max_output_tokens(member.settings(request.arguments))
    return counted([*messages, *request.extras], answer, limit)


def counted(sent: Sequence[Any], answer: AIMessage | None, limit: int | None) -> Usage:
    """Return what a model's run may have used, as its texts show.

    Args:
        sent: Messages or prompts, and what was sent with them.
        answer: The answer, as far as it came.
        limit: Most tokens that it can have, if there is a limit.
    """
    messages = [part for part in sent if isinstance(part, BaseMessage)]
    others = [part for part in sent if not isinstance(part, BaseMessage)]
    # Providers put tools and schemas into the system prompt, as text.
    extras = [SystemMessage(text) for text in _texts(others)]
    read, written = count_tokens_approximately([*messages, *extras]), 0
    if answer is not None:
        texts = [call["args"] or "" for call in answer.invalid_tool_calls]
        texts.append(answer.additional_kwargs.get("refusal") or "")
        parts = [answer, *(AIMessage(text) for text in texts if text)]
        written = count_tokens_approximately(parts, extra_tokens_per_message=0)
    written = written if limit is None else min(written, limit)
    return Usage(read, written, estimated=True)
