"""Calls that begin together leave the event loop free between them, whatever the verb.

Nothing here looks at a clock: passes of the loop are counted, and every answer waits
until all calls are in flight, so that a limit on them would never end.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from llama_index.core.llms import CompletionResponse, CustomLLM
from llama_index.core.llms import LLMMetadata as Metadata

from langchain_smart import Price, SmartChatModel, SmartRunnable
from llama_index_smart import SmartLLM

CALLS = 40
ONE_EACH = {
    "prices": {"big": Price.free(), "small": Price.free()},
    "strategy": "reference",
    "max_concurrency": CALLS,
}


class Gate:
    """Opens when so many are in flight; counts who came in which pass of the loop."""

    def __init__(self, calls: int = CALLS) -> None:
        self.calls = calls
        self.came: Counter[int] = Counter()
        self._pass = 0
        self._loop = asyncio.get_running_loop()
        self._open = asyncio.Event()
        self._next()

    def _next(self) -> None:
        self._pass += 1
        if not self._open.is_set():
            self._loop.call_soon(self._next)

    async def go_through(self) -> None:
        self.came[self._pass] += 1
        if self.came.total() == self.calls:
            self._open.set()
        async with asyncio.timeout(60):
            await self._open.wait()


class Chat(BaseChatModel):
    gate: Any

    @property
    def _llm_type(self):
        return "gated"

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        raise NotImplementedError

    async def _agenerate(self, messages, stop=None, run_manager=None, **kwargs):
        await self.gate.go_through()
        message = AIMessage(messages[-1].text)
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _astream(self, messages, stop=None, run_manager=None, **kwargs):
        await self.gate.go_through()
        yield ChatGenerationChunk(message=AIMessageChunk(content=messages[-1].text))


class Llama(CustomLLM):
    gate: Any
    name: str

    @property
    def metadata(self):
        return Metadata(model_name=self.name)

    def complete(self, prompt, formatted=False, **kwargs):
        raise NotImplementedError

    def stream_complete(self, prompt, formatted=False, **kwargs):
        raise NotImplementedError

    async def acomplete(self, prompt, formatted=False, **kwargs):
        await self.gate.go_through()
        return CompletionResponse(text=prompt)

    async def astream_complete(self, prompt, formatted=False, **kwargs):
        async def pieces():
            await self.gate.go_through()
            yield CompletionResponse(text=prompt, delta=prompt)

        return pieces()


def chat(gate):
    big, small = (Chat(name=name, gate=gate) for name in ONE_EACH["prices"])
    return SmartChatModel(reference=big, candidates=[small], **ONE_EACH)


def chain(gate):
    """A smart chain whose tiers are smart: both take turns."""
    inner = chat(gate)
    return SmartRunnable(
        reference={"plain": inner | StrOutputParser()},
        candidates={"stripped": str.strip | inner | StrOutputParser()},
        **ONE_EACH,
    )


def llama(gate):
    big, small = (Llama(name=name, gate=gate) for name in ONE_EACH["prices"])
    return SmartLLM(reference=big, candidates=[small], **ONE_EACH)


async def each(say, items):
    return await asyncio.gather(*(say(item) for item in items))


async def joined(pieces):
    return "".join([piece async for piece in pieces])


async def chat_invoked(gate, items):
    return await each((chat(gate) | StrOutputParser()).ainvoke, items)


async def chat_streamed(gate, items):
    smart = chat(gate) | StrOutputParser()
    return await each(lambda item: joined(smart.astream(item)), items)


async def chat_batched(gate, items):
    return await (chat(gate) | StrOutputParser()).abatch(items)


async def chain_invoked(gate, items):
    return await each(chain(gate).ainvoke, items)


async def chain_streamed(gate, items):
    smart = chain(gate)
    return await each(lambda item: joined(smart.astream(item)), items)


async def llama_completed(gate, items):
    return [answer.text for answer in await each(llama(gate).acomplete, items)]


async def llama_streamed(gate, items):
    smart = llama(gate)

    async def say(item):
        pieces = await smart.astream_complete(item)
        return "".join([piece.delta async for piece in pieces])

    return await each(say, items)


async def llama_batched(gate, items):
    return [answer.text for answer in await llama(gate).acomplete_batch(items)]


VERBS = [
    chat_invoked,
    chat_streamed,
    chat_batched,
    chain_invoked,
    chain_streamed,
    llama_completed,
    llama_streamed,
    llama_batched,
]


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.__name__)
async def test_one_call_begins_in_each_pass_and_all_are_in_flight_at_once(verb):
    gate = Gate()
    items = [f"item {number}" for number in range(CALLS)]
    assert await verb(gate, items) == items
    assert sorted(gate.came.values()) == [1] * CALLS
