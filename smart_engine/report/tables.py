"""Every table of a report, in reading order.

The forms lay out what these rooms say, and escape it; they compute no figure of their
own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smart_engine.report.costs import cost_tables
from smart_engine.report.evidence import evidence_tables
from smart_engine.report.failures import failures
from smart_engine.report.outlook import outlook_tables
from smart_engine.report.words import Grid

if TYPE_CHECKING:
    from smart_engine.report.report import Report

__all__ = ["tables"]


def tables(report: Report) -> tuple[Grid, ...]:
    """Return every table that has a row, in reading order."""
    every = (
        *cost_tables(report),
        *outlook_tables(report),
        *evidence_tables(report),
        failures(report),
    )
    return tuple(grid for grid in every if grid.rows)
