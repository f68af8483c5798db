"""Fault × verb × sync or async × adapter: right answers, an exact ledger, no hang.

The candidate is at fault on every third item. What fails escalates; what was shown
before it proved unreadable counts against the promise, which is kept.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from langchain_openai import ChatOpenAI
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike
from loopback import Fault, Refusal, serve

from langchain_smart import Label, Price, SmartChatModel
from llama_index_smart import SmartLLM

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}
ITEMS = [f"item {n}" for n in range(24)]
FAULTS = {
    "busy": Fault("busy", 429, {"Retry-After": "0.01"}),
    "500": Fault("boom", 500),
    "503": Fault("overloaded", 503),
    "reset": Fault("reset"),
    "malformed": Fault("malformed"),
    "too long": Fault("context too long", 400),
    "filtered": Fault("content filter", 400),
    "forbidden": Fault("no such model", 404),
    "empty": "",
    "refusal": Refusal("I will not."),
    "unreadable": "who knows",
}
SAYS_SOMETHING = {"empty", "refusal", "unreadable"}
RAN: Counter[str] = Counter()
TERMS = {
    "prices": PRICES,
    "equivalence": Label(["yes", "no"]),
    "max_disagreement": 0.4,
    "confidence": 0.8,
}


class LangChain:
    """The verbs of the chat model."""

    def __init__(self, url):
        def member(name):
            at = {"base_url": url, "api_key": "none", "timeout": 20}
            return ChatOpenAI(model=name, max_retries=0, **at)

        members = {"reference": member("big"), "candidates": [member("small")]}
        self.smart = SmartChatModel(**members, **TERMS)

    def whole(self, item):
        return self.smart.invoke(item).content

    async def awhole(self, item):
        return (await self.smart.ainvoke(item)).content

    def pieces(self, item):
        return "".join(chunk.content for chunk in self.smart.stream(item))

    async def apieces(self, item):
        return "".join([chunk.content async for chunk in self.smart.astream(item)])

    def batch(self, items):
        return [answer.content for answer in self.smart.batch(items)]

    async def abatch(self, items):
        return [answer.content for answer in await self.smart.abatch(items)]


class LlamaIndex:
    """The verbs of the LLM."""

    def __init__(self, url):
        def member(name):
            at = {"api_base": url, "api_key": "none", "timeout": 20}
            return OpenAILike(model=name, max_retries=0, is_chat_model=True, **at)

        members = {"reference": member("big"), "candidates": [member("small")]}
        self.smart = SmartLLM(**members, **TERMS)

    def whole(self, item):
        return self.smart.complete(item).text

    async def awhole(self, item):
        return (await self.smart.acomplete(item)).text

    def pieces(self, item):
        pieces = self.smart.stream_chat([ChatMessage(content=item)])
        return "".join(piece.delta or "" for piece in pieces)

    async def apieces(self, item):
        pieces = await self.smart.astream_chat([ChatMessage(content=item)])
        return "".join([piece.delta or "" async for piece in pieces])

    def batch(self, items):
        return [answer.text for answer in self.smart.complete_batch(items)]

    async def abatch(self, items):
        return [answer.text for answer in await self.smart.acomplete_batch(items)]


async def answers_of(adapter, verb, mode):
    ask = getattr(adapter, f"a{verb}" if mode == "async" else verb)
    if verb == "batch":
        return (
            await ask(ITEMS) if mode == "async" else await asyncio.to_thread(ask, ITEMS)
        )
    said = []
    for item in ITEMS:
        answer = ask(item)
        said.append(await answer if mode == "async" else answer)
    return said


@pytest.mark.parametrize("adapter", [LangChain, LlamaIndex])
@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("verb", ["whole", "pieces", "batch"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_candidate_at_fault(fault, verb, mode, adapter):
    RAN[adapter.__name__] += 1

    def script(model, text, attempt):
        bad = model == "small" and int(text.split()[-1]) % 3 == 0
        return FAULTS[fault] if bad else "yes"

    with serve(script) as server:
        asked = adapter(server.url)
        said = await asyncio.wait_for(answers_of(asked, verb, mode), 60)
        report = asked.smart.report()
        for name, spend in report.spend.items():
            assert spend.calls == server.requests[name]
            assert spend.input_tokens == server.input_tokens[name]
            assert spend.output_tokens == server.output_tokens[name]
    wrong = sum(text != "yes" for text in said)
    shown = verb == "pieces" and fault in SAYS_SOMETHING
    assert wrong <= (0.4 * len(ITEMS) if shown else 0)
    assert fault in SAYS_SOMETHING or report.spend["small"].failures > 0
    for stream in report.streams:
        assert stream.in_flight == 0


def test_every_case_ran():
    assert set(RAN.values()) == {len(FAULTS) * 3 * 2}
