"""`smart jobs` and `smart cancel`: batches that jobs have submitted to providers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console
from rich.table import Table
from typer import Argument, Exit

from smart_engine.cli import options
from smart_engine.cli.terminal import Code, say, show, show_json
from smart_engine.errors import InvalidInputError
from smart_engine.report.words import plain
from smart_engine.runtime.lanes.anthropic_form import AnthropicBatches
from smart_engine.runtime.lanes.carrier import Carrier, State
from smart_engine.runtime.lanes.openai_form import OpenAIBatches
from smart_engine.serving.submissions import Submission
from smart_engine.store.store import read_submissions

__all__ = ["cancel_command", "jobs_command"]

StorePlace = Annotated[
    str, Argument(metavar="STORE", help="A store: a file or a database URL.")
]


def jobs_command(store: StorePlace, as_json: options.Json = False) -> None:
    """Show where the batches are that jobs of a store submitted to providers.

    Keys come from the environment, such as OPENAI_API_KEY. The job itself, started
    again, takes its batches up.
    """
    seen = [(each, *_look(each)) for each in _submissions(store)]
    if as_json:
        for each, state, problem in seen:
            show_json(_facts(each, state, problem))
        return
    if not seen:
        show(f"{store}: no batches at a provider")
        return
    table = Table()
    for heading in ("batch", "model", "requests", "since (UTC)", "state"):
        table.add_column(heading)
    for each, state, problem in seen:
        since = datetime.fromtimestamp(each.began, UTC).strftime("%Y-%m-%d %H:%M")
        where = problem or (f"{state.name}, {state.done:,} done" if state else "")
        cells = (each.batch or each.name, each.model, f"{len(each.rows):,}")
        table.add_row(*map(plain, (*cells, since, where)))
    Console().print(table)


def cancel_command(
    store: StorePlace,
    batch: Annotated[
        list[str] | None, Argument(metavar="[BATCH]", help="By default, all of them.")
    ] = None,
) -> None:
    """Cancel batches of a store that have not ended.

    What they have answered until then is billed, and a job that is started again reads
    it, and asks for the rest anew.
    """
    submissions = _submissions(store)
    known = {each.batch for each in submissions if each.batch}
    for name in batch or ():
        if name not in known:
            raise InvalidInputError("BATCH", name, "the store knows of no such batch")
    if not submissions:
        show(f"{store}: no batches at a provider")
    failed = False
    for each in submissions:
        if each.batch is None or each.batch not in (batch or known):
            continue
        state, problem = _look(each)
        if state is None:
            say(f"{each.batch}: {problem}")
            failed = True
        elif not state.ended:
            _carrier(each).cancel(each.batch)
            show(f"{each.batch}: cancelled")
    if failed:
        raise Exit(Code.UNPROVEN)


def _submissions(store: str) -> Sequence[Submission]:
    if "://" not in store and not Path(store).is_file():
        raise InvalidInputError("STORE", store, "there is no such file")
    return read_submissions(store)


def _carrier(submission: Submission) -> Carrier:
    form = AnthropicBatches if "/messages" in submission.kind else OpenAIBatches
    return form.at(submission.address)


def _look(submission: Submission) -> tuple[State | None, str]:
    """Return where a batch is, or why that is not known."""
    try:
        carrier = _carrier(submission)
        name = submission.batch or carrier.find(submission, ())
        if name is None:
            return None, "not submitted"
        return carrier.look(name), ""
    except Exception as error:  # noqa: BLE001 - the provider's own, or no key
        return None, f"unknown ({' '.join(str(error).split())[:200]})"


def _facts(each: Submission, state: State | None, problem: str) -> dict[str, Any]:
    return {
        "name": each.name,
        "batch": each.batch,
        "model": each.model,
        "address": each.address,
        "requests": len(each.rows),
        "began": each.began,
        "state": state.name if state else None,
        "done": state.done if state else None,
        "problem": problem or (state.problem if state else None),
    }
