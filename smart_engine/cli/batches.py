"""`smart jobs` and `smart cancel`: batches that jobs have submitted to providers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console
from rich.table import Table
from typer import Argument, Exit, Option

from smart_engine.cli import options
from smart_engine.cli.terminal import Code, say, show, show_json
from smart_engine.errors import InvalidInputError
from smart_engine.report.words import plain
from smart_engine.runtime.failure import is_missing
from smart_engine.runtime.lanes.anthropic_form import AnthropicBatches
from smart_engine.runtime.lanes.carrier import Carrier, State
from smart_engine.runtime.lanes.openai_form import OpenAIBatches
from smart_engine.serving.submissions import Submission
from smart_engine.store.store import Store, read_submissions

__all__ = ["cancel_command", "jobs_command"]

StorePlace = Annotated[
    str, Argument(metavar="STORE", help="A store: a file or a database URL.")
]


def jobs_command(store: StorePlace, as_json: options.Json = False) -> None:
    """Show where the batches are that jobs of a store submitted to providers.

    Keys come from the environment, such as OPENAI_API_KEY. The job itself, started
    again, takes its batches up.
    """
    seen = [(each, *_look(each)[:2]) for each in _submissions(store)]
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
    forget: Annotated[
        bool,
        Option(
            "--forget",
            help="Forget those that the key in the environment is not shown: their "
            "job, started again, buys their requests anew.",
        ),
    ] = False,
) -> None:
    """Cancel batches of a store that have not ended.

    What they have answered until then is billed, and a job that is started again reads
    it, and asks for the rest anew.
    """
    submissions = _submissions(store)
    known = {each.batch or each.name: each for each in submissions}
    for name in batch or ():
        if name not in known:
            raise InvalidInputError("BATCH", name, "the store knows of no such batch")
    if forget and not batch:
        hint = "name the batches: others may be those of another key"
        raise InvalidInputError("--forget", forget, hint)
    if not submissions:
        show(f"{store}: no batches at a provider")
    failed = False
    for name in batch or [name for name, each in known.items() if each.batch]:
        each, (state, problem, found) = known[name], _look(known[name])
        if forget and not found:
            answers = Store(store)
            answers.forget_submission(each.name)
            answers.close()
            show(f"{name}: forgotten")
        elif state is None:
            say(f"{name}: {problem}")
            failed = True
        elif not state.ended:
            _carrier(each).cancel(found)
            show(f"{name}: cancelled")
    if failed:
        raise Exit(Code.UNPROVEN)


def _submissions(store: str) -> Sequence[Submission]:
    if "://" not in store and not Path(store).is_file():
        raise InvalidInputError("STORE", store, "there is no such file")
    return read_submissions(store)


def _carrier(submission: Submission) -> Carrier:
    form = AnthropicBatches if "/messages" in submission.kind else OpenAIBatches
    return form.at(submission.address)


def _look(submission: Submission) -> tuple[State | None, str, str]:
    """Return where a batch is, or why that is not known, and its id if it may exist."""
    name = submission.batch or submission.name
    try:
        carrier = _carrier(submission)
        found = submission.batch or carrier.find(submission, ())
        if found is None:
            return None, "not submitted, or not by this key", ""
        return carrier.look(found), "", found
    except Exception as error:  # noqa: BLE001 - the provider's own, or no key
        problem = f"unknown ({' '.join(str(error).split())[:200]})"
        return None, problem, "" if is_missing(error) else name


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
