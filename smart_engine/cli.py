"""The command line: the only file of the engine with a clock and a terminal.

Exit codes: 0 done, 1 a claim does not follow, 2 an option or a file cannot be used.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from smart_engine.dry_run import Recording, ReplayResult, replay
from smart_engine.errors import SmartError
from smart_engine.guarantee import Guarantee
from smart_engine.looks import LOOKS
from smart_engine.strategies import STRATEGIES, find_strategy
from smart_engine.traces import Trace, read_certificate, read_simulation
from smart_engine.verification import verify

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    help="Cheaper answers with a guarantee.",
    pretty_exceptions_enable=False,
)

ReferenceOption = Annotated[
    str | None, typer.Option(help="Model whose answers define 'right'.")
]
CandidateOption = Annotated[
    list[str] | None, typer.Option(help="Cheaper model; repeat for more.")
]
StrategyOption = Annotated[
    list[str] | None,
    typer.Option(
        help=f"One of {', '.join(STRATEGIES)}; repeat for more. Default: all."
    ),
]
LooksOption = Annotated[
    str,
    typer.Option(help=f"How repeated looks are treated: {' or '.join(sorted(LOOKS))}."),
]
DisagreementOption = Annotated[
    float, typer.Option(help="Tolerated share of differing answers.")
]
ConfidenceOption = Annotated[
    float, typer.Option(help="Probability with which that holds.")
]
TrialsOption = Annotated[int, typer.Option(help="Runs per strategy.")]
SeedOption = Annotated[int, typer.Option(help="Seed of the first run.")]
JsonOption = Annotated[
    bool, typer.Option("--json", help="One JSON object a line per strategy.")
]


@app.callback()
def _app() -> None:
    """Cheaper answers with a guarantee."""


@app.command("replay")
def replay_command(
    items: Annotated[Path, typer.Argument(help="Recorded answers, .jsonl or .gz.")],
    models: Annotated[
        Path | None, typer.Option(help="Models file; its sibling by default.")
    ] = None,
    reference: ReferenceOption = None,
    candidate: CandidateOption = None,
    strategy: StrategyOption = None,
    looks: LooksOption = "corrected",
    max_disagreement: DisagreementOption = 0.05,
    confidence: ConfidenceOption = 0.95,
    trials: TrialsOption = 20,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """What would it have cost on my logs? Runs sessions on recorded answers."""
    with _clear_errors():
        trace = Trace.read(
            items, models, reference=reference, candidates=candidate or ()
        )
        guarantee = Guarantee(max_disagreement, confidence)
        _report(trace, guarantee, strategy, looks, trials, seed, as_json)


@app.command("simulate")
def simulate_command(
    file: Annotated[Path, typer.Argument(help="Inputs of the simulation, JSON.")],
    dataset: Annotated[str, typer.Option(help="Name of the data set.")],
    reference: ReferenceOption = None,
    candidate: CandidateOption = None,
    strategy: StrategyOption = None,
    looks: LooksOption = "corrected",
    max_disagreement: DisagreementOption = 0.05,
    confidence: ConfidenceOption = 0.95,
    trials: TrialsOption = 20,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """The same on independent random answers, as in the SMART paper's simulation."""
    with _clear_errors():
        simulation = read_simulation(
            file, dataset, reference=reference, candidates=candidate or ()
        )
        guarantee = Guarantee(max_disagreement, confidence)
        _report(simulation, guarantee, strategy, looks, trials, seed, as_json)


@app.command("verify")
def verify_command(
    certificate: Annotated[Path, typer.Argument(help="A certificate, JSON.")],
) -> None:
    """Does the claim follow? Recomputes a certificate from its recorded draws."""
    with _clear_errors():
        record = read_certificate(certificate)
        checks = verify(record)
    for check in checks:
        print("holds" if check.holds else "FAILS", "-", check.statement)
    if not all(check.holds for check in checks):
        print("The claim does not follow from the record.")
        raise typer.Exit(1)
    print(record.claim)


def _report(
    recording: Recording,
    guarantee: Guarantee,
    strategies: list[str] | None,
    looks: str,
    trials: int,
    seed: int,
    as_json: bool,
) -> None:
    """Run every strategy; print each line as it is known, or one table."""
    names = list(dict.fromkeys(strategies or STRATEGIES))
    for name in names:
        find_strategy(name)
    results = []
    for name in names:
        result = replay(
            recording,
            guarantee,
            strategy=name,
            looks=looks,
            trials=trials,
            seed=seed,
            clock=time.perf_counter,
        )
        results.append(result)
        if as_json:
            print(result.model_dump_json(), flush=True)
    if not as_json:
        _show(results, recording.reference)


def _show(results: list[ReplayResult], reference: str) -> None:
    """Lay results out for a person."""
    first = results[0]
    console = Console()
    console.print(
        f"{first.items:,} items, at most {first.max_disagreement:.4g} may differ from "
        f"{reference}'s answers, confidence {first.confidence:.4g}, "
        f"{first.trials} trials",
        highlight=False,
    )
    table = Table()
    table.add_column("strategy", no_wrap=True)
    for heading in (
        "cost\nratio",
        "max",
        "floor",
        "agree-\nment",
        "min",
        "broken",
        "planning",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in results:
        table.add_row(
            result.strategy,
            f"{result.cost_ratio:.4f}",
            f"{result.cost_ratio_max:.4f}",
            f"{result.cost_floor:.4f}",
            f"{result.agreement_mean:.4f}",
            f"{result.agreement_min:.4f}",
            f"{result.violations:.1%}",
            f"{result.planning_seconds * 1000:,.0f} ms",
        )
    console.print(table)
    calls = Table(title="calls (mean)", title_justify="left")
    calls.add_column("model")
    for result in results:
        calls.add_column(result.strategy, justify="right")
    for model in first.calls:
        calls.add_row(model, *(f"{result.calls[model]:,.1f}" for result in results))
    console.print(calls)


@contextmanager
def _clear_errors() -> Iterator[None]:
    """Print our own errors as one line and leave with code 2."""
    try:
        yield
    except SmartError as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(2) from error
