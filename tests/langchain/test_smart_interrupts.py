"""A batch that is broken off: its runs are closed and its books are kept."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections import Counter

import pytest
from fakes import Scripted
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.tracers.base import BaseTracer

from langchain_smart import Price, SmartChatModel

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}
ITEMS = [f"item {n:03d}" for n in range(200)]
TOKENS = len(ITEMS[0])


class Breaks(BaseCallbackHandler):
    """Raises when a certain item starts; counts events of items, not of members."""

    raise_error = True

    def __init__(self):
        self.events = Counter()

    def on_chat_model_start(self, serialized, messages, *, parent_run_id=None, **_):
        self.events["start"] += parent_run_id is None
        if self.events["start"] == 60 and parent_run_id is None:
            raise RuntimeError("the handler's own")

    def on_llm_end(self, *_, parent_run_id=None, **__):
        self.events["end"] += parent_run_id is None

    def on_llm_error(self, *_, **__):
        self.events["error"] += 1


class Roots(BaseTracer):
    """Keeps every root run that was closed, and counts those that were begun."""

    def __init__(self):
        super().__init__()
        self.roots, self.begun = [], 0

    def _start_trace(self, run):
        super()._start_trace(run)
        self.begun += run.parent_run_id is None

    def _persist_run(self, run):
        self.roots.append(run)


def smart_over(latency=0.0, **settings):
    big, small = (
        Scripted(name=name, script=lambda *_: "yes", latency=latency) for name in PRICES
    )
    smart = SmartChatModel(reference=big, candidates=[small], prices=PRICES, **settings)
    return smart, big, small


def assert_books_hold(smart, *models):
    """Every call that reached a model is booked, and every answer is paid for."""
    report = smart.report()
    assert report.certificates == ()
    assert sum(report.served.values()) == 0
    for model in models:
        spend, price = report.spend[model.name], PRICES[model.name]
        answered = spend.calls - spend.failures
        assert answered <= len(model.calls) <= spend.calls
        assert spend.input_tokens == answered * TOKENS
        each = (TOKENS * price.input + price.output) / 1e6
        assert spend.cost == pytest.approx(answered * each)


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_a_handler_that_raises_fails_one_item_and_all_runs_end(mode):
    smart, big, small = smart_over()
    handler = Breaks()
    config = {"callbacks": [handler]}
    tasks = asyncio.all_tasks()
    with pytest.raises(RuntimeError, match="the handler's own") as raised:
        smart.batch(ITEMS, config) if mode == "sync" else await smart.abatch(
            ITEMS, config
        )
    assert handler.events == {"start": 200, "end": 199}
    results = raised.value.smart_results
    assert [r for r in results if isinstance(r, Exception)] == [raised.value]
    spend = smart.report().spend
    for model in (big, small):
        answered = spend[model.name].calls - spend[model.name].failures
        assert answered == len(model.calls)
    assert asyncio.all_tasks() <= tasks
    assert not [t for t in threading.enumerate() if t.name.startswith("smart")]


def test_an_interrupt_loses_no_answer_and_makes_no_further_call():
    smart, big, small = smart_over(0.005, max_concurrency=8)

    def interrupt() -> None:
        while len(big.calls) < 20:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    tracer = Roots()
    watcher = threading.Thread(target=interrupt)
    watcher.start()
    with pytest.raises(KeyboardInterrupt):
        smart.batch(ITEMS, {"callbacks": [tracer]})
    watcher.join()
    # Nothing is left that could make another call.
    assert not [t for t in threading.enumerate() if t.name.startswith("smart")]
    assert len(big.calls) + len(small.calls) < len(ITEMS)
    assert len(tracer.roots) == tracer.begun
    spend = smart.report().spend
    assert {name: part.calls for name, part in spend.items()} == {
        "big": len(big.calls),
        "small": len(small.calls),
    }
    assert not any(part.failures for part in spend.values())
    assert_books_hold(smart, big, small)


async def test_a_cancelled_batch_closes_every_run_it_began():
    smart, big, small = smart_over(60, strategy="reference", max_concurrency=20)
    tracer = Roots()
    running = asyncio.create_task(smart.abatch(ITEMS[:20], {"callbacks": [tracer]}))
    while len(big.calls) < 20:
        await asyncio.sleep(0.001)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert len(tracer.roots) == tracer.begun == 20
    assert all("CancelledError" in root.error for root in tracer.roots)
    assert_books_hold(smart, big, small)


async def test_a_model_whose_handler_raised_works_on():
    smart, *_ = smart_over()
    with pytest.raises(RuntimeError):
        smart.batch(ITEMS, {"callbacks": [Breaks()]})
    assert len(smart.batch(ITEMS)) == len(await smart.abatch(ITEMS)) == len(ITEMS)
    report = smart.report()
    batches = sum(certificate.cost for certificate in report.certificates)
    assert len(report.certificates) == 3
    assert report.cost == pytest.approx(batches)
