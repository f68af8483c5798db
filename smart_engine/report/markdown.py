"""A report as GitHub-flavoured Markdown, for a pull request, a wiki or a mail."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from smart_engine.report.headline import headlines, summary
from smart_engine.report.notes import notes
from smart_engine.report.promises import Promise, promises
from smart_engine.report.tables import tables
from smart_engine.report.words import Grid, plain

if TYPE_CHECKING:
    from smart_engine.report.report import Report

__all__ = ["markdown"]

_LINE_START = re.compile(r"^(\s*\d*)([-+=.)])")
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|~#&$!])")


def markdown(report: Report) -> str:
    """Return a report as Markdown; see `Report.to_markdown`."""
    figures = [
        f"- {each.label}: **{_safe(each.value)}** ({_safe(each.note)})"
        for each in headlines(report)
    ]
    parts = [f"# {_safe(summary(report))}", "\n".join(figures)]
    parts += map(_line, notes(report))
    if promised := promises(report):
        parts += ["## What is promised", "\n".join(map(_promise, promised))]
    parts += map(_table, tables(report))
    return "\n\n".join(parts) + "\n"


def _promise(promise: Promise) -> str:
    mark = "valid" if promise.valid else "**not valid**"
    return f"- {_line(promise.name)} ({mark}): {_safe(promise.claim)}"


def _table(grid: Grid) -> str:
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
    """Return a text that starts a line without becoming a list or a rule."""
    return _LINE_START.sub(r"\1\\\2", _safe(text))


def _safe(text: str) -> str:
    """Return a text without anything that Markdown or HTML would interpret."""
    return _SPECIAL.sub(r"\\\1", plain(text))
