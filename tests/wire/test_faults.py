"""Faults over real HTTP: each once per adapter, sync and async, by turns of each model.

`make verify` puts every fault to every verb over HTTP.
"""

from __future__ import annotations

import asyncio

import pytest
from fault_runs import (
    ADAPTERS,
    ALL,
    AT_FAULT,
    MODES,
    SIZES,
    Case,
    assert_a_right_answer_or_a_clear_error,
    assert_sync_and_async_decide_alike,
    assert_the_ledger_is_the_bill_and_nothing_hangs,
    assert_the_promise_is_kept_after_every_answer,
    each,
)
from faults import EVERY, FAULTS, STALLED, TERMS, WRONG_CALLS, LangChain
from langchain_openai import ChatOpenAI
from llama_index.llms.openai_like import OpenAILike
from loopback import Fault, serve

from langchain_smart import SmartChatModel
from llama_index_smart import SmartLLM

MEETING = {
    "whole": tuple(FAULTS),
    "pieces": ("reset", "cut off", *STALLED),
    "tools": tuple(WRONG_CALLS),
}
"""Which verb meets which faults: each fault meets one, a broken connection two."""

ONCE = [
    Case(adapter, verb, mode, AT_FAULT[number % 2], wire=True, faults=faults)
    for adapter in ADAPTERS
    for number, (verb, faults) in enumerate(MEETING.items())
    for number, mode in enumerate(MODES, number)
]
WHOLE = [
    Case(adapter, verb, mode, who, wire=True)
    for adapter in ALL
    for verb in (*adapter.verbs, *adapter.further)
    for mode in MODES
    for who in AT_FAULT
]

pytestmark = pytest.mark.filterwarnings("ignore:.*reported no usage")


def test_every_fault_is_met():
    assert {fault for faults in MEETING.values() for fault in faults} == set(EVERY)


@each(ONCE)
def test_a_fault_over_http(case):
    assert_a_right_answer_or_a_clear_error(case)
    assert_the_ledger_is_the_bill_and_nothing_hangs(case)
    assert_the_promise_is_kept_after_every_answer(case)
    assert_sync_and_async_decide_alike(case)


@each(WHOLE)
def test_the_whole_matrix_over_http(case):
    assert_a_right_answer_or_a_clear_error(case)
    assert_the_ledger_is_the_bill_and_nothing_hangs(case)
    assert_the_promise_is_kept_after_every_answer(case)
    assert_sync_and_async_decide_alike(case)


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("verb", ["whole", "batch"])
async def test_who_is_busy_is_asked_again_when_it_says(verb, mode, adapter):
    """The clients' own retries wait as `Retry-After` says, and are not billed."""

    def script(model, text, attempt):
        return "yes" if attempt > 1 else Fault("busy", 429, {"Retry-After": "0.01"})

    with serve(script) as server:
        at = {"api_key": "none", "max_retries": 1, "timeout": 20}
        if adapter is LangChain:
            members = [ChatOpenAI(model=m, base_url=server.url, **at) for m in SIZES]
            smart = SmartChatModel(
                reference=members[0], candidates=members[1:], **TERMS
            )
            ask = {"whole": smart.invoke, "batch": smart.batch}[verb]
            aask = {"whole": smart.ainvoke, "batch": smart.abatch}[verb]
        else:
            at |= {"api_base": server.url, "is_chat_model": True}
            members = [OpenAILike(model=m, **at) for m in SIZES]
            smart = SmartLLM(reference=members[0], candidates=members[1:], **TERMS)
            ask = {"whole": smart.complete, "batch": smart.complete_batch}[verb]
            aask = {"whole": smart.acomplete, "batch": smart.acomplete_batch}[verb]
        items = "item 1" if verb == "whole" else [f"item {n}" for n in range(8)]
        said = await (aask(items) if mode == "async" else asyncio.to_thread(ask, items))
        said = said if verb == "batch" else [said]
        assert {getattr(a, "text", None) or a.content for a in said} == {"yes"}
        for name, spend in smart.report().spend.items():
            assert spend.calls == server.requests[name] == 2 * spend.failures
            assert spend.input_tokens == server.input_tokens[name]
            assert spend.output_tokens == server.output_tokens[name]
