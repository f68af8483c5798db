"""Whatever a file holds, reading it ends with a value or a clear error, and soon."""

from __future__ import annotations

import copy
import json
import random
import sqlite3
from contextlib import contextmanager, nullcontext
from dataclasses import fields

import pytest

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
from smart_engine.errors import SmartError
from smart_engine.serving.profile import Held
from smart_engine.serving.stored import StoredStream
from smart_engine.stores import Store
from smart_engine.stream.session import StreamSession
from smart_engine.traces import read_certificate, read_simulation

FILES = pytest.mark.parametrize(
    "files",
    [range(800), pytest.param(range(800, 30_000), marks=pytest.mark.slow)],
    ids=len,
)
MINUTES = pytest.mark.timeout(1800)
ODD = [
    None, True, -1, 0, 1, 7, 10**6, 10**18, -(10**30), 0.0, 0.5, 1e-300, 1e308,
    float("nan"), float("inf"), "", "x", "0.5", "audit", "\ud800", "é" * 300,
    [], [0], [[]], {}, {"a": {}}, [1, 2, 3], [10**9] * 3,
]  # fmt: skip


def places(value, path=()):
    """Yield the path of every part of a JSON value."""
    yield path
    parts = ()
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list):
        parts = enumerate(value)
    for key, part in parts:
        yield from places(part, (*path, key))


def put(value, path, new):
    """Return a value with one part exchanged."""
    if not path:
        return new
    value = copy.copy(value)
    value[path[0]] = put(value[path[0]], path[1:], new)
    return value


def spoilt(rng: random.Random, good) -> bytes:
    """Return a file that differs from a good one, in what it says or in its bytes."""
    way = rng.randrange(6)
    if way == 0:
        return rng.randbytes(rng.randrange(200))
    for _ in range(rng.choice([1, 1, 2, 4])):
        path = rng.choice(list(places(good)))
        if way == 1 and path:
            parent = put(good, path[:-1], None)
            del parent
        good = put(good, path, rng.choice(ODD))
    data = json.dumps(good).encode("utf-8", "surrogatepass")
    if way == 2:
        data = data[: rng.randrange(len(data) + 1)]
    if way == 3:
        spot = rng.randrange(len(data) + 1)
        data = data[:spot] + rng.randbytes(3) + data[spot:]
    return data


@pytest.fixture(scope="module")
def certificate() -> dict:
    """Return a certificate of a small audit."""
    tiers = [Tier("big", role="reference"), Tier("small")]
    session = BatchSession(300, tiers, Guarantee(0.1, 0.9))
    while calls := session.next_calls():
        for call in calls:
            wrong = call.tier == "small" and call.item % 40 == 0
            cost = 1.0 if call.tier == "big" else 0.01
            usage = Usage(9, 1, estimated=wrong)
            session.record(call, Outcome("no" if wrong else "yes", cost, usage))
    return json.loads(session.certificate.model_dump_json())


@FILES
@MINUTES
def test_certificates(files, certificate, tmp_path) -> None:
    path = tmp_path / "certificate.json"
    followed = 0
    for seed in files:
        path.write_bytes(spoilt(random.Random(seed), certificate))
        try:
            checks = verify(read_certificate(path))
        except SmartError:
            continue
        followed += all(check.holds for check in checks)
    assert followed < 0.5 * len(files)


@FILES
@MINUTES
def test_traces(files, tmp_path) -> None:
    row = {
        "item_id": "1",
        "input": "a question",
        "answers": {"big": "yes", "small": "no"},
        "tokens": {"big": [10, 1], "small": [10.5, 1]},
        "label": "yes",
    }
    models = {
        "reference": "big",
        "candidates": ["small"],
        "prices_usd_per_million_tokens": {
            "big": {"input": 10, "output": 30},
            "small": {"input": 1, "output": 3},
        },
    }
    rows, table = tmp_path / "log.jsonl", tmp_path / "log.models.json"
    read = 0
    for seed in files:
        rng = random.Random(seed)
        good = json.dumps(row).encode() + b"\n"
        bad = spoilt(rng, row).replace(b"\n", b" ") + b"\n"
        rows.write_bytes(good + bad if seed % 2 else good)
        table.write_bytes(
            json.dumps(models).encode() if seed % 2 else spoilt(rng, models)
        )
        try:
            trace = Trace.read(rows)
            for model in ("big", "small"):
                trace.outcome(0, model)
            trace.outcomes(0)
        except SmartError:
            continue
        read += 1
    assert 0 < read < len(files)


@FILES
@MINUTES
def test_simulations(files, tmp_path) -> None:
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
    read = 0
    for seed in files:
        path.write_bytes(spoilt(random.Random(seed), good))
        try:
            simulation = read_simulation(path, "mails")
            if simulation.items <= 1000:
                simulation.outcomes(0)
        except SmartError:
            continue
        read += 1
    assert 0 < read < len(files)


@FILES
@MINUTES
def test_stores(files, tmp_path) -> None:
    path = tmp_path / "answers.db"
    store = Store(path)
    shelf = store.shelf("a job", json.dumps, json.loads)
    bought = Outcome({"text": "yes"}, 0.5, Usage(7, 1, estimated=True))
    shelf.keep(Call(0, "big"), bought)
    columns = ["item", "tier", "answer", "cost", "confidence", "cached"]
    columns += [field.name for field in fields(Usage)]
    with sqlite3.connect(path) as connection:
        for seed in files:
            rng = random.Random(seed)
            value = rng.choice(ODD)
            if isinstance(value, list | dict):
                value = json.dumps(value)
            if isinstance(value, str):
                value = value.encode("utf-8", "surrogatepass")
            if isinstance(value, int) and abs(value) >= 2**63:
                value = rng.randbytes(9)
            column = rng.choice(columns)
            connection.execute("savepoint before")
            try:
                query = f"update smart_outcomes_1 set {column} = ?"  # noqa: S608
                connection.execute(query, (value,))
                connection.commit()
                (outcome,) = shelf.held().values()
                assert outcome.usage is None or outcome.usage.problem is None
                assert store.bought()
            except (SmartError, sqlite3.IntegrityError):
                pass
            connection.execute("delete from smart_outcomes_1")
            connection.commit()
            shelf.keep(Call(0, "big"), bought)


@FILES
@MINUTES
def test_streams_in_stores(files) -> None:
    text = [""]

    class Place:
        @contextmanager
        def held(self, *, for_good):
            page = Held(text[0])
            yield page
            text[0] = page.text

    def stream() -> StoredStream:
        tiers = [Tier("big", role="reference"), Tier("small")]
        return StoredStream(StreamSession(tiers), nullcontext(), Place())

    def serve(stream: StoredStream, items: int) -> None:
        for _ in range(items):
            item = stream.arrive(shown=False)
            while calls := stream.next_calls(item):
                for call in calls:
                    said = "no" if item % 50 == 7 and call.tier == "small" else "yes"
                    cost = 1.0 if call.tier == "big" else 0.01
                    usage = Usage(9, 1, estimated=item % 9 == 1)
                    stream.record(call, Outcome(said, cost, usage))
            stream.settle(item)

    serve(stream(), 400)
    good = json.loads(text[0])
    read = 0
    for seed in files:
        data = spoilt(random.Random(seed), good)
        text[0] = data.decode("utf-8", "replace")
        try:
            serve(stream(), 2)
        except SmartError:
            continue
        read += 1
    assert 0 < read < len(files)


def test_a_file_that_is_no_database(tmp_path) -> None:
    for seed in range(60):
        path = tmp_path / f"{seed}.db"
        path.write_bytes(random.Random(seed).randbytes(4096))
        with pytest.raises(SmartError):
            Store(path)
