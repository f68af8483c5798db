"""Ctrl-C while calls are in flight: the ledger has a row for each when it arrives.

The first one waits for the calls of a batch, or of an item, to end: they are paid for.
The second one leaves them, each in the ledger as cancelled.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import httpx
import pytest
from faults import Chains, LangChain, LlamaIndex
from loopback import Fault, Server, serve

ADAPTERS = (LangChain, Chains, LlamaIndex)
ITEMS = [f"item {n}" for n in range(40)]


class Interrupts:
    """Presses Ctrl-C, each time where the main thread has got further than before."""

    def __init__(self) -> None:
        self.count = self.line = 0
        self.wanted = False

    def handle(self, _: int, frame: FrameType | None) -> None:
        while frame is not None and frame.f_code.co_name not in ("drive", "_make"):
            frame = frame.f_back
        if frame is None or frame.f_lineno <= self.line or not self.wanted:
            return
        self.line, self.wanted = frame.f_lineno, False
        self.count += 1
        raise KeyboardInterrupt

    def press(self) -> None:
        """Press it until it arrives."""
        self.wanted, until = True, time.monotonic() + 20
        while self.wanted and time.monotonic() < until:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.005)

    def twice(self, server: Server, requests: int) -> threading.Thread:
        """Press it twice once a server has read so many requests, in a thread."""

        def press() -> None:
            while server.requests.total() < requests:
                time.sleep(0.002)
            self.press()
            self.press()

        watcher = threading.Thread(target=press)
        watcher.start()
        return watcher


@pytest.fixture
def interrupts() -> Iterator[Interrupts]:
    made = Interrupts()
    before = signal.signal(signal.SIGINT, made.handle)
    yield made
    signal.signal(signal.SIGINT, before)


class Gate:
    """Lets no answer of some models out before it is opened."""

    def __init__(self, *models: str) -> None:
        self.models = models
        self.open = threading.Event()

    def __call__(self, model: str, text: str, attempt: int) -> str:
        if model in self.models:
            self.open.wait(20)
        return "yes"


def rows(adapter) -> list:
    """Return the rows of requests."""
    inside = isinstance(adapter, Chains)
    entries = adapter.smart.ledger().entries
    return [entry for entry in entries if (entry.role == "inside") == inside]


def ended() -> None:
    """Wait until no call is in flight."""
    for thread in threading.enumerate():
        if thread.name.startswith("smart"):
            thread.join(20)


@contextmanager
def asked(cls, gate, **settings) -> Iterator[tuple]:
    with serve(gate) as server, httpx.Client() as client:
        yield cls(server.url, client, None, **settings), server
        gate.open.set()
        ended()


@pytest.mark.parametrize("cls", ADAPTERS)
def test_the_second_one_leaves_a_batch_with_a_row_for_each_request(cls, interrupts):
    gate = Gate("big", "small")
    with asked(cls, gate, max_concurrency=4) as (adapter, server):
        watcher = interrupts.twice(server, 4)
        with pytest.raises(KeyboardInterrupt):
            adapter.batch(ITEMS)
        assert interrupts.count == 2
        assert Counter(row.model for row in rows(adapter)) == server.requests
        assert {row.outcome for row in rows(adapter)} == {"cancelled"}
        watcher.join()
        gate.open.set()
        ended()  # what arrives late is not entered again
        assert Counter(row.model for row in rows(adapter)) == server.requests
        assert server.requests.total() == 4


@pytest.mark.parametrize("cls", ADAPTERS)
@pytest.mark.parametrize("verb", ["whole", "pieces"])
@pytest.mark.parametrize("slow", ["big", "small"])
def test_the_first_one_waits_for_the_calls_of_an_item(slow, verb, cls, interrupts):
    """One of its calls is made in the main thread, and that one is broken off."""
    gate = Gate(slow)
    with asked(cls, gate) as (adapter, server):

        def once() -> None:
            while server.requests.total() < 2 or server.in_flight > 1:
                gate.open.wait(0.002)
            interrupts.press()
            gate.open.wait(0.05)
            gate.open.set()

        watcher = threading.Thread(target=once)
        watcher.start()
        with pytest.raises(KeyboardInterrupt):
            getattr(adapter, verb)(ITEMS[0], [])
        assert Counter(row.model for row in rows(adapter)) == server.requests
        watcher.join()
        ended()
        assert Counter(row.model for row in rows(adapter)) == server.requests


@pytest.mark.parametrize("cls", ADAPTERS)
@pytest.mark.parametrize("verb", ["whole", "pieces"])
def test_the_second_one_leaves_an_item_with_a_row_for_each_request(
    verb, cls, interrupts
):
    gate = Gate("big", "small")
    with asked(cls, gate) as (adapter, server):
        watcher = interrupts.twice(server, 2)
        with pytest.raises(KeyboardInterrupt):
            getattr(adapter, verb)(ITEMS[0], [])
        assert Counter(row.model for row in rows(adapter)) == server.requests
        watcher.join()
        gate.open.set()
        ended()
        assert Counter(row.model for row in rows(adapter)) == server.requests


@pytest.mark.parametrize("cls", [LangChain, LlamaIndex])
def test_no_attempt_is_made_after_the_first_one(cls, interrupts):
    def busy(*_):
        return Fault("busy", 429, {"Retry-After": "60"})

    with serve(busy) as server, httpx.Client() as client:
        adapter = cls(server.url, client, None, max_concurrency=4)
        limit = time.monotonic() + 20

        def once() -> None:
            while server.requests.total() < 4 or server.in_flight:
                time.sleep(0.002)
            interrupts.press()

        watcher = threading.Thread(target=once)
        watcher.start()
        with pytest.raises(KeyboardInterrupt):
            adapter.batch(ITEMS)
        assert time.monotonic() < limit  # not the minute that the server asks for
        assert Counter(row.model for row in rows(adapter)) == server.requests
        watcher.join()
