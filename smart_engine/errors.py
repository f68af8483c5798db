"""Every error the engine raises on purpose; each names the field and the way out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from smart_engine.amounts import usd

__all__ = [
    "BudgetExceededError",
    "InvalidInputError",
    "MissingExtraError",
    "OversizedError",
    "ProtocolError",
    "RemoteCallError",
    "SmartError",
    "StoreError",
    "UnkeptAnswerError",
    "UnparseableAnswerError",
    "check_whole",
    "choose",
    "error_name",
]

T = TypeVar("T")

_LONGEST = 300
"""Characters of a value that an error shows, at most."""


class SmartError(Exception):
    """Base class of all errors this package raises on purpose."""


class InvalidInputError(SmartError, ValueError):
    """An argument cannot be used.

    Args:
        field: Name of the argument as the user wrote it.
        value: The value that was given.
        hint: What is allowed, or what to do instead.

    Example:
        ```python
        error = InvalidInputError("confidence", 95, "use a share such as 0.95")
        assert str(error) == "confidence=95: use a share such as 0.95"
        ```
    """

    def __init__(self, field: str, value: object, hint: str) -> None:
        super().__init__(f"{field}={_shown(value)}: {hint}")
        self.field = field
        self.value = value
        self.hint = hint

    def __reduce__(self) -> tuple[type[InvalidInputError], tuple[str, object, str]]:
        """Return how to make it again in another process: with plain data alone."""
        shown = self.value if _plain(self.value) else type(self.value)
        return InvalidInputError, (self.field, shown, self.hint)


def _shown(value: object) -> str:
    """Show plain data as it is, other objects by type: their reprs may show keys."""
    shown = repr(value) if _plain(value) else f"{type(value).__name__}(…)"
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"


def _plain(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(map(_plain, [*value, *value.values()]))
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_plain, value))
    return value is None or isinstance(value, str | int | float | type)


class ProtocolError(SmartError, RuntimeError):
    """A session was driven in a way its contract forbids."""


class UnparseableAnswerError(SmartError, ValueError):
    """An equivalence cannot read an answer; a candidate's item then escalates."""


class StoreError(SmartError):
    """A store cannot be read or written."""


class UnkeptAnswerError(StoreError):
    """One answer cannot be written to a store; others still can."""


class BudgetExceededError(SmartError):
    """A call was not made, since it could cost more than is left of the budget."""

    def __init__(self, budget: float, left: float) -> None:
        super().__init__(
            f"budget_usd={budget:g} does not allow another call: {usd(left)} USD are "
            "left, the worst-case cost of calls in flight deducted, and the next call "
            "could cost more; raise budget_usd, or lower max_tokens so that a call can "
            "cost less"
        )


class OversizedError(SmartError):
    """An item does not fit into a candidate's context window: it was not asked."""

    def __init__(self, model: str, tokens: int, window: int) -> None:
        super().__init__(
            f"{model} takes {window:,} tokens, and this item with its answer may have "
            f"{tokens:,}: it was not asked"
        )


class RemoteCallError(SmartError):
    """A call failed in another process, whose error is known by what it said.

    Args:
        kind: Name of its type.
        message: What it said.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}" if message else kind)
        self.kind, self.message = kind, message

    def __reduce__(self) -> tuple[type[RemoteCallError], tuple[str, str]]:
        """Return how to make it again."""
        return RemoteCallError, (self.kind, self.message)


class MissingExtraError(SmartError, ImportError):
    """An optional dependency is not installed.

    Args:
        extra: The extra of `smart-llm` that installs it.
        needed_for: What was being used.

    Example:
        ```python
        error = MissingExtraError("cli", "the `smart` command")
        assert "pip install 'smart-llm[cli]'" in str(error)
        ```
    """

    def __init__(self, extra: str, needed_for: str) -> None:
        super().__init__(
            f"{needed_for} needs an optional dependency. "
            f"Run: pip install 'smart-llm[{extra}]'"
        )
        self.extra = extra


def choose(field: str, name: str, among: Mapping[str, T]) -> T:
    """Return the value of a name, or raise InvalidInputError, which lists the names."""
    if name not in among:
        raise InvalidInputError(field, name, f"choose one of {', '.join(among)}")
    return among[name]


def error_name(error: BaseException) -> str:
    """Return the name of an error's type, wherever it was raised."""
    return error.kind if isinstance(error, RemoteCallError) else type(error).__name__


def check_whole(field: str, value: object, least: int) -> None:
    """Raise InvalidInputError unless a value is a whole number ≥ `least`, 0 or 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        hint = f"must be a whole number, {('zero', 'one')[least]} or more"
        raise InvalidInputError(field, value, hint)


def check_batch(field: str, value: object) -> None:
    """Raise InvalidInputError if a text is a batch: its letters would be the items."""
    if isinstance(value, str | bytes):
        hint = "a batch is a list of items: put a single one in brackets"
        raise InvalidInputError(field, value, hint)


def check_share(field: str, value: float) -> float:
    """Return a share of zero or more, and less than 1, or raise InvalidInputError."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and 0 <= value < 1):
        raise InvalidInputError(field, value, "must be a share: 0.05 means 5 %")
    return value
