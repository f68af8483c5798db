"""What bounds a call's tokens, read from what its model is told: for budgets.

A token is at least one byte of text, and an answer ends at its limit. What a provider
counts otherwise, such as a picture, has no bound that is known here, and is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from smart_engine.errors import InvalidInputError

__all__ = [
    "SETTINGS",
    "max_input_tokens",
    "max_output_tokens",
    "refuse_unbounded",
    "setting_texts",
]

_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "num_predict")
_CHOICES = ("n", "candidate_count")
_BODY = "extra_body"

SETTINGS = (*_LIMITS, *_CHOICES, _BODY)
"""What frameworks and providers call an answer's limit, how many answers one call has,
and what goes straight into its body."""

_UNBOUNDED = ("image", "audio", "video", "file", "document", "media")
"""Parts of the names of what is not counted by its bytes."""

_OURS = ("function", "custom", "toolSpec", "function_declarations")
"""Types of tools that the caller runs."""

_NO_BOUND = (
    "what this costs cannot be said before it is sent, so that no budget would hold; "
    "leave budget_usd out"
)

_AROUND = 16
"""Tokens that a provider may put around a message, a tool or a schema."""

_BEFORE_TOOLS = 1024
"""Tokens that it may put before tools and schemas; Anthropic documents up to 530."""


def max_output_tokens(places: Sequence[Mapping[str, Any]]) -> int | None:
    """Return the most tokens that all answers of a call can have, None if unlimited.

    Args:
        places: Where settings of a call may stand, those that take precedence first.

    Example:
        ```python
        assert max_output_tokens([{"n": 3}, {"max_tokens": 100, "n": 2}]) == 300
        assert (
            max_output_tokens([{"max_tokens": 9, "extra_body": {"max_tokens": 50}}])
            == 50
        )
        assert max_output_tokens([{"n": 3}]) is None
        ```
    """
    longest, choices = _told(places, _LIMITS), _told(places, _CHOICES) or 1
    return None if longest is None else longest * choices


def max_input_tokens(parts: Iterable[str], *, tools: bool) -> int:
    """Return the most tokens that texts have as part of a request.

    Args:
        parts: The texts: messages, tools, schemas and whatever else is sent.
        tools: Whether tools or a schema are among them.
    """
    sent = sum(len(part.encode("utf-8", "replace")) + _AROUND for part in parts)
    return sent + (_BEFORE_TOOLS if tools else 0)


def setting_texts(places: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the settings that may be read by a model, as texts; numbers are not."""
    values = (value for place in places for value in place.values())
    return [str(value) for value in values if not isinstance(value, int | float)]


def refuse_unbounded(kinds: Iterable[str], tools: Iterable[str] = ()) -> None:
    """Raise if there is a part of a request whose tokens cannot be bounded.

    Args:
        kinds: What the parts of its messages are called.
        tools: Types of its tools; what a provider's own ones read is billed, too.

    Raises:
        InvalidInputError: It names the part.
    """
    for kind in kinds:
        if any(name in kind for name in _UNBOUNDED):
            raise InvalidInputError("messages", kind, f"{_NO_BOUND}, or send text")
    for kind in tools:
        if kind not in _OURS:
            raise InvalidInputError("tools", kind, f"{_NO_BOUND}, or run tools here")


def _told(places: Sequence[Mapping[str, Any]], names: Sequence[str]) -> int | None:
    """Return the largest number of these names in the first place that has any.

    What goes straight into the body comes beside it: either may win.
    """
    bodies = (place.get(_BODY) for place in places)
    body: Mapping[str, Any] = next((each for each in bodies if each), {})
    told = (_counts(place, names) for place in places)
    first = next((numbers for numbers in told if numbers), [])
    return max([*first, *_counts(body, names)], default=None)


def _counts(place: Mapping[str, Any], names: Sequence[str]) -> list[int]:
    """Return the whole numbers above zero that stand under some names."""
    found = (place.get(name) for name in names)
    return [n for n in found if type(n) is int and n > 0]
