"""`smart profile`: what a store knows of its tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from rich.console import Console
from rich.table import Table
from typer import Argument, Option

from smart_engine.amounts import usd
from smart_engine.cli import options
from smart_engine.cli.terminal import show, show_json
from smart_engine.errors import InvalidInputError
from smart_engine.report.words import exact_percent, percent, plain
from smart_engine.serving.task_profile import TaskProfile
from smart_engine.store.store import read_profiles

__all__ = ["profile_command"]


def profile_command(
    store: Annotated[
        str, Argument(metavar="STORE", help="A store: a file or a database URL.")
    ],
    task: Annotated[
        str | None, Option(help="Name of a task; by default all of them.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """What a store knows of each task: answers, promise, policies, models.

    Nothing in it carries a promise anywhere else; certificates do that.
    """
    if "://" not in store and not Path(store).is_file():
        raise InvalidInputError("STORE", store, "there is no such file")
    found = [each for each in read_profiles(store) if task in (None, each.task)]
    if task is not None and not found:
        raise InvalidInputError("task", task, "the store knows of no such task")
    if as_json:
        tasks = [each.model_dump(mode="json") for each in found]
        show_json({"store": store, "tasks": tasks})
        return
    if not found:
        show(f"{store}: no task")
    for each in found:
        _show(each)


def _show(known: TaskProfile) -> None:
    """Print what is known of a task."""
    kind = {
        "jobs": "its batches",
        "stream": "its single items",
        "shadow": "its single items, in shadow mode",
    }[known.kind]
    show(f"\n{plain(known.task)}: {kind}")
    share, sure = exact_percent(known.max_disagreement), exact_percent(known.confidence)
    jobs = "" if known.jobs is None else f" in {known.jobs:,} jobs under one promise"
    show(
        f"  {known.answers:,} answers{jobs}; at most {share} may differ, with {sure} "
        f"confidence, by {plain(known.equivalence)}"
    )
    if known.answers or known.audits:
        show(
            f"  at most {known.possible:,} differ, of {known.allowed:,} allowed: "
            f"{known.audits:,} audits showed {known.found:,} errors, "
            f"{known.unresolved:,} have no outcome and count as errors"
        )
    if known.open_jobs:
        show(f"  jobs that were begun and have not ended: {known.open_jobs:,}")
    if known.apart:
        show(f"  batches with promises of their own, which taught it: {known.apart:,}")
    show(f"  served next by {plain(known.serves or 'the reference alone')}")
    models = Table("model", "role")
    for heading in ("calls", "USD per 1,000", "compared"):
        models.add_column(heading, justify="right")
    models.add_column("")
    for model in known.models:
        cost = "-" if model.mean_cost is None else usd(1000 * model.mean_cost)
        cells = (plain(model.name), model.role, f"{model.calls:,}", cost)
        word = "never right" if model.hopeless else ""
        compared = f"{model.compared:,}" if model.role == "candidate" else "-"
        models.add_row(*cells, compared, word)
    policies = Table("policy")
    for heading in ("items", "differ", "to the reference"):
        policies.add_column(heading, justify="right")
    for policy in known.policies:
        shares = (policy.wrong, policy.escalated)
        shown = ("-" if each is None else percent(each) for each in shares)
        policies.add_row(plain(policy.policy), f"{policy.items:,.0f}", *shown)
    console = Console()
    console.print(models)
    console.print(policies)
