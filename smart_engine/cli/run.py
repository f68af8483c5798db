"""`smart run`: every row of a table answered under the guarantee, into another."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Console
from typer import Argument, Exit, Option

from smart_engine.batch.certificate import Certificate
from smart_engine.cli import options
from smart_engine.cli.job import Job, sources
from smart_engine.cli.tables import SEPARATORS, as_bytes, inert
from smart_engine.cli.terminal import Code, check_results, say, show_json, write
from smart_engine.errors import InvalidInputError

if TYPE_CHECKING:
    from langchain_core.messages import AIMessage

__all__ = ["run_command"]

_COLUMNS = ("smart_model", "smart_role", "smart_cost", "smart_error", "smart_estimated")
"""Columns of OUT beside the answer's; the last one only where anything is estimated."""


def run_command(
    *,
    given: options.Inputs,
    out: Annotated[
        Path, Argument(metavar="OUT", help="Where the answers go, a file like IN.")
    ],
    promised: options.Promise,
    budget: Annotated[
        float | None,
        Option(
            help="Most USD to spend; give --max-tokens, or each call reserves the cost "
            "of the longest answer that its model can give."
        ),
    ] = None,
    calls: options.Calls,
    task: Annotated[
        str | None, Option(help="Name of the task; by default IN's name.")
    ] = None,
    promise: Annotated[
        str | None,
        Option(
            help="batch: these rows keep the promise by themselves; task: all jobs of "
            "--task in --store do together, and later ones cost less; by default, "
            "small ones do, if both are given."
        ),
    ] = None,
    lane: Annotated[
        str,
        Option(
            help="live; batch: by the provider's batches, cheaper, in up to a day; "
            "auto: so for 100 calls and more at once; flex: by the cheaper tier."
        ),
    ] = "live",
    answer: Annotated[str, Option(help="Column of the answers.")] = "answer",
    store: options.Store = None,
    certificate: Annotated[
        Path | None, Option(help="Write the certificate there.")
    ] = None,
    progress: Annotated[
        bool | None,
        Option(
            "--progress/--no-progress", help="Show a bar; by default on a terminal."
        ),
    ] = None,
    spreadsheet: Annotated[
        bool,
        Option(
            help="Put ' before answers that Excel and the like would run, those that "
            "begin with =, +, -, @, a tab or a new line; else they are as given."
        ),
    ] = False,
    force: options.Force = False,
    as_json: options.Json = False,
) -> None:
    """Answer every row of a table; the same command again goes on where it ended.

    OUT has the rows of IN with the answer, and who gave it, why, and at what cost.
    """
    if out.suffix != given.source.suffix:
        hint = f"as IN's, its name ends in {given.source.suffix}"
        raise InvalidInputError("OUT", str(out), hint)
    if spreadsheet and out.suffix not in SEPARATORS:
        hint = f"only {' and '.join(SEPARATORS)} files are spreadsheets"
        raise InvalidInputError("--spreadsheet", str(out), hint)
    results = {"OUT": out, "certificate": certificate}
    check_results(results, sources(given, store), force=force)
    promise = _promise(promise, shareable=None not in (task, store))
    show_bar = sys.stderr.isatty() if progress is None else progress
    settings = {"budget_usd": budget, "progress": show_bar, "promise": promise}
    settings["lane"] = lane
    job = Job.read(given, promised, calls, store, task, **settings)
    for column in (answer, *_COLUMNS):
        if any(column in row for row in job.table.rows):
            hint = "IN has this column already; --answer names another"
            raise InvalidInputError("column", column, hint)
    with job.resumable():
        answers = job.smart.batch(job.inputs, job.configs, return_exceptions=True)
        (record,) = job.smart.report().certificates
        columns = _COLUMNS if record.estimated else _COLUMNS[:-1]
        rows = []
        for row, result in zip(job.table.rows, answers, strict=True):
            cells = _cells(result, columns)
            if spreadsheet:
                cells = [inert(cell) for cell in cells]
            rows.append(row | dict(zip((answer, *columns), cells, strict=True)))
        write(out, as_bytes(out.suffix, rows))
        if certificate is not None:
            write(certificate, (record.model_dump_json() + "\n").encode())
    if as_json:
        show_json(_summary(job, record, out))
    else:
        Console().print(job.smart.report())
    _exit_if_incomplete(job, record, answers)


def _promise(chosen: str | None, *, shareable: bool) -> str | None:
    """Return what the job's promise is; None: by its size."""
    if shareable:
        return chosen
    if chosen == "task":
        hint = "its jobs share a name and a store: give --task and --store"
        raise InvalidInputError("--promise", chosen, hint)
    return chosen or "batch"


def _cells(result: AIMessage | Exception, columns: Sequence[str]) -> list[Any]:
    """Return the cells that a row gets: its answer, then these columns."""
    cells: dict[str, Any]
    if isinstance(result, Exception):
        problem = " ".join(f"{type(result).__name__}: {result}".split())
        cells = {"smart_role": "unanswered", "smart_error": problem[:300]}
        return [None, *map(cells.get, columns)]
    smart = result.response_metadata["smart"]
    cells = {f"smart_{name}": smart[name] for name in ("model", "role")}
    for name in ("cost", "estimated"):
        cells[f"smart_{name}"] = round(smart.get(name, 0.0), 12)
    return [result.text, *map(cells.get, columns)]


def _summary(job: Job, record: Certificate, out: Path) -> dict[str, Any]:
    """Return what `--json` prints."""
    return {
        "out": str(out),
        "store": job.store,
        "rows": record.items,
        "unanswered": record.unanswered,
        "uncertified": record.uncertified,
        "served": record.served,
        "cost": record.cost,
        "estimated": record.estimated,
        "paid_in_earlier_runs": job.smart.report().restored,
        "reference_only_cost": record.reference_only_cost,
        "saved": record.saved,
        "valid": record.valid,
        "claim": record.claim,
        "certificate": record.id,
        "promise": record.promise and record.promise.model_dump(),
    }


def _exit_if_incomplete(
    job: Job, record: Certificate, results: Sequence[AIMessage | Exception]
) -> None:
    """Where rows are not covered or not answered, say so and exit with that code."""
    missing = [row for row, one in enumerate(results) if isinstance(one, Exception)]
    if record.uncertified:
        say(
            f"the budget ended first: {record.uncertified} of {record.items} rows are "
            f"not covered, {len(missing)} of these have no answer; the same command "
            "with a larger --budget and --force goes on"
        )
        raise Exit(Code.BUDGET)
    if missing:
        first = missing[0]
        say(
            f"{len(missing)} rows have no answer, the first in "
            f"{job.table.where(first)} ({type(results[first]).__name__}); the same "
            "command with --force asks again"
        )
        raise Exit(Code.UNPROVEN)
