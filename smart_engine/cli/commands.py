"""The command line: the only file of the engine with a clock and a terminal.

Here are the commands that ask no model, and what all commands share: exit codes, how
errors are told, options. Adapters add commands to `app`.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.table import Table

from smart_engine.batch.certificate import Certificate
from smart_engine.batch.verification import verify
from smart_engine.equivalence import Equivalence, Exact
from smart_engine.equivalence.shorthand import SHORTHANDS, read_rule
from smart_engine.errors import InvalidInputError, SmartError
from smart_engine.guarantee import Guarantee
from smart_engine.money.spending import Spend
from smart_engine.offline.replay import Recording, ReplayResult, replay
from smart_engine.offline.traces import (
    Simulation,
    Trace,
    read_certificate,
    read_simulation,
)
from smart_engine.report.plots import plot_costs
from smart_engine.report.report import Report
from smart_engine.store.store import Store
from smart_engine.strategies import STRATEGIES, find_strategy
from smart_engine.strategies.looks import LOOKS

__all__ = [
    "Code",
    "ConfidenceOption",
    "DisagreementOption",
    "EquivalenceOption",
    "JsonOption",
    "SeedOption",
    "StrategyOption",
    "app",
    "clear_errors",
    "dollars",
    "free_place",
    "say",
    "write",
]


class Code(IntEnum):
    """Exit codes."""

    DONE = 0
    UNPROVEN = 1
    UNUSABLE = 2
    BUDGET = 3
    INTERRUPTED = 130


app = typer.Typer(
    no_args_is_help=True,
    help="Cheaper answers with a guarantee.",
    epilog=(
        "Exit codes: 0 done; 1 a claim does not follow, or rows stay without an "
        "answer; 2 an option or a file cannot be used; 3 the budget ended first; "
        "130 interrupted."
    ),
    pretty_exceptions_enable=False,
)


def _among(names: object) -> Callable[[str], list[str]]:
    """Return what a shell completes a value with."""

    def completed(incomplete: str) -> list[str]:
        known = [str(name) for name in names]  # type: ignore[attr-defined]
        return [name for name in known if name.startswith(incomplete)]

    return completed


ReferenceOption = Annotated[
    str | None, typer.Option(help="Model whose answers define 'right'.")
]
CandidateOption = Annotated[
    list[str] | None, typer.Option(help="Cheaper model; repeat for more.")
]
StrategiesOption = Annotated[
    list[str] | None,
    typer.Option(
        help=f"One of {', '.join(STRATEGIES)}; repeat for more. Default: all.",
        autocompletion=_among(STRATEGIES),
    ),
]
StrategyOption = Annotated[
    str,
    typer.Option(
        help=f"One of {', '.join(STRATEGIES)}.", autocompletion=_among(STRATEGIES)
    ),
]
LooksOption = Annotated[
    str,
    typer.Option(
        help=f"How repeated looks are treated: {' or '.join(sorted(LOOKS))}.",
        autocompletion=_among(sorted(LOOKS)),
    ),
]
EquivalenceOption = Annotated[
    str,
    typer.Option(
        help=f"When two answers mean the same: {'; '.join(SHORTHANDS.values())}.",
        autocompletion=_among(SHORTHANDS),
    ),
]
DisagreementOption = Annotated[
    float, typer.Option(help="Tolerated share of differing answers.")
]
SharesOption = Annotated[
    list[float] | None,
    typer.Option(
        "--max-disagreement",
        help="Tolerated share of differing answers; repeat for more. Default: 0.05.",
    ),
]
PlotOption = Annotated[
    Path | None,
    typer.Option(help="Draw the costs, too: a file that ends in .svg, .png or .pdf."),
]
ConfidenceOption = Annotated[
    float, typer.Option(help="Probability with which that holds.")
]
TrialsOption = Annotated[int, typer.Option(help="Runs per strategy.")]
SeedOption = Annotated[int, typer.Option(help="Seed of all randomness.")]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON, one object a line.")
]


def _tell_version(wanted: bool) -> None:
    if wanted:
        print(f"smart-llm {importlib.metadata.version('smart-llm')}")
        raise typer.Exit


@app.callback()
def _app(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_tell_version, is_eager=True, help="Say which it is."
        ),
    ] = False,
) -> None:
    """Cheaper answers with a guarantee."""
    del version


@app.command("replay")
def replay_command(
    items: Annotated[Path, typer.Argument(help="Recorded answers, .jsonl or .gz.")],
    models: Annotated[
        Path | None, typer.Option(help="Models file; its sibling by default.")
    ] = None,
    reference: ReferenceOption = None,
    candidate: CandidateOption = None,
    strategy: StrategiesOption = None,
    looks: LooksOption = "corrected",
    equivalence: EquivalenceOption = "exact",
    max_disagreement: SharesOption = None,
    confidence: ConfidenceOption = 0.95,
    trials: TrialsOption = 20,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
    plot: PlotOption = None,
) -> None:
    """What would it have cost on my logs? Runs sessions on recorded answers."""
    with clear_errors():
        trace = Trace.read(
            items, models, reference=reference, candidates=candidate or ()
        )
        guarantees = _guarantees(max_disagreement, confidence)
        runs = Runs(strategy, looks, trials, seed, read_rule(equivalence))
        _replay(trace, guarantees, runs, as_json, plot)


@app.command("simulate")
def simulate_command(
    file: Annotated[Path, typer.Argument(help="Inputs of the simulation, JSON.")],
    dataset: Annotated[str, typer.Option(help="Name of the data set.")],
    reference: ReferenceOption = None,
    candidate: CandidateOption = None,
    strategy: StrategiesOption = None,
    looks: LooksOption = "corrected",
    max_disagreement: SharesOption = None,
    confidence: ConfidenceOption = 0.95,
    trials: TrialsOption = 20,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
    plot: PlotOption = None,
) -> None:
    """The same on independent random answers, as in the SMART paper's simulation."""
    with clear_errors():
        simulation = read_simulation(
            file, dataset, reference=reference, candidates=candidate or ()
        )
        guarantees = _guarantees(max_disagreement, confidence)
        runs = Runs(strategy, looks, trials, seed)
        _replay(simulation, guarantees, runs, as_json, plot)


@app.command("demo")
def demo_command(
    items: Annotated[int, typer.Option(min=1, help="Number of items.")] = 3000,
    max_disagreement: DisagreementOption = 0.05,
    confidence: ConfidenceOption = 0.95,
    trials: TrialsOption = 5,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Every strategy on three made-up models that err at random; asks nobody."""
    with clear_errors():
        guarantee = Guarantee(max_disagreement, confidence)
        models = Simulation(
            items,
            "big",
            agreement={"medium": 0.98, "small": 0.91},
            costs={"big": 0.01, "medium": 0.0005, "small": 0.0001},
        )
        _replay(models, [guarantee], Runs(None, "corrected", trials, seed), as_json)
    if not as_json:
        say("These answers are made up; `smart estimate` tries models on your data.")


@app.command("verify")
def verify_command(
    certificate: Annotated[Path, typer.Argument(help="A certificate, JSON.")],
    as_json: JsonOption = False,
) -> None:
    """Does the claim follow? Recomputes a certificate from its recorded draws."""
    with clear_errors():
        record = read_certificate(certificate)
        checks = verify(record)
    holds = all(check.holds for check in checks)
    if as_json:
        told = [check._asdict() for check in checks]
        print(json.dumps({"holds": holds, "claim": record.claim, "checks": told}))
    else:
        for check in checks:
            print("holds" if check.holds else "FAILS", "-", check.statement)
        print(record.claim if holds else "The claim does not follow from the record.")
    if not holds:
        raise typer.Exit(Code.UNPROVEN)


@app.command("report")
def report_command(
    records: Annotated[
        list[str],
        typer.Argument(
            metavar="CERTIFICATE|STORE…",
            help="Certificates (.json), and stores: files or database URLs.",
        ),
    ],
    as_json: JsonOption = False,
    html: Annotated[
        Path | None, typer.Option(help="Write a page with pictures, too.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Write the report as Markdown, too.")
    ] = None,
) -> None:
    """What jobs cost and saved, by their certificates; what stores keep of others."""
    with clear_errors():
        paths = [Path(name) for name in records if name.endswith(".json")]
        certificates = [read_certificate(path) for path in paths]
        stores = [_open(name) for name in records if not name.endswith(".json")]
        kept = {str(store): store.bought() for store in stores}
        report = _together(certificates)
        if (html or markdown) and not certificates:
            hint = "name a certificate, too: stores tell no savings"
            raise InvalidInputError("CERTIFICATE", "", hint)
        if html:
            write(html, report.to_html().encode())
        if markdown:
            write(markdown, report.to_markdown().encode())
    if certificates and as_json:
        print(report.model_dump_json())
    elif certificates:
        Console().print(report)
        for path, record in zip(paths, certificates, strict=True):
            print(f"\n{path}: {record.claim}")
    for name, jobs in kept.items():
        _tell_kept(name, jobs, as_json)


def _together(certificates: list[Certificate]) -> Report:
    """Return the totals of jobs."""
    spend: dict[str, Spend] = {}
    served: Counter[str] = Counter()
    for record in certificates:
        served.update(record.served)
        for model, part in record.spend.items():
            spend[model] = spend.get(model, Spend()) + part
    return Report(spend=spend, served=served, certificates=tuple(certificates))


def _open(name: str) -> Store:
    """Return a store that is there."""
    if "://" not in name and not Path(name).is_file():
        raise InvalidInputError("STORE", name, "there is no such file")
    return Store(name)


def _tell_kept(name: str, jobs: dict[str, dict[str, Spend]], as_json: bool) -> None:
    """Tell what a store keeps."""
    name = name.removeprefix("sqlite:///")
    if as_json:
        told = {
            job: {model: spend.model_dump() for model, spend in models.items()}
            for job, models in jobs.items()
        }
        print(json.dumps({"store": name, "jobs": told}))
        return
    print(f"\n{name}: answers of {len(jobs)} jobs")
    for job, models in jobs.items():
        parts = [
            f"{model} {spend.calls:,} ({dollars(spend)})"
            for model, spend in models.items()
        ]
        print(f"  {job[:12]}  {', '.join(parts)}")


# -- replays -----------------------------------------------------------------------


class Runs(NamedTuple):
    """How replays are run.

    Attributes:
        strategies: Names of the strategies; all if there are none.
        looks: Name of the looks.
        trials: Number of trials.
        seed: Seed of the first trial.
        rule: When two answers mean the same.
    """

    strategies: list[str] | None
    looks: str
    trials: int
    seed: int
    rule: Equivalence = Exact()


def _guarantees(shares: list[float] | None, confidence: float) -> list[Guarantee]:
    """Return what is to be promised, once each."""
    return [Guarantee(share, confidence) for share in dict.fromkeys(shares or [0.05])]


def _replay(
    recording: Recording,
    guarantees: list[Guarantee],
    runs: Runs,
    as_json: bool,
    plot: Path | None = None,
) -> None:
    """Run every strategy; print each line as it is known, or a table a guarantee."""
    names = list(dict.fromkeys(runs.strategies or STRATEGIES))
    for name in names:
        find_strategy(name)
    if plot:
        _check_picture(plot)
    every = []
    for guarantee in guarantees:
        results = []
        for name in names:
            result = replay(
                recording,
                guarantee,
                strategy=name,
                looks=runs.looks,
                trials=runs.trials,
                seed=runs.seed,
                equivalence=runs.rule,
                clock=time.perf_counter,
            )
            results.append(result)
            if as_json:
                print(result.model_dump_json(), flush=True)
        every += results
        if not as_json:
            _show(results, recording.reference)
    if plot:
        _draw(plot, every)


def _check_picture(path: Path) -> None:
    """Raise unless a picture can be written there."""
    if path.suffix not in {".svg", ".png", ".pdf"}:
        raise InvalidInputError("--plot", str(path), "end it in .svg, .png or .pdf")
    free_place("--plot", path, force=True)


def _draw(path: Path, results: list[ReplayResult]) -> None:
    """Write the picture of costs."""
    picture = plot_costs(results)
    drawn = io.BytesIO(picture.to_svg().encode())
    if path.suffix != ".svg":
        drawn = io.BytesIO()
        picture.savefig(drawn, format=path.suffix[1:], dpi=200)
    write(path, drawn.getvalue())
    say(f"{path}: {picture.says}")


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


# -- what all commands share -------------------------------------------------------


@contextmanager
def clear_errors() -> Iterator[None]:
    """Tell our own errors and all warnings in one line each, on stderr."""
    shown = warnings.showwarning

    def tell(message: Warning | str, *_: Any, **__: Any) -> None:
        say(f"warning: {message}")

    warnings.showwarning = tell
    try:
        yield
    except SmartError as error:
        say(f"error: {error}")
        raise typer.Exit(Code.UNUSABLE) from error
    except KeyboardInterrupt as error:
        say("interrupted")
        raise typer.Exit(Code.INTERRUPTED) from error
    finally:
        warnings.showwarning = shown


def say(text: str) -> None:
    """Say something beside the output, in one line on stderr."""
    typer.echo(" ".join(text.split()), err=True)


def dollars(spent: Spend | Report) -> str:
    """Return what was spent, and what of it is estimated, if anything is."""
    said = f"{spent.cost:.6f} USD"
    if spent.estimated:
        said += f", {spent.estimated:.6f} of it estimated"
    return said


def free_place(field: str, path: Path, force: bool) -> None:
    """Raise unless a file can be written, before anything is spent on its content.

    Args:
        field: The option or argument that names the file.
        path: The file.
        force: Whether it may be there already.

    Raises:
        InvalidInputError: If it cannot be written.
    """
    if path.exists() and not force:
        hint = "is there already; --force writes over it"
        raise InvalidInputError(field, str(path), hint)
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise InvalidInputError(field, str(path), "no file can be written there")


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        InvalidInputError: If it cannot be written.
    """
    begun = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        begun.write_bytes(content)
        begun.replace(path)
    except OSError as error:
        begun.unlink(missing_ok=True)
        raise InvalidInputError("file", str(path), str(error.strerror)) from error
