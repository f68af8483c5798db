"""What a reader gives of a log: calls, and rows that are no use, with the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

__all__ = ["Format", "LoggedCall", "Record", "Skipped"]

Record = Mapping[str, Any]
"""One row of a log, as its file has it."""


class LoggedCall(NamedTuple):
    """One call of a model that a log has.

    Attributes:
        model: Name of the model.
        asked: What was asked: messages, a text, or whatever identifies the input.
        answer: What it answered.
        tokens: Input and output tokens; None where the log does not tell.
        provider: Who serves the model, by the log; "" where it does not tell.
        project: Project, service or the like; "" where the log has none.
        name: Name of the step that asked; "" where the log has none.
        gold: The true answer, where the log has it.
    """

    model: str
    asked: Any
    answer: str
    tokens: tuple[int, int] | None
    provider: str = ""
    project: str = ""
    name: str = ""
    gold: Any = None


class Skipped(NamedTuple):
    """A row that is left out.

    Attributes:
        reason: Why, in few words.
    """

    reason: str


class Format(NamedTuple):
    """A format of logs.

    Attributes:
        name: What `--format` calls it.
        fits: Whether a record is one of this format.
        read: Yields the calls of a record, or why there is none.
    """

    name: str
    fits: Callable[[Record], bool]
    read: Callable[[Record], Iterable[LoggedCall | Skipped]]
