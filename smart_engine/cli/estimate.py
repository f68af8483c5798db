"""`smart estimate`: what a whole job would cost, from a few rows of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from rich.console import Console
from rich.table import Table
from typer import Option

from smart_engine.amounts import usd
from smart_engine.calls import Outcome
from smart_engine.cli import options
from smart_engine.cli.job import Job
from smart_engine.cli.terminal import check_results, dollars, show, show_json, write
from smart_engine.errors import InvalidInputError
from smart_engine.offline.estimate import CURVE, SIZES, Estimate
from smart_engine.offline.prospects import prospects
from smart_engine.offline.traces import Trace, is_trace
from smart_engine.report.outlook import break_even, least_size
from smart_engine.report.report import Report
from smart_engine.report.words import exact_percent, percent, spread, whole_percent

__all__ = ["estimate_command"]

_FIGURES = {
    "audits": ("audits (rows asked to certify)", "{:,.0f}".format),
    "certifying": ("USD to certify", usd),
    "cost": ("USD in all", usd),
    "reference_only": ("USD for the reference alone", usd),
    "saved": ("USD saved", usd),
}
"""Range of an `Estimate` → its name in the table, and what writes it."""


def estimate_command(
    *,
    given: options.Estimated,
    items: Annotated[
        int, Option(min=1, help="Rows on which all models are asked.")
    ] = 50,
    promised: options.Promise,
    calls: options.Calls,
    task: Annotated[
        str | None,
        Option(help="Name of the task: what its jobs in --store so far would change."),
    ] = None,
    also: Annotated[
        list[str] | None,
        Option(
            metavar="SHARE",
            help="Another tolerated share, to choose among: what it would save, and "
            "from how many rows on; repeat for more.",
        ),
    ] = None,
    store: options.Store = None,
    html: Annotated[
        Path | None,
        Option(help="Write a page, too, with a curve of what jobs of any size save."),
    ] = None,
    force: options.Force = False,
    as_json: options.Json = False,
) -> None:
    """Ask all models about a few random rows; say what all rows would cost.

    What is bought here `smart run` with the same options does not buy again. If IN is a
    trace, from `smart import`, says what a candidate would have to reach; asks nobody.
    """
    if given.prompt is None and is_trace(given.source):
        _show_prospects(given, promised, as_json=as_json)
        return
    check_results({"--html": html}, [given.source], force=force)
    job = Job.read(given.inputs(), promised, calls, store, task)
    shares = [options.share_of("--also", share) for share in also or ()]
    sizes = CURVE if html else SIZES
    with job.resumable():
        expected = job.smart.estimate(
            job.inputs, job.configs, n=items, sizes=sizes, shares=shares
        )
    report = job.smart.report()
    if html:
        write(html, report.to_html().encode())
    if as_json:
        figures = {
            **expected.model_dump(),
            "sample_cost": report.cost,
            "sample_cost_estimated": report.estimated,
            "paid_in_earlier_runs": report.restored,
            "store": job.store,
        }
        show_json(figures)
    else:
        _show(expected, report, job.store)


def _show_prospects(
    given: options.Estimated, promised: options.Promise, *, as_json: bool
) -> None:
    """Print what imagined candidates would save, beside the recorded reference."""
    trace = Trace.read(given.source, reference=given.reference)
    guarantee = options.guarantee_of(promised.max_disagreement, promised)
    if promised.slices is not None:
        hint = "imagined candidates err alike in all slices: leave it out"
        raise InvalidInputError("--slice", promised.slices, hint)
    if guarantee.labels:
        hint = (
            "imagined candidates give no labels: ask real ones by --reference, "
            "--candidate and --prompt, or use smart replay where several answered"
        )
        raise InvalidInputError("--recall, --precision", guarantee.labels, hint)
    results = trace.outcomes(0)[trace.reference]
    costs = [result.cost for result in results if isinstance(result, Outcome)]
    found = prospects(costs, guarantee, min_saving=promised.min_saving)
    if as_json:
        show_json(found)
        return
    show(
        f"{found.items:,} answers of {trace.reference} for "
        f"{usd(found.reference_only)} USD; "
        f"{found.max_errors:,} may differ, with {percent(guarantee.confidence)} "
        "confidence. A candidate that costs this share of it per item, and differs on:"
    )
    table = Table()
    headings = ("cost", "differs", f"{trace.reference} asked", "saved", "saved, USD")
    for heading in headings:
        table.add_column(heading, justify="right")
    for each in found.candidates:
        table.add_row(
            percent(each.price),
            percent(each.differing),
            f"{each.asked:,.0f}",
            whole_percent(each.saved),
            usd(each.saved * found.reference_only),
        )
    Console().print(table)
    for price, share in found.break_even.items():
        most = "no such candidate pays: more items, or more that may differ"
        if share is not None:
            most = f"pays if it differs on at most about {percent(share)}"
        show(f"at {percent(price)} of its cost: {most}")
    show("Imagined candidates that err at random, no promise; smart estimate with")
    show("--reference, --candidate and --prompt asks real ones about a few rows.")


def _show(expected: Estimate, report: Report, store: str) -> None:
    """Print an estimate for a person."""
    show(
        f"{expected.sampled:,} of {expected.items:,} rows asked, for "
        f"{dollars(report)}; the answers are kept in {store}"
    )
    for name, count in expected.differing.items():
        failed = expected.failed[name]
        unusable = f", {failed} could not be used" if failed else ""
        show(f"  {name}: {count} answers differed{unusable}")
    title = f"all rows, by {expected.jobs} simulated jobs"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for heading in ("expected", "least", "most"):
        table.add_column(heading, justify="right")
    for field, (name, form) in _FIGURES.items():
        figure = getattr(expected, field)
        cells = (figure.mean, figure.low, figure.high)
        table.add_row(name, *map(form, cells))
    Console().print(table)
    _show_lanes(expected)
    show(f"Expected to save {spread(expected.saved_share)} of the reference's cost.")
    show(break_even(expected, "rows"))
    for label, share in expected.floors.items():
        show(
            f"Recall of {label!r}: about {expected.positives[label]:,.0f} of "
            f"{expected.items:,} rows have it, so without any sign of which rows are "
            f"missed at least {percent(share)} of the others have to be asked: about "
            f"{share * (expected.items - expected.positives[label]):,.0f}."
        )
    if expected.with_history is not None:
        jobs, saved = expected.earlier_jobs, spread(expected.with_history)
        before = f"after the {jobs} so far" if jobs else "as the first of them"
        show(f"Under one promise with the jobs of its task, {before}: {saved}.")
    sizes = (f"{n:,}: {whole_percent(s.mean)}" for n, s in expected.by_size.items())
    show(f"Jobs of other sizes would save, by rows: {', '.join(sizes)}.")
    if expected.choices:
        _show_choices(expected)
    if report.estimated:
        show("Models reported no usage: what their answers cost is estimated, too.")
    pays = expected.pays_from is not None and expected.pays_from <= expected.items
    if pays and expected.saved.low <= 0:
        show("It may save nothing: allow more to differ, or try other candidates.")
    show(
        "An estimate from few rows, no promise; smart run with the same options, "
        "--max-tokens among them, does not buy these answers again."
    )


def _show_choices(expected: Estimate) -> None:
    """Print what other shares that may differ would save."""
    table = Table(title="if other shares may differ", title_justify="left")
    for heading in ("may differ", "saved (least to most)", "pays from, rows"):
        table.add_column(heading, justify="right")
    for choice in expected.choices:
        share = exact_percent(choice.max_disagreement)
        table.add_row(share, spread(choice.saved_share), least_size(choice))
    Console().print(table)


def _show_lanes(expected: Estimate) -> None:
    """Print what live calls and providers' batches cost, and how long they take."""
    by_batch = expected.by_batch
    if by_batch is None:
        return
    table = Table(title="by lane (least to most)", title_justify="left")
    table.add_column("")
    table.add_column("live", justify="right")
    table.add_column("--lane batch", justify="right")
    for name, live, batch, form in (
        ("USD in all", expected.cost, by_batch.cost, usd),
        (
            "USD for the reference alone",
            expected.reference_only,
            by_batch.reference_only,
            usd,
        ),
        ("waves of calls", expected.rounds, by_batch.rounds, "{:.0f}".format),
    ):
        cells = (
            f"{form(each.mean)} ({form(each.low)} to {form(each.high)})"
            for each in (live, batch)
        )
        table.add_row(name, *cells)
    Console().print(table)
    show("Each wave takes as long as a batch of the provider: minutes, or up to a day.")
