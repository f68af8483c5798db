"""Answers of a data set in a folder: a job that dies goes on, and buys nothing twice.

Each piece of calls becomes one Parquet file, which appears whole or not at all: results
as columns, and the answers. `job.json` says what job the folder is of: one with other
rows, models, prompt or rule is refused. The folder may be on any file system that Arrow
knows and all workers see.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from smart_engine.bulk import Calls, Outcomes
from smart_engine.calls import Call, Result
from smart_engine.errors import InvalidInputError
from smart_engine.evidence.tails import IntArray
from smart_engine.runtime.blocks import BlockSession
from smart_engine.serving.result_columns import (
    COLUMNS,
    Columns,
    read_columns,
    rows_of,
)
from smart_engine.warn import warn

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["PartSession", "Parts"]

_FORMAT = 1


class Parts:
    """A folder of parts.

    Args:
        folder: A path, or an address such as `s3://bucket/folder`.
    """

    def __init__(self, folder: str) -> None:
        from pyarrow import fs

        self._given = folder
        if "://" in folder:
            self._files, self._folder = fs.FileSystem.from_uri(folder)
        else:
            self._files = fs.LocalFileSystem()
            self._folder = str(Path(folder).absolute())
        self._files.create_dir(f"{self._folder}/parts", recursive=True)

    def __reduce__(self) -> tuple[type[Parts], tuple[str]]:
        """Return how to open it in another process."""
        return Parts, (self._given,)

    def seed(self, job: Mapping[str, Any], fresh: int) -> int:
        """Return the seed of the job's draws: the stored one, or this one from now on.

        Args:
            job: What the job depends on, by name.
            fresh: Its seed, if it is a new one.

        Raises:
            InvalidInputError: If the folder is another job's.
        """
        path = f"{self._folder}/job.json"
        now = {"format": _FORMAT, **job}
        if not self._exists(path):
            self._write(path, json.dumps({**now, "seed": fresh}).encode())
            return fresh
        with self._files.open_input_stream(path) as file:
            stored = json.loads(file.read())
        seed = int(stored.pop("seed"))
        if other := [name for name in now if stored.get(name) != now[name]]:
            hint = (
                f"this folder has the answers of another job, with other "
                f"{' and '.join(other)}: give another folder, or delete this one"
            )
            raise InvalidInputError("output", self._given, hint)
        return seed

    def write(
        self, name: str, columns: Mapping[str, list[Any]], answers: list[str | None]
    ) -> None:
        """Write a part."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        kinds = {int: pa.int64(), str: pa.string(), bytes: pa.binary()}
        kinds |= {float: pa.float64(), bool: pa.bool_()}
        cells = {
            column: pa.array(columns[column], kinds[kind])
            for column, kind in COLUMNS.items()
        }
        table = pa.table(cells)
        table = table.append_column("answer", pa.array(answers, pa.string()))
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        self._write(f"{self._folder}/parts/{name}.parquet", sink.getvalue())

    def results(self, name: str) -> Columns | None:
        """Return the results in a part as columns; None if there is no such part."""
        if not self._exists(f"{self._folder}/parts/{name}.parquet"):
            return None
        columns: dict[str, list[Any]] = self._read(name, list(COLUMNS)).to_pydict()
        return columns

    def answers(self, name: str) -> pa.Table:
        """Return the answers in a part, with their items and models."""
        return self._read(name, ["item", "model", "answer"])

    def calls(self) -> Iterator[tuple[str, pa.Table]]:
        """Yield each part's name and its calls; warn of those that are damaged."""
        from pyarrow import fs

        found = self._files.get_file_info(fs.FileSelector(f"{self._folder}/parts"))
        for name in sorted(each.base_name for each in found):
            stem, _, kind = name.rpartition(".")
            if kind != "parquet":
                continue  # it was being written
            try:
                yield stem, self._read(stem, ["item", "model", "failed"])
            except (OSError, ValueError) as error:
                problem = (
                    f"{name} is damaged, and its answers are bought again: {error}"
                )
                warn(problem)

    def _read(self, name: str, columns: list[str]) -> pa.Table:
        import pyarrow.parquet as pq

        path = f"{self._folder}/parts/{name}.parquet"
        return pq.read_table(path, columns=columns, filesystem=self._files)

    def _exists(self, path: str) -> bool:
        (found,) = self._files.get_file_info([path])
        return bool(found.is_file)

    def _write(self, path: str, content: Any) -> None:
        """Write a file that appears whole or not at all."""
        with self._files.open_output_stream(f"{path}.new") as file:
            file.write(content)
        self._files.move(f"{path}.new", path)


class PartSession:
    """A session that buys nothing that is in parts.

    Calls that failed are made again.

    Args:
        session: What asks for calls.
        parts: Where answers may be.
        n_items: Number of items.
        names: Names of the models.
        found: Called with each part's name, and the items that it has answers to.
    """

    def __init__(
        self,
        session: BlockSession,
        parts: Parts,
        n_items: int,
        names: Sequence[str],
        found: Callable[[str, IntArray], None],
    ) -> None:
        self._session, self._parts = session, parts
        self._places = {name: place for place, name in enumerate(names)}
        self._names: list[str] = []
        self._part = np.full((len(names), 0), -1, np.int32)
        for name, calls in parts.calls():
            if not self._names:
                self._part = np.full((len(names), n_items), -1, np.int32)
            items, models = calls["item"].to_numpy(), calls["model"].to_pylist()
            kept = ~calls["failed"].to_numpy()
            places = np.array([self._places[model] for model in models], np.int64)
            self._part[places[kept], items[kept]] = len(self._names)
            self._names.append(name)
            found(name, items)

    def next_block(self, most: int | None = None) -> Calls:
        """Return the calls that have to be made now; record those that were made."""
        while calls := self._session.next_block(most):
            if not self._names:
                return calls
            part = self._part[calls.tiers, calls.items]
            fresh = calls.where(part < 0)
            for stored in np.unique(part[part >= 0]).tolist():
                fresh += self._restore(stored, calls.where(part == stored))
            if fresh:
                return fresh
        return calls

    def _restore(self, part: int, wanted: Calls) -> Calls:
        """Record results that are in a part; return the calls that are not there."""
        columns = self._parts.results(self._names[part])
        if columns is None:
            return wanted  # somebody has deleted it
        there = self._number(
            columns["item"], [*map(self._places.get, columns["model"])]
        )
        number = self._number(wanted.items, wanted.tiers)
        places = np.flatnonzero(np.isin(there, number))
        together, alone = read_columns(rows_of(columns, places.tolist()))
        for outcomes in together:
            self._session.record_all(replace(outcomes, restored=True))
        for row in alone:
            result: Any = row.result
            self._session.record(row.call, result._replace(restored=True))
        return wanted.where(~np.isin(number, there))

    def _number(self, items: Any, tiers: Any) -> IntArray:
        """Return a number for each call."""
        first: IntArray = np.asarray(items, np.int64) * len(self._places)
        return first + np.asarray(tiers, np.int64)

    def record(self, call: Call, outcome: Result) -> BaseException | None:
        """Record an outcome, which is in a part by now."""
        return self._session.record(call, outcome)

    def record_all(self, outcomes: Outcomes) -> None:
        """Record outcomes, which are in a part by now."""
        self._session.record_all(outcomes)
