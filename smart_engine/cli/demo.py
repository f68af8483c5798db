"""`smart demo`: a recorded job of 5,250 items, what it saves, and at what risk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from rich.console import Console
from rich.table import Table
from typer import Option

from smart_engine.amounts import usd
from smart_engine.cli import options
from smart_engine.cli.terminal import show, show_json
from smart_engine.offline.replay import ReplayResult, savings
from smart_engine.offline.traces import Trace
from smart_engine.report.words import exact_percent

__all__ = ["demo_command", "show_savings"]

_SHARES = (0.02, 0.05, 0.1, 0.2)
_SIZES = (100, 250, 500, 1000, 2500)


def demo_command(
    max_disagreement: Annotated[
        list[float] | None,
        Option(help="Tolerated share of differing answers; repeat for more."),
    ] = None,
    confidence: options.Confidence = 0.95,
    trials: options.Runs = 2,
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """A recorded job, at list prices: what it saves, and at what risk. Calls no model.

    5,250 comments, toxic or not, by a frontier model and three cheap ones.
    """
    trace = Trace.example()
    results = savings(
        trace,
        [*_SIZES, len(trace.rows)],
        list(dict.fromkeys(max_disagreement or _SHARES)),
        confidence=confidence,
        trials=trials,
        seed=seed,
    )
    if as_json:
        for result in results:
            show_json(result)
        return
    show(
        f"{len(trace.rows):,} comments, toxic or not: {trace.reference} answers, or "
        f"{', '.join(trace.candidates)} where that is safe. Recorded answers, list "
        f"prices, {confidence:.4g} confidence, means of {trials} runs."
    )
    _show_jobs([each for each in results if each.items == len(trace.rows)])
    show_savings(results)
    show("On your own rows: smart estimate. On answers that you have: smart replay.")


def _show_jobs(results: Sequence[ReplayResult]) -> None:
    """Print what the whole job costs and how often it is right."""
    first = results[0]
    table = Table()
    table.add_column("may differ")
    for heading in ("cost, USD", "saved", "really differ", "right", "reference asked"):
        table.add_column(heading, justify="right")
    right = first.reference_accuracy or 0.0
    alone = usd(first.reference_cost), "", "0.0%", f"{right:.1%}", "100.0%"
    table.add_row("reference alone", *alone)
    for each in results:
        table.add_row(
            exact_percent(each.tolerance),
            usd(each.cost_ratio * each.reference_cost),
            f"{1 - each.cost_ratio:.1%}",
            f"{1 - each.agreement_mean:.1%}",
            f"{each.accuracy or 0.0:.1%}",
            f"{each.reference_share:.1%}",
        )
    Console().print(table)


def show_savings(results: Sequence[ReplayResult]) -> None:
    """Print the share saved, by the size of the job and by what may differ."""
    saved = {(r.items, r.tolerance): 1 - r.cost_ratio for r in results}
    shares = dict.fromkeys(share for _, share in saved)
    title = f"Saved, by size and share (mean of {results[0].trials} runs)"
    table = Table(title=title, title_justify="left")
    table.add_column("items", justify="right")
    for share in shares:
        table.add_column(exact_percent(share), justify="right")
    for size in dict.fromkeys(size for size, _ in saved):
        cells = (f"{round(saved[size, share], 2) + 0.0:.0%}" for share in shares)
        table.add_row(f"{size:,}", *cells)
    Console().print(table)
