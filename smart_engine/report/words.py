"""The words, numbers and tables of all reports: what each form lays out and escapes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from smart_engine.batch.certificate import Certificate

if TYPE_CHECKING:
    from smart_engine.offline.estimate import Range
    from smart_engine.stream.state import StreamState

__all__ = [
    "NONE",
    "Grid",
    "Row",
    "at_least",
    "escaped",
    "exact_percent",
    "grid",
    "name_of",
    "percent",
    "plain",
    "spread",
    "whole_percent",
]

NONE = "–"
"""Shown where there is no figure."""

Row = tuple[str | float, ...]


class Grid(NamedTuple):
    """A table.

    Attributes:
        caption: What it shows.
        words: Headings of the leading text columns.
        numbers: Headings of the numeric columns after them.
        rows: Cells, row by row.
        total: The last row, if there is one.
    """

    caption: str
    words: tuple[str, ...]
    numbers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    total: tuple[str, ...] = ()


def escaped(text: str) -> str:
    r"""Return a text with characters that control a terminal or a page as escapes.

    Example:
        ```python
        assert escaped("a\x1b[31m\0") == "a\\x1b[31m\\x00"
        ```
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode()
        for char in text
    )


def plain(text: str) -> str:
    r"""Return a text on one line, escaped.

    Example:
        ```python
        assert plain("a\n b\x1b[31m") == "a b\\x1b[31m"
        ```
    """
    return escaped(" ".join(text.split()))


def percent(share: float) -> str:
    """Return a share in percent, to three digits.

    Example:
        ```python
        assert (percent(0.05), percent(0.00021)) == ("5 %", "0.021 %")
        ```
    """
    return f"{100 * share:.3g} %"


def exact_percent(share: float) -> str:
    """Return a share that a user chose, in percent, without rounding it.

    Example:
        ```python
        assert exact_percent(0.12345) == "12.345 %"
        ```
    """
    return f"{100 * share:.6g} %"


def at_least(share: float) -> str:
    """Return a share in percent, rounded down, so that no saving is overstated.

    Example:
        ```python
        assert (at_least(0.29), at_least(0.99999)) == ("29 %", "99.9 %")
        ```
    """
    # In floats 0.29 * 1000 lies just below 290.
    tenths = math.floor(round(share * 1000, 9)) / 10
    return f"{tenths:g} %"


def whole_percent(share: float) -> str:
    """Return an estimated share in whole percent.

    Example:
        ```python
        assert (whole_percent(0.2949), whole_percent(-0.004)) == ("29 %", "0 %")
        ```
    """
    return percent(round(share, 2) + 0.0)


def spread(figure: Range) -> str:
    """Return an estimated share with its range, such as `29 % (0 % to 46 %)`."""
    low, high = map(whole_percent, (figure.low, figure.high))
    return f"{whole_percent(figure.mean)} ({low} to {high})"


def name_of(record: Certificate | StreamState) -> str:
    """Return the name of a batch or a stream in all tables."""
    batch = record.id[:8] if isinstance(record, Certificate) else ""
    if task := plain(record.task or ""):
        return f"{task} ({batch or 'stream'})"
    return f"batch {batch}" if batch else "stream"


def grid(
    caption: str,
    words: tuple[str, ...],
    numbers: tuple[str, ...],
    rows: Sequence[Row],
    total: Row = (),
) -> Grid:
    """Return a table of plain texts and grouped whole numbers."""

    def cells(row: Row) -> tuple[str, ...]:
        return tuple(
            plain(cell) if isinstance(cell, str) else f"{cell:,.0f}" for cell in row
        )

    return Grid(caption, words, numbers, tuple(map(cells, rows)), cells(total))
