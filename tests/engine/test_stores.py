"""What a store keeps of a call: its whole usage and its mark, also in old tables."""

from __future__ import annotations

import json
from dataclasses import astuple

import pytest
import sqlalchemy as sql

from smart_engine import Call, Outcome, Spend, Usage
from smart_engine.errors import InvalidInputError
from smart_engine.stores import Store
from smart_engine.verdicts import Said

WHOLE = Usage(100, 50, 10, 20, 30, 5, 6, 7)
OLD = """create table smart_outcomes_1 (
    job varchar(64) not null, item integer not null, tier varchar(255) not null,
    answer text not null, cost double precision not null,
    input_tokens double precision, output_tokens double precision,
    confidence double precision, cached boolean not null,
    primary key (job, item, tier))"""
ROWS = """insert into smart_outcomes_1 values
    ('job', 0, 'big', 'yes', 0.5, 7, 1, 0.25, false),
    ('job', 1, 'big', 'no', 0.5, null, null, null, true)"""
HELD = {
    Call(0, "big"): Outcome("yes", 0.5, Usage(7, 1), 0.25),
    Call(1, "big"): Outcome("no", 0.5, cached=True),
}


def shelf(store: Store):
    return store.shelf("job", write=str, read=str)


def url(place: str) -> str:
    return place if "://" in place else f"sqlite:///{place}"


def test_a_usage_comes_back_whole(place) -> None:
    kept = {
        Call(0, "big"): Outcome("yes", 0.5, WHOLE),
        Call(1, "big"): Outcome("yes", 0.25, Usage(9, 1, estimated=True)),
        Call(2, "big"): Outcome("yes", 0.25, None),
        Call(3, "big"): Outcome("yes", 0.25, Usage(), cached=True),
        Call(4, "big"): Outcome("yes", 0.25, Usage(0.5, 0.25)),
    }
    store = Store(place)
    for call, outcome in kept.items():
        shelf(store).keep(call, outcome)
    assert shelf(Store(place)).held() == kept
    said = Spend(
        calls=5, cost=1.25, input_tokens=109.5, output_tokens=51.25, estimated=0.25
    )
    assert store.bought() == {"job": {"big": said}}


def test_a_verdict_keeps_its_mark(place) -> None:
    store = Store(place)
    bought = [
        ("judge: owl", Outcome(None, 0.5, Usage(9, 1, estimated=True))),
        ("judge: owl", Outcome(None, 0.5, WHOLE)),
    ]
    shelf(store).keep_said("about", Said(True, bought))
    old = {"job": "job", "about": "old", "same": False, "calls": '[["m", 0.5, 7, 1]]'}
    with store._engine.begin() as connection:
        connection.execute(store._verdicts.insert(), old)
    assert shelf(store).said() == {
        "about": Said(True, bought),
        "old": Said(False, [("m", Outcome(None, 0.5, Usage(7, 1)))]),
    }


def test_a_table_of_an_older_version_is_read_and_goes_on(place) -> None:
    engine = sql.create_engine(url(place))
    with engine.begin() as connection:
        connection.exec_driver_sql(OLD)
        connection.exec_driver_sql(ROWS)
    first, second = Store(place), Store(place)
    assert shelf(first).held() == shelf(second).held() == HELD
    new = Outcome("yes", 0.25, Usage(9, 1, estimated=True))
    shelf(first).keep(Call(2, "big"), new)
    assert shelf(second).held() == {**HELD, Call(2, "big"): new}
    assert second.bought()["job"]["big"].estimated == 0.25
    # Whoever still runs the older version goes on, too.
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "insert into smart_outcomes_1 (job, item, tier, answer, cost, "
            "input_tokens, output_tokens, confidence, cached) "
            "values ('job', 3, 'big', 'yes', 0.5, 7, 1, 0.25, false)"
        )
    assert shelf(first).held()[Call(3, "big")] == HELD[Call(0, "big")]


def test_a_table_of_that_name_that_is_no_such_table_is_refused(place) -> None:
    with sql.create_engine(url(place)).begin() as connection:
        connection.exec_driver_sql("create table smart_outcomes_1 (more integer)")
        connection.exec_driver_sql("insert into smart_outcomes_1 values (1)")
    with pytest.raises(InvalidInputError, match="store"):
        Store(place)


def test_the_columns_are_those_of_a_usage() -> None:
    """A verdict's calls are kept by place: what is added to a usage comes last."""
    assert json.loads(json.dumps(astuple(WHOLE))) == [100, 50, 10, 20, 30, 5, 6, 7, 0]
    assert Usage(*astuple(WHOLE)) == WHOLE
