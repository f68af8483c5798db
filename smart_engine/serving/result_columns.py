"""Results of calls as columns of plain values: for files and for other processes.

A row is a call with all that a session and a ledger need of its result; in the place of
its answer stands the answer's key. Reading the columns gives back the same results, but
that an error of another process is known only by what it said.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from smart_engine.bulk import Outcomes
from smart_engine.calls import Call, Failure, Outcome, Result, Timing
from smart_engine.errors import OversizedError, RemoteCallError, error_name
from smart_engine.money.pricing import TOKEN_KINDS, Usage

__all__ = ["COLUMNS", "Row", "from_columns", "read_columns", "rows_of", "to_columns"]

Columns = Mapping[str, Sequence[Any]]
"""Per name, the cells of a column; see `COLUMNS`."""

COLUMNS: dict[str, type] = {
    "item": int,
    "model": str,
    "key": bytes,
    "error": str,
    "failed": bool,
    "cost": float,
    "cached": bool,
    "estimated": bool,
    "confidence": float,
    "unknown": float,
    "began": float,
    "seconds": float,
    **dict.fromkeys(TOKEN_KINDS, float),
    "earlier": str,
    "inside": str,
}
"""Name and type of each column. Any cell but those of the first two may be None.

`key` is None where there is no answer that can be read; `error` says why. `failed`
tells a call that failed from one whose answer cannot be read. What `Outcome`, `Failure`
and `Usage` call by these names is so here; `began` and `seconds` are its timing.
`earlier` and `inside` are JSON: earlier attempts, and calls that a chain made.
"""

_tokens_of = attrgetter(*TOKEN_KINDS)
_usage_of: Callable[..., Usage] = Usage  # by place, as there are millions
_NO_TOKENS = (None,) * len(TOKEN_KINDS)
_TELLING = ("model", "cached", "estimated", "key", "unknown", "earlier", "inside")
"""What tells whether results may stand together; see `Outcomes`."""

_NOTHING_ODD = [None, None, None]
_LONGEST = 500
"""Characters of an error's message that travel."""


class Row(NamedTuple):
    """A call and what it brought.

    Attributes:
        call: The call.
        result: Its result, with the answer's key in the place of the answer.
        unread: Why its answer has no key, where it has none.
        inside: Calls that it made itself, as a chain does, by their models' names.
    """

    call: Call
    result: Result
    unread: BaseException | None = None
    inside: Sequence[tuple[str, Result]] = ()


def to_columns(rows: Iterable[Row]) -> dict[str, list[Any]]:
    """Return results as columns; see `COLUMNS`.

    Example:
        ```python
        rows = [Row(Call(7, "small"), Outcome(b"key", 0.5, Usage(3, 1)))]
        assert to_columns(rows)["input_tokens"] == [3]
        assert list(from_columns(to_columns(rows))) == rows
        ```
    """
    cells = [
        (
            *row.call,
            *_cells(row.result, row.unread),
            json.dumps([_cells(each) for each in row.result.earlier])
            if row.result.earlier
            else None,
            json.dumps([(name, _cells(each)) for name, each in row.inside])
            if row.inside
            else None,
        )
        for row in rows
    ]
    columns = zip(*cells, strict=True) if cells else ((),) * len(COLUMNS)
    return dict(zip(COLUMNS, map(list, columns), strict=True))


def read_columns(columns: Columns) -> tuple[list[Outcomes], list[Row]]:
    """Return the results in such columns: those together that may be, others as rows.

    Example:
        ```python
        calls = [Call(0, "small"), Call(1, "small"), Call(2, "small")]
        results = [Outcome(b"yes", 0.5), Failure(ValueError()), Outcome(b"no", 0.5)]
        (answered,), (failed,) = read_columns(to_columns(map(Row, calls, results)))
        assert answered.items.tolist() == [0, 2]
        assert failed.call == calls[1]
        ```
    """
    together, alone = defaultdict[Any, list[int]](list), list[int]()
    cells = zip(*(columns[name] for name in _TELLING), strict=True)
    for place, (model, cached, estimated, key, *odd) in enumerate(cells):
        if key is None or odd != _NOTHING_ODD:
            alone.append(place)
        else:
            together[model, cached, estimated].append(place)
    outcomes = [
        _outcomes(kind, rows_of(columns, places)) for kind, places in together.items()
    ]
    return outcomes, list(from_columns(rows_of(columns, alone)))


def rows_of(columns: Columns, places: Sequence[int]) -> Columns:
    """Return some rows of columns."""
    if len(places) == len(columns["item"]):
        return columns
    return {name: [cells[place] for place in places] for name, cells in columns.items()}


def from_columns(columns: Columns) -> Iterator[Row]:
    """Yield the results in such columns."""
    for item, model, *cells, earlier, inside in zip(
        *(columns[name] for name in COLUMNS), strict=True
    ):
        result = _result(cells)
        if earlier is not None:
            attempts = map(_result, json.loads(earlier))
            result = result._replace(earlier=tuple(attempts))
        made = [] if inside is None else json.loads(inside)
        called = tuple((name, _result(own)) for name, own in made)
        yield Row(Call(item, model), result, None, called)


def _outcomes(kind: tuple[str, bool, bool], columns: Columns) -> Outcomes:
    """Return results of one kind: of a model, cached or not, estimated or not."""
    model, cached, estimated = kind
    tokens = [columns[name] for name in TOKEN_KINDS]
    return Outcomes(
        model,
        np.array(columns["item"], np.int64),
        columns["key"],
        np.array(columns["cost"], float),
        [[0 if each is None else each for each in of_kind] for of_kind in tokens],
        np.array(columns["confidence"], float),
        (columns["began"], columns["seconds"]),
        cached=cached,
        estimated=estimated,
    )


def _cells(result: Result, unread: BaseException | None = None) -> tuple[Any, ...]:
    """Return the cells of an attempt, without those of its call."""
    usage, timing = result.usage, result.timing or (None, None)
    tokens = _NO_TOKENS if usage is None else _tokens_of(usage)
    estimated = usage is not None and usage.estimated
    parts: tuple[Any, ...]
    if isinstance(result, Failure):
        parts = (None, _said(result.error), True, result.cost, False, estimated, None)
    else:
        key = result.answer if isinstance(result.answer, bytes) else None
        why = None if unread is None else _said(unread)
        score = result.confidence
        parts = (key, why, False, result.cost, result.cached, estimated, score)
    return (*parts, result.unknown, *timing, *tokens)


def _result(cells: Sequence[Any]) -> Any:
    """Return the result in such cells."""
    key, said, failed, cost, cached, estimated, confidence, unknown, *rest = cells
    began, seconds, *tokens = rest
    timing = None if began is None else Timing(began, seconds)
    usage = None if tokens[0] is None else _usage_of(*tokens, estimated)
    if failed:
        return Failure(_error(said), cost, usage, timing, unknown)
    return Outcome(
        said if key is None else key,
        cost,
        usage,
        confidence,
        cached=cached,
        timing=timing,
        unknown=unknown,
    )


def _said(error: BaseException) -> str:
    """Return an error's type and the beginning of its message."""
    message = str(error.message if isinstance(error, RemoteCallError) else error)
    return f"{error_name(error)}: {message[:_LONGEST]}"


def _error(said: str) -> BaseException:
    kind, _, message = said.partition(": ")
    if kind == OversizedError.__name__:
        return OversizedError.__new__(OversizedError, message)  # as it was written
    return RemoteCallError(kind, message)
