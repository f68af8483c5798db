"""Flex as a lane, over real HTTP: the cheaper tier where it is to be had."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from lane_models import ITEMS, member
from llama_index.llms.openai_like import OpenAILike
from loopback import Fault, Server, serve

from langchain_smart import Price, SmartChatModel
from llama_index_smart import SmartLLM

PRICES = {
    name: Price(each, 3 * each, tiers={"flex": Price(each / 2, 3 * each / 2)})
    for name, each in {"big": 10, "small": 1}.items()
}


def smart_at(server: Server, own: Any = None, **settings: Any) -> SmartChatModel:
    big, small = (member(server, name, **(own or {})) for name in PRICES)
    terms = {"max_disagreement": 0.2, "seed": 5, "lane": "flex", "prices": PRICES}
    return SmartChatModel(reference=big, candidates=[small], **{**terms, **settings})


def llm_at(server: Server) -> SmartLLM:
    at = {"api_base": server.url, "api_key": "none", "is_chat_model": True}
    big, small = (OpenAILike(model=name, **at) for name in PRICES)
    terms = {"seed": 5, "lane": "flex", "prices": PRICES, "strategy": "reference"}
    return SmartLLM(reference=big, candidates=[small], **terms)


def tier(body: dict[str, Any]) -> str:
    return body.get("service_tier", "default")


def bill(server: Server, flex: float) -> float:
    """Return what the reference's tokens cost, where a share was served by flex."""
    sent = server.input_tokens["big"] * PRICES["big"].input
    sent += server.output_tokens["big"] * PRICES["big"].output
    return sent * (1 - flex / 2) / 1e6


ASK = {
    "invoke": lambda smart: smart.ainvoke(ITEMS[0]),
    "stream": lambda smart: _drained(smart.astream(ITEMS[0])),
    "batch": lambda smart: smart.abatch(ITEMS[:5]),
}


async def _drained(pieces: Any) -> list[Any]:
    return [piece async for piece in pieces]


@pytest.mark.parametrize("kind", ASK)
async def test_every_call_asks_for_flex_and_is_billed_as_its_reply_says(kind):
    with serve(lambda model, text, attempt: "yes") as server:
        smart = smart_at(server, strategy="reference")
        await ASK[kind](smart)
        assert {tier(body) for body in server.bodies} == {"flex"}
        assert smart.report().cost == pytest.approx(bill(server, flex=1))


@pytest.mark.parametrize("kind", ASK)
async def test_where_flex_is_refused_the_standard_tier_answers(kind):
    def script(model, text, attempt):
        return Fault("full", 429) if tier(text.body) == "flex" else "yes"

    with serve(script) as server:
        smart = smart_at(server, strategy="reference", max_retries=0)
        await ASK[kind](smart)
        tiers = Counter(map(tier, server.bodies))
        assert tiers["flex"] == tiers["default"]
        spend = smart.report().spend["big"]
        assert (spend.calls, spend.failures) == (tiers["default"], 0)
        assert spend.cost == pytest.approx(bill(server, flex=0))


async def test_a_model_without_flex_is_asked_for_it_once():
    def script(model, text, attempt):
        wrong = model == "big" and tier(text.body) == "flex"
        return Fault("no such service_tier", 400) if wrong else "yes"

    with serve(script) as server:
        smart = smart_at(server, strategy="reference", max_concurrency=1)
        await smart.abatch(ITEMS[:5])
        assert Counter(map(tier, server.bodies)) == {"flex": 1, "default": 5}


async def test_other_errors_are_no_refusal_and_a_users_own_tier_stays():
    def script(model, text, attempt):
        return Fault("too long", 400) if text == "item 3" else "yes"

    with serve(script) as server:
        smart = smart_at(server, strategy="reference")
        await smart.abatch(ITEMS[:5], return_exceptions=True)
        assert len(server.bodies) == 5
        prices = {name: Price(1, 1, tiers={"scale": Price(2, 2)}) for name in PRICES}
        own = smart_at(server, {"service_tier": "scale"}, prices=prices)
        await own.ainvoke("item 1")
        assert tier(server.bodies[-1]) == "scale"


def test_llama_index_asks_for_flex_too():
    with serve(lambda model, text, attempt: "yes") as server:
        smart = llm_at(server)
        assert smart.complete(ITEMS[0]).text == "yes"
        smart.complete_batch(ITEMS[:5])
        assert {tier(body) for body in server.bodies} == {"flex"}
        assert smart.report().cost == pytest.approx(bill(server, flex=1))
