"""What a call may have used whose model does not tell: counted from its texts.

LangChain's own rule of thumb counts, offline: some four characters a token, a fixed
number for a picture. What a model thinks unseen is in no text, and so in no estimate.
No estimate exceeds what a budget sets aside for the call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, SystemMessage
from langchain_core.messages.utils import count_tokens_approximately

from langchain_smart.bounds import limit_of, texts_of
from langchain_smart.members import ChatMember
from langchain_smart.requests import Request
from smart_engine.money.pricing import Usage

__all__ = ["counted", "estimated"]


def estimated(
    messages: Sequence[BaseMessage],
    request: Request,
    member: ChatMember,
    said: AIMessage | None,
) -> Usage:
    """Return what a member's call may have used.

    Args:
        messages: What was sent.
        request: What was asked beside them.
        member: Who was asked.
        said: The answer, as far as it came.
    """
    limit = limit_of(member, request.arguments)
    return counted([*messages, *request.beside], said, limit)


def counted(sent: Sequence[Any], said: AIMessage | None, limit: int | None) -> Usage:
    """Return what a model's run may have used, as its texts show.

    Args:
        sent: Messages or prompts, and what was sent with them.
        said: The answer, as far as it came.
        limit: Most tokens that it can have, if there is a limit.

    Example:
        ```python
        from langchain_core.messages import AIMessage

        from langchain_smart.estimates import counted
        from smart_engine.money.pricing import Usage

        usage = counted(["Is 7 a prime number?"], AIMessage("Yes, it is."), limit=None)
        assert usage == Usage(10, 5, estimated=True)
        ```
    """
    messages = [part for part in sent if isinstance(part, BaseMessage)]
    others = [part for part in sent if not isinstance(part, BaseMessage)]
    # Providers put tools and schemas into the system prompt, as text.
    beside = [SystemMessage(text) for part in others for text in texts_of(part)]
    read = count_tokens_approximately([*messages, *beside])
    written = _written(said)
    return Usage(
        read, written if limit is None else min(written, limit), estimated=True
    )


def _written(said: AIMessage | None) -> int:
    """Return the tokens of an answer, with calls that are no JSON, and a refusal."""
    if said is None:
        return 0
    texts = [call["args"] or "" for call in said.invalid_tool_calls]
    texts.append(said.additional_kwargs.get("refusal") or "")
    messages = [said, *(AIMessage(text) for text in texts if text)]
    return count_tokens_approximately(messages, extra_tokens_per_message=0)
