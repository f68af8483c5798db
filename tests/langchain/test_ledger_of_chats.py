"""Rows of calls that are repeated, broken off, cached, restored, or made by chains."""

from __future__ import annotations

import asyncio

import pytest
from fakes import Scripted
from langchain.agents import create_agent
from langchain_core.caches import InMemoryCache
from langchain_core.output_parsers import StrOutputParser

from langchain_smart import Price, SmartChatModel, SmartMiddleware, SmartRunnable

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}


def yes(text, kwargs):
    return "yes"


def failing_once():
    """Return a script that fails at first."""
    left = [ConnectionError("lost")]
    return lambda text, kwargs: left.pop() if left else "yes"


def smart_over(script=yes, latency=0.0, **settings):
    big = Scripted(name="big", script=script, latency=latency, **settings)
    small = Scripted(name="small", script=yes, latency=latency, **settings)
    return big, small


def told(entries, *names):
    return [tuple(getattr(entry, name) for name in names) for entry in entries]


@pytest.mark.parametrize("verb", ["invoke", "ainvoke", "stream", "astream", "batch"])
async def test_each_attempt_at_a_call_has_a_row(verb):
    big, small = smart_over(failing_once())
    smart = SmartChatModel(
        reference=big, candidates=[small], prices=PRICES, max_retries=1
    )
    if verb == "batch":
        answers = smart.batch(["item"])
    elif verb == "astream":
        answers = [piece async for piece in smart.astream("item", model="big")]
    elif verb == "stream":
        answers = list(smart.stream("item", model="big"))
    elif verb == "invoke":
        answers = [smart.invoke("item", model="big")]
    else:
        answers = [await smart.ainvoke("item", model="big")]
    assert answers[0].content == "yes"
    ledger = smart.ledger()
    rows = [entry for entry in ledger.entries if entry.model == "big"]
    assert told(rows, "item", "outcome", "error") == [
        (0, "failed", "ConnectionError"),
        (0, "answered", None),
    ]
    assert len(rows) == len(big.calls)
    first, second = rows
    assert first.at + first.seconds <= second.at + 1e-3
    assert (first.cost, smart.report().spend["big"].failures) == (0, 1)
    assert smart.report().spend["big"] == ledger.sums()["big"]


@pytest.mark.parametrize("verb", ["ainvoke", "abatch"])
async def test_a_call_that_is_cancelled_has_a_row(verb):
    big, small = smart_over(latency=60)
    smart = SmartChatModel(reference=big, candidates=[small], prices=PRICES)
    ask = smart.ainvoke("item") if verb == "ainvoke" else smart.abatch(["item"] * 3)
    task = asyncio.create_task(ask)
    while not big.calls:
        await asyncio.sleep(0.01)
    for _ in range(200):  # of what was not even begun there is a row as well
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    entries = smart.ledger().entries
    assert len(entries) == len(big.calls) + len(small.calls)
    assert {e.model for e in entries} >= {"big"}
    assert set(told(entries, "outcome", "error", "cost")) == {
        ("cancelled", "CancelledError", 0)
    }
    assert all(e.at is not None and e.seconds > 0 for e in entries)
    assert all(e.certificate is None for e in entries)
    assert {e.batch for e in entries} == {None if verb == "ainvoke" else 1}


def test_what_a_cache_answers_is_told_and_costs_nothing():
    big, small = smart_over(cache=InMemoryCache())
    smart = SmartChatModel(reference=big, candidates=[small], prices=PRICES)
    for _ in range(2):
        smart.invoke("item", model="big")
    paid, free = smart.ledger().entries
    assert (paid.outcome, free.outcome) == ("answered", "cached")
    assert paid.cost > 0 == free.cost == free.input_tokens
    assert [paid.item, free.item] == [0, 1]


def test_what_a_store_held_is_told_apart(tmp_path):
    items = [f"item {number}" for number in range(40)]
    ledgers = []
    for _ in range(2):
        big, small = smart_over()
        settings = {"prices": PRICES, "store": tmp_path / "answers.db"}
        smart = SmartChatModel(reference=big, candidates=[small], **settings)
        smart.batch(items)
        ledgers.append(smart.ledger())
    bought, held = ledgers
    assert set(bought.sums("outcome")) == {"answered"}
    assert set(held.sums("outcome")) == {"restored"}
    assert held.sums().keys() == bought.sums().keys()
    for model, spend in bought.sums().items():
        again = held.sums()[model]
        assert again.cost == pytest.approx(spend.cost)  # added up as they came
        assert again.model_copy(update={"cost": spend.cost}) == spend
    assert smart.report().restored == pytest.approx(smart.report().cost)
    assert {entry.at for entry in held.entries} == {None}


@pytest.mark.parametrize("verb", ["invoke", "batch"])
def test_models_within_chains_have_rows_each_time_they_are_tried(verb):
    big, small = smart_over(failing_once())
    again = big.with_retry(stop_after_attempt=2, wait_exponential_jitter=False)
    smart = SmartRunnable(
        reference={"long": again | StrOutputParser()},
        candidates={"short": small | StrOutputParser()},
        prices=PRICES,
    )
    answer = smart.invoke("item") if verb == "invoke" else smart.batch(["item"])[0]
    assert answer == "yes"
    ledger, report = smart.ledger(), smart.report()
    inside = [e for e in ledger.entries if e.role == "inside"]
    big_ones = [e for e in inside if e.model == "big"]
    assert told(big_ones, "outcome", "error") == [
        ("failed", "ConnectionError"),
        ("answered", None),
    ]
    assert len(inside) == len(big.calls) + len(small.calls)
    assert all(entry.seconds > 0 and entry.at for entry in ledger.entries)
    assert report.inside == ledger.sums("inside")
    assert report.inside["big"].calls == 2
    tiers = [e for e in ledger.entries if e.role != "inside"]
    assert {e.model: e.role for e in tiers if e.model == "long"} == {
        "long": "reference"
    }
    assert report.cost == pytest.approx(sum(entry.cost for entry in tiers))
    assert report.cost == pytest.approx(sum(entry.cost for entry in inside))


def test_an_agents_calls_are_in_the_middlewares_ledger():
    big, small = smart_over()
    smart = SmartMiddleware(candidates=[small], prices=PRICES)
    create_agent(big, middleware=[smart]).invoke({"messages": [("user", "item")]})
    entries = smart.ledger().entries
    assert len(entries) == len(big.calls) + len(small.calls)
    assert smart.report().cost == pytest.approx(sum(entry.cost for entry in entries))
