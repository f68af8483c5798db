"""What jobs are expected to save, by their size and by what may differ: estimates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from smart_engine.report.words import (
    Grid,
    Row,
    exact_percent,
    grid,
    plain,
    spread,
    whole_percent,
)

if TYPE_CHECKING:
    from smart_engine.offline.estimate import Choice, Estimate, Range
    from smart_engine.report.report import Report

__all__ = ["break_even", "expectations", "least_size", "outlook_tables"]


def expectations(report: Report) -> Iterator[str]:
    """Yield what each job is expected to save, in one sentence."""
    for each in report.estimates:
        yield (
            f"estimated, {plain(each.task or 'a job')}: {each.items:,} items would "
            f"save {spread(each.saved_share)} of the reference's cost. "
            f"{break_even(each, 'items')}"
        )


def break_even(expected: Estimate, unit: str) -> str:
    """Return from which size on jobs pay, in one sentence.

    Args:
        expected: The estimate.
        unit: What is counted: items or rows.
    """
    if expected.pays_from is None:
        return "No size pays: allow more to differ, or try other candidates."
    return f"It pays from about {expected.pays_from:,} {unit} on, in one job."


def least_size(choice: Choice) -> str:
    """Return from how many items on a choice pays, as the cell of a table."""
    return "none" if choice.pays_from is None else f"{choice.pays_from:,}"


def outlook_tables(report: Report) -> tuple[Grid, ...]:
    """Return what jobs of other sizes, and other shares, would save."""
    sizes: list[Row] = []
    choices: list[Row] = []
    for each in report.estimates:
        task = each.task or "a job"
        by_size = sorted({**each.by_size, each.items: each.saved_share}.items())
        sizes += [(task, size, *_cells(saved)) for size, saved in by_size]
        for choice in each.choices:
            share = exact_percent(choice.max_disagreement)
            saved = _cells(choice.saved_share)
            choices.append((task, share, *saved, least_size(choice)))
    spans = ("saved, expected", "least", "most")
    return (
        grid(
            "What jobs of other sizes are expected to save; an estimate, no promise",
            ("task",),
            ("items", *spans),
            sizes,
        ),
        grid(
            "What the job is expected to save if other shares may differ",
            ("task",),
            ("may differ", *spans, "pays from, items"),
            choices,
        ),
    )


def _cells(saved: Range) -> tuple[str, ...]:
    return tuple(map(whole_percent, (saved.mean, saved.low, saved.high)))
