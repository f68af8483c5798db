"""The history that a member is given: its own turns whole, others' as all can read.

A turn may carry what only the model that wrote it may be sent: its reasoning, signed or
encrypted, and ids of what its provider has stored. Other models' providers refuse that.
An answer says who wrote it; of another member's turns only what was said stays: texts,
data, and the tools that were called, with the ids that their results name.

A turn without a mark was written before the smart model took the reference's place, or
by hand: it counts as the reference's, which gets what it would get alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage

__all__ = ["author_of", "first_author", "history_for", "without_private_parts"]

_DATA = {"image", "audio", "video", "file", "text-plain"}
_PRIVATE = {"id", "index", "extras", "annotations"}


def author_of(message: BaseMessage) -> str | None:
    """Return the member that wrote an answer, if it is marked with one."""
    mark = message.response_metadata.get("smart")
    return mark.get("model") if isinstance(mark, dict) else None


def first_author(messages: Sequence[BaseMessage]) -> str | None:
    """Return the member that began a chat: the author of its first marked answer."""
    return next(filter(None, map(author_of, messages)), None)


def history_for(
    member: str, messages: Sequence[BaseMessage], reference: str
) -> list[BaseMessage]:
    """Return the messages of a chat as a member is given them.

    Args:
        member: Name of the member.
        messages: The messages.
        reference: Name of the reference.
    """
    return [
        without_private_parts(message)
        if isinstance(message, AIMessage)
        and (author_of(message) or reference) != member
        else message
        for message in messages
    ]


def without_private_parts(message: AIMessage) -> AIMessage:
    """Return what a turn says to every model.

    Example:
        ```python
        from langchain_core.messages import AIMessage

        from langchain_smart.chat.history import without_private_parts

        thought = {"type": "thinking", "thinking": "Hm.", "signature": "EqoB"}
        turn = AIMessage([thought, {"type": "text", "text": "Yes."}])
        assert without_private_parts(turn).content == "Yes."
        ```
    """
    said: list[dict[str, Any]] = []
    for block in message.content_blocks:
        kept = {k: v for k, v in block.items() if k not in _PRIVATE}
        whole = {"base64", "mime_type"} <= kept.keys() or kept.keys() & {"url", "text"}
        if block["type"] == "text" or (block["type"] in _DATA and whole):
            said.append(kept)
    plain = all(block["type"] == "text" for block in said)
    return AIMessage(
        "".join(block["text"] for block in said) if plain else said,  # type: ignore[arg-type]
        name=message.name,
        tool_calls=message.tool_calls,
        invalid_tool_calls=message.invalid_tool_calls,
    )
