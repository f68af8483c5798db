"""The rows of a Ray data set, and their answers; both stay in Ray's object store.

Tasks read them where they are. Few run at once, and none takes a slot of the cluster.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from langchain_smart.parts import Parts
from langchain_smart.rows import RowCaller
from smart_engine.calls import ROLES, Call, HandedOut
from smart_engine.errors import (
    InvalidInputError,
    MissingExtraError,
    RemoteCallError,
    SmartError,
    error_name,
)
from smart_engine.evidence.tails import FloatArray, IntArray

if TYPE_CHECKING:
    import pyarrow as pa
    from ray.data import Dataset

__all__ = ["Answers", "Rows", "numbered", "ray_with_data"]

_SUMS = 2**128
"""Checksums of rows are added up below this."""

_ADDED = ("answer", "model", "role", "cost", "error")
"""The columns that are added to each row."""

_SMALL = 150_000
"""Bytes of a table that may not go into the object store; Ray's limit is 100 kB."""

_JOINED = 1_000_000
"""Bytes of small tables, together, that are joined into one that may go there."""


def ray_with_data() -> Any:
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


class Rows:
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
        self._nodes = _nodes(blocks)
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.count = int(self._starts[-1])

    @classmethod
    def of(cls, ds: Dataset, caller: RowCaller) -> Rows:
        """Return the rows of a data set, which it computes.

        Raises:
            InvalidInputError: If its columns cannot be used.
        """
        ray = ray_with_data()
        options = ds.context.execution_options
        before, options.preserve_order = options.preserve_order, True
        try:
            blocks = ds.materialize().to_arrow_refs()
        finally:
            options.preserve_order = before
        shapes = ray.get(_run("shape", ((block,) for block in blocks)))
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
        places = zip(self._blocks, self._starts.tolist(), strict=False)
        given = ((block, first, self._columns) for block, first in places)
        return f"{sum(ray_with_data().get(_run('digest', given))) % _SUMS:032x}"

    def take(self, items: IntArray) -> tuple[IntArray, list[Any]]:
        """Return references to tables that together have these items.

        Each node takes those that it has, in one task.

        Args:
            items: Numbers of rows, sorted.

        Returns:
            The order in which the tables have them, as places in `items`; the tables.
        """
        blocks = self.blocks_of(items)
        cuts = np.flatnonzero(np.diff(blocks)) + 1
        by_node = defaultdict[Any, list[IntArray]](list)
        for places in np.split(np.arange(len(items)), cuts):
            by_node[self._nodes[int(blocks[places[0]])]].append(places)
        tables = []
        for parts in by_node.values():
            of = [int(blocks[places[0]]) for places in parts]
            rows = [
                items[places] - self._starts[block]
                for block, places in zip(of, parts, strict=True)
            ]
            given = (rows, self._columns, *(self._blocks[block] for block in of))
            tables.append(_task("take").remote(*given))
        order = [places for parts in by_node.values() for places in parts]
        return np.concatenate(order), tables

    def worst_cases(self, made: Any, environment: Any) -> FloatArray:
        """Return the most that each call can cost, in USD: models × rows.

        Args:
            made: A reference to what makes a `RowCaller`.
            environment: The `runtime_env` that it needs, if any.

        Raises:
            InvalidInputError: If nothing limits what a call costs.
        """
        given = ((made, block, self._columns) for block in self._blocks)
        return np.concatenate(_got(_run("bound", given, environment)), axis=1)

    def worst_case(self, made: Any, environment: Any, call: Call) -> float | None:
        """Return the most that a call can cost; None if that cannot be said."""
        ray = ray_with_data()
        (table,) = self.take(np.array([call.item]))[1]
        task = _task("bound_one").options(max_retries=0, runtime_env=environment)
        try:
            most: float | None = ray.get(task.remote(made, table, call.tier))
        except ray.exceptions.RayError:
            return None  # the row kills whoever reads it
        return most

    def assemble(self, handed_out: HandedOut, answers: Answers) -> Dataset:
        """Return the data set of the rows and their answers."""
        ray = ray_with_data()
        if not self._blocks:
            return ray.data.from_arrow(_answered(self._schema.empty_table()))
        errors = defaultdict[int, dict[int, str]](dict)
        failed = np.array(sorted(handed_out.errors), np.int64)
        for item, block in zip(
            failed.tolist(), self.blocks_of(failed).tolist(), strict=True
        ):
            place = item - int(self._starts[block])
            errors[block][place] = _said(handed_out.errors[item])

        def given() -> Iterator[tuple[Any, ...]]:
            for block, table in enumerate(self._blocks):
                first, end = self._starts[block : block + 2].tolist()
                part = slice(first, end)
                columns = (handed_out.models, handed_out.roles, handed_out.costs)
                shown = (column[part] for column in columns)
                told = (*shown, errors[block], handed_out.names)
                yield (table, first, *told, *answers.of(block))

        return ray.data.from_arrow_refs(_run("assemble", given()))


class Answers:
    """Where answers are: in tables in the object store, or in parts of a folder.

    Small tables are joined: Ray would keep each in the driver's memory.

    Args:
        rows: The rows.
        parts: The folder, if there is one.
        names: Names of the models.
    """

    def __init__(self, rows: Rows, parts: Parts | None, names: Sequence[str]) -> None:
        self._rows, self._parts, self._names = rows, parts, names
        self._in: defaultdict[int, dict[Any, None]] = defaultdict(dict)
        self._loose: list[tuple[Any, IntArray]] = []
        self._size = 0  # of these, in bytes

    def found(self, source: Any, items: IntArray) -> None:
        """Note where answers to items are: a reference to a table, or a part's name."""
        for block in np.unique(self._rows.blocks_of(items)).tolist():
            self._in[block][source] = None

    def add(self, table: Any, items: IntArray, size: int) -> None:
        """Note a table of answers, of so many bytes."""
        self.found(table, items)
        if size <= _SMALL:
            self._loose.append((table, items))
            self._size += size
        if self._size >= _JOINED:
            self._join()

    def _join(self) -> None:
        """Join the small tables; if whoever does it is lost, they stay as they are."""
        ray = ray_with_data()
        loose, self._loose, self._size = self._loose, [], 0
        # Ray keeps the arguments of what it may have to do again.
        once = _task("join").options(num_returns=2, max_retries=0)
        joined, done = once.remote(*(table for table, _ in loose))
        try:
            ray.get(done)
        except ray.exceptions.RayError:
            return
        for table, items in loose:
            for block in np.unique(self._rows.blocks_of(items)).tolist():
                del self._in[block][table]
            self.found(joined, items)

    def of(self, block: int) -> tuple[Any, ...]:
        """Return what `_assemble` takes to find the answers to a block's rows."""
        sources = self._in[block]
        names = [source for source in sources if isinstance(source, str)]
        tables = [source for source in sources if not isinstance(source, str)]
        return (self._parts, names, *tables)


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
    return ray_with_data().remote(num_cpus=0)(_TASKS[name])


def _got(results: list[Any]) -> Any:
    """Return results of tasks; errors of ours as they were raised."""
    ray = ray_with_data()
    try:
        return ray.get(results)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, SmartError):
            raise error.cause from error
        raise


def _run(
    name: str, given: Iterable[tuple[Any, ...]], environment: Any = None
) -> list[Any]:
    """Run a task with each of these arguments; return references to the results.

    As many at once as there are slots: else Ray would begin a process for each.
    """
    ray = ray_with_data()
    slots = max(1, int(ray.cluster_resources().get("CPU", 1)))
    made: list[Any] = []
    running: list[Any] = []
    for arguments in given:
        if len(running) >= slots:
            _, running = ray.wait(running, fetch_local=False)
        task = _task(name).options(runtime_env=environment)
        running.append(task.remote(*arguments))
        made.append(running[-1])
    return made


def _nodes(blocks: Sequence[Any]) -> list[Any]:
    """Return for each block a node that has it; None where the driver has it."""
    from ray.experimental import get_object_locations

    places = get_object_locations(list(blocks)) if blocks else {}
    return [next(iter(places[block]["node_ids"] or ()), None) for block in blocks]


def _shape(table: pa.Table) -> tuple[int, pa.Schema]:
    return table.num_rows, table.schema


def _take(rows: list[IntArray], columns: list[str], *blocks: pa.Table) -> pa.Table:
    import pyarrow as pa

    taken = [
        block.select(columns).take(its) for block, its in zip(blocks, rows, strict=True)
    ]
    return pa.concat_tables(taken, promote_options="permissive")


def _bound(
    made: Callable[[], RowCaller], block: pa.Table, columns: list[str]
) -> FloatArray:
    return made().worst_cases(block.select(columns).to_pylist())


def _bound_one(
    made: Callable[[], RowCaller], table: pa.Table, model: str
) -> float | None:
    (row,) = table.to_pylist()
    return made().worst_case(row, model)


def _join(*tables: pa.Table) -> tuple[pa.Table, None]:
    import pyarrow as pa

    return pa.concat_tables(tables).combine_chunks(), None


def _digest(table: pa.Table, first: int, columns: list[str]) -> int:
    total = 0
    for row in enumerate(table.select(columns).to_pylist(), first):
        text = repr(row).encode("utf-8", "surrogatepass")
        total += int.from_bytes(hashlib.blake2b(text, digest_size=16).digest())
    return total % _SUMS


def numbered(items: Any, models: Any, answers: Any, names: Sequence[str]) -> pa.Table:
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
    parts: Parts | None,
    stored: Sequence[str],
    *tables: pa.Table,
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
        parts: The folder of the answers, if there is one.
        stored: Names of the parts that have the answers, and others.
        *tables: Tables that have them, and others.
    """
    import pyarrow as pa

    texts = np.full(len(models), None, object)
    for part in chain(tables, _read(parts, stored, names)):
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


def _read(
    parts: Parts | None, stored: Sequence[str], names: Sequence[str]
) -> Iterator[pa.Table]:
    """Yield the answers in parts."""
    for name in stored:
        table = parts.answers(name)  # type: ignore[union-attr]
        models = table["model"].to_pylist()
        yield numbered(table["item"], models, table["answer"], names)


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
    "join": _join,
    "bound": _bound,
    "bound_one": _bound_one,
    "assemble": _assemble,
}
