"""What went wrong, by batch and stream: a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smart_engine.batch.certificate import Certificate
from smart_engine.report.words import Grid, Row, grid, name_of

if TYPE_CHECKING:
    from smart_engine.report.report import Report
    from smart_engine.stream.state import StreamState

__all__ = ["failures"]


def failures(report: Report) -> Grid:
    """Return the batches and streams in which something went wrong."""
    rows: list[Row] = [(name_of(r), *_troubles(r)) for r in report.records]
    return grid(
        "Failed calls, escalations, and items that are not certified",
        ("what",),
        ("failed calls", "escalated", "unanswered", "not certified", "abandoned"),
        [row for row in rows if any(row[1:])],
    )


def _troubles(record: Certificate | StreamState) -> tuple[int, ...]:
    failed = sum(spend.failures for spend in record.spend.values())
    if isinstance(record, Certificate):
        escalated, abandoned = record.escalated, 0
    else:
        escalated, abandoned = record.roles.get("escalated", 0), record.abandoned
    return failed, escalated, record.unanswered, record.uncertified, abandoned
