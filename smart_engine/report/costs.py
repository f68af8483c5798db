"""Who answered, what it cost, and what that saved: tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smart_engine.amounts import usd
from smart_engine.batch.certificate import Certificate
from smart_engine.money.spending import Spend
from smart_engine.report.words import NONE, Grid, Row, at_least, grid, name_of, percent

if TYPE_CHECKING:
    from smart_engine.report.report import Report
    from smart_engine.stream.state import StreamState

__all__ = ["cost_tables", "models", "saving"]


def cost_tables(report: Report) -> tuple[Grid, ...]:
    """Return the tables of answers and costs, empty ones too."""
    return models(report), _inside(report), _savings(report)


def models(report: Report) -> Grid:
    """Return calls, answers and cost by model."""
    estimated = ("estimated",) if report.estimated else ()

    def row(name: str, answers: int | str, spend: Spend) -> Row:
        return (
            *(name, answers, spend.calls, spend.failures),
            *(spend.input_tokens, spend.output_tokens, usd(spend.cost)),
            *(usd(spend.estimated) for _ in estimated),
            percent(spend.cost / report.cost) if report.cost else NONE,
        )

    served = report.served
    rows = [row(n, served.get(n, NONE), spend) for n, spend in report.spend.items()]
    total = row("all", sum(served.values()), sum(report.spend.values(), Spend()))
    calls = ("answers", "calls", "failed", "tokens in", "tokens out")
    return grid(
        "Who answered, and what it cost",
        ("model",),
        (*calls, "USD", *estimated, "of cost"),
        rows,
        total if len(rows) > 1 else (),
    )


def _inside(report: Report) -> Grid:
    return grid(
        "Models inside the chains (counted above, chain by chain)",
        ("model",),
        ("calls", "failed", "USD"),
        [(n, s.calls, s.failures, usd(s.cost)) for n, s in report.inside.items()],
    )


def _savings(report: Report) -> Grid:
    rows: list[Row] = [
        (name_of(c), c.strategy, c.items, *saving(c)) for c in report.certificates
    ]
    rows += [(name_of(s), "stream", s.answered, *saving(s)) for s in report.streams]
    return grid(
        "What was saved (estimated)",
        ("what", "strategy"),
        ("items", "paid, USD", "reference alone", "saved", "share"),
        rows,
    )


def saving(record: Certificate | StreamState) -> tuple[str, ...]:
    """Return the cells: paid, reference alone, saved, share saved."""
    cost, alone = record.cost, record.reference_only_cost
    if alone is None:
        return usd(cost), *(NONE,) * 3
    share = at_least(1 - cost / alone) if alone else NONE
    return usd(cost), usd(alone), usd(alone - cost), share
