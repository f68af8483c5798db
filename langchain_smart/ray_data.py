"""`smart_dataset`: answers a Ray data set as the reference would, for less.

A session decides on the driver; actors make the calls. Rows stay in Ray's object store:
to the driver come costs, flags and the keys of answers, and answers go from actors into
the blocks of the result.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from langchain_smart.parts import Parts, PartSession
from langchain_smart.rows import Prompt, RowCaller, SmartSource
from smart_engine.batch.certificate import Certificate
from smart_engine.calls import ROLES, Call, HandedOut
from smart_engine.equivalence.keys import ByKey
from smart_engine.errors import (
    InvalidInputError,
    MissingExtraError,
    RemoteCallError,
    check_whole,
    error_name,
)
from smart_engine.evidence.tails import IntArray
from smart_engine.report.report import Report
from smart_engine.runtime.blocks import BlockSession, Ended, Piece, drive_blocks
from smart_engine.runtime.progress_bar import progress_bar
from smart_engine.runtime.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa
    from ray.data import Dataset

__all__ = ["SmartDataset", "smart_dataset"]

_SUMS = 2**128
"""Checksums of rows are added up below this."""

_ADDED = ("answer", "model", "role", "cost", "error")
"""The columns that are added to each row."""


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
            that makes one, since many clients cannot. Its `max_concurrency`, and the
            rate of an `InMemoryRateLimiter`, are shared by all actors.
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
    ray = _ray()
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
    rows = _Rows.of(ds, caller)
    config, books = settings._serving.of(caller.task), settings._books  # noqa: SLF001
    scope = settings._scope(caller.task)  # noqa: SLF001
    parts, seed = None, config.batch_seed(None)
    if output is not None:
        parts = Parts(str(output))
        asked = [*map(repr, caller.job().identities), *caller.job().contents()]
        told = config.job(caller.rule, caller.task, [*asked, caller.told])
        job = {"rows": rows.digest(), "models or settings": told}
        seed = parts.seed(job, seed)
    session = config.batch_session(
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
    given = (rows, made, parts, config.models, concurrency, ray_remote_args)
    with bar as recorded, _pool(*given) as pool:
        driven: BlockSession = session
        if parts is not None:
            driven = PartSession(session, parts, rows.count, config.models, pool.found)
        drive_blocks(
            driven,
            pool,
            batch_size,
            recorded=recorded,
            record_inner_call=scope.record_inner_call,
        )
        books.end_batch(scope, session.certificate)
        answered = rows.assemble(session.handed_out, pool)
    return SmartDataset(answered, session.certificate, settings.report())


def _ray() -> Any:
    """Return Ray, with Ray Data.

    Raises:
        MissingExtraError: If it is not installed.
    """
    try:
        import pyarrow as pa  # noqa: F401
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise MissingExtraError("ray", "smart_dataset") from error
    return ray


def _check(smart: Settings) -> None:
    """Raise unless all settings of a smart model have a meaning here.

    Raises:
        InvalidInputError: It names the setting, and the way out.
    """
    hints = {
        "mode": "a data set is answered, or it is not: try a sample of it by batch()",
        "budget_usd": "what actors have in flight cannot be set aside here: leave it "
        "out, and see on a part of the data set, by ds.limit(…), what it costs",
        "store": "answers of a data set are kept in a folder: give output=…",
        "promise": "each data set has a certificate of its own: leave it out",
        "dedupe": "rows are in different places: make them unique first",
        "lane": "actors ask models live: leave it out",
        "recall": "answers stay in the data set, and so do their labels: leave it out",
        "precision": "answers stay in the data set, as their labels do: leave it out",
    }
    usual: dict[str, Any] = {"mode": "serve", "promise": "batch", "lane": "live"}
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


# -- rows ------------------------------------------------------------------------------


class _Rows:
    """The rows of a data set, in blocks; each has the number of its place in all.

    Args:
        blocks: References to the blocks, Arrow tables.
        sizes: Numbers of their rows.
        columns: The columns of which models are told.
        schema: The schema of the rows.
    """

    def __init__(
        self,
        blocks: Sequence[Any],
        sizes: Sequence[int],
        columns: Sequence[str],
        schema: pa.Schema,
    ) -> None:
        self._blocks, self._columns, self._schema = blocks, list(columns), schema
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.count = int(self._starts[-1])

    @classmethod
    def of(cls, ds: Dataset, caller: RowCaller) -> _Rows:
        """Return the rows of a data set, which it computes.

        Raises:
            InvalidInputError: If its columns cannot be used.
        """
        ray = _ray()
        options = ds.context.execution_options
        before, options.preserve_order = options.preserve_order, True
        try:
            blocks = ds.materialize().to_arrow_refs()
        finally:
            options.preserve_order = before
        shapes = ray.get([_task("shape").remote(block) for block in blocks])
        kept = [(b, rows) for b, (rows, _) in zip(blocks, shapes, strict=True) if rows]
        schemas = [schema for rows, schema in shapes if rows]
        schema = schemas[0] if schemas else _no_rows()
        given = {name for each in schemas for name in each.names}
        if taken := [name for name in _ADDED if name in given]:
            hint = (
                f"the answers' columns are {', '.join(_ADDED)}: rename this one by "
                "ds.rename_columns({…}), or drop it"
            )
            raise InvalidInputError("ds", taken[0], hint)
        every = [
            name for name in schema.names if all(name in each.names for each in schemas)
        ]
        columns = caller.columns_of(dict.fromkeys(every, ())) if kept else []
        return cls([b for b, _ in kept], [rows for _, rows in kept], columns, schema)

    def blocks_of(self, items: IntArray) -> IntArray:
        """Return the blocks in which items are."""
        return np.searchsorted(self._starts, items, side="right") - 1

    def digest(self) -> str:
        """Return a checksum of what models are told of each row, and of their order."""
        sums = [
            _task("digest").remote(block, first, self._columns)
            for block, first in zip(self._blocks, self._starts.tolist(), strict=False)
        ]
        return f"{sum(_ray().get(sums)) % _SUMS:032x}"

    def take(self, items: IntArray) -> list[Any]:
        """Return references to tables which together have these items, in order.

        Args:
            items: Numbers of rows, sorted.
        """
        blocks = self.blocks_of(items)
        cuts = np.flatnonzero(np.diff(blocks)) + 1
        return [
            _task("take").remote(
                self._blocks[(block := int(self.blocks_of(part[:1])[0]))],
                part - self._starts[block],
                self._columns,
            )
            for part in np.split(items, cuts)
        ]

    def assemble(self, handed_out: HandedOut, pool: _RayPool) -> Dataset:
        """Return the data set of the rows and their answers."""
        ray = _ray()
        if not self._blocks:
            return ray.data.from_arrow(_answered(self._schema.empty_table()))
        made = []
        for block, table in enumerate(self._blocks):
            first, end = self._starts[block : block + 2].tolist()
            part = slice(first, end)
            errors = {
                item - first: _said(error)
                for item, error in handed_out.errors.items()
                if first <= item < end
            }
            made.append(
                _task("assemble").remote(
                    table,
                    first,
                    handed_out.models[part],
                    handed_out.roles[part],
                    handed_out.costs[part],
                    errors,
                    handed_out.names,
                    *pool.answers_in(block),
                )
            )
        return ray.data.from_arrow_refs(made)


def _said(error: BaseException) -> str:
    said = (
        error if isinstance(error, RemoteCallError) else f"{error_name(error)}: {error}"
    )
    return str(said)


def _no_rows() -> pa.Schema:
    import pyarrow as pa

    return pa.schema([])


@cache
def _task(name: str) -> Any:
    """Return a task; it takes no slot, for actors may have taken them all."""
    return _ray().remote(num_cpus=0)(_TASKS[name])


def _shape(table: pa.Table) -> tuple[int, pa.Schema]:
    return table.num_rows, table.schema


def _take(table: pa.Table, rows: IntArray, columns: list[str]) -> pa.Table:
    return table.select(columns).take(rows)


def _digest(table: pa.Table, first: int, columns: list[str]) -> int:
    total = 0
    for row in enumerate(table.select(columns).to_pylist(), first):
        text = repr(row).encode("utf-8", "surrogatepass")
        total += int.from_bytes(hashlib.blake2b(text, digest_size=16).digest())
    return total % _SUMS


def _answers(parts: Parts, name: str, names: Sequence[str]) -> pa.Table:
    table = parts.answers(name)
    return _numbered(table["item"], table["model"].to_pylist(), table["answer"], names)


def _numbered(items: Any, models: Any, answers: Any, names: Sequence[str]) -> pa.Table:
    """Return answers as `_assemble` takes them: models are numbers."""
    import pyarrow as pa

    indices = {name: index for index, name in enumerate(names)}
    numbers = pa.array([indices[name] for name in models], pa.int16())
    return pa.table({"item": items, "model": numbers, "answer": answers})


def _assemble(
    table: pa.Table,
    first: int,
    models: IntArray,
    roles: IntArray,
    costs: Any,
    errors: dict[int, str],
    names: Sequence[str],
    *answers: pa.Table,
) -> pa.Table:
    """Return a block of the result.

    Args:
        table: The rows.
        first: Number of the first one.
        models: Per row, the index of the model that answers it; see `HandedOut`.
        roles: Per row, the index of its role.
        costs: Per row, what it cost.
        errors: Row → why it has no answer.
        names: Names of the models.
        *answers: Tables that have the answers, and others.
    """
    import pyarrow as pa

    texts = np.full(len(models), None, object)
    for part in answers:
        items, answered = part["item"].to_numpy() - first, part["model"].to_numpy()
        inside = np.flatnonzero((items >= 0) & (items < len(models)))
        wanted = inside[models[items[inside]] == answered[inside]]
        # A call that failed may have been made again, and its answer be in any part.
        wanted = wanted[part["answer"].is_valid().to_numpy()[wanted]]
        texts[items[wanted]] = (
            part["answer"].take(wanted).to_numpy(zero_copy_only=False)
        )
    who = pa.DictionaryArray.from_arrays(
        pa.array(models, pa.int16(), mask=models < 0), pa.array(names, pa.string())
    )
    role = pa.DictionaryArray.from_arrays(pa.array(roles.astype(np.int16)), [*ROLES])
    why = [errors.get(row) for row in range(len(models))] if errors else None
    return _answered(
        table,
        pa.array(texts, pa.string()),
        who.dictionary_decode(),
        role.dictionary_decode(),
        pa.array(costs),
        pa.array(why, pa.string()) if why else pa.nulls(len(models), pa.string()),
    )


def _answered(table: pa.Table, *columns: Any) -> pa.Table:
    """Return rows with their answers' columns; without any, with empty ones."""
    import pyarrow as pa

    kinds = [pa.float64() if name == "cost" else pa.string() for name in _ADDED]
    filled = columns or [pa.array([], kind) for kind in kinds]
    for name, column in zip(_ADDED, filled, strict=True):
        table = table.append_column(name, column)
    return table


_TASKS: dict[str, Any] = {
    "shape": _shape,
    "digest": _digest,
    "take": _take,
    "answers": _answers,
    "assemble": _assemble,
}


# -- actors ----------------------------------------------------------------------------


class _Worker:
    """An actor: makes pieces, one after another."""

    def __init__(
        self, made: Callable[[], RowCaller], parts: Parts | None, names: Sequence[str]
    ) -> None:
        self._caller = made()
        self._parts, self._names = parts, names

    def make(
        self,
        name: str,
        items: IntArray,
        models: IntArray,
        attempts: int,
        *tables: pa.Table,
    ) -> tuple[Any, Any]:
        """Make the calls of a piece.

        Returns:
            Their results, with why no call may be made any more, if that showed; and
            their answers, which stay where they are, unless they are in a part.
        """
        import pyarrow as pa

        rows = [row for table in tables for row in table.to_pylist()]
        calls = [
            Call(item, self._names[model])
            for item, model in zip(items.tolist(), models.tolist(), strict=True)
        ]
        made = self._caller.make(rows, calls, attempts)
        columns, answers = made.columns, None
        if self._parts is not None:
            self._parts.write(name, columns, made.answers)
        else:
            numbers = pa.array(columns["item"], pa.int64())
            texts = pa.array(made.answers, pa.string())
            answers = _numbered(numbers, columns["model"], texts, self._names)
        ended = made.error and (error_name(made.error), str(made.error))
        return (columns, ended), answers

    def stop(self) -> None:
        """Begin no further call; called while a piece is being made."""
        self._caller.stop()


class _RayPool:
    """Actors that make pieces.

    Args:
        rows: The rows.
        made: Makes a `RowCaller`.
        parts: Where answers outlive the job, if anywhere.
        names: Names of the models.
        workers: Number of actors.
        options: Their further options.

    Attributes:
        workers: As given.
    """

    def __init__(
        self,
        rows: _Rows,
        made: Callable[[], RowCaller],
        parts: Parts | None,
        names: Sequence[str],
        workers: int,
        options: dict[str, Any],
    ) -> None:
        ray = _ray()
        self._rows, self._made, self._names = rows, ray.put(made), list(names)
        self._parts, self._run = parts, secrets.token_hex(4)
        self._places = {name: place for place, name in enumerate(names)}
        self.workers = workers
        groups = {"concurrency_groups": {"control": 1}}
        self._actor = ray.remote(**{**groups, **options})(_Worker)
        self._actors = [self._begin() for _ in range(workers)]
        self._flying: dict[Any, tuple[Piece, Any, Any]] = {}
        self._ended: deque[Ended] = deque()
        self._sources: defaultdict[int, list[Any]] = defaultdict(list)
        self._opened: dict[str, Any] = {}

    def _begin(self) -> Any:
        return self._actor.remote(self._made, self._parts, self._names)

    def _name(self, piece: Piece) -> str:
        """Return the name of a piece's part."""
        return f"{self._run}-{piece.number:06d}"

    def found(self, source: Any, items: IntArray) -> None:
        """Note where answers to items are: a reference to a table, or a part's name."""
        for block in np.unique(self._rows.blocks_of(items)).tolist():
            self._sources[block].append(source)

    def answers_in(self, block: int) -> list[Any]:
        """Return references to the tables that have the answers to a block's rows."""
        for source in self._sources[block]:
            if isinstance(source, str) and source not in self._opened:
                given = (self._parts, source, self._names)
                self._opened[source] = _task("answers").remote(*given)
        return [self._opened.get(each, each) for each in self._sources[block]]

    def submit(self, piece: Piece) -> None:
        """Have a piece made by the actor that has the least to do."""
        busy = [actor for _, actor, _ in self._flying.values()]
        actor = min(self._actors, key=busy.count)
        items = np.array([call.item for call in piece.calls], np.int64)
        models = np.array([self._places[call.tier] for call in piece.calls], np.int16)
        ref, answers = actor.make.options(num_returns=2).remote(
            self._name(piece), items, models, piece.attempts, *self._rows.take(items)
        )
        self._flying[ref] = piece, actor, answers

    def wait(self) -> Ended:
        """Wait for the next piece that ends."""
        ray = _ray()
        while not self._ended:
            (ref, *_), _ = ray.wait(list(self._flying), num_returns=1)
            self._take(ref)
        return self._ended.popleft()

    def _take(self, ref: Any) -> None:
        """Take the result of a piece, and all pieces of its actor if that was lost."""
        actor = self._flying[ref][1]
        if not self._read(ref):
            return
        self._actors.remove(actor)
        self._actors.append(self._begin())
        others = [each for each, (_, its, _) in self._flying.items() if its is actor]
        begun = False
        for each in others:  # in the order in which it would have made them
            piece = self._flying[each][0]
            how = self._read(each)
            if how is None:
                continue
            del self._flying[each]
            if begun:
                self.submit(piece)
            else:
                self._ended.append(self._lost(piece, how))
            begun = True

    def _read(self, ref: Any) -> str | None:
        """Take the result of a piece; return how its actor was lost, if it was."""
        ray = _ray()
        errors = ray.exceptions
        try:
            columns, why = ray.get(ref)
        except (
            errors.RayActorError,
            errors.WorkerCrashedError,
            errors.OutOfMemoryError,
            errors.NodeDiedError,
            errors.ObjectLostError,
        ) as error:
            lines = str(error).splitlines() or ["no reason is known"]
            if getattr(error, "actor_init_failed", False):
                hint = f"an actor cannot make it: {lines[-1]}"
                raise InvalidInputError("smart", "…", hint) from error
            return lines[0]
        piece, _, answers = self._flying.pop(ref)
        items = np.array(columns["item"], np.int64)
        self.found(answers if self._parts is None else self._name(piece), items)
        ended = None if why is None else RemoteCallError(*why)
        self._ended.append(Ended(piece, columns, None, ended))
        return None

    def _lost(self, piece: Piece, how: str) -> Ended:
        """Return how a piece ended whose actor was lost: its part may be there."""
        columns = self._parts and self._parts.results(self._name(piece))
        if columns:
            self.found(self._name(piece), np.array(columns["item"], np.int64))
        return Ended(piece, columns or None, how)

    def stop(self) -> None:
        """Have the pieces in flight end early."""
        for actor in self._actors:
            actor.stop.options(concurrency_group="control").remote()

    def leave(self) -> None:
        """Have the pieces in flight end now."""
        ray = _ray()
        for actor in self._actors:
            ray.kill(actor)


@contextmanager
def _pool(*given: Any) -> Iterator[_RayPool]:
    """Yield a pool, whose actors end with the block."""
    pool = _RayPool(*given)
    try:
        yield pool
    finally:
        pool.leave()
