"""A report as GitHub-flavoured Markdown: for a pull request, a wiki, a mail."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from smart_engine.report import content

if TYPE_CHECKING:
    from smart_engine.report.report import Report

__all__ = ["markdown"]

_BEGINS = re.compile(r"^(\s*\d*)([-+=.)])")
_MEANING = re.compile(r"([\\`*_{}\[\]<>|~#&$!])")


def markdown(report: Report) -> str:
    """Return a report as Markdown; see `Report.to_markdown`."""
    parts = [f"# {_safe(content.summary(report))}"]
    parts.append(
        "\n".join(
            f"- {each.label}: **{_safe(each.value)}** ({_safe(each.note)})"
            for each in content.headlines(report)
        )
    )
    parts += [_line(note) for note in content.notes(report)]
    promises = content.promises(report)
    if promises:
        parts.append("## What is promised")
        parts.append("\n".join(map(_promise, promises)))
    parts += [_table(grid) for grid in content.tables(report)]
    return "\n\n".join(parts) + "\n"


def _promise(promise: content.Promise) -> str:
    mark = "valid" if promise.valid else "**not valid**"
    return f"- {_line(promise.name)} ({mark}): {_safe(promise.claim)}"


def _table(grid: content.Grid) -> str:
    """Return a table below its caption."""
    rules = [":--"] * len(grid.words) + ["--:"] * len(grid.numbers)
    rows = [(*grid.words, *grid.numbers), *grid.rows]
    lines = [_row(map(_safe, row)) for row in rows]
    lines.insert(1, _row(rules))
    if grid.total:
        lines.append(_row(f"**{_safe(cell)}**" for cell in grid.total))
    return "\n".join([f"## {_safe(grid.caption)}", "", *lines])


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _line(text: str) -> str:
    """Return a text to begin a line with: no list, no rule."""
    return _BEGINS.sub(r"\1\\\2", _safe(text))


def _safe(text: str) -> str:
    """Return a text with nothing in it that Markdown or HTML would read."""
    return _MEANING.sub(r"\\\1", content.plain(text))
