"""A row in the ledger for each request that the server had, with what it billed."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from langchain_openai import ChatOpenAI
from llama_index.llms.openai_like import OpenAILike
from loopback import Fault, Odd, serve

from langchain_smart import Price, SmartChatModel
from llama_index_smart import SmartLLM

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}
SECRET = "sk-hush"  # noqa: S105 - that is the test
ITEMS = [f"item {n}" for n in range(24)]
TERMS = {"prices": PRICES, "max_disagreement": 0.2, "task": 'odd, "or" even'}


def script(model, text, attempt):
    """Fail on some items, and say nothing, for money, on others."""
    number = int(text.split()[-1])
    if model == "small" and number % 6 == 1:
        return Fault(f"no {SECRET} here", 500)
    return "" if model == "small" and number % 6 == 2 else "yes"


class LangChain:
    """The verbs of the chat model."""

    def __init__(self, url):
        def member(name):
            at = {"base_url": url, "api_key": SECRET, "timeout": 20}
            return ChatOpenAI(model=name, max_retries=0, **at)

        members = {"reference": member("big"), "candidates": [member("small")]}
        self.smart = SmartChatModel(**members, **TERMS)
        self.invoke, self.ainvoke = self.smart.invoke, self.smart.ainvoke
        self.batch, self.abatch = self.smart.batch, self.smart.abatch


class LlamaIndex:
    """The verbs of the LLM."""

    def __init__(self, url):
        def member(name):
            at = {"api_base": url, "api_key": SECRET, "timeout": 20}
            return OpenAILike(model=name, max_retries=0, is_chat_model=True, **at)

        members = {"reference": member("big"), "candidates": [member("small")]}
        self.smart = SmartLLM(**members, **TERMS)
        self.invoke, self.ainvoke = self.smart.complete, self.smart.acomplete
        self.batch = self.smart.complete_batch
        self.abatch = self.smart.acomplete_batch


def ending(model, text):
    """Return how the ledger has to say that a call ended."""
    said = script(model, text, 1)
    if isinstance(said, Fault):
        return "failed"
    return "answered" if said else "unreadable"


def in_threads(ask):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, ITEMS))


async def ask_all(asked, verb):
    """Ask about all items, many at once."""
    if verb == "invoke":
        await asyncio.to_thread(in_threads, asked.invoke)
    elif verb == "ainvoke":
        await asyncio.gather(*map(asked.ainvoke, ITEMS))
    elif verb == "batch":
        await asyncio.to_thread(asked.batch, ITEMS)
    else:
        await asked.abatch(ITEMS)


@pytest.mark.parametrize("adapter", [LangChain, LlamaIndex])
@pytest.mark.parametrize("verb", ["invoke", "ainvoke", "batch", "abatch"])
async def test_rows_are_what_the_server_billed(verb, adapter):
    with serve(script) as server:
        asked = adapter(server.url)
        began = time.time()
        await asyncio.wait_for(ask_all(asked, verb), 60)
        ended = time.time()
        ledger, report = asked.smart.ledger(), asked.smart.report()
        entries = ledger.entries
        endings = Counter()
        for (model, text), count in server.attempts.items():
            endings[model, ending(model, text)] += count
        assert Counter((e.model, e.outcome) for e in entries) == endings
        for name, price in PRICES.items():
            mine = [e for e in entries if e.model == name]
            sent = sum(e.input_tokens for e in mine)
            said = sum(e.output_tokens for e in mine)
            assert sent == server.input_tokens[name]
            assert said == server.output_tokens[name]
            bill = (sent * price.input + said * price.output) / 1e6
            assert sum(e.cost for e in mine) == pytest.approx(bill)
            assert report.spend[name] == ledger.sums("model")[name]
    batch = "batch" in verb
    for entry in entries:
        assert entry.role == ("candidate" if entry.model == "small" else "reference")
        assert (entry.error is None) == (entry.outcome == "answered")
        assert (entry.batch, entry.task) == (1 if batch else None, TERMS["task"])
        assert began - 1 <= entry.at <= ended + 1
        assert entry.seconds > 0
        if batch:  # single items are numbered as they come
            assert entry.outcome == ending(entry.model, ITEMS[entry.item])
    assert {entry.item for entry in entries} == set(range(len(ITEMS)))
    assert len({(e.item, e.model) for e in entries}) == len(entries)
    ids = {certificate.id for certificate in report.certificates}
    assert {e.certificate for e in entries} == (ids if batch else {None})
    counted = [s for stream in report.streams for s in stream.spend.items()]
    counted += [s for c in report.certificates for s in c.spend.items()]
    for name, spend in counted:
        assert (spend.calls, spend.failures) == (
            report.spend[name].calls,
            report.spend[name].failures,
        )
    assert SECRET not in ledger.to_csv() + ledger.to_jsonl() + repr(entries)


def thinking(model, text, attempt):
    """Answer as xAI does: hidden reasoning is in the total, not in the completion."""
    thought = len(text) * (5 if model == "big" else 1)
    usage = {
        "prompt_tokens": len(text),
        "completion_tokens": 3,
        "total_tokens": len(text) + 3 + thought,
        "completion_tokens_details": {"reasoning_tokens": thought},
    }
    return Odd("yes", usage=usage)


def stream_all(asked):
    stream = getattr(asked.smart, "stream_complete", None) or asked.smart.stream
    for item in ITEMS:
        list(stream(item))


@pytest.mark.parametrize("adapter", [LangChain, LlamaIndex])
@pytest.mark.parametrize("verb", ["invoke", "batch", "stream"])
async def test_reasoning_beside_the_answer_is_billed_and_shown(verb, adapter):
    with serve(thinking) as server:
        asked = adapter(server.url)
        if verb == "stream":
            await asyncio.to_thread(stream_all, asked)
        else:
            await ask_all(asked, verb)
        entries = asked.smart.ledger().entries
        assert len(entries) == server.requests.total()
    for entry in entries:
        thought = entry.input_tokens * (5 if entry.model == "big" else 1)
        assert (entry.outcome, entry.reasoning) == ("answered", thought)
        assert entry.output_tokens == 3 + thought
        price = PRICES[entry.model]
        billed = entry.input_tokens * price.input + entry.output_tokens * price.output
        assert entry.cost == pytest.approx(billed / 1e6)
