"""Does the smart model hold up the event loop? Side by side with a plain model.

The server runs in another process, so what is measured is the client's own: a heartbeat
that sleeps 5 ms at a time says how long it had to wait beyond that.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time

import pytest
from langchain_openai import ChatOpenAI
from loopback import serve_elsewhere

from langchain_smart import Price, SmartChatModel

CALLS = 500
BEAT = 0.005
PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}


def echo(model, text, attempt):
    return f"to {text}"


async def heartbeat(gaps: list[float]) -> None:
    while True:
        started = time.perf_counter()
        await asyncio.sleep(BEAT)
        gaps.append(time.perf_counter() - started - BEAT)


async def ask(model, item):
    if int(item.split()[-1]) % 10:
        return (await model.ainvoke(item)).content
    return "".join([chunk.content async for chunk in model.astream(item)])


async def gaps_of(model, calls=CALLS) -> tuple[float, float, float]:
    """Return the longest gap, the 99th percentile of all, and the seconds it took."""
    gaps: list[float] = []
    items = [f"item {n}" for n in range(calls)]
    gc.collect()
    beating = asyncio.create_task(heartbeat(gaps))
    await asyncio.sleep(0.05)
    gaps.clear()
    started = time.perf_counter()
    said = await asyncio.gather(*(ask(model, item) for item in items))
    seconds = time.perf_counter() - started
    await asyncio.sleep(0.02)
    beating.cancel()
    assert said == [echo("", item, 1) for item in items]
    gaps.sort()
    return gaps[-1], gaps[int(0.99 * (len(gaps) - 1))], seconds


def plain_at(url, name):
    at = {"base_url": url, "api_key": "none", "timeout": 60, "stream_usage": True}
    return ChatOpenAI(model=name, **at)


@pytest.mark.bench
async def test_500_calls_at_once_hold_up_the_loop_no_longer_than_a_plain_model():
    with serve_elsewhere(echo) as url:
        plain, big, small = (plain_at(url, name) for name in ("plain", "big", "small"))
        smart = SmartChatModel(reference=big, candidates=[small], prices=PRICES)
        for model in (plain, smart):  # connections and imports are there then
            await gaps_of(model, 50)
        rounds = []
        for _ in range(3):
            theirs = await gaps_of(plain)
            ours = await gaps_of(smart)
            rounds.append((ours, theirs))
        longest = statistics.median(ours[0] / theirs[0] for ours, theirs in rounds)
        whole = statistics.median(ours[2] / theirs[2] for ours, theirs in rounds)
        for ours, theirs in rounds:
            shown = " | ".join(
                f"longest {gap * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms, all {all_:.2f} s"
                for gap, p99, all_ in (ours, theirs)
            )
            print(f"\nsmart: {shown} (plain)", end="")
        print(f"\nlongest gap ×{longest:.2f}, time ×{whole:.2f}")
        assert longest <= 2.0
