"""Answers in a folder: nothing is bought twice but what was in flight."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from pools import KilledError, Threads

from langchain_smart.parts import Parts, PartSession
from langchain_smart.ray_rows import _assemble
from smart_engine import BatchSession, Guarantee
from smart_engine.calls import Call, Failure, Outcome
from smart_engine.equivalence import Normalized
from smart_engine.equivalence.keys import ByKey, key_of
from smart_engine.errors import InvalidInputError
from smart_engine.money.pricing import Usage
from smart_engine.runtime.blocks import drive_blocks
from smart_engine.serving.result_columns import Row, to_columns
from smart_engine.tiers import Tier

ITEMS = 400
NAMES = ("big", "small")
ONE = {"rows": "a", "models or settings": "b"}


def row(call):
    cost = 1.0 if call.tier == "big" else 0.05
    wrong = call.tier == "small" and call.item % 23 == 0
    answer = "other" if wrong else f"label {call.item % 3}"
    return Row(call, Outcome(key_of(answer), cost, Usage(5, 1)))


def session():
    return BatchSession(
        ITEMS,
        [Tier("big", role="reference"), Tier("small")],
        Guarantee(0.1, 0.9),
        seed=2,
        equivalence=ByKey(Normalized()),
        max_in_flight=8,
        min_saving=0.0,
        keep_answers=False,
    )


def whole():
    one = session()
    while calls := one.next_calls():
        for call in calls:
            one.record(call, row(call).result)
    return one


class Job:
    """A job on a folder, whose workers and whose driver are killed at random."""

    def __init__(self, folder, seed):
        self.folder, self.draw, self.runs = folder, random.Random(seed), 0
        self.bought, self.in_flight = Counter(), Counter()
        self.kills = 0
        self.lock = threading.Lock()

    def make(self, piece, stopped):
        with self.lock:
            kill = self.draw.random()
            self.bought.update(piece.calls)
        rows = [row(call) for call in piece.calls]
        if kill < 0.15 and piece.attempts < 2:
            self.in_flight.update(piece.calls)
            self.kills += 1
            raise KilledError("gone before its part was written")
        columns = to_columns(rows)
        answers = [f"answer {call.item}" for call in piece.calls]
        Parts(self.folder).write(f"{self.runs}-{piece.number}", columns, answers)
        if kill > 0.92:
            self.kills += 1
            raise RuntimeError("the driver is gone, with its actors")
        return columns

    def run(self):
        """Run until the driver is killed, or the job is done."""
        self.runs += 1
        one = session()
        parts = Parts(self.folder)
        assert parts.seed(ONE, 2) == 2
        driven = PartSession(one, parts, ITEMS, NAMES, lambda name, items: None)
        pool = Threads(self.make)
        try:
            drive_blocks(driven, pool, 9)
        except RuntimeError:
            pool.close()
            return None
        return one


@pytest.mark.parametrize(
    "jobs", [2, pytest.param(12, marks=pytest.mark.slow, id="50 kills")]
)
def test_whoever_is_killed_the_job_ends_and_buys_nothing_twice(tmp_path, jobs):
    kills, one = 0, whole()
    for number in range(jobs):
        job = Job(str(tmp_path / str(number)), number)
        ended = None
        while ended is None:
            ended = job.run()
        kills += job.kills
        assert ended.certificate.served == one.certificate.served
        assert ended.certificate.tests == one.certificate.tests
        needed = {name: spend.calls for name, spend in one.spend.items()}
        once = Counter(call.tier for call in job.bought)
        assert once == needed
        twice = job.bought - Counter(list(job.bought))
        assert twice <= job.in_flight
    assert kills >= (50 if jobs > 2 else 3)


def test_failed_calls_are_made_again_and_damaged_parts_are_bought_again(tmp_path):
    parts = Parts(str(tmp_path))
    failed = Row(Call(0, "big"), Failure(ConnectionError("reset")))
    parts.write("one", to_columns([failed, row(Call(1, "big"))]), [None, "answer"])
    (tmp_path / "parts" / "two.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "parts" / "three.parquet.new").write_bytes(b"half")
    found = []
    with pytest.warns(UserWarning, match=r"two.parquet is damaged, .* bought again"):
        stored = PartSession(
            session(), parts, ITEMS, NAMES, lambda name, items: found.append(name)
        )
    assert found == ["one"]
    calls = stored._part >= 0
    assert calls.sum() == 1
    assert calls[0, 1]


def test_a_folder_is_of_one_job_and_keeps_its_seed(tmp_path):
    parts = Parts(str(tmp_path))
    assert parts.seed(ONE, 7) == 7
    assert parts.seed(ONE, 8) == 7
    with pytest.raises(InvalidInputError, match="with other rows: give another folder"):
        parts.seed({**ONE, "rows": "c"}, 7)
    with pytest.raises(InvalidInputError, match="with other rows and models or set"):
        parts.seed({"rows": "c", "models or settings": "d"}, 7)
    job = json.loads((tmp_path / "job.json").read_text())
    assert job["seed"] == 7


def test_answers_come_back_with_their_calls(tmp_path):
    parts = Parts(f"file://{tmp_path}/with a space".replace(" ", "%20"))
    parts.write("one", to_columns([row(Call(3, "small"))]), ["answer"])
    table = parts.answers("one").to_pylist()
    assert table == [{"item": 3, "model": "small", "answer": "answer"}]
    assert parts.results("one")["key"] == [key_of("label 0")]
    assert parts.results("two") is None


@pytest.mark.parametrize("order", [1, -1])
def test_a_call_that_failed_hides_no_answer_to_it_in_another_part(tmp_path, order):
    names, call = ["big"], Call(0, "big")
    parts = Parts(str(tmp_path))
    failed = Row(call, Failure(ValueError("no")))
    parts.write("failed", to_columns([failed]), [None])
    parts.write("made", to_columns([row(call)]), ["answer"])
    stored = ["failed", "made"][::order]
    one, rows = np.zeros(1, np.int16), pa.table({"n": [0]})
    table = _assemble(rows, 0, one, one, np.ones(1), {}, names, parts, stored)
    assert table["answer"].to_pylist() == ["answer"]
