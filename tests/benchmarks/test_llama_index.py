"""What the smart LLM adds to its member's own chat, side by side in one run."""

from __future__ import annotations

import asyncio
import statistics
import time

import pytest
from llama_index.core.llms import ChatMessage, MockLLM

from llama_index_smart import Price, SmartLLM

ROUNDS = 2000
BOUND = 0.5e-3


class Big(MockLLM):
    """A model that answers at once, and tells what that used."""

    @classmethod
    def class_name(cls) -> str:
        return "Big"

    def chat(self, messages, **kwargs):
        return _counted(super().chat(messages, **kwargs))

    async def achat(self, messages, **kwargs):
        return _counted(await super().achat(messages, **kwargs))


class Small(Big):
    """Another."""

    @classmethod
    def class_name(cls) -> str:
        return "Small"


def _counted(response):
    response.additional_kwargs = {"prompt_tokens": 100, "completion_tokens": 1}
    return response


def smart_over(member: MockLLM) -> SmartLLM:
    prices = {"Big": Price(10, 30), "Small": Price(0.1, 0.4)}
    return SmartLLM(reference=member, candidates=[Small()], prices=prices)


def median(seconds: list[float]) -> float:
    return statistics.median(seconds)


@pytest.mark.bench
def test_overhead_per_chat():
    member = Big()
    smart, messages = smart_over(member), [ChatMessage(content="yes")]
    ours, theirs = [], []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        member.chat(messages)
        between = time.perf_counter()
        smart.chat(messages, smart_model="Big")
        theirs.append(between - started)
        ours.append(time.perf_counter() - between)
    added = median(ours) - median(theirs)
    print(f"\nchat: {added * 1e3:.3f} ms added to {median(theirs) * 1e3:.3f} ms")
    assert added <= BOUND


@pytest.mark.bench
def test_overhead_per_chat_of_a_stream():
    member = Big()
    smart, messages = smart_over(member), [ChatMessage(content="yes")]
    for _ in range(3000):  # until most items are served without an audit
        smart.chat(messages)
    ours, theirs = [], []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        member.chat(messages)
        between = time.perf_counter()
        answer = smart.chat(messages)
        ended = time.perf_counter()
        theirs.append(between - started)
        if answer.additional_kwargs["smart"]["role"] == "applied":
            ours.append(ended - between)
    assert len(ours) > ROUNDS / 2
    added = median(ours) - median(theirs)
    print(f"\nserved chat: {added * 1e3:.3f} ms added to {median(theirs) * 1e3:.3f} ms")
    assert added <= BOUND


@pytest.mark.bench
def test_overhead_per_achat():
    async def run() -> float:
        member = Big()
        smart, messages = smart_over(member), [ChatMessage(content="yes")]
        ours, theirs = [], []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            await member.achat(messages)
            between = time.perf_counter()
            await smart.achat(messages, smart_model="Big")
            theirs.append(between - started)
            ours.append(time.perf_counter() - between)
        return median(ours) - median(theirs)

    added = asyncio.run(run())
    print(f"\nachat: {added * 1e3:.3f} ms added")
    assert added <= BOUND
