"""What a report says of parts of a batch: slices, and labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from smart_engine.batch.certificate import Certificate
from smart_engine.report.words import NONE, Grid, Row, grid, name_of, percent, plain

if TYPE_CHECKING:
    from smart_engine.report.report import Report

__all__ = ["labels", "slices", "vanishing"]

_MOST_SLICES = 50
"""Slices of a batch that are shown."""

_MOST_LABELS, _MOST_TABLES = 12, 8
"""Labels of a table, and newest batches with a table, that are shown."""

_OTHERS = "other, or none"


def slices(report: Report) -> Grid:
    """Return who answered in each slice, the largest ones first."""
    rows: list[Row] = []
    for record in report.certificates:
        bounds = record.slice_bounds
        for each in sorted(record.slices, key=lambda each: -each.items)[:_MOST_SLICES]:
            by_reference = each.served.get(record.reference, 0)
            bound = bounds.get(each.name)
            rows.append(
                (
                    *(name_of(record), each.name, each.items, by_reference),
                    each.answered - by_reference,
                    *((NONE, NONE) if bound is None else bound),
                )
            )
    return grid(
        f"Slices, the largest {_MOST_SLICES} of each batch",
        ("what", "slice"),
        ("items", "by the reference", "by candidates", "differ ≤", "allowed"),
        rows,
    )


def labels(report: Report) -> list[Grid]:
    """Return what may have become of each label, and what was taken for what."""
    found = [_intervals(report)]
    tables = [each for c in report.certificates for each in _confusion(c)]
    return [*found, *tables[-_MOST_TABLES:]]


def _intervals(report: Report) -> Grid:
    rows: list[Row] = [
        (
            *(name_of(record), each.label, each.answers),
            *(_span(*map(_count, each.false)), _span(*map(percent, each.precision))),
            *(_span(*map(_count, each.missed)), _span(*map(percent, each.recall))),
        )
        for record in report.certificates
        for each in record.label_intervals
    ]
    return grid(
        "Labels: what the draws say, with the confidence of the certificate",
        ("what", "label"),
        ("handed out", "false", "precision", "missed", "recall"),
        rows,
    )


def _confusion(record: Certificate) -> Iterator[Grid]:
    """Yield what was taken for what on items compared, and what that bounds."""
    cells: Counter[tuple[str | None, str | None]] = Counter()
    for each in record.compared:
        cells += Counter({(said, true): n for said, true, n in each.cells})
    if not cells:
        return
    bounds = {each.label: each for each in record.label_intervals}
    known = {label for pair in cells for label in pair if label is not None}
    names = sorted(known | bounds.keys())[:_MOST_LABELS]
    others = any(not {*pair} <= {*names} for pair in cells)
    columns: list[str | None] = [*names, *([None] if others else [])]

    def taken(said: str | None, true: str | None) -> int:
        return sum(
            n
            for (given, right), n in cells.items()
            if (given if given in names else None) == said
            and (right if right in names else None) == true
        )

    rows: list[Row] = []
    for said in columns:
        bound = bounds.get(said or "")
        left = NONE if bound is None else _span(*map(_count, bound.false))
        rows.append((said or _OTHERS, *(taken(said, true) for true in columns), left))
    missed = [
        _span(*map(_count, bounds[name].missed)) if name in bounds else NONE
        for name in (each or "" for each in columns)
    ]
    total: Row = ("missed among others", *missed, NONE)
    yield grid(
        f"{name_of(record)}: answers of candidates (rows) on items that were compared, "
        "by what the reference says (columns); and how many others are false or missed",
        ("handed out as",),
        (*(plain(each or _OTHERS) for each in columns), "false among others"),
        rows,
        total,
    )


def _span(least: str, most: str) -> str:
    """Return a range, from and to."""
    return least if least == most else f"{least} to {most}"


def _count(number: int) -> str:
    """Return a whole number, grouped."""
    return f"{number:,}"


def vanishing(certificates: Iterable[Certificate]) -> Iterator[str]:
    """Yield which labels may be missed more often than they are found."""
    for record in certificates:
        for audited in record.promised:
            if audited.of == "precision" and record.items and not audited.answers:
                yield (
                    f"{name_of(record)}: no answer is '{plain(audited.label or '')}'. "
                    "If some should be, its name, the equivalence or label_of= does "
                    "not fit the answers."
                )
        for each in record.label_bounds:
            if each.missed > each.answers:
                yield (
                    f"{name_of(record)}: {each.answers:,} answers are "
                    f"'{plain(each.label)}', and up to {each.missed:,} more may be "
                    "missed; recall= promises what share of a label is found."
                )
