"""A batch that is broken off: no further call is made, every call made is booked."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time

import pytest
from llama_index.llms.openai_like import OpenAILike
from loopback import serve

from llama_index_smart import Price, SmartLLM
from llama_index_smart.driver import drive
from smart_engine import BatchSession, Guarantee
from smart_engine.calls import Outcome
from smart_engine.tiers import Tier

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}
ITEMS = [f"mail {n}" for n in range(300)]
AT_ONCE = 4


def smart_at(server) -> SmartLLM:
    big, small = (
        OpenAILike(
            model=name,
            api_base=server.url,
            api_key="none",
            is_chat_model=True,
            max_retries=0,
        )
        for name in PRICES
    )
    return SmartLLM(
        reference=big, candidates=[small], prices=PRICES, max_concurrency=AT_ONCE
    )


def asked(server) -> int:
    return sum(server.requests.values())


def test_no_outcome_is_lost_whenever_the_interrupt_comes():
    for rounds in range(40):
        session = BatchSession(
            5000,
            [Tier("big", role="reference"), Tier("small")],
            Guarantee(0.05, 0.95),
            strategy="reference",
        )
        made, late, sent = [], [], threading.Event()

        def ask(call, made=made, late=late, sent=sent, at=20 + rounds):
            (late if sent.is_set() else made).append(call)
            if len(made) == at and not sent.is_set():
                os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.0005)
            return Outcome("yes", cost=1.0)

        with pytest.raises(KeyboardInterrupt):
            drive(session, ask, AT_ONCE)
        sent.set()
        spend = session.spend["big"]
        assert (spend.calls, spend.failures) == (len(made), 0)
        assert not [t for t in threading.enumerate() if t.name.startswith("smart")]
        assert not late


def test_a_real_interrupt_ends_a_batch():
    def interrupt() -> None:
        while asked(server) < 20:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    with serve(lambda *_: "yes", latency=0.02) as server:
        smart = smart_at(server)
        watcher = threading.Thread(target=interrupt)
        watcher.start()
        with pytest.raises(KeyboardInterrupt):
            smart.complete_batch(ITEMS)
        ended = asked(server)
        watcher.join()
        assert not [t for t in threading.enumerate() if t.name.startswith("smart")]
        assert asked(server) == ended < len(ITEMS)
        report = smart.report()
        assert not report.certificates
        for name, spend in report.spend.items():
            assert (spend.calls, spend.failures) == (server.requests[name], 0)
            assert spend.input_tokens == server.input_tokens[name]
            assert spend.output_tokens == server.output_tokens[name]
        spent = report.cost
        assert len(smart.complete_batch(ITEMS[:20])) == 20  # it works on
        assert smart.report().cost > spent


async def test_a_cancelled_batch_makes_no_further_call():
    with serve(lambda *_: "yes", latency=0.02) as server:
        smart = smart_at(server)
        tasks = asyncio.all_tasks()
        job = asyncio.create_task(smart.acomplete_batch(ITEMS))
        while asked(server) < 20:
            await asyncio.sleep(0.001)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        assert asyncio.all_tasks() <= tasks  # none is left that could ask
        while server.in_flight:
            await asyncio.sleep(0.01)
        ended = asked(server)
        assert ended < len(ITEMS)
        spend = smart.report().spend.values()
        answered = sum(part.calls - part.failures for part in spend)
        assert 0 < answered <= ended <= sum(part.calls for part in spend)
        assert sum(part.failures for part in spend) <= AT_ONCE
