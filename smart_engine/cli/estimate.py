"""`smart estimate`: what a whole job would cost, from a few rows of it."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from smart_engine.cli.commands import (
    ConfidenceOption,
    DisagreementOption,
    EquivalenceOption,
    JsonOption,
    SeedOption,
    StrategyOption,
    clear_errors,
    dollars,
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
    PromptOption,
    ReferenceOption,
    StoreOption,
    SystemOption,
    TemperatureOption,
)
from smart_engine.offline.estimate import Estimate, Range
from smart_engine.report.report import Report

__all__ = ["estimate_command"]


def estimate_command(
    source: InArgument,
    reference: ReferenceOption,
    candidate: CandidateOption,
    prompt: PromptOption,
    system: SystemOption = None,
    items: Annotated[
        int, typer.Option(min=1, help="Rows on which all models are asked.")
    ] = 50,
    equivalence: EquivalenceOption = "normalized",
    max_disagreement: DisagreementOption = 0.05,
    confidence: ConfidenceOption = 0.95,
    strategy: StrategyOption = "audit",
    price: PriceOption = None,
    max_tokens: MaxTokensOption = None,
    temperature: TemperatureOption = None,
    base_url: BaseUrlOption = None,
    estimate_usage: EstimateUsageOption = False,
    max_concurrency: ConcurrencyOption = 32,
    seed: SeedOption = 0,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask all models about a few random rows; say what all rows would cost.

    What is bought here `smart run` with the same options does not buy again.
    """
    with clear_errors():
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
            max_tokens=max_tokens,
            temperature=temperature,
            estimate_usage=estimate_usage,
            max_concurrency=max_concurrency,
            seed=seed,
        )
        from langchain_smart.trial import try_batch

        with job.kept_for_later():
            expected = try_batch(job.smart, list(job.asked), items)
    report = job.smart.report()
    if as_json:
        paid = {"sample_cost": report.cost, "sample_cost_estimated": report.estimated}
        paid["paid_in_earlier_runs"] = report.restored
        told = {**expected.model_dump(), **paid, "store": job.kept}
        print(json.dumps(told, ensure_ascii=False))
    else:
        _show(expected, report, job.kept)


def _show(expected: Estimate, report: Report, kept: str) -> None:
    """Lay an estimate out for a person."""
    print(
        f"{expected.sampled:,} of {expected.items:,} rows asked, for "
        f"{dollars(report)}; the answers are kept in {kept}"
    )
    for name, count in expected.differing.items():
        failed = expected.failed[name]
        told = f", {failed} could not be used" if failed else ""
        print(f"  {name}: {count} answers differed{told}")
    title = f"all rows, by {expected.jobs} simulated jobs"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for heading in ("expected", "least", "most"):
        table.add_column(heading, justify="right")
    figures: list[tuple[str, Range, str]] = [
        ("audits (rows asked to certify)", expected.audits, ",.0f"),
        ("USD to certify", expected.certifying, ",.4f"),
        ("USD in all", expected.cost, ",.4f"),
        ("USD for the reference alone", expected.reference_only, ",.4f"),
        ("USD saved", expected.saved, ",.4f"),
    ]
    for name, spread, form in figures:
        cells = (spread.mean, spread.low, spread.high)
        table.add_row(name, *(format(cell, form) for cell in cells))
    Console().print(table)
    if report.estimated:
        print("Models reported no usage: what their answers cost is estimated, too.")
    if expected.saved.low <= 0:
        print("It may save nothing: allow more to differ, or try other candidates.")
    print("An estimate from few rows, no promise; what is bought is not bought again.")
