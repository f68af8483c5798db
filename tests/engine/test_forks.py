"""Children of a process whose threads work hang nowhere, and lose no answer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from smart_engine import Store
from smart_engine.store.forks import connected, fork_safe_lock

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")

BUSY = """
import os, signal, sys, threading
from smart_engine import Call, Guarantee, Normalized, Outcome, Store
from smart_engine.serving.books import Books
from smart_engine.serving.config import ServingConfig
from smart_engine.serving.profile import Persistence
from smart_engine.serving.routing import single_item
from smart_engine.store.forks import fork_safe_lock

store = Store(sys.argv[1])
answers = store.answers("a job", write=str, read=str)
books = Books(fork_safe_lock, ("big", "small"))
models = ("big", "small")
config = ServingConfig(models, Guarantee(0.2, 0.9), Normalized(), budget_usd=1e9)
persistence = Persistence(store, lambda: [(name, name) for name in models], str)


def save(number):
    answers.save_outcome(Call(number, "big"), Outcome("yes", 0.01))


def serve(number):
    for kept in (None, persistence):
        item = single_item(
            config, books, config.rule, "mail", lambda call: 1.0, persistence=kept
        )
        item.arrive(shown=False)
        while calls := item.next_calls():
            for call in calls:
                item.record(call, Outcome("yes", 0.01))
        item.settle()


def forever(work, number=0):
    while not ended.wait(0.001):
        work(number := number + 1)


ended = threading.Event()
threads = [threading.Thread(target=forever, args=(work,)) for work in (save, serve)]
for thread in threads:
    thread.start()
children = []
for child in range(10):
    while len(books.ledger().entries) < 4 * child:  # all are at work
        pass
    children.append(os.fork())
    if not children[-1]:
        signal.alarm(30)
        for number in range(3):
            save(1_000_000 * (child + 1) + number)
            serve(number)
        books.report()
        os._exit(0)
ends = [os.waitpid(child, 0)[1] for child in children]
ended.set()
for thread in threads:
    thread.join()
saved = [c.item for c in answers.load_outcomes() if c.item >= 1_000_000]
print(ends, len(saved))
assert ends == [0] * 10
assert len(saved) == 30
"""

LEFT = """
import os, sys
from smart_engine import Call, Outcome, Store

store = Store(sys.argv[1])
answers = store.answers("a job", write=str, read=str)
answers.save_outcome(Call(0, "big"), Outcome("yes", 0.01))
begun, closed = os.pipe(), os.pipe()
child = os.fork()
if not child:
    answers.save_outcome(Call(1, "big"), Outcome("yes", 0.01))
    os.write(begun[1], b".")
    os.read(closed[0], 1)
    answers.save_outcome(Call(2, "big"), Outcome("yes", 0.01))
    os._exit(0)
os.read(begun[0], 1)
store.close()
os.write(closed[1], b".")
assert os.waitpid(child, 0)[1] == 0
assert len(answers.load_outcomes()) == 3
"""


def run(script: str, place: object) -> None:
    told = subprocess.run(
        [sys.executable, "-c", script, str(place)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert told.returncode == 0, told.stdout + told.stderr


def test_children_of_a_process_at_work_do_not_hang(tmp_path):
    run(BUSY, tmp_path / "answers.db")


def test_what_a_child_saves_outlives_the_parents_store(tmp_path):
    run(LEFT, tmp_path / "answers.db")


def test_a_child_finds_locks_free_that_threads_of_its_parent_hold(
    tmp_path, monkeypatch
):
    """Also where a transaction takes so long that the fork does not wait for it."""
    monkeypatch.setattr("smart_engine.store.forks._LONGEST", 0.1)
    store, lock = Store(tmp_path / "answers.db"), fork_safe_lock()
    entered, leave = threading.Event(), threading.Event()

    def hold():
        with lock, connected(store._engine):
            entered.set()
            leave.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert entered.wait(60)
    child = os.fork()
    if not child:
        signal.alarm(30)
        with lock, connected(store._engine):
            os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    leave.set()
    thread.join()
    store.close()
