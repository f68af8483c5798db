"""What a store keeps of a call: its whole usage, and whether that is estimated."""

from __future__ import annotations

import json
import random
import sqlite3
import warnings
from contextlib import closing, nullcontext, suppress
from dataclasses import astuple, replace

import pytest
import sqlalchemy as sql

from smart_engine import Call, Outcome, Spend, Usage
from smart_engine.equivalence.verdicts import Verdict
from smart_engine.errors import StoreError
from smart_engine.serving.submissions import Submission
from smart_engine.store.schema import VERDICTS
from smart_engine.store.store import Store, read_submissions

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


CHANGES = {
    "outcomes": [
        "answer = 'yet'",
        "answer = cast(x'f96573' as text)",
        "answer = x'796573'",
        "cost = 0.5000000000000001",
        "cost = 'much'",
        "item = 9",
        "job = 'other'",
        "tier = 'bik'",
        "cached = 1",
        "input_tokens = null",
        "estimated = 1",
        "checksum = '#'",
    ],
    "verdicts": ["same = 0", "about = 'abouu'", "calls = '[]'"],
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("table", "change"),
    [(table, change) for table, changes in CHANGES.items() for change in changes],
)
def test_what_is_damaged_is_bought_again(file, table, change) -> None:
    call, bought = Call(0, "big"), Outcome("yes", 0.5, Usage(9, 1))
    verdict = Verdict(True, [("judge: owl", Outcome(None, 0.5, WHOLE))])

    def load():
        kept = answers(Store(file))
        return {**kept.load_outcomes(), **kept.load_verdicts()}

    answers(Store(file)).save_outcome(call, bought)
    answers(Store(file)).save_verdict("about", verdict)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(f"update smart_{table}_1 set {change}")  # noqa: S608
    with nullcontext() if "job" in change else damaged(file):
        kept = load()
    assert kept == ({"about": verdict} if table == "outcomes" else {call: bought})
    answers(Store(file)).save_outcome(call, bought)
    answers(Store(file)).save_verdict("about", verdict)
    other_key = any(name in change for name in ("item", "tier", "about"))
    with damaged(file) if other_key else nullcontext():
        assert load() == {call: bought, "about": verdict}


def damaged(file):
    return pytest.warns(UserWarning, match=f"{file} are damaged: .* bought again")


def test_batches_that_an_older_version_submitted_are_read_and_forgotten(file) -> None:
    made = Submission("smart-1", "big", "http://a", "", ("row",), 0.0, "batch_0")
    Store(file).submissions("job").save(made)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("alter table smart_batches_1 drop column account")
    assert read_submissions(file) == [made]  # changes nothing there
    assert Store(file).submissions("job").saved() == [made]
    Store(file).submissions("job").save(replace(made, account="1a2b"))
    (now,) = read_submissions(file)
    assert now.account == "1a2b"
    Store(file).forget_submission("smart-1")
    assert not read_submissions(file)


def test_a_jobs_draws_never_start_from_a_damaged_seed(file) -> None:
    assert answers(Store(file)).seed(7) == 7
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("update smart_jobs_1 set seed = '5'")
    with pytest.raises(StoreError, match="the seed of a job is not as it was written"):
        answers(Store(file)).seed(7)


def test_no_flipped_bit_of_the_file_changes_an_answer(file) -> None:
    truth = {Call(n, "big"): Outcome("yes" * 9, 0.5, Usage(9, n)) for n in range(12)}
    store = Store(file)
    for call, outcome in truth.items():
        answers(store).save_outcome(call, outcome)
    store.close()  # all is in the file now
    good, rng, told = file.read_bytes(), random.Random(1), 0
    rows = range(good.index(b"yesyes"), good.rindex(b"yesyes") + 40)
    for _ in range(60):
        data = bytearray(good)
        data[rng.choice(rows)] ^= 1 << rng.randrange(8)
        file.write_bytes(data)
        store = Store(file)
        with warnings.catch_warnings(record=True) as seen, suppress(StoreError):
            warnings.simplefilter("always")
            kept = answers(store).load_outcomes()
            assert kept.items() <= truth.items()
            told += len(kept) < len(truth) and len(seen) == 1
        store.close()
    assert told > 30


def test_the_columns_are_those_of_a_usage() -> None:
    """A verdict's calls are kept by place: what is added to a usage comes last."""
    assert json.loads(json.dumps(astuple(WHOLE))) == [100, 50, 10, 20, 30, 5, 6, 7, 0]
    assert Usage(*astuple(WHOLE)) == WHOLE
