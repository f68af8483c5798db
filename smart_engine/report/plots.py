"""Chooses the picture to draw, and imports matplotlib only then."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, TypeVar, get_args

from smart_engine.errors import InvalidInputError, MissingExtraError

if TYPE_CHECKING:
    from smart_engine.offline.replay import ReplayResult
    from smart_engine.report.charts import Picture
    from smart_engine.report.report import Report

T = TypeVar("T")

__all__ = ["KINDS", "Kind", "plot_costs", "plot_report", "plot_savings"]

Kind = Literal["cost", "items", "evidence", "stream", "outlook"]
"""The pictures of a report."""

KINDS: tuple[Kind, ...] = get_args(Kind)


def plot_report(report: Report, kind: Kind, which: int) -> Picture:
    """Draw one picture of a report; see `Report.plot`."""
    with _matplotlib_for("drawing a report"):
        from smart_engine.report import charts
    if kind == "cost":
        return charts.cost(report)
    if kind == "items":
        return charts.items(report)
    if kind == "evidence":
        return charts.evidence(_pick(report.certificates, which, "batches"))
    if kind == "stream":
        return charts.stream(_pick(report.streams, which, "streams"))
    if kind == "outlook":
        return charts.outlook(_pick(report.estimates, which, "estimates"))
    raise InvalidInputError("kind", kind, f"choose one of {', '.join(KINDS)}")


def plot_costs(results: Sequence[ReplayResult]) -> Picture:
    """Draw what each strategy costs at each tolerated share of differing answers.

    Args:
        results: What `replay` returned, for any strategies and guarantees.

    Returns:
        A matplotlib figure; see `Report.plot`.

    Raises:
        InvalidInputError: If there are no results.
        MissingExtraError: If matplotlib is not installed.

    Example:
        ```python
        from smart_engine import Guarantee, replay
        from smart_engine.offline.traces import Simulation

        models = Simulation(500, "big", {"small": 0.99}, {"big": 1.0, "small": 0.01})
        results = [
            replay(models, Guarantee(share), strategy="audit", trials=1)
            for share in (0.05, 0.1)
        ]
        assert plot_costs(results).axes
        ```
    """
    with _matplotlib_for("drawing costs"):
        from smart_engine.report import charts
    return charts.costs(results)


def plot_savings(results: Sequence[ReplayResult]) -> Picture:
    """Draw what jobs of several sizes save, at several tolerated shares.

    Args:
        results: What `savings` returned, for a recorded job.

    Returns:
        A matplotlib figure; see `Report.plot`.

    Raises:
        InvalidInputError: If there are no results.
        MissingExtraError: If matplotlib is not installed.

    Example:
        ```python
        from smart_engine import Trace, savings

        results = savings(Trace.example(), [50, 100], [0.05, 0.2], trials=1)
        assert plot_savings(results).axes
        ```
    """
    with _matplotlib_for("drawing savings"):
        from smart_engine.report import charts
    return charts.savings(results)


@contextmanager
def _matplotlib_for(purpose: str) -> Iterator[None]:
    """Say clearly what is missing where matplotlib is not installed.

    Raises:
        MissingExtraError: If it is not.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError("plots", purpose) from error


def _pick(among: Sequence[T], which: int, what: str) -> T:
    if not -len(among) <= which < len(among):
        hint = f"there are {len(among)} {what} to choose from"
        raise InvalidInputError("which", which, hint)
    return among[which]
