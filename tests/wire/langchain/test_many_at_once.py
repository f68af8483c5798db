"""Many calls at once on one object: no answer is crossed and no token is lost."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from langchain_openai import ChatOpenAI
from loopback import serve

from langchain_smart import Price, SmartChatModel

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}


def smart_at(server) -> SmartChatModel:
    big, small = (
        ChatOpenAI(model=name, base_url=server.url, api_key="none", timeout=30)
        for name in PRICES
    )
    return SmartChatModel(reference=big, candidates=[small], prices=PRICES)


def echo(model, text, attempt):
    return f"to {text}"


def assert_ledger_is_the_bill(smart, server) -> None:
    for name, spend in smart.report().spend.items():
        assert spend.calls == server.requests[name]
        assert spend.input_tokens == server.input_tokens[name]
        assert spend.output_tokens == server.output_tokens[name]


def test_32_threads_that_invoke_stream_and_batch():
    def work(smart, thread):
        items = [f"thread {thread} item {n}" for n in range(4)]
        said = [smart.invoke(item).content for item in items[:1]]
        for item in items[1:2]:
            said.append("".join(chunk.content for chunk in smart.stream(item)))
        said += [answer.content for answer in smart.batch(items[2:])]
        return said == [echo("", item, 1) for item in items]

    with serve(echo) as server:
        smart = smart_at(server)
        with ThreadPoolExecutor(32) as pool:
            assert all(pool.map(lambda thread: work(smart, thread), range(32)))
        assert_ledger_is_the_bill(smart, server)
        assert smart.report().spend["big"].calls >= 32 * 2
        assert len(smart.report().certificates) == 32


@pytest.mark.parametrize("calls", [60, pytest.param(500, marks=pytest.mark.slow)])
async def test_concurrent_async_calls(calls):
    async def ask(smart, item):
        if int(item.split()[-1]) % 10:
            return (await smart.ainvoke(item)).content
        return "".join([chunk.content async for chunk in smart.astream(item)])

    items = [f"item {n}" for n in range(calls)]
    with serve(echo) as server:
        smart = smart_at(server)
        said = await asyncio.gather(*(ask(smart, item) for item in items))
        assert said == [echo("", item, 1) for item in items]
        assert_ledger_is_the_bill(smart, server)
        (stream,) = smart.report().streams
        assert (stream.answered, stream.in_flight, stream.abandoned) == (calls, 0, 0)
