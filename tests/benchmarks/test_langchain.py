"""What the smart model adds to its members' own calls, side by side in one run."""

from __future__ import annotations

import asyncio
import statistics
import time

import pytest

from langchain_smart import Price, RecordedChatModel, SmartChatModel
from smart_engine import Trace
from smart_engine.offline.traces import Row

N = 5000
LATENCY = 0.02
LIMIT = 64


def models(latency: float) -> tuple[RecordedChatModel, RecordedChatModel, list[str]]:
    rows = [
        Row(
            input=f"item number {n:05d}",
            answers={"big": "yes", "small": "no" if n % 40 == 0 else "yes"},
            tokens={"big": (100, 1), "small": (100, 1)},
        )
        for n in range(N)
    ]
    prices = {"big": Price(10, 10), "small": Price(0.1, 0.1)}
    trace = Trace(rows, "big", ["small"], prices)
    big, small = (
        RecordedChatModel(trace=trace, model=name, latency=latency)
        for name in ("big", "small")
    )
    return big, small, [str(row.input) for row in rows]


def smart_over(big, small) -> SmartChatModel:
    smart = SmartChatModel(reference=big, candidates=[small], prices=big.trace.prices)
    smart.batch([f"item number {n:05d}" for n in range(200)])  # warm up
    return smart


def timed(run) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


@pytest.mark.bench
@pytest.mark.parametrize("mode", ["batch", "abatch"])
def test_overhead_on_models_that_answer_at_once(mode):
    big, small, inputs = models(0)
    smart = smart_over(big, small)
    ratios = []
    for _ in range(5):
        if mode == "batch":
            ours = timed(lambda: smart.batch(inputs))
        else:
            ours = timed(lambda: asyncio.run(smart.abatch(inputs)))
        spend = smart.report().certificates[-1].spend
        asked = {name: inputs[: spend[name].calls] for name in ("big", "small")}

        async def own(asked=asked):
            await big.abatch(asked["big"])
            await small.abatch(asked["small"])

        if mode == "batch":
            theirs = timed(lambda: big.batch(asked["big"]))  # noqa: B023
            theirs += timed(lambda: small.batch(asked["small"]))  # noqa: B023
        else:
            theirs = timed(lambda: asyncio.run(own()))
        ratios.append(ours / theirs)
    ratio = statistics.median(ratios)
    print(f"\n{mode}: {ratio:.2f} times the members' own (runs: {ratios})")
    assert ratio <= 1.5


@pytest.mark.bench
@pytest.mark.parametrize("mode", ["batch", "abatch"])
def test_overhead_on_models_that_take_20_ms(mode):
    big, small, inputs = models(LATENCY)
    smart = smart_over(big, small)
    config = {"max_concurrency": LIMIT}
    ours, theirs = [], []
    for _ in range(3):
        if mode == "batch":
            seconds = timed(lambda: smart.batch(inputs, config))
        else:
            seconds = timed(lambda: asyncio.run(smart.abatch(inputs, config)))
        spend = smart.report().certificates[-1].spend
        calls = sum(part.calls for part in spend.values())
        ours.append(seconds / (calls * LATENCY / LIMIT))
        if mode == "batch":
            seconds = timed(lambda: small.batch(inputs, config))
        else:
            seconds = timed(lambda: asyncio.run(small.abatch(inputs, config)))
        theirs.append(seconds / (N * LATENCY / LIMIT))
    ratio, own = statistics.median(ours), statistics.median(theirs)
    print(
        f"\n{mode}: {ratio:.2f} of calls × latency ÷ {LIMIT}; a member's own {own:.2f}"
    )
    assert ratio <= 1.2 * max(1, own)
