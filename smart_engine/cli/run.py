"""`smart run`: every row of a table answered under the guarantee, into another."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smart_engine.batch.certificate import Certificate
from smart_engine.cli.commands import (
    Code,
    ConfidenceOption,
    DisagreementOption,
    EquivalenceOption,
    JsonOption,
    SeedOption,
    StrategyOption,
    clear_errors,
    free_place,
    say,
    write,
)
from smart_engine.cli.jobs import (
    BaseUrlOption,
    CandidateOption,
    ConcurrencyOption,
    EstimateUsageOption,
    InArgument,
    Job,
    MaxTokensOption,
    PriceOption,
    ProgressOption,
    PromptOption,
    ReferenceOption,
    StoreOption,
    SystemOption,
    TemperatureOption,
)
from smart_engine.cli.tables import as_bytes
from smart_engine.errors import InvalidInputError

if TYPE_CHECKING:
    from langchain_core.messages import AIMessage

__all__ = ["run_command"]

_TOLD = ("smart_model", "smart_role", "smart_cost", "smart_error", "smart_estimated")
"""Columns of OUT beside the answer's; the last one only where anything is estimated."""


def run_command(
    source: InArgument,
    out: Annotated[
        Path,
        typer.Argument(metavar="OUT", help="Where the answers go, a file like IN."),
    ],
    reference: ReferenceOption,
    candidate: CandidateOption,
    prompt: PromptOption,
    system: SystemOption = None,
    equivalence: EquivalenceOption = "normalized",
    max_disagreement: DisagreementOption = 0.05,
    confidence: ConfidenceOption = 0.95,
    strategy: StrategyOption = "audit",
    price: PriceOption = None,
    budget: Annotated[
        float | None, typer.Option(help="Most USD; needs --max-tokens.")
    ] = None,
    max_tokens: MaxTokensOption = None,
    temperature: TemperatureOption = None,
    base_url: BaseUrlOption = None,
    estimate_usage: EstimateUsageOption = False,
    max_concurrency: ConcurrencyOption = 32,
    seed: SeedOption = 0,
    answer: Annotated[str, typer.Option(help="Column of the answers.")] = "answer",
    store: StoreOption = None,
    certificate: Annotated[
        Path | None, typer.Option(help="Write the certificate there.")
    ] = None,
    progress: ProgressOption = None,
    force: Annotated[bool, typer.Option(help="Write over what is there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Answer every row of a table; the same command again goes on where it ended.

    OUT has the rows of IN with the answer, and who gave it, why, and at what cost.
    """
    with clear_errors():
        if out.suffix != source.suffix:
            hint = f"as IN's, its name ends in {source.suffix}"
            raise InvalidInputError("OUT", str(out), hint)
        taken = {source.resolve()}
        for field, place in (("OUT", out), ("certificate", certificate)):
            if place is None:
                continue
            if place.resolve() in taken:
                hint = "this is another file of this command already"
                raise InvalidInputError(field, str(place), hint)
            taken.add(place.resolve())
            free_place(field, place, force)
        job = Job.read(
            source,
            prompt=prompt,
            system=system,
            reference=reference,
            candidate=candidate,
            base_url=base_url,
            equivalence=equivalence,
            price=price,
            store=store,
            max_disagreement=max_disagreement,
            confidence=confidence,
            strategy=strategy,
            budget_usd=budget,
            max_tokens=max_tokens,
            temperature=temperature,
            estimate_usage=estimate_usage,
            max_concurrency=max_concurrency,
            seed=seed,
            progress=sys.stderr.isatty() if progress is None else progress,
        )
        for column in (answer, *_TOLD):
            if any(column in row for row in job.table.rows):
                hint = "IN has this column already; --answer names another"
                raise InvalidInputError("column", column, hint)
        with job.kept_for_later():
            brought = job.smart.batch(list(job.asked), return_exceptions=True)
            (record,) = job.smart.report().certificates
            columns = _TOLD if record.estimated else _TOLD[:-1]
            names = (answer, *columns)
            rows = [
                row | dict(zip(names, _told(one, columns), strict=True))
                for row, one in zip(job.table.rows, brought, strict=True)
            ]
            write(out, as_bytes(out.suffix, rows))
            if certificate is not None:
                write(certificate, (record.model_dump_json() + "\n").encode())
        if as_json:
            print(json.dumps(_summary(job, record, out), ensure_ascii=False))
        else:
            from rich.console import Console

            Console().print(job.smart.report())
        _finish(job, record, brought)


def _told(brought: AIMessage | Exception, columns: Sequence[str]) -> list[Any]:
    """Return what is told of a row: the answer, then what belongs in these columns."""
    told: dict[str, Any]
    if isinstance(brought, Exception):
        problem = " ".join(f"{type(brought).__name__}: {brought}".split())
        told = {"smart_role": "unanswered", "smart_error": problem[:300]}
        return [None, *map(told.get, columns)]
    smart = brought.response_metadata["smart"]
    told = {f"smart_{name}": smart[name] for name in ("model", "role")}
    for name in ("cost", "estimated"):
        told[f"smart_{name}"] = round(smart.get(name, 0.0), 12)
    return [brought.text, *map(told.get, columns)]


def _summary(job: Job, record: Certificate, out: Path) -> dict[str, Any]:
    """Return what a program may want to know of a run."""
    return {
        "out": str(out),
        "store": job.kept,
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
    }


def _finish(job: Job, record: Certificate, brought: Sequence[Any]) -> None:
    """Say what is missing, and leave with the code that says so, too."""
    missing = [n for n, one in enumerate(brought) if isinstance(one, Exception)]
    if record.uncertified:
        say(
            f"the budget ended first: {record.uncertified} of {record.items} rows are "
            f"not covered, {len(missing)} of these have no answer; the same command "
            "with a larger --budget and --force goes on"
        )
        raise typer.Exit(Code.BUDGET)
    if missing:
        first = missing[0]
        say(
            f"{len(missing)} rows have no answer, the first in "
            f"{job.table.where(first)} ({type(brought[first]).__name__}); the same "
            "command with --force asks again"
        )
        raise typer.Exit(Code.UNPROVEN)
