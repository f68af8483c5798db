"""Real HTTP, further: members that stream, refuse, say nothing, or are mere names."""

from __future__ import annotations

import asyncio
import threading

import pytest
from langchain_openai import ChatOpenAI
from loopback import Refusal, Server, serve

from langchain_smart import Price, SmartChatModel

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}
ITEMS = [f"item {n}" for n in range(60)]


def smart_at(server: Server, member=None, **settings) -> SmartChatModel:
    big, small = (
        ChatOpenAI(
            model=name, api_key="none", base_url=server.url, timeout=20, **member or {}
        )
        for name in PRICES
    )
    return SmartChatModel(reference=big, candidates=[small], prices=PRICES, **settings)


async def batch(mode, smart, items, config=None, **kwargs):
    if mode == "sync":
        return await asyncio.to_thread(smart.batch, items, config, **kwargs)
    return await smart.abatch(items, config, **kwargs)


def assert_ledger_is_the_bill(smart: SmartChatModel, server: Server) -> None:
    for name, spend in smart.report().spend.items():
        assert spend.calls == server.requests[name] > 0
        assert spend.input_tokens == server.input_tokens[name]
        assert spend.output_tokens == server.output_tokens[name]


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_members_that_stream_are_billed_to_the_token(mode):
    with serve(lambda *_: "yes") as server:
        smart = smart_at(server, {"streaming": True, "stream_usage": True})
        outputs = await batch(mode, smart, ITEMS)
        assert {output.content for output in outputs} == {"yes"}
        assert_ledger_is_the_bill(smart, server)


@pytest.mark.filterwarnings("ignore:.* reported no usage")
@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_a_stream_without_usage_is_an_error_that_says_what_to_set(mode):
    with serve(lambda *_: "yes") as server:
        smart = smart_at(server, {"streaming": True, "stream_usage": False})
        outputs = await batch(mode, smart, ITEMS[:2], return_exceptions=True)
        for error in outputs:
            assert "big reported no usage" in str(error)
            assert "stream_usage=True" in str(error)


@pytest.mark.parametrize(
    "answer", ["", Refusal("I will not")], ids=["empty", "refusal"]
)
@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_what_a_candidate_will_not_say_escalates_and_is_paid_for(mode, answer):
    def script(model, text, attempt):
        return answer if model == "small" and text.endswith("7") else "yes"

    with serve(script) as server:
        smart = smart_at(server, max_disagreement=0.2)
        outputs = await batch(mode, smart, ITEMS)
        assert [output.content for output in outputs] == ["yes"] * 60
        for number in range(7, 60, 10):
            assert outputs[number].response_metadata["smart"]["model"] == "big"
        assert smart.report().spend["small"].failures == 6
        assert_ledger_is_the_bill(smart, server)


@pytest.mark.parametrize("where", ["config", "field"])
@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_max_concurrency_bounds_all_members_together(mode, where):
    limit, full, too_many = 6, threading.Event(), threading.Event()

    def script(model, text, attempt):
        if server.in_flight > limit:
            too_many.set()
        if server.in_flight >= limit and not full.is_set():
            too_many.wait(0.3)  # for one call too many, which would come in now
            full.set()
        full.wait(60)  # nobody is answered before the limit is reached
        return "yes"

    with serve(script) as server:
        field = {"max_concurrency": limit} if where == "field" else {}
        smart = smart_at(server, strategy="exhaustive", **field)
        config = {"max_concurrency": limit} if where == "config" else None
        await batch(mode, smart, ITEMS, config)
        assert full.is_set()
        assert not too_many.is_set()
        assert server.most_in_flight == limit


async def test_models_may_be_given_by_name(monkeypatch):
    with serve(lambda *_: "yes") as server:
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        monkeypatch.setenv("OPENAI_API_BASE", server.url)
        smart = SmartChatModel(
            reference="openai:big", candidates=["openai:small"], prices=PRICES
        )
        outputs = await batch("sync", smart, ITEMS)
        assert {o.content for o in outputs} == {"yes"}
        assert_ledger_is_the_bill(smart, server)


async def test_a_single_item_may_stream_from_the_reference_alone():
    with serve(lambda *_: "forty-two") as server:
        smart = smart_at(server, strategy="reference")
        sync = await asyncio.to_thread(lambda: list(smart.stream("why?")))
        asynchronous = [chunk async for chunk in smart.astream("why?")]
        for chunks in (sync, asynchronous):
            assert "".join(chunk.content for chunk in chunks) == "forty-two"
        assert server.requests == {"big": 2}
        spend = smart.report().spend["big"]
        assert spend.input_tokens == server.input_tokens["big"] == 8
        assert spend.output_tokens == server.output_tokens["big"] == 18
