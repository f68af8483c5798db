"""Upper bounds of a call's tokens, from its settings and texts: for budgets.

A token is at least one byte of text, and an answer ends at its limit. Content that a
provider counts otherwise, such as a picture, has no known bound, and is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from smart_engine.errors import InvalidInputError

__all__ = [
    "Content",
    "max_output_tokens",
    "setting_texts",
    "settings_of",
]

_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "num_predict")
_CHOICES = ("n", "candidate_count")
_BODY = "extra_body"

_SETTINGS = (*_LIMITS, *_CHOICES, _BODY, "temperature")
"""Names that frameworks and providers use for an answer's limit, the number of answers
of one call, settings that go straight into the request body, and the temperature."""

_UNBOUNDED = ("image", "audio", "video", "file", "document", "media")
"""Parts of the names of content that is not counted by its bytes."""

_CLIENT_TOOLS = ("function", "custom", "toolSpec", "function_declarations")
"""Types of tools that the caller runs."""

_NO_BOUND = (
    "what this costs cannot be said before it is sent, so that no budget would hold; "
    "leave budget_usd out"
)

_TOKENS_AROUND_PART = 16
"""Tokens that a provider may put around a message, a tool or a schema."""

_TOKENS_BEFORE_TOOLS = 1024
"""Tokens that it may put before tools and schemas; Anthropic documents up to 530."""


def max_output_tokens(places: Sequence[Mapping[str, Any]]) -> int | None:
    """Return the most tokens that all answers of a call can have, None if unlimited.

    Args:
        places: Settings of the call, those that take precedence first.

    Example:
        ```python
        assert max_output_tokens([{"n": 3}, {"max_tokens": 100, "n": 2}]) == 300
        body = {"max_tokens": 50}
        assert max_output_tokens([{"max_tokens": 9, "extra_body": body}]) == 50
        assert max_output_tokens([{"n": 3}]) is None
        ```
    """
    longest = _largest(places, _LIMITS)
    return None if longest is None else longest * (_largest(places, _CHOICES) or 1)


def settings_of(arguments: Mapping[str, Any], *models: Any) -> list[Mapping[str, Any]]:
    """Return the settings of a call by their source, the one that wins first.

    Args:
        arguments: What the call is made with.
        *models: The model, and another one within it, if there is any.
    """
    places = [arguments]
    for model in models:
        own = {name: getattr(model, name, None) for name in _SETTINGS}
        known = (getattr(model, "profile", None) or {}).get("max_output_tokens")
        places += [
            getattr(model, "additional_kwargs", None) or {},
            getattr(model, "model_kwargs", None) or {},
            {name: value for name, value in own.items() if value or value == 0},
            {} if known is None else {"max_output_tokens": known},
        ]
    return places


def setting_texts(places: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the settings that a model may read, as texts: all but numbers."""
    values = (value for place in places for value in place.values())
    return [str(value) for value in values if not isinstance(value, int | float)]


@dataclass(frozen=True, slots=True)
class Content:
    """What a call sends, as far as it matters for its cost.

    Attributes:
        texts: Messages, tools, schemas and all other texts that are sent.
        kinds: Types of the parts of its messages.
        tools: Types of its tools; what the provider's own tools read is billed, too.
        with_tools: Whether tools or a schema are among the texts.
    """

    texts: Sequence[str]
    kinds: Sequence[str]
    tools: Sequence[str] = ()
    with_tools: bool = False

    @property
    def max_tokens(self) -> int:
        """The most tokens that it can have."""
        sizes = (len(text.encode("utf-8", "replace")) for text in self.texts)
        before = _TOKENS_BEFORE_TOOLS if self.with_tools else 0
        return before + sum(size + _TOKENS_AROUND_PART for size in sizes)

    def refuse_unbounded(self) -> None:
        """Raise if the tokens of a part cannot be bounded.

        Raises:
            InvalidInputError: It names the part.
        """
        for kind in self.kinds:
            if any(name in kind for name in _UNBOUNDED):
                raise InvalidInputError("messages", kind, f"{_NO_BOUND}, or send text")
        for kind in self.tools:
            if kind not in _CLIENT_TOOLS:
                raise InvalidInputError(
                    "tools", kind, f"{_NO_BOUND}, or run tools here"
                )


def _largest(places: Sequence[Mapping[str, Any]], names: Sequence[str]) -> int | None:
    """Return the largest number of these names in the first place that has any.

    The first extra body is read besides: either may win.
    """
    bodies = (place.get(_BODY) for place in places)
    body: Mapping[str, Any] = next((each for each in bodies if each), {})
    found = (_positive_integers(place, names) for place in places)
    first = next((numbers for numbers in found if numbers), [])
    return max([*first, *_positive_integers(body, names)], default=None)


def _positive_integers(place: Mapping[str, Any], names: Sequence[str]) -> list[int]:
    return [n for name in names if type(n := place.get(name)) is int and n > 0]
