"""`smart replay` and `simulate`: strategies on answers that cost nothing."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer import Argument, Option

from smart_engine.amounts import usd
from smart_engine.cli import options
from smart_engine.cli.terminal import check_results, say, show, show_json, write
from smart_engine.equivalence import Equivalence, Exact
from smart_engine.equivalence.shorthand import read_rule
from smart_engine.errors import InvalidInputError, choose
from smart_engine.offline.replay import Recording, ReplayResult, Sliced, replay
from smart_engine.offline.traces import Sample, Trace, read_simulation
from smart_engine.report.plots import plot_costs
from smart_engine.report.words import plain
from smart_engine.strategies import LIMITED, STRATEGIES

__all__ = ["replay_command", "simulate_command"]


def replay_command(
    *,
    items: Annotated[
        Path, Argument(metavar="ANSWERS", help="Recorded answers, .jsonl or .gz.")
    ],
    models: Annotated[
        Path | None,
        Option(help="Models and prices; by default NAME.models.json beside ANSWERS."),
    ] = None,
    compared: options.Compared,
    equivalence: options.Equivalence = "exact",
    sample: Annotated[
        int | None, Option(min=1, help="Rows of a smaller job, drawn in each trial.")
    ] = None,
    slices: options.Slice = None,
    runs: options.Trials,
) -> None:
    """What would it have cost on my logs? Runs sessions on recorded answers."""
    reference, candidates = compared.reference, compared.candidate or ()
    trace = Trace.read(
        items, models, reference=reference, candidates=candidates, slice_by=slices
    )
    if not trace.candidates:
        hint = (
            "the models file names none: give --candidate, or ask smart estimate what "
            "one would have to reach"
        )
        raise InvalidInputError("candidates", [], hint)
    recording = trace if sample is None else Sample(trace, sample)
    _replay(recording, compared, runs, read_rule(equivalence), [items, models])


def simulate_command(
    *,
    file: Annotated[
        Path, Argument(metavar="INPUTS", help="Inputs of the simulation, JSON.")
    ],
    dataset: Annotated[str, Option(help="Name of the data set.")],
    compared: options.Compared,
    slices: Annotated[
        int, Option(min=0, help="Slices into which items fall at random.")
    ] = 0,
    runs: options.Trials,
) -> None:
    """`smart replay` on independent random answers, as in the SMART paper."""
    reference, candidates = compared.reference, compared.candidate or ()
    models = read_simulation(
        file,
        dataset,
        reference=reference,
        candidates=candidates,
        slice_count=slices,
    )
    _replay(models, compared, runs, sources=[file])


def _replay(
    recording: Recording,
    compared: options.Compared,
    runs: options.Trials,
    rule: Equivalence = Exact(),
    sources: Sequence[Path | None] = (),
) -> None:
    """Run every strategy; print a JSON line for each, or a table per guarantee."""
    shares = dict.fromkeys(runs.max_disagreement or ["0.05"])
    guarantees = [options.guarantee_of(share, runs) for share in shares]
    known = STRATEGIES if runs.max_rounds is None else LIMITED
    sliced = isinstance(recording, Sliced) and recording.slices(runs.seed) is not None
    alone = bool(guarantees[0].labels) or sliced
    every = ("reference", "audit") if alone else known
    strategies = list(dict.fromkeys(compared.strategy or every))
    for strategy in strategies:
        choose("strategy", strategy, STRATEGIES)
    if runs.plot:
        if runs.plot.suffix not in {".svg", ".png", ".pdf"}:
            hint = "end it in .svg, .png or .pdf"
            raise InvalidInputError("--plot", str(runs.plot), hint)
        if any(guarantee.max_disagreement is None for guarantee in guarantees):
            hint = "a plot shows costs by max_disagreement: give shares, not none"
            raise InvalidInputError("--plot", str(runs.plot), hint)
        check_results({"--plot": runs.plot}, sources, force=runs.force)
    results: list[ReplayResult] = []
    for guarantee in guarantees:
        for strategy in strategies:
            result = replay(
                recording,
                guarantee,
                strategy=strategy,
                looks=compared.looks,
                trials=runs.trials,
                seed=runs.seed,
                equivalence=rule,
                max_rounds=runs.max_rounds,
                clock=time.perf_counter,
            )
            results.append(result)
            if runs.as_json:
                show_json(result)
        if not runs.as_json:
            _show(results[-len(strategies) :], recording.reference)
    if runs.plot:
        _plot(runs.plot, results)


def _promised(result: ReplayResult, reference: str) -> str:
    """What is promised of all answers."""
    if result.max_disagreement is None:
        return f"recall and precision of {', '.join(result.recall)} promised"
    where = f" in each of {result.slices:,.0f} slices" if result.slices else ""
    return (
        f"at most {result.max_disagreement:.4g} may differ from {reference}'s answers"
        f"{where}"
    )


def _show_labels(results: list[ReplayResult], console: Console) -> None:
    """Print recall and precision of the labels that are promised."""
    table = Table(title="labels (mean)", title_justify="left")
    table.add_column("strategy")
    table.add_column("label")
    for heading in ("recall", "precision", "broken"):
        table.add_column(heading, justify="right")
    for result in results:
        for label, recall in result.recall.items():
            table.add_row(
                result.strategy,
                Text(plain(label)),
                f"{recall:.4f}",
                f"{result.precision[label]:.4f}",
                f"{result.label_violations:.1%}",
            )
    console.print(table)


def _plot(path: Path, results: list[ReplayResult]) -> None:
    """Write the picture of costs."""
    picture = plot_costs(results)
    drawn = io.BytesIO(picture.to_svg().encode())
    if path.suffix != ".svg":
        drawn = io.BytesIO()
        picture.savefig(drawn, format=path.suffix[1:], dpi=200)
    write(path, drawn.getvalue())
    say(f"{path}: {picture.alt_text}")


def _show(results: list[ReplayResult], reference: str) -> None:
    """Print the results under one guarantee as tables."""
    first, console = results[0], Console()
    show(
        f"{first.items:,} items, {_promised(first, reference)}, confidence "
        f"{first.confidence:.4g}, {first.trials} trials; {reference} alone: "
        f"{usd(first.reference_cost)} USD"
    )
    known = first.accuracy is not None
    table = Table()
    table.add_column("")
    for result in results:
        table.add_column(result.strategy, justify="right")
    rows = {
        "cost, USD": [usd(r.cost_ratio * r.reference_cost) for r in results],
        "saved": [f"{1 - r.cost_ratio:z.1%}" for r in results],
        "cost ratio": [f"{r.cost_ratio:.4f}" for r in results],
        "highest ratio": [f"{r.cost_ratio_max:.4f}" for r in results],
        "least possible": [f"{r.cost_floor:.4f}" for r in results],
        "agreement": [f"{r.agreement_mean:.4f}" for r in results],
        "lowest agreement": [f"{r.agreement_min:.4f}" for r in results],
        "promise broken": [f"{r.violations:.1%}" for r in results],
        "waves of calls": [f"{r.rounds:.1f}" for r in results],
        "time to plan": [f"{r.planning_seconds * 1000:,.0f} ms" for r in results],
    }
    if first.slices:
        rows["slices broken"] = [f"{r.slice_violations:.1%}" for r in results]
    if known:
        rows["accuracy"] = [f"{r.accuracy:.4f}" for r in results]
    for name, cells in rows.items():
        table.add_row(name, *cells)
    console.print(table)
    if first.recall:
        _show_labels(results, console)
    if known:
        show(
            f"{reference} alone: accuracy {first.reference_accuracy:.4f}, by the "
            "recorded true answers"
        )
    calls = Table(title="calls (mean)", title_justify="left")
    calls.add_column("model")
    for result in results:
        calls.add_column(result.strategy, justify="right")
    for model in first.calls:
        calls.add_row(
            Text(plain(model)), *(f"{result.calls[model]:,.1f}" for result in results)
        )
    console.print(calls)
