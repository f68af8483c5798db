"""Anthropic's message batches as a lane, over real HTTP by its own client."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from typing import Any

import pytest
from anthropic_loopback import AnthropicServer, MessageBatches, serve_anthropic
from batch_loopback import Plan, sent
from lane_models import (
    ITEMS,
    PRICES,
    agreeing,
    answered,
    assert_ledger_is_the_bill,
    who,
)
from langchain_anthropic import ChatAnthropic
from loopback import Calls, Fault

from langchain_smart import SmartChatModel
from smart_engine import InvalidInputError
from smart_engine.runtime.lanes.anthropic_form import AnthropicBatches

MODES = ["sync", "async"]


def smart_at(server: AnthropicServer, own: Any = None, **settings: Any) -> Any:
    at = {"base_url": server.url, "api_key": "none", "max_tokens": 50, **(own or {})}
    big, small = (ChatAnthropic(model=name, **at) for name in PRICES)
    terms = {"max_disagreement": 0.2, "seed": 5, "lane": "batch", "prices": PRICES}
    terms |= {"max_rounds": 6}
    return SmartChatModel(reference=big, candidates=[small], **{**terms, **settings})


def look_up(number: int) -> int:
    """Look up a number."""
    return number


@pytest.mark.parametrize("kind", ["text", "tools", "beta"])
@pytest.mark.parametrize("mode", MODES)
async def test_a_batch_answers_as_live_calls_would_at_half_the_price(mode, kind):
    def script(model, text, attempt):
        if kind != "tools":
            return agreeing(model, text, attempt)
        return Calls([("look_up", {"number": int(text.split()[1])})])

    def asked(smart):
        return smart.bind_tools([look_up]) if kind == "tools" else smart

    def bodies(provider):
        sent = [{k: v for k, v in b.items() if k != "stream"} for b in provider.bodies]
        return Counter(json.dumps(body, sort_keys=True) for body in sent)

    own = {"betas": ["context-1m"], "streaming": True} if kind == "beta" else {}
    with serve_anthropic(script) as server:
        smart = smart_at(server, own)
        answers = await answered(asked(smart), mode)
        assert server.requests.total() == 0
        assert_ledger_is_the_bill(smart, server)
        assert set(server.api.betas) == {"context-1m" if kind == "beta" else ""}
        live = smart_at(server, own | {"streaming": False}, lane="live")
        expected = await answered(asked(live), mode)
        assert bodies(server.batched) == bodies(server)
        assert [a.content for a in answers] == [e.content for e in expected]
        assert [a.tool_calls for a in answers] == [e.tool_calls for e in expected]
        assert [who(a) for a in answers] == [who(e) for e in expected]
        assert smart.report().cost == pytest.approx(live.report().cost / 2)


FAULTS = {
    "expired": {"end": lambda number: "completed" if number else "expired"},
    "canceled": {"end": lambda number: "completed" if number else "canceled"},
    "busy": {"refuse": lambda n: Fault("busy", 429) if n < 2 else None},
    "overloaded": {"refuse": lambda n: Fault("busy", 529) if n == 1 else None},
    "lost reply": {"lose": frozenset({0, 2})},
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_that_passes_costs_nothing(fault, mode):
    with serve_anthropic(agreeing, Plan(**FAULTS[fault])) as server:
        smart = smart_at(server, strategy="reference")
        answers = await answered(smart, mode)
        assert [a.content for a in answers] == ["yes"] * 60
        assert set(server.batched.attempts.values()) == {1}
        assert_ledger_is_the_bill(smart, server)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("gone", ["deleted", "archived"])
async def test_a_batch_that_is_no_longer_there_is_bought_anew_and_marked(
    gone, mode, monkeypatch
):
    def archiving(api, name):
        reply = look(api, name)
        batch = api.batches[name]
        if batch.ended and not batch.number:
            batch.seen |= {"archived_at": batch.seen["ended_at"], "results_url": None}
        return reply if not batch.ended else sent(batch.seen)

    look = MessageBatches.look
    plan = Plan(deleted=frozenset({0} if gone == "deleted" else ()))
    if gone == "archived":
        monkeypatch.setattr(MessageBatches, "look", archiving)
    with serve_anthropic(agreeing, plan) as server:
        smart = smart_at(server, strategy="reference")
        with pytest.warns(UserWarning, match="no longer has the batch msgbatch_0 of"):
            answers = await answered(smart, mode)
        assert [a.content for a in answers] == ["yes"] * 60
        spend = smart.report().spend["big"]
        assert (spend.calls, spend.failures) == (120, 60)
        assert 0 < spend.unknown < spend.cost


def test_an_archived_batch_of_equal_size_does_not_hide_the_one_looked_for():
    with serve_anthropic(agreeing, Plan(lose=frozenset({1}))) as server:
        earlier = smart_at(server, strategy="reference")
        earlier.batch([f"earlier {n}" for n in range(60)])
        archived = server.api.batches["msgbatch_0"].seen
        archived |= {"archived_at": archived["ended_at"], "results_url": None}
        smart = smart_at(server, strategy="reference")
        answers = smart.batch([f"later {n}" for n in range(60)])
        assert [a.content for a in answers] == ["yes"] * 60
        assert set(server.batched.attempts.values()) == {1}
        assert len(server.api.batches) == 2


async def test_failed_rows_are_tried_again_or_are_their_items_errors():
    def script(model, text, attempt):
        if text == "item 3":
            return Fault("too long", 400)
        busy = int(text.split()[1]) % 7 == 0 and attempt == 1
        return Fault("busy", 429) if busy else "yes"

    with serve_anthropic(script) as server:
        smart = smart_at(server, strategy="reference")
        answers = await answered(smart, "async", return_exceptions=True)
        assert [n for n, a in enumerate(answers) if isinstance(a, Exception)] == [3]
        assert "too long" in str(answers[3])
        assert [len(b.rows) for b in server.api.batches.values()] == [60, 9]
        assert_ledger_is_the_bill(smart, server)


@pytest.mark.parametrize("known", [True, False])
def test_a_batch_of_an_earlier_process_is_taken_up(known, tmp_path, monkeypatch):
    """Also where it was killed before it learned the id of the batch."""

    def interrupt(api, name):
        os.kill(os.getpid(), signal.SIGINT)
        return look(api, name)

    def forgetful(carrier, *args):
        submit(carrier, *args)
        os.kill(os.getpid(), signal.SIGINT)
        raise ConnectionError

    with serve_anthropic(agreeing, Plan(looks=("in_progress",) * 1000)) as server:
        look, submit = type(server.api).look, AnthropicBatches.submit
        terms = {"strategy": "reference", "store": tmp_path / "answers.db"}
        with monkeypatch.context() as patch:
            if known:
                patch.setattr(type(server.api), "look", interrupt)
            else:
                patch.setattr(AnthropicBatches, "submit", forgetful)
            with pytest.raises(KeyboardInterrupt):
                smart_at(server, **terms).batch(ITEMS)
        server.api.batches["msgbatch_0"].looks.clear()
        again = smart_at(server, **terms)
        assert [a.content for a in again.batch(ITEMS)] == ["yes"] * 60
        assert len(server.api.batches) == 1
        assert_ledger_is_the_bill(again, server)


def test_a_batch_of_another_job_is_not_taken_for_one_that_was_lost(tmp_path):
    plan = Plan(looks=("in_progress",) * 3, lose=frozenset({1}))
    with serve_anthropic(agreeing, plan) as server:
        other = smart_at(server, strategy="reference")
        left = other.submit([f"item {n}" for n in range(100, 160)])  # as many
        while not server.api.batches:
            time.sleep(0.01)
        smart = smart_at(server, strategy="reference")
        assert [a.content for a in smart.batch(ITEMS)] == ["yes"] * 60
        assert [a.content for a in left.results()] == ["yes"] * 60
        assert len(server.api.batches) == 2
        assert set(server.batched.attempts.values()) == {1}


def test_flex_is_not_anthropics():
    told = pytest.raises(InvalidInputError, match="cannot be asked by flex")
    with serve_anthropic(agreeing) as server, told:
        smart_at(server, lane="flex")
