"""`smart_dataset`: answers a Ray data set as the reference would, for less.

A session decides on the driver; actors make the calls. Rows stay in Ray's object store:
to the driver come costs, flags and the keys of answers, and answers go from actors into
the blocks of the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any

from langchain_smart.parts import Parts, PartSession
from langchain_smart.ray_actors import RayPool
from langchain_smart.ray_rows import Rows, ray_with_data
from langchain_smart.rows import Prompt, RowCaller, SmartSource
from langchain_smart.runnable import SmartRunnable
from smart_engine.batch.certificate import Certificate
from smart_engine.calls import Call
from smart_engine.equivalence.keys import ByKey
from smart_engine.errors import (
    InvalidInputError,
    check_whole,
)
from smart_engine.money.reservations import Reservations, WorstCase
from smart_engine.report.report import Report
from smart_engine.runtime.blocks import BlockSession, drive_blocks
from smart_engine.runtime.progress_bar import progress_bar
from smart_engine.runtime.settings import Settings
from smart_engine.serving.budgeted import BudgetedSession
from smart_engine.serving.sessions import batch_budget, begin_session, job_key

if TYPE_CHECKING:
    from ray.data import Dataset

__all__ = ["SmartDataset", "smart_dataset"]


@dataclass(frozen=True)
class SmartDataset:
    """An answered data set.

    Attributes:
        dataset: The rows, in their order, with five more columns: `answer` (a text: of
            messages their text, of objects their JSON), `model`, `role` (see
            `smart_engine.Role`), `cost` in USD, and `error`, why there is no answer.
        certificate: What was promised, what was seen, and what follows.
        report: The smart model's report, with what this job has spent.
    """

    dataset: Dataset
    certificate: Certificate
    report: Report


def smart_dataset(
    ds: Dataset,
    *,
    smart: SmartSource,
    prompt: Prompt | None = None,
    column: str | None = None,
    output: str | PathLike[str] | None = None,
    concurrency: int = 4,
    batch_size: int = 1024,
    **ray_remote_args: Any,
) -> SmartDataset:
    """Answer each row of a Ray data set under the smart model's guarantee.

    It is one batch, with one certificate: with the same seed, the same models answer
    the same rows as by `batch()` of a list of them. An actor that is lost costs its
    piece of at most `batch_size` rows, which another makes again; a row that kills each
    actor that takes it has an `error`, and the rest is answered.

    Args:
        ds: The data set. It is materialized, so that each row has a number.
        smart: A `SmartChatModel` or `SmartRunnable`, also with tools, a schema or other
            arguments bound to it, that can be pickled; or a function without arguments
            that makes one, since many clients cannot. Its `max_concurrency`, the rate
            of an `InMemoryRateLimiter` and its `budget_usd` are shared by all actors.
        prompt: A template in which columns are named, such as `"Is this spam? {mail}"`,
            a prompt of LangChain's, or a function of a row (a dict). Without a prompt
            and a column, the row is what is asked: a dict, as chains take it.
        column: Name of the column that is asked as it is, in place of a prompt.
        output: A folder, on a file system that all workers see, such as
            `s3://bucket/job`, in which answers outlive the job: started again with the
            same rows, models and settings, it buys only what was in flight, and ends as
            it would have. Without one, answers are in Ray's object store alone.
        concurrency: Number of actors.
        batch_size: Most rows that an actor takes at once.
        **ray_remote_args: Further options of the actors, such as `num_cpus`,
            `resources` or `runtime_env`; but for `max_task_retries`.

    Raises:
        InvalidInputError: If an argument, or a setting of the smart model, cannot be
            used here; it says what to do instead.
        MissingExtraError: If Ray Data is not installed.
        WorkerLostError: If one actor after another is lost, whatever they are given.
    """
    ray = ray_with_data()
    check_whole("concurrency", concurrency, 1)
    check_whole("batch_size", batch_size, 1)
    if retries := ray_remote_args.get("max_task_retries"):
        hint = (
            "Ray then makes answers again that it has lost, and others may come than "
            "were compared; a lost actor's piece is made again anyway: leave it out"
        )
        raise InvalidInputError("max_task_retries", retries, hint)
    caller = RowCaller(smart, prompt=prompt, column=column)
    settings = caller.smart
    _check(settings)
    made = partial(RowCaller, smart, prompt=prompt, column=column, workers=concurrency)
    try:
        ray.cloudpickle.dumps(made)
    except Exception as error:
        hint = (
            f"it cannot be sent to actors ({error}): give a function without arguments "
            "that makes it, such as smart=lambda: SmartChatModel(…)"
        )
        raise InvalidInputError("smart", type(smart).__name__, hint) from error
    _check_output(output, settings)
    rows = Rows.of(ds, caller)
    config, books = settings._serving.of(caller.task), settings._books  # noqa: SLF001
    scope = settings._scope(caller.task)  # noqa: SLF001
    parts, seed = None, config.batch_seed(None)
    if output is not None:
        parts = Parts(str(output))
        asked = [*map(repr, caller.job().identities), *caller.job().contents()]
        told = job_key(config, caller.rule, caller.task, [*asked, caller.told])
        job = {"rows": rows.digest(), "models or settings": told}
        seed = parts.seed(job, seed)
    session = begin_session(
        config,
        rows.count,
        ByKey(caller.rule),
        caller.task,
        scope=scope,
        books=books,
        seed=seed,
        keep_answers=False,
    )
    bar: AbstractContextManager[Any] = nullcontext()
    if settings.progress:
        bar = progress_bar(session, settings.task)
    pool = RayPool(rows, made, parts, config.models, concurrency, ray_remote_args)
    with bar as recorded, ExitStack() as ending:
        ending.callback(pool.leave)
        driven: BlockSession = session
        within: dict[str, Any] = {}
        if (budget := batch_budget(config, books)) is not None and rows.count:
            worst_case = _worst_case(pool, config.models)
            reserved = Reservations(budget, worst_case, books.new_lock())
            strict = config.mode == "strict"
            needed = (Call(item, config.models[0]) for item in range(rows.count))
            driven = BudgetedSession(session, reserved, strict=strict, needed=needed)
            within["repeat"] = reserved.repeat
        if parts is not None:
            found = pool.answers.found
            driven = PartSession(driven, parts, rows.count, config.models, found)
        drive_blocks(
            driven,
            pool,
            batch_size,
            recorded=recorded,
            record_inner_call=scope.record_inner_call,
            **within,
        )
        books.end_batch(scope, session.certificate)
        answered = rows.assemble(session.handed_out, pool.answers)
    return SmartDataset(answered, session.certificate, settings.report())


def _worst_case(pool: RayPool, names: Sequence[str]) -> WorstCase:
    """Return what tells the most that a call can cost, by the rows as they are now."""
    most, places = pool.worst_cases(), {name: place for place, name in enumerate(names)}
    return lambda call: float(most[places[call.tier], call.item])


def _check(smart: Settings) -> None:
    """Raise unless all settings of a smart model have a meaning here.

    Raises:
        InvalidInputError: It names the setting, and the way out.
    """
    hints = {
        "mode": "a data set is answered, or it is not: try a sample of it by batch()",
        "store": "answers of a data set are kept in a folder: give output=…",
        "promise": "each data set has a certificate of its own: leave it out",
        "dedupe": "rows are in different places: make them unique first",
        "lane": "actors ask models live: leave it out",
        "recall": "answers stay in the data set, and so do their labels: leave it out",
        "precision": "answers stay in the data set, as their labels do: leave it out",
        "slices": "a data set is one job: filter it, and answer each slice as its own",
    }
    if smart.budget_usd is not None and isinstance(smart, SmartRunnable):
        hint = (
            "what a chain costs shows only as it runs, in an actor: leave it out, and "
            "see on a part of the data set, by ds.limit(…), what it costs"
        )
        raise InvalidInputError("budget_usd", smart.budget_usd, hint)
    served = "strict" if smart.mode == "strict" else "serve"
    usual: dict[str, Any] = {"mode": served, "promise": "batch", "lane": "live"}
    usual |= {"recall": {}, "precision": {}}
    for name, hint in hints.items():
        value = getattr(smart, name)
        if not (value is None or value is False or value == usual.get(name)):
            raise InvalidInputError(name, value, hint)


def _check_output(output: Any, smart: Settings) -> None:
    """Raise where a folder could not see that a job has changed."""
    version = getattr(smart, "version", "of models")  # which are seen
    if output is not None and version is None:
        hint = (
            "a folder cannot see whether these chains have changed: name them, as in "
            "version='1', and change the name whenever they change"
        )
        raise InvalidInputError("version", None, hint)
