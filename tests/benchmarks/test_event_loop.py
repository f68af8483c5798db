"""How long does the smart model hold up the event loop? Side by side with a plain one.

The server runs in another process, so what is measured is the client's own: a heartbeat
that sleeps 5 ms at a time says how long it had to wait beyond that.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from dataclasses import dataclass

import pytest
from langchain_openai import ChatOpenAI
from loopback import serve_elsewhere

from langchain_smart import Price, SmartChatModel

CALLS = 500
BEAT = 0.005
PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}


def echo(model, text, attempt):
    return f"to {text}"


async def heartbeat(gaps: list[float], worked: list[float]) -> None:
    """Note how much longer than a beat each took, and how long this thread worked."""
    while True:
        started, before = time.perf_counter(), time.thread_time()
        await asyncio.sleep(BEAT)
        gaps.append(time.perf_counter() - started - BEAT)
        worked.append(time.thread_time() - before)


async def ask(model, item):
    if int(item.split()[-1]) % 10:
        return (await model.ainvoke(item)).content
    return "".join([chunk.content async for chunk in model.astream(item)])


async def answers_of(model, items):
    return await asyncio.gather(*(ask(model, item) for item in items))


async def batch_of(model, items):
    answers = await model.abatch(items, {"max_concurrency": len(items)})
    return [answer.content for answer in answers]


@dataclass
class Held:
    """How long the loop was held up, in milliseconds, and how many seconds all took.

    `worked` is the longest that the loop's own thread worked between two beats, which
    does not depend on who else uses the machine.
    """

    longest: float
    p99: float
    worked: float
    seconds: float

    def __str__(self):
        gaps = f"longest {self.longest:.0f} ms (of it at work {self.worked:.0f} ms)"
        return f"{gaps}, p99 {self.p99:.0f} ms, all {self.seconds:.2f} s"


async def held_up(model, answer, calls=CALLS) -> Held:
    gaps: list[float] = []
    worked: list[float] = []
    items = [f"item {n}" for n in range(calls)]
    gc.collect()
    beating = asyncio.create_task(heartbeat(gaps, worked))
    await asyncio.sleep(0.05)
    gaps.clear()
    worked.clear()
    started = time.perf_counter()
    said = await answer(model, items)
    seconds = time.perf_counter() - started
    await asyncio.sleep(0.02)
    beating.cancel()
    assert said == [echo("", item, 1) for item in items]
    p99 = sorted(gaps)[int(0.99 * (len(gaps) - 1))]
    return Held(max(gaps) * 1e3, p99 * 1e3, max(worked) * 1e3, seconds)


def plain_at(url, name):
    at = {"base_url": url, "api_key": "none", "timeout": 60, "stream_usage": True}
    return ChatOpenAI(model=name, **at)


@pytest.mark.bench
@pytest.mark.parametrize("answer", [answers_of, batch_of], ids=["single", "batch"])
async def test_500_calls_at_once_leave_the_loop_free(answer):
    with serve_elsewhere(echo) as url:
        plain, big, small = (plain_at(url, name) for name in ("plain", "big", "small"))
        smart = SmartChatModel(reference=big, candidates=[small], prices=PRICES)
        for model in (plain, smart):  # connections and imports are there then
            await held_up(model, answer, 50)
        rounds = []
        for _ in range(3):
            theirs = await held_up(plain, answer)
            ours = await held_up(smart, answer)
            rounds.append((ours, theirs))
            print(f"\nsmart: {ours} | {theirs} (plain)", end="")
        longest, worked, whole = (
            statistics.median(getattr(o, name) / getattr(t, name) for o, t in rounds)
            for name in ("longest", "worked", "seconds")
        )
        print(f"\nlongest ×{longest:.2f}, at work ×{worked:.2f}, time ×{whole:.2f}")
        assert longest <= 0.5
        assert worked <= 0.2
