"""What a store keeps of a call: its whole usage, and whether that is estimated."""

from __future__ import annotations

import json
from dataclasses import astuple

import pytest
import sqlalchemy as sql

from smart_engine import Call, Outcome, Spend, Usage
from smart_engine.equivalence.verdicts import Verdict
from smart_engine.errors import StoreError
from smart_engine.store.schema import VERDICTS
from smart_engine.store.store import Store

WHOLE = Usage(100, 50, 10, 20, 30, 5, 6, 7)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "answers.db"


def answers(store: Store):
    return store.answers("job", write=str, read=str)


def test_a_usage_comes_back_whole(file) -> None:
    kept = {
        Call(0, "big"): Outcome("yes", 0.5, WHOLE),
        Call(1, "big"): Outcome("yes", 0.25, Usage(9, 1, estimated=True)),
        Call(2, "big"): Outcome("yes", 0.25, None),
        Call(3, "big"): Outcome("yes", 0.25, Usage(), cached=True),
        Call(4, "big"): Outcome("yes", 0.25, Usage(0.5, 0.25)),
    }
    store = Store(file)
    for call, outcome in kept.items():
        answers(store).save_outcome(call, outcome)
    assert answers(Store(file)).load_outcomes() == kept
    said = Spend(
        calls=5, cost=1.25, input_tokens=109.5, output_tokens=51.25, estimated=0.25
    )
    assert store.bought() == {"job": {"big": said}}


def test_a_verdict_keeps_its_mark(file) -> None:
    store = Store(file)
    bought = [
        ("judge: owl", Outcome(None, 0.5, Usage(9, 1, estimated=True))),
        ("judge: owl", Outcome(None, 0.5, WHOLE)),
    ]
    answers(store).save_verdict("about", Verdict(True, bought))
    old = {"job": "job", "about": "old", "same": False, "calls": '[["m", 0.5, 7, 1]]'}
    with store._engine.begin() as connection:
        connection.execute(VERDICTS.insert(), old)
    assert answers(store).load_verdicts() == {
        "about": Verdict(True, bought),
        "old": Verdict(False, [("m", Outcome(None, 0.5, Usage(7, 1)))]),
    }


def test_a_table_of_that_name_that_is_no_such_table_is_told(file) -> None:
    with sql.create_engine(f"sqlite:///{file}").begin() as connection:
        connection.exec_driver_sql("create table smart_outcomes_1 (more integer)")
    with pytest.raises(StoreError, match="use another one"):
        answers(Store(file)).load_outcomes()


def test_the_columns_are_those_of_a_usage() -> None:
    """A verdict's calls are kept by place: what is added to a usage comes last."""
    assert json.loads(json.dumps(astuple(WHOLE))) == [100, 50, 10, 20, 30, 5, 6, 7, 0]
    assert Usage(*astuple(WHOLE)) == WHOLE
