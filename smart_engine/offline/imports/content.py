"""Texts, messages and token counts, as providers, tracers and frameworks write them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["answer_of", "digest", "loaded", "messages_of", "tokens_of"]

_ROLES = {"human": "user", "ai": "assistant", "model": "assistant"}
"""Roles that go by two names."""

_COUNTS = (
    ("input_tokens", "output_tokens"),
    ("prompt_tokens", "completion_tokens"),
    ("inputTokens", "outputTokens"),
    ("promptTokens", "completionTokens"),
    ("prompt_token_count", "candidates_token_count"),
)
"""What input and output tokens are called."""

_MOST = 10**12
"""Most tokens that one call can have: a larger number counts something else."""


def loaded(value: Any) -> Any:
    """Return what a text of JSON says, and anything else as it is."""
    if isinstance(value, str) and value[:1] in {"{", "["}:
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def tokens_of(usage: Any) -> tuple[int, int] | None:
    """Return (input, output) tokens of a usage, or None if it does not tell both."""
    usage = loaded(usage)
    if not isinstance(usage, Mapping):
        return None
    for names in _COUNTS:
        asked, said = (count(usage.get(name)) for name in names)
        total = count(usage.get("total_tokens"))
        if asked is not None and said is None and total is not None and total > asked:
            said = total - asked
        if asked is not None and said is not None:
            return (asked, said) if asked + said else None
    return None


def count(value: Any) -> int | None:
    """Return a number of tokens, also of a text of one, or None."""
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if 0 <= number <= _MOST and not isinstance(value, bool) else None


def answer_of(value: Any) -> str:
    """Return the text of an answer in any of the known shapes, "" if there is none.

    An answer that calls tools is the calls' names and arguments, as JSON.

    Example:
        ```python
        reply = {"choices": [{"message": {"role": "assistant", "content": "ham"}}]}
        assert answer_of(reply) == answer_of("ham") == "ham"
        ```
    """
    value = loaded(value)
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return _within(value)
    if isinstance(value, Sequence):
        return _joined(value)
    return "" if value is None else json.dumps(value)


def _within(reply: Mapping[str, Any]) -> str:
    """Return the answer that an object has somewhere within."""
    if calls := _tool_calls(reply):
        return json.dumps(calls, sort_keys=True, ensure_ascii=False)
    for names, place in _INNER:
        for name in names:
            inner = reply.get(name)
            if isinstance(inner, list) and inner and place is not None:
                inner = inner[place]
            if text := answer_of(inner):
                return text
    return ""


_INNER: tuple[tuple[tuple[str, ...], int | None], ...] = (
    (("choices", "generations", "candidates"), 0),  # of several, the first
    (("messages",), -1),  # of a conversation, the last
    (("output", "message", "kwargs", "parts", "content", "text", "value"), None),
    (("answer",), None),
)
"""Where an answer may be, the outermost first; of a list, which one."""


def _joined(parts: Sequence[Any]) -> str:
    """Return the text of the parts of one answer, but not of its reasoning."""
    kinds = ("reasoning", "thinking", "redacted_thinking")
    shown = [
        part
        for part in map(loaded, parts)
        if not (isinstance(part, Mapping) and part.get("type") in kinds)
    ]
    calls = [
        call for part in shown if isinstance(part, Mapping) for call in _call(part)
    ]
    if calls:
        return json.dumps(calls, sort_keys=True, ensure_ascii=False)
    return "".join(map(answer_of, shown))


def _tool_calls(message: Mapping[str, Any]) -> list[Any]:
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return []
    return [named for call in calls for named in _call(call)]


def _call(part: Any) -> Iterator[dict[str, Any]]:
    """Yield the name and arguments of a part, if it calls a tool."""
    if not isinstance(part, Mapping):
        return
    inner = part.get("function", part)
    kind = part.get("type")
    calls = ("function", "tool_call", "tool_use", "function_call", None)
    if isinstance(inner, Mapping) and "name" in inner and kind in calls:
        given = inner.get("arguments", inner.get("args", inner.get("input", {})))
        yield {"name": inner["name"], "arguments": loaded(given)}


def messages_of(asked: Any) -> Any:
    """Return what was asked as [role, text] pairs, if it is messages; else as it is.

    So the same question is the same whichever tracer wrote it down.

    Example:
        ```python
        openai = [{"role": "user", "content": "Spam?"}]
        langchain = {"messages": [[{"type": "human", "content": "Spam?"}]]}
        assert messages_of(openai) == messages_of(langchain) == [["user", "Spam?"]]
        assert messages_of("Spam?") == [["user", "Spam?"]]
        ```
    """
    asked = loaded(asked)
    if isinstance(asked, str):
        return [["user", asked]]
    if isinstance(asked, Mapping) and (inner := asked.get("messages")):
        return messages_of(inner)
    if isinstance(asked, list) and len(asked) == 1 and isinstance(asked[0], list):
        return messages_of(asked[0])
    if isinstance(asked, list) and all(isinstance(m, Mapping) for m in asked):
        return [[_role(message), answer_of(message)] for message in asked]
    return asked


def _role(message: Mapping[str, Any]) -> str:
    """Return who wrote a message."""
    named = message.get("id")
    if isinstance(named, list) and named:  # LangChain's class, as in HumanMessage
        role = str(named[-1]).removesuffix("Chunk").removesuffix("Message").lower()
    else:
        role = str(message.get("role") or message.get("type") or "user").lower()
    return _ROLES.get(role, role)


def digest(asked: Any) -> str:
    """Return 16 letters that stand for what was asked; the text cannot be read in them.

    Example:
        ```python
        assert digest([{"role": "user", "content": "Spam?"}]) == digest("Spam?")
        ```
    """
    text = json.dumps(messages_of(asked), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
