"""The history that a member is given: its own turns whole, others' as all can read.

A turn may carry what only the LLM that wrote it may be sent: its reasoning, signed or
with an id, and what its integration keeps in `additional_kwargs`. Other LLMs' providers
refuse that. An answer with such parts is marked with who wrote it; of another member's
turns only what was said stays: texts, data, and the tools that were called, with the
ids that their results name.

A turn without a mark was written before the smart LLM took the reference's place, or by
hand: it counts as the reference's, which gets what it would get alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    AudioBlock,
    ChatMessage,
    DocumentBlock,
    ImageBlock,
    MessageRole,
    TextBlock,
    ToolCallBlock,
    VideoBlock,
)

__all__ = [
    "ANSWERING",
    "first_author",
    "history_for",
    "signed",
    "without_private_parts",
]

ANSWERING = {MessageRole.ASSISTANT, MessageRole.CHATBOT, MessageRole.MODEL}
"""Roles of a model's own turns."""

_MARK = "smart"
_SAID = (TextBlock, ImageBlock, AudioBlock, VideoBlock, DocumentBlock, ToolCallBlock)
_CALLS = {"tool_calls", "function_call"}
_SIGNATURES = "thought_signatures"
_UNSIGNED = "skip_thought_signature_validator"
"""What Gemini documents for a call of a tool that it has not made itself: it refuses
such a call without any signature."""


def history_for(
    member: str, messages: Sequence[ChatMessage], reference: str
) -> list[ChatMessage]:
    """Return the messages of a chat as a member is given them, without our marks.

    Args:
        member: Name of the member.
        messages: The messages.
        reference: Name of the reference.
    """

    def given(message: ChatMessage) -> ChatMessage:
        kwargs = dict(message.additional_kwargs)
        author = kwargs.pop(_MARK, {}).get("model", reference)
        if message.role in ANSWERING and author != member:
            return without_private_parts(message)
        marked = kwargs.keys() != message.additional_kwargs.keys()
        return _changed(message, additional_kwargs=kwargs) if marked else message

    return [given(message) for message in messages]


def first_author(messages: Sequence[ChatMessage]) -> str | None:
    """Return the member that began a chat: the author of its first marked answer."""
    marks = (message.additional_kwargs.get(_MARK) for message in messages)
    return next((mark["model"] for mark in marks if mark), None)


def signed(message: ChatMessage, author: str, *, always: bool) -> ChatMessage:
    """Return an answer's message, marked with who wrote it if that makes a difference.

    What every model may be sent stays as it is, unless it is `always` marked: some
    prompts contain all marks.
    """
    if not always and without_private_parts(message) == message:
        return message
    kwargs = {**message.additional_kwargs, _MARK: {"model": author}}
    return _changed(message, additional_kwargs=kwargs)


def without_private_parts(message: ChatMessage) -> ChatMessage:
    """Return what a turn says to every model.

    Example:
        ```python
        from llama_index.core.base.llms.types import ThinkingBlock
        from llama_index.core.llms import ChatMessage, TextBlock

        from llama_index_smart.history import without_private_parts

        thought = ThinkingBlock(content="Hm.", additional_information={"id": "rs_1"})
        turn = ChatMessage(role="assistant", blocks=[thought, TextBlock(text="Yes.")])
        assert without_private_parts(turn).blocks == [TextBlock(text="Yes.")]
        ```
    """
    said = [block for block in message.blocks if isinstance(block, _SAID)]
    # Integrations that know no blocks of calls keep them here alone.
    kept = set() if any(isinstance(b, ToolCallBlock) for b in said) else _CALLS
    kwargs = {k: v for k, v in message.additional_kwargs.items() if k in kept}
    if _SIGNATURES in message.additional_kwargs:
        calls = (isinstance(block, ToolCallBlock) for block in said)
        kwargs[_SIGNATURES] = [_UNSIGNED if call else None for call in calls]
    return _changed(message, blocks=said, additional_kwargs=kwargs)


def _changed(message: ChatMessage, **update: Any) -> ChatMessage:
    return message.model_copy(update=update)
