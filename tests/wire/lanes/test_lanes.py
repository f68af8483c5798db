"""Batches of a provider as a lane, over real HTTP: the same answers, half the price."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import langsmith
import pytest
from batch_loopback import serve_batches
from fakes import Scripted, say
from lane_models import (
    ITEMS,
    PRICES,
    agreeing,
    answered,
    assert_ledger_is_the_bill,
    member,
    smart_at,
    who,
)
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.messages import HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.tracers import BaseTracer
from langchain_openai import AzureChatOpenAI
from loopback import Calls, Fault
from pydantic import BaseModel

from langchain_smart import Price, SmartChatModel, SmartRunnable
from langchain_smart.chat.cost import worst_case
from langchain_smart.chat.request import Request
from smart_engine import InvalidInputError

MODES = ["sync", "async"]


@pytest.mark.parametrize("mode", MODES)
async def test_a_batch_answers_as_live_calls_would_at_half_the_price(mode):
    with serve_batches(agreeing) as server:
        smart, live = smart_at(server), smart_at(server, lane="live")
        answers = await answered(smart, mode)
        assert server.requests.total() == 0
        assert_ledger_is_the_bill(smart, server)
        expected = await answered(live, mode)
        assert [a.content for a in answers] == [e.content for e in expected]
        assert [who(a) for a in answers] == [who(e) for e in expected]
        assert smart.report().cost == pytest.approx(live.report().cost / 2)


@pytest.mark.slow
@pytest.mark.parametrize("task", [None, "mails"])
async def test_a_batch_takes_twelve_waves_at_most_if_nothing_else_is_said(task):
    items = [f"item {n}" for n in range(250)]
    with serve_batches(lambda model, text, attempt: "yes") as server:
        terms = {"max_disagreement": 0.05, "task": task}
        smart = smart_at(server, max_rounds=None, **terms)
        answers = await answered(smart, "async", items)
        assert len(answers) == 250
        models = Counter(
            b.rows[0]["body"]["model"] for b in server.api.batches.values()
        )
        assert max(models.values()) <= 12
        terms |= {"lane": "live", "max_rounds": 12}
        live = await answered(smart_at(server, **terms), "async", items)
        assert [who(a) for a in answers] == [who(e) for e in live]


def lookup(number: int) -> int:
    """Look up a number."""
    return number


class Found(BaseModel):
    """What was found."""

    number: int


KINDS = {
    "settings": (lambda smart: smart.bind(stop=["\n"]), {"logprobs": True, "seed": 3}),
    "tools": (lambda smart: smart.bind_tools([lookup]), {"temperature": 0.5}),
    "object": (lambda smart: smart.with_structured_output(Found), {}),
    "streaming": (lambda smart: smart, {"streaming": True}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
async def test_a_request_in_a_batch_is_the_one_that_invoke_sends(mode, kind):
    asked, own = KINDS[kind]

    def script(model, text, attempt):
        arguments = {"number": int(text.split()[1])}
        if kind == "object":
            return json.dumps(arguments)
        return Calls([("lookup", arguments)]) if kind == "tools" else "yes"

    def bodies(provider):
        unstreamed = {"stream", "stream_options"}
        sent = [{k: b[k] for k in b.keys() - unstreamed} for b in provider.bodies]
        return Counter(json.dumps(body, sort_keys=True) for body in sent)

    with serve_batches(script) as server:
        smart = smart_at(server, own, max_disagreement=0.3)
        live = smart_at(server, own, max_disagreement=0.3, lane="live")
        answers = await answered(asked(smart), mode, ITEMS[:20])
        expected = await answered(asked(live), mode, ITEMS[:20])
        assert bodies(server.batched) == bodies(server)
        assert not any(body.get("stream") for body in server.batched.bodies)
        if kind == "object":
            assert answers == expected == [Found(number=n) for n in range(20)]
        elif kind == "tools":
            assert [a.tool_calls for a in answers] == [e.tool_calls for e in expected]


class Seen(BaseTracer):
    """Counts the runs of models."""

    def __init__(self):
        super().__init__()
        self.runs = Counter()

    def _persist_run(self, run):
        pass

    def on_chat_model_start(self, *args, **kwargs):
        self.runs["started"] += 1
        return super().on_chat_model_start(*args, **kwargs)

    def on_llm_error(self, *args, **kwargs):
        self.runs["failed"] += 1
        return super().on_llm_error(*args, **kwargs)


@pytest.mark.parametrize("mode", MODES)
async def test_callbacks_see_each_call_once(mode):
    with serve_batches(agreeing) as server:
        smart, seen = smart_at(server), Seen()
        with get_usage_metadata_callback() as usage:
            config = {"callbacks": [seen]}
            await answered(smart, mode, ITEMS[:20], config=config)
        calls = server.batched.requests.total()
        assert seen.runs == {"started": 20 + calls}
        counted = [u["input_tokens"] for u in usage.usage_metadata.values()]
        assert sum(counted) == server.batched.input_tokens.total()


@pytest.mark.parametrize("mode", MODES)
async def test_a_models_own_handlers_and_langsmith_see_each_call_once(mode):
    class Client(langsmith.Client):
        def __init__(self):
            self.created, self.errors = Counter(), []

        def create_run(self, name, inputs, run_type, **kwargs):
            self.created[run_type] += 1

        def update_run(self, run_id, *, error=None, **kwargs):
            self.errors += [error] if error else []

    client, seen = Client(), Seen()
    with serve_batches(agreeing) as server:
        smart = smart_at(server, {"callbacks": [seen]})
        with langsmith.tracing_context(enabled=True, client=client):
            await answered(smart, mode, ITEMS[:20])
        calls = server.batched.requests.total()
    assert seen.runs == {"started": calls}
    assert client.created["llm"] == 20 + calls
    assert not client.errors


@pytest.mark.parametrize("mode", MODES)
async def test_what_a_cache_has_is_in_no_batch(mode):
    with serve_batches(agreeing) as server:
        smart = smart_at(server, cache=InMemoryCache())
        first = await answered(smart, mode)
        bought = server.batched.requests.total()
        again = await answered(smart, mode)
        assert server.batched.requests.total() == bought
        assert server.requests.total() == 0
        assert [a.content for a in again] == [a.content for a in first]
        assert_ledger_is_the_bill(smart, server)


@pytest.mark.parametrize("mode", MODES)
async def test_equal_items_are_billed_as_often_as_a_batch_has_them(mode):
    with serve_batches(agreeing) as server:
        smart = smart_at(server, cache=InMemoryCache())
        await answered(smart, mode, ITEMS[:10] * 3)
        assert server.batched.requests["small"] > 10
        assert_ledger_is_the_bill(smart, server)


async def test_some_members_may_be_asked_live():
    with serve_batches(agreeing) as server:
        smart = smart_at(server, lane={"big": "batch"})
        answers = await answered(smart, "async")
        assert sum(a.content != "yes" for a in answers) <= 12
        assert server.batched.requests.keys() == {"big"}
        assert server.requests.keys() == {"small"}
        assert_ledger_is_the_bill(smart, server)


@pytest.mark.parametrize("mode", MODES)
async def test_auto_sends_the_bulk_in_batches_and_the_rest_live(mode, monkeypatch):
    monkeypatch.setattr("smart_engine.runtime.lanes.dispatcher.WORTH_A_BATCH", 25)

    def script(model, text, attempt):
        wrong = model == "small" and int(text.split()[1]) == 9 and attempt == 1
        return Fault("busy", 429) if wrong else agreeing(model, text, attempt)

    with serve_batches(script) as server:
        smart, live = smart_at(server, lane="auto"), smart_at(server, lane="live")
        answers = await answered(smart, mode)
        sizes = [len(batch.rows) for batch in server.api.batches.values()]
        assert sizes
        assert min(sizes) >= 25
        assert server.requests.total() > 0
        assert_ledger_is_the_bill(smart, server)
        expected = await answered(live, mode)
        assert [a.content for a in answers] == [e.content for e in expected]
        assert [who(a) for a in answers] == [who(e) for e in expected]


async def test_single_calls_are_live():
    with serve_batches(agreeing) as server:
        smart = smart_at(server)
        assert (await smart.ainvoke("item 1")).content == "yes"
        await smart.abatch(ITEMS[:2], model="big")
        assert server.requests.total() >= 3
        assert not server.api.calls
        assert_ledger_is_the_bill(smart, server)


def test_a_batch_waits_for_no_rate_limiter():
    never = InMemoryRateLimiter(requests_per_second=1e-6, max_bucket_size=1)
    with serve_batches(agreeing) as server:
        smart = smart_at(server, {"rate_limiter": never}, rate_limiter=never)
        assert len(smart.batch(ITEMS[:20])) == 20


def test_a_budget_reserves_the_price_of_batches():
    with serve_batches(agreeing) as server:
        terms = {"max_tokens": 10, "strategy": "reference"}
        smart = smart_at(server, **terms)
        asked = [HumanMessage("item 0")], Request({"max_tokens": 10})
        worst, live = (
            worst_case(members["big"], *asked)
            for members in (smart._lanes.in_batches, smart._members)
        )
        assert worst == pytest.approx(live / 2)
        smart = smart_at(server, budget_usd=3.001 * worst, **terms)
        answers = smart.batch(ITEMS[:3])
        assert [a.content for a in answers] == ["yes"] * 3
        assert server.api.calls.count("POST /v1/batches") == 1
        assert smart.report().cost <= 3 * worst


def test_a_price_that_nobody_told_is_the_standard_one():
    prices = {"big": Price(10, 30), "small": PRICES["small"]}
    with serve_batches(agreeing) as server:
        with pytest.warns(UserWarning, match="no batch price of big"):
            smart = smart_at(server, prices=prices, strategy="reference")
        smart.batch(ITEMS[:5])
        bill = server.batched.input_tokens["big"] * 10
        bill += server.batched.output_tokens["big"] * 30
        assert smart.report().cost == pytest.approx(bill / 1e6)


def test_who_cannot_be_asked_in_batches_is_named_at_construction():
    with serve_batches(agreeing) as server:
        big, small = member(server, "big"), Scripted(name="small", script=say("yes"))
        made = {"reference": big, "candidates": [small], "prices": PRICES}
        with pytest.raises(
            InvalidInputError, match=r"small .* cannot be asked by batch"
        ):
            SmartChatModel(**made, lane="batch")
        assert SmartChatModel(**made, lane={"big": "batch"}).batch(["item 1"])
        with pytest.raises(InvalidInputError, match="lane='bath'"):
            SmartChatModel(**made, lane="bath")
        with pytest.raises(InvalidInputError, match="lane='bigg'"):
            SmartChatModel(**made, lane={"bigg": "batch"})
        smart = SmartChatModel(**made)
        with pytest.raises(InvalidInputError, match="lane"):
            smart.lane = "batch"
        assert smart.lane == "live"
        chains = {"big": big | StrOutputParser()}, {"small": small | StrOutputParser()}
        with pytest.raises(InvalidInputError, match="a chain calls its models"):
            SmartRunnable(
                reference=chains[0],
                candidates=chains[1],
                prices=PRICES,
                version="1",
                lane="batch",
            )


@pytest.mark.parametrize("lane", ["batch", "flex", "auto"])
def test_gemini_is_refused_with_the_reason(lane):
    class Gemini(Scripted):
        client: Any = None

    client = type("Client", (), {"__module__": "google.genai.client"})()
    big = Gemini(name="big", script=say("yes"), client=client)
    small = Scripted(name="small", script=say("yes"))
    made = {"reference": big, "candidates": [small], "prices": PRICES}
    with pytest.raises(InvalidInputError, match=r"big .* Gemini's batches .* no lane"):
        SmartChatModel(**made, lane=lane)
    assert SmartChatModel(**made).lane == "live"


def test_azure_is_refused_at_construction():
    at = {"azure_endpoint": "http://127.0.0.1:9", "api_version": "1", "api_key": "none"}
    big = AzureChatOpenAI(model="big", azure_deployment="d", **at)
    small = Scripted(name="small", script=say("yes"))
    made = {"reference": big, "candidates": [small], "prices": PRICES}
    for lane in ("batch", "auto"):
        with pytest.raises(InvalidInputError, match="Azure takes batches of deploy"):
            SmartChatModel(**made, lane={"big": lane})
