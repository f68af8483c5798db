"""Inputs that differ from good ones, in what they say or in their bytes.

Hypothesis chooses how they differ, and finds the smallest that fails.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from smart_engine.errors import SmartError

FEWER = settings(max_examples=settings.default.max_examples // 10)
"""For examples that take long: a tenth of what the profile asks for."""

ODD = [
    None, True, -1, 0, 1, 7, 10**6, 10**18, -(10**30), 0.0, 0.5, 1e-300, 1e308,
    float("nan"), float("inf"), "", "x", "0.5", "audit", "\ud800", "é" * 300,
    [], [0], [[]], {}, {"a": {}}, [1, 2, 3], [10**9] * 3,
]  # fmt: skip
"""Values that belong nowhere, or in some places only."""

DEEP = "[" * 100_000
"""JSON that no reader follows to its end."""

VALUES = st.sampled_from(ODD) | st.text(max_size=6) | st.integers() | st.floats()

MANY = pytest.mark.parametrize(
    "inputs",
    [
        pytest.param(60, id="some"),
        pytest.param(500, id="more", marks=pytest.mark.slow),
        pytest.param(8_000, id="many", marks=[pytest.mark.slow, pytest.mark.long]),
    ],
)
"""How many inputs are read."""

MINUTES = pytest.mark.timeout(1800)


def fuzz(inputs: int, ways: st.SearchStrategy[Any], read: Callable[[Any], Any]) -> None:
    """Read that many inputs: some can be, some are clear errors, and no other comes."""
    came: Counter[str] = Counter()

    @seed(11)
    @settings(
        max_examples=inputs,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(ways)
    def one(chosen: Any) -> None:
        try:
            read(chosen)
        except SmartError:
            came["refused"] += 1
        else:
            came["read"] += 1

    one()
    print(f"\n{came.total():,} inputs: {dict(came)}")
    assert came.total() >= inputs
    assert came["read"]
    assert came["refused"]


def spoilt(good: Any) -> st.SearchStrategy[bytes]:
    """Return files like one of this JSON: other values, parts missing, other bytes."""
    place = st.integers(0, 2**16)
    edits = st.lists(st.tuples(place, VALUES), max_size=3)
    cuts = st.sampled_from(["", "", "", "part", "rest", "bytes", "noise"])
    chosen = st.tuples(edits, cuts, place, st.binary(max_size=4))
    return chosen.map(lambda drawn: _spoil(good, *drawn))


def _spoil(
    good: Any, edits: list[tuple[int, Any]], cut: str, where: int, noise: bytes
) -> bytes:
    for number, value in edits:
        paths = list(places(good))
        good = put(good, paths[number % len(paths)], value)
    paths = [path for path in places(good) if path]
    if cut == "part" and paths:
        path = paths[where % len(paths)]
        parent = copy.copy(got(good, path[:-1]))
        del parent[path[-1]]
        good = put(good, path[:-1], parent)
    data = json.dumps(good).encode("utf-8", "surrogatepass")
    where %= len(data) + 1
    if cut == "rest":
        return data[:where]
    if cut == "bytes":
        return data[:where] + noise + data[where:]
    return noise if cut == "noise" else data


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every part of a JSON value."""
    yield path
    parts: Any = ()
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list):
        parts = enumerate(value)
    for key, part in parts:
        yield from places(part, (*path, key))


def got(value: Any, path: tuple[Any, ...]) -> Any:
    """Return one part of a value."""
    for key in path:
        value = value[key]
    return value


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """Return a value with one part exchanged."""
    if not path:
        return new
    value = copy.copy(value)
    value[path[0]] = put(value[path[0]], path[1:], new)
    return value


def cells() -> st.SearchStrategy[Any]:
    """Return what a damaged cell of a SQLite table may hold: it asks for no type."""
    ends = st.sampled_from([None, b"", b"\xff\xfe", DEEP, "9" * 5000, "1e999"])
    return ends | VALUES.map(_cell)


def _cell(value: Any) -> Any:
    if isinstance(value, list | dict):
        value = json.dumps(value)
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, int) and abs(value) >= 2**63:
        return float(value)
    return value
