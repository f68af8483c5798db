"""Fault × who is at fault × verb × sync or async × adapter, over real HTTP.

Each verb is asked about items every other of which meets a fault, each fault early and
late. A right answer or a clear error comes of each; the ledger is the server's bill;
nothing hangs; the promise is kept; sync and async decide alike.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections import Counter
from functools import cache
from typing import Any, NamedTuple

import httpx
import pytest
from faults import (
    EVERY,
    FAULTS,
    SHOWN,
    STALLED,
    TERMS,
    WRONG_CALLS,
    Adapter,
    Answer,
    Chains,
    LangChain,
    LlamaIndex,
    aimpatient,
    answer,
    impatient,
)
from langchain_openai import ChatOpenAI
from llama_index.llms.openai_like import OpenAILike
from loopback import Fault, Server, serve

from langchain_smart import SmartChatModel
from llama_index_smart import SmartLLM

ADAPTERS = (LangChain, LlamaIndex)
ALL = (*ADAPTERS, Chains)
MODES = ("sync", "async")
SIZES = ("big", "small")
AT_FAULT = ("small", "big")  # the candidate, the reference
MISSING = "reported no usage that can be priced"
NOTHING_USABLE = "upstream failed|NoneType|No generation chunks|ended before it began"
TELLS = {
    "busy": "429",
    "500": "500",
    "503": "503",
    "forbidden": "404",
    "too long": "400.*too long",
    "filtered question": "400.*filtered",
    "error as an answer": NOTHING_USABLE,
    "reset": "Connection error",
    "silent": "Timeout",
    "cut off": "Connection error|peer closed connection",
    "malformed": "Expecting value|No generation chunks|ended before it began",
    "no usage": MISSING,
    "negative usage": MISSING,
    "absurd usage": MISSING,
    "usage in words": f"{MISSING}|usage_metadata.input_tokens",
    "stalled": "Timeout",
}
"""What the error says where a call fails; the other faults say something unusable."""

STRUCTURED = ("tools", "object", "objects", "called", "filled")
"""Verbs that ask for calls or objects."""

SAID = {"empty": "", "refusal": "", "unreadable": "who knows", "filtered answer": ""}
SAID["truncated"] = "y"
"""What the other faults say in so many words, if a text was asked for."""


class Run(NamedTuple):
    """What came of one verb, and what the server knows of it."""

    items: list[str]
    answers: list[Answer]
    report: Any
    server: Server


def faults_of(verb: str) -> list[str]:
    """Return the faults that a verb can meet."""
    stalls = STALLED if verb in SHOWN else {}
    return [*FAULTS, *stalls, *(WRONG_CALLS if verb in STRUCTURED else {})]


def items_of(who: str, verb: str) -> list[str]:
    """Return items: each fault, with a good item after it; then each fault again."""
    faults = faults_of(verb)
    first = [told for fault in faults for told in ((who, fault), ("nobody", "none"))]
    both = [*first, *((who, fault) for fault in reversed(faults))]
    return [f"item {n:03d} | {who} | {fault}" for n, (who, fault) in enumerate(both)]


@cache
def run(adapter: type[Adapter], verb: str, mode: str, who: str) -> Run:
    """Put a job to a verb; it is bounded in time."""
    items = items_of(who, verb)

    async def asked() -> Run:
        tasks = asyncio.all_tasks()
        hooks: Any = {"event_hooks": {"request": [impatient]}, "verify": False}
        ahooks: Any = {"event_hooks": {"request": [aimpatient]}, "verify": False}
        with serve(answer) as server, httpx.Client(**hooks) as sync:
            async with httpx.AsyncClient(**ahooks) as client:
                smart = adapter(server.url, sync, client)
                if mode == "async":
                    answers = await smart.aask(verb, items)
                    for _ in range(20):  # what was broken off is closed by the loop
                        await asyncio.sleep(0)
                    assert asyncio.all_tasks() == tasks
                else:
                    answers = await asyncio.to_thread(smart.ask, verb, items)
        return Run(items, answers, smart.smart.report(), server)

    async def bounded() -> Run:
        return await asyncio.wait_for(asked(), 100)

    return asyncio.run(bounded())


CASES = [
    (adapter, verb, mode, who)
    for adapter in ALL
    for verb in (*adapter.verbs, *adapter.further)
    for mode in MODES
    for who in AT_FAULT
]
CELLS = [(*case, fault) for case in CASES for fault in faults_of(case[1])]


def each(name: str, cases: list[tuple[Any, ...]]) -> pytest.MarkDecorator:
    """Test each case; `make verify` tests the further verbs."""
    return pytest.mark.parametrize(
        name,
        [
            pytest.param(
                case,
                id=named(case),
                marks=() if case[1] in case[0].verbs else pytest.mark.slow,
            )
            for case in cases
        ],
    )


def named(case: tuple[Any, ...]) -> str:
    """Return a case's name."""
    return "-".join([case[0].__name__, *case[1:]])


def right(adapter: type[Adapter], verb: str) -> str:
    """Return what an item is answered where nothing goes wrong."""
    return "Verdict(yes)" if verb in ("tools", "called") else "yes"


@each("cell", CELLS)
@pytest.mark.filterwarnings("ignore:.*reported no usage")
def test_a_right_answer_or_a_clear_error(cell):
    adapter, verb, mode, who, fault = cell
    came = run(adapter, verb, mode, who)
    good = right(adapter, verb)
    met = [
        found
        for item, found in zip(came.items, came.answers, strict=True)
        if item.endswith(f" | {who} | {fault}")
    ]
    assert len(met) == 2
    for text, error, shown, told in met:
        if error is not None:
            if fault in TELLS:
                assert re.search(TELLS[fault], repr(error))
            # An answer that failed was the reference's, or was on its way to the user.
            assert who == "big" or (verb in SHOWN and shown)
        elif text == good:
            # A candidate that failed has not answered.
            assert who == "big" or told.get("role") != "applied"
        else:
            # What somebody said who may: the reference, or who was shown saying it.
            assert fault not in TELLS
            assert who == "big" or (verb in SHOWN and told.get("role") != "reference")
            assert verb in STRUCTURED or text == SAID[fault]


@each("case", CASES)
@pytest.mark.filterwarnings("ignore:.*reported no usage")
def test_the_ledger_is_the_bill_and_nothing_hangs(case):
    adapter, verb, _, _ = case
    came = run(*case)
    report, server = came.report, came.server
    for name, spend in (report.inside or report.spend).items():
        assert spend.calls == server.requests[name] > 0
        assert spend.input_tokens == server.input_tokens[name]
        assert spend.output_tokens == server.output_tokens[name]
        price = TERMS["prices"][name]
        cost = price.input * spend.input_tokens + price.output * spend.output_tokens
        assert spend.cost == pytest.approx(cost / 1e6)
    assert not [t for t in threading.enumerate() if t.name.startswith("smart")]
    for stream in report.streams:
        assert (stream.in_flight, stream.unresolved) == (0, 0)
    good = right(adapter, verb)
    nobody = zip(came.items, came.answers, strict=True)
    assert {a.text for item, a in nobody if " nobody " in item} == {good}


@each("case", CASES)
@pytest.mark.filterwarnings("ignore:.*reported no usage")
def test_the_promise_is_kept_after_every_answer(case):
    adapter, verb, _, who = case
    came = run(*case)
    good, wrong = right(adapter, verb), 0
    for number, (item, found) in enumerate(
        zip(came.items, came.answers, strict=True), start=1
    ):
        fault = item.rsplit(" | ", 1)[1]
        # Of the reference's own faults, those that say something are what it said.
        served = found.told.get("model") == "small"
        differs = served and who == "big" and fault in EVERY and fault not in TELLS
        differs |= found.error is None and who == "small" and found.text != good
        wrong += differs
        if came.report.streams:
            assert wrong <= TERMS["max_disagreement"] * number
    assert wrong <= TERMS["max_disagreement"] * len(came.items)


@each("case", [case for case in CASES if case[2] == "sync"])
@pytest.mark.filterwarnings("ignore:.*reported no usage")
def test_sync_and_async_decide_alike(case):
    adapter, verb, _, who = case
    if verb in SHOWN:  # how much was shown when a stream stalls is a matter of time
        return
    both = [run(adapter, verb, mode, who) for mode in MODES]
    decided = [
        [
            (a.text, type(a.error), a.told.get("model"), a.told.get("role"))
            for a in each.answers
        ]
        for each in both
    ]
    assert decided[0] == decided[1]
    for name, spend in both[0].report.spend.items():
        other = both[1].report.spend[name]
        assert spend.cost == pytest.approx(other.cost)  # added up as they came
        assert spend.model_copy(update={"cost": other.cost}) == other


def test_every_fault_met_every_verb():
    text, tools = len(FAULTS), len({**FAULTS, **WRONG_CALLS})
    assert (text, tools) == (20, 22)
    counts = Counter((adapter.__name__, verb) for adapter, verb, *_ in CELLS)
    four = len(MODES) * len(AT_FAULT)
    both = {"whole": text, "batch": text, "pieces": text + 1}
    both |= {"tools": tools, "object": tools}
    expected = {(a.__name__, v): four * n for a in ADAPTERS for v, n in both.items()}
    expected["LangChain", "objects"] = four * tools
    default = {cell[:2] for cell in CELLS if cell[1] in cell[0].verbs}
    names = {(adapter.__name__, verb) for adapter, verb in default}
    assert {name: counts[name] for name in names} == expected
    assert sum(expected.values()) == 928
    assert len(CELLS) == 2008


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
            assert spend.failures == 0
            assert 2 * spend.calls == server.requests[name]
            assert spend.input_tokens == server.input_tokens[name]
            assert spend.output_tokens == server.output_tokens[name]
