"""Keys stand for answers elsewhere, and results travel as columns of plain values."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from smart_engine.calls import Call, Failure, Outcome, Timing
from smart_engine.equivalence import Exact, Items, Json, Label, Normalized, Number
from smart_engine.equivalence.keys import ByKey, key_of
from smart_engine.errors import (
    InvalidInputError,
    OversizedError,
    RemoteCallError,
    UnparseableAnswerError,
    error_name,
)
from smart_engine.money.pricing import Usage
from smart_engine.serving.result_columns import (
    COLUMNS,
    Row,
    from_columns,
    to_columns,
)


@dataclass(frozen=True)
class Point:
    x: float
    y: float


class Colour(Enum):
    RED = 1


class Form(BaseModel):
    name: str
    tags: frozenset[str] = frozenset()


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([0.0, -0.0, 1.0, 0.5, Decimal(1), Fraction(1, 2), 1e300])
    | st.text("ab1,'()[]:#", max_size=4)
    | st.binary(max_size=2)
    | st.sampled_from([Point(1, 2), Point(1.0, 2.0), Colour.RED, Form(name="a")]),
    lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple),
    max_leaves=6,
)


@given(PLAIN, PLAIN)
def test_readings_have_the_same_key_just_where_they_are_equal(left, right):
    assert (key_of(left) == key_of(right)) == (left == right)


@pytest.mark.parametrize(
    "pair",
    [
        ({"a": 1, "b": 2}, {"b": 2.0, "a": True}),
        (frozenset({"a", "b", ("c", 1)}), frozenset({("c", 1.0), "b", "a"})),
        (
            datetime(2024, 1, 1, 12, tzinfo=UTC),
            datetime(2024, 1, 1, 14, tzinfo=timezone(timedelta(hours=2))),
        ),
        (Form(name="a", tags={"x", "y"}), Form(name="a", tags={"y", "x"})),
    ],
)
def test_order_zone_and_kind_of_number_do_not_matter(pair):
    left, right = pair
    assert left == right
    assert key_of(left) == key_of(right)


def test_a_key_is_the_same_in_every_process():
    code = (
        "from smart_engine.equivalence.keys import key_of;"
        "print(key_of(('text', frozenset({'a', 'b', 'c'}), {'k': 1.5})).hex())"
    )
    keys = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    reading = ("text", frozenset({"a", "b", "c"}), {"k": 1.5})
    assert keys == {f"{key_of(reading).hex()}\n".encode()}


def test_what_no_key_can_stand_for_is_said():
    with pytest.raises(UnparseableAnswerError, match="equals nothing"):
        key_of((1, float("nan")))
    with pytest.raises(TypeError, match=r"builtins\.object has no key"):
        key_of([object()])


def test_dicts_that_equal_one_and_not_each_other_have_no_key():
    pairs = [("a", 1), ("b", 2)]
    one, other = OrderedDict(pairs), OrderedDict(reversed(pairs))
    assert dict(pairs) == one != other == dict(pairs)
    for reading in (one, ("kind", [other])):
        with pytest.raises(TypeError, match="an OrderedDict has no key"):
            key_of(reading)


@pytest.mark.parametrize(
    ("rule", "same", "other"),
    [
        (Normalized(), ("Yes.", " yes"), "no"),
        (Exact(), ("a", "a"), "A"),
        (Label(["spam", "ham"]), ("Answer: spam", "SPAM"), "ham"),
        (Number(), ("1.50 m", "1.5 m"), "1.5 km"),
        (Json(), ('{"a": 1, "b": [2]}', '{"b": [2.0], "a": 1}'), '{"a": 1}'),
        (Items(), ("a, b", "b, a"), "a, a"),
    ],
)
def test_rules_compare_by_keys_as_they_do_by_answers(rule, same, other):
    by_key = ByKey(rule)
    assert by_key.keyed
    assert by_key.name == rule.name
    one, two, three = (by_key.parse(key_of(rule.parse(a))) for a in (*same, other))
    assert by_key.same(one, two)
    assert not by_key.same(one, three)
    with pytest.raises(UnparseableAnswerError, match="no label"):
        by_key.parse("UnparseableAnswerError: no label")


def test_rules_that_compare_in_pairs_are_refused():
    with pytest.raises(InvalidInputError, match=r"in pairs.*without a tolerance"):
        ByKey(Number(absolute=0.1))


ROWS = [
    Row(Call(0, "big"), Outcome(b"k" * 16, 0.5, Usage(3, 1, cache_read=2), 0.75)),
    Row(Call(1, "big"), Outcome(b"k", 0.5, None, cached=True)),
    Row(Call(2, "big"), Outcome(b"k", 0.5, Usage(1, 1, estimated=True), unknown=0.25)),
    Row(Call(3, "big"), Failure(RemoteCallError("Odd", "it: broke"), 0.1, Usage(2))),
    Row(
        Call(4, "a"),
        Outcome(
            b"",
            1.0,
            Usage(),
            timing=Timing(5.0, 0.5),
            earlier=(Failure(RemoteCallError("Reset", ""), unknown=2.0),) * 2,
        ),
        None,
        (("inner", Outcome(None, 0.2, Usage(7, 7))),),
    ),
]


def test_results_come_back_as_they_were():
    columns = to_columns(ROWS)
    assert list(columns) == list(COLUMNS)
    for before, after in zip(ROWS, from_columns(columns), strict=True):
        assert repr(after) == repr(before)
    assert list(from_columns(to_columns([]))) == []


def test_an_answer_that_cannot_be_read_comes_back_with_why():
    unread = Row(Call(0, "a"), Outcome(None, 0.5), UnparseableAnswerError("no label"))
    (back,) = from_columns(to_columns([unread]))
    assert back.result == Outcome("UnparseableAnswerError: no label", 0.5)


def test_errors_keep_their_names_and_what_the_engine_asks_of_them():
    problem = ConnectionError("x" * 1000)
    sat_out = Failure(OversizedError("small", 10, 5))
    rows = [Row(Call(0, "a"), Failure(problem)), Row(Call(1, "a"), sat_out)]
    failed, oversized = (row.result for row in from_columns(to_columns(rows)))
    assert error_name(failed.error) == "ConnectionError"
    assert len(str(failed.error)) < 600
    assert oversized.sat_out
    assert str(oversized.error) == str(sat_out.error)
