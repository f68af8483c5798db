"""A report for a terminal, laid out by `rich`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from smart_engine.report.headline import headlines, summary
from smart_engine.report.notes import notes
from smart_engine.report.promises import promises
from smart_engine.report.tables import tables
from smart_engine.report.words import Grid

if TYPE_CHECKING:
    from smart_engine.report.report import Report

__all__ = ["terminal"]


def terminal(report: Report) -> Group:
    """Return a report as rich prints it."""
    parts: list[RenderableType] = [Text(summary(report), "bold"), Text()]
    figures = Table.grid(padding=(0, 2))
    for each in headlines(report):
        figures.add_row(each.label, Text(each.value, "bold"), Text(each.note, "dim"))
    parts.append(figures)
    parts += [Text(note) for note in notes(report)]
    for promise in promises(report):
        mark = ("✓ ", "green") if promise.valid else ("✗ not valid: ", "bold red")
        parts += [Text(), Text.assemble(mark, (promise.name, "bold"))]
        parts.append(Text(promise.claim))
    for grid in tables(report):
        parts += [Text(), _table(grid)]
    return Group(*parts)


def _table(grid: Grid) -> Table:
    table = Table(
        title=grid.caption,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_footer=bool(grid.total),
    )
    total = grid.total or ("",) * len(grid.words + grid.numbers)
    for place, heading in enumerate(grid.words + grid.numbers):
        words = place < len(grid.words)
        table.add_column(
            heading if words else heading.replace(" ", "\n"),  # narrow columns
            Text(total[place]),
            justify="left" if words else "right",
            overflow="fold",
            no_wrap=not words,
        )
    for row in grid.rows:
        table.add_row(*map(Text, row))
    return table
