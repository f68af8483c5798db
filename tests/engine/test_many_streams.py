"""Streams that are not used take little memory, and go on as if they had stayed."""

from __future__ import annotations

import threading
import tracemalloc

import pytest
from items import admitted

from smart_engine import Call, Guarantee, Normalized, Outcome, Store
from smart_engine.serving.books import Books
from smart_engine.serving.config import ServingConfig
from smart_engine.serving.profile import Persistence
from smart_engine.serving.routing import single_item

MODELS = ("big", "small")


def answer(books: Books, number: int, task: str, store: Store | None = None) -> str:
    """Answer an item; return who answered, and why."""
    config = ServingConfig(MODELS, Guarantee(0.2, 0.9), Normalized(), seed=5)
    kept = store and Persistence(store, lambda: [(m, m) for m in MODELS], str)
    item = single_item(
        config, books, config.rule, task, lambda call: 1.0, persistence=kept
    )
    with admitted(item):
        while calls := item.next_calls():
            for call in calls:
                item.record(call, said(call, number))
        item.settle()
    return f"{item.mark['model']} {item.mark['role']}"


def said(call: Call, number: int) -> Outcome:
    wrong = call.tier == "small" and number % 12 == 0
    return Outcome("no" if wrong else "yes", 1.0 if call.tier == "big" else 0.01)


@pytest.mark.parametrize("stored", [False, True])
def test_streams_go_on_from_where_they_came_to_rest(stored, tmp_path, monkeypatch):
    told, states = [], []
    for awake in (1, 100):
        monkeypatch.setattr("smart_engine.serving.books._AWAKE", awake)
        books = Books(threading.Lock, MODELS)
        store = Store(tmp_path / f"{awake}.db") if stored else None
        told.append([])
        for number in range(60 if stored else 150):
            for task in ("a", "b", "c"):
                told[-1].append(answer(books, number, task, store))
            if number % 50 == 0:
                books.report()
        states.append(books.report().streams)
    assert told[0] == told[1]
    assert states[0] == states[1]
    assert {"big profiled", "small applied"} <= set(told[0])


def test_a_stream_with_an_open_item_does_not_rest(monkeypatch):
    monkeypatch.setattr("smart_engine.serving.books._AWAKE", 1)
    books = Books(threading.Lock, MODELS)
    config = ServingConfig(MODELS, Guarantee(0.2, 0.9), Normalized())
    item = single_item(config, books, config.rule, "open", lambda call: 1.0)
    with admitted(item):
        calls = item.next_calls()
        for number in range(5):
            answer(books, number, f"task {number}")
        for call in calls:
            item.record(call, Outcome("yes", 1.0))
        assert item.settle() == "yes"
    assert [state.answered for state in books.report().streams] == [1] * 6


def test_idle_streams_take_little_memory():
    books = Books(threading.Lock, MODELS)
    for number in range(150):
        answer(books, number, f"warm-up {number}")
    tracemalloc.start()
    for number in range(300):
        answer(books, number, f"task {number}")
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken / 300 < 7000  # with the ledger's rows and sums; it was 16,000
    assert len(books.report().streams) == 450
