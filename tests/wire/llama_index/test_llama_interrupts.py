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
        assert not [t for t in threading.enumerate() if t.name.startswith("smart")]
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
        assert asyncio.all_tasks() <= tasks  # nobody is left to make a further call
    spend = smart.report().spend.values()
    calls, failures = (sum(p.calls for p in spend), sum(p.failures for p in spend))
    assert 0 < calls - failures <= asked(server) <= calls < len(ITEMS)
    assert failures <= AT_ONCE
