"""Whatever a file holds, reading it ends with a value or a clear error, and soon.

`make verify` reads more than 100,000 files; the default tests some of each kind.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing, contextmanager, nullcontext
from dataclasses import fields

import pytest
from fuzzing import DEEP, MANY, MINUTES, cells, fuzz, spoilt
from hypothesis import strategies as st

from smart_engine import (
    BatchSession,
    Call,
    Guarantee,
    Outcome,
    Tier,
    Trace,
    Usage,
    verify,
)
from smart_engine.equivalence.verdicts import Verdict
from smart_engine.money.budget import Budget
from smart_engine.offline.traces import read_certificate, read_simulation
from smart_engine.row import RowText
from smart_engine.serving.profile import Profile
from smart_engine.serving.resume import ResumedSession
from smart_engine.serving.shared import SharedStream
from smart_engine.store.store import Store
from smart_engine.stream.session import StreamSession

TIERS = [Tier("big", role="reference"), Tier("small")]
IGNORED = pytest.mark.filterwarnings("ignore:the store knows task")
pytestmark = [MANY, MINUTES, IGNORED]


@pytest.fixture(scope="module")
def certificate() -> dict:
    """Return a certificate of a small audit."""
    session = BatchSession(300, TIERS, Guarantee(0.1, 0.9))
    while calls := session.next_calls():
        for call in calls:
            wrong = call.tier == "small" and call.item % 40 == 0
            cost = 1.0 if call.tier == "big" else 0.01
            session.record(call, Outcome("no" if wrong else "yes", cost))
    return json.loads(session.certificate.model_dump_json())


def test_certificates(inputs, certificate, tmp_path) -> None:
    path = tmp_path / "certificate.json"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        verify(read_certificate(path))

    fuzz(inputs, spoilt(certificate), read)


ROW = {
    "item_id": "1",
    "input": "a question",
    "answers": {"big": "yes", "small": "no"},
    "tokens": {"big": [10, 1], "small": [10.5, 1]},
    "confidence": {"small": 0.5},
    "label": "yes",
}
MODELS = {
    "reference": "big",
    "candidates": ["small"],
    "prices_usd_per_million_tokens": {
        "big": {"input": 10, "output": 30},
        "small": {"input": 1, "output": 3},
    },
}


@pytest.mark.parametrize("spoils", ["rows", "models"])
def test_traces(inputs, spoils, tmp_path) -> None:
    rows, table = tmp_path / "log.jsonl", tmp_path / "log.models.json"
    good = json.dumps(ROW).encode() + b"\n"
    table.write_bytes(json.dumps(MODELS).encode())
    rows.write_bytes(good)

    def read(data: bytes) -> None:
        if spoils == "rows":
            rows.write_bytes(good + data.replace(b"\n", b" ") + b"\n")
        else:
            table.write_bytes(data)
        trace = Trace.read(rows)
        for model in ("big", "small"):
            trace.outcome(0, model)
        trace.outcomes(0)

    fuzz(inputs, spoilt(ROW if spoils == "rows" else MODELS), read)


def test_simulations(inputs, tmp_path) -> None:
    used = {"prompt_tokens": 100, "completion_tokens": 1}
    good = {
        "usd_per_1k_tokens": {
            "big": {"prompt": 0.03, "completion": 0.06},
            "small": {"prompt": 0.001, "completion": 0.002},
        },
        "datasets": {
            "mails": {
                "items": 40,
                "models": {
                    "big": {"agreement": 1, **used},
                    "small": {"agreement": 0.9, **used},
                },
            }
        },
    }
    path = tmp_path / "simulation.json"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        simulation = read_simulation(path, "mails")
        if simulation.items <= 1000:
            simulation.outcomes(0)

    fuzz(inputs, spoilt(good), read)


# -- stores -------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path):
    """Return a store of which nothing need outlive the test, and its file."""
    store = Store(tmp_path / "answers.db")
    with closing(
        sqlite3.connect(tmp_path / "answers.db", isolation_level=None)
    ) as file:
        yield store, file
    store.close()


def damage(file, table: str, column: str, value) -> None:
    """Write a value into a cell, whatever the table allows; no checksum shows it."""
    file.execute("pragma ignore_check_constraints = on")
    query = f"update or ignore {table} set {column} = ?, checksum = null"  # noqa: S608
    file.execute(query, (value,))


def test_answers_in_stores(inputs, store) -> None:
    store, file = store
    answers = store.answers("a job", json.dumps, json.loads)
    bought = Outcome({"text": "yes"}, 0.5, Usage(3, 1, estimated=True))
    columns = ["item", "tier", "answer", "cost", "confidence", "cached"]
    columns += [field.name for field in fields(Usage)]

    def read(damaged) -> None:
        file.execute("delete from smart_outcomes_1")
        answers.save_outcome(Call(0, "big"), bought)
        damage(file, "smart_outcomes_1", *damaged)
        store.bought()
        session = ResumedSession(BatchSession(1, TIERS), answers)
        while calls := session.next_calls():
            for call in calls:
                session.record(call, bought)
        assert session.certificate.cost >= 0
        assert sum(spend.input_tokens for spend in session.spend.values()) >= 0

    fuzz(inputs, st.tuples(st.sampled_from(columns), cells()), read)


def test_verdicts_in_stores(inputs, store) -> None:
    store, file = store
    answers = store.answers("a job", json.dumps, json.loads)
    bought = Verdict(True, [("judge", Outcome(None, 0.1, Usage(1, 2)))])
    calls = spoilt([["judge", 0.1, 1, 2, 0, 0, 0, 0, 0, 0, False]]).map(
        lambda told: told.decode("utf-8", "replace")
    )

    def read(damaged) -> None:
        file.execute("delete from smart_verdicts_1")
        answers.save_verdict("a hash", bought)
        damage(file, "smart_verdicts_1", *damaged)
        for said in answers.load_verdicts().values():
            for name, outcome in said.calls:
                hash(name)
                assert outcome.paid + outcome.usage.total_tokens >= 0

    damaged = st.tuples(st.sampled_from(["about", "same", "calls"]), cells())
    fuzz(inputs, damaged | st.tuples(st.just("calls"), calls), read)


def test_profiles_and_budgets_in_stores(inputs, store) -> None:
    store, file = store
    kept = Profile("mail", "serve", {"models": "big #1", "seed": "0"})
    other = Profile("mail", "serve", {"models": "big #2", "seed": "0"})
    budget = Budget(5.0, nullcontext(), store.row(kept, "budget"))
    texts = spoilt([1.0, 2.0]) | spoilt(dict(kept.parts))
    written = texts.map(lambda told: told.decode("utf-8", "replace"))

    def read(damaged) -> None:
        file.execute("delete from smart_streams_1")
        with store.row(kept, "budget").locked(durable=False) as row:
            row.text = "[1.0, 0.5]"
        damage(file, "smart_streams_1", *damaged)
        with store.row(other, "state").locked(durable=False) as row:
            assert row.text == ""
        Budget(5.0, nullcontext(), store.row(kept, "budget")).reserve(1.0)
        if damaged[0] == "purse":
            assert budget.reserve(0.0) in (True, False)
            assert 0 <= budget._spent < float("inf")
            assert budget.left <= 5

    columns = st.sampled_from(["parts", "purse"])
    fuzz(inputs, st.tuples(columns, written | cells()), read)


def test_streams_in_stores(inputs) -> None:
    text = [""]

    class StreamRow:
        @contextmanager
        def locked(self, *, durable):
            row = RowText(text[0])
            yield row
            text[0] = row.text

    def stream() -> SharedStream:
        return SharedStream(lambda: StreamSession(TIERS), nullcontext(), StreamRow())

    def serve(stream: SharedStream, items: int) -> None:
        for _ in range(items):
            item = stream.arrive(shown=False)
            while calls := stream.next_calls(item):
                for call in calls:
                    said = "no" if item % 50 == 7 and call.tier == "small" else "yes"
                    cost = 1.0 if call.tier == "big" else 0.01
                    stream.record(call, Outcome(said, cost))
            stream.settle(item)

    def read(data: bytes) -> None:
        text[0] = data.decode("utf-8", "replace")
        serve(stream(), 2)

    serve(stream(), 400)
    good = json.loads(text[0])
    fuzz(inputs, spoilt(good) | st.just(DEEP.encode()), read)


def test_files_of_stores(inputs, tmp_path) -> None:
    """Bytes of the database itself: each way to use it ends, and clearly."""
    path, profile = tmp_path / "answers.db", Profile("mail", "serve", {"seed": "0"})

    def answers_of(store: Store):
        return store.answers("a job", json.dumps, json.loads)

    def step(store: Store, profile: Profile) -> None:
        with store.row(profile, "state").locked(durable=True) as row:
            row.text += "x"

    store = Store(path)
    for item in range(20):
        answers_of(store).save_outcome(
            Call(item, "big"), Outcome("yes" * 20, 0.5, Usage(1, 2))
        )
    answers_of(store).save_verdict("a hash", Verdict(True, []))
    step(store, profile)
    store.close()  # whoever is last writes all into the file itself
    good = path.read_bytes()
    header = st.integers(0, 99) | st.integers(0, len(good) - 1)
    byte = st.tuples(header, st.integers(0, 255))
    ways = [
        lambda store: answers_of(store).load_outcomes(),
        lambda store: answers_of(store).load_verdicts(),
        lambda store: answers_of(store).save_outcome(
            Call(99, "big"), Outcome("yes", 0.1)
        ),
        lambda store: answers_of(store).save_verdict("another", Verdict(True, [])),
        lambda store: store.bought(),
        lambda store: step(store, profile),
        lambda store: step(store, Profile("mail", "serve", {"seed": "1"})),
    ]

    def read(damaged) -> None:
        edits, length, way = damaged
        data = bytearray(good)
        for place, value in edits:
            data[place] = value
        for end in ("", "-wal", "-shm"):
            path.with_name(path.name + end).unlink(missing_ok=True)
        path.write_bytes(data[:length])
        store = Store(path)
        try:
            way(store)
        finally:
            store.close()

    length = st.just(len(good)) | st.integers(0, len(good))
    damaged = st.tuples(st.lists(byte, max_size=20), length, st.sampled_from(ways))
    fuzz(inputs // 5, damaged, read)
