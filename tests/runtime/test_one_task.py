"""A streamed member lives in one task, from its first step to its end."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

import anyio
import pytest
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langgraph.graph import START, MessagesState, StateGraph
from llama_index.core.llms import ChatMessage

from langchain_smart import Price, SmartChatModel
from llama_index_smart import SmartLLM

PRICES = {"big": Price.free(), "small": Price.free()}
_depth: ContextVar[int] = ContextVar("depth")


class Variable:
    """Sets a variable of its context, and sets it back."""

    async def __aenter__(self):
        self.token = _depth.set(1)

    async def __aexit__(self, *error):
        _depth.reset(self.token)  # raises in another context


class Within:
    """`anyio.fail_after` in an `async with`."""

    async def __aenter__(self):
        self.scope = anyio.fail_after(30)
        self.scope.__enter__()

    async def __aexit__(self, *error):
        return self.scope.__exit__(*error)


SCOPES = {
    "task group": anyio.create_task_group,
    "fail_after": Within,
    "timeout": lambda: asyncio.timeout(30),
    "variable": Variable,
}


class Scoped(BaseChatModel):
    """Streams three pieces within a scope; says which tasks it was in."""

    scope: str
    fails: bool = False
    tasks: Any
    asked: Any

    @property
    def _llm_type(self):
        return "scoped"

    def _generate(self, *args, **kwargs):
        answer = ChatGeneration(message=AIMessage("abc"))
        return ChatResult(generations=[answer])

    async def _astream(self, messages, stop=None, run_manager=None, **kwargs):
        try:
            async with SCOPES[self.scope]():
                for piece in "abc":
                    self.asked.append(piece)
                    self.tasks.add(asyncio.current_task())
                    await asyncio.sleep(0)
                    if self.fails and piece == "c":
                        raise ValueError("broken")
                    yield ChatGenerationChunk(message=AIMessageChunk(content=piece))
        finally:
            self.tasks.add(asyncio.current_task())


def chat(big, small):
    smart = SmartChatModel(reference=big, candidates=[small], prices=PRICES)
    return smart.astream("it")


async def llama(big, small):
    smart = SmartLLM(reference=big, candidates=[small], prices=PRICES)
    async for piece in await smart.astream_chat([ChatMessage("it")]):
        yield piece


def graph(big, small):
    smart = SmartChatModel(reference=big, candidates=[small], prices=PRICES)

    async def answer(state):
        pieces = [piece async for piece in smart.astream(state["messages"])]
        return {"messages": [sum(pieces[1:], pieces[0])]}

    made = StateGraph(MessagesState).add_node(answer).add_edge(START, "answer")
    return made.compile().astream({"messages": "it"}, stream_mode="messages")


async def consumed(pieces, *, apart, most=None):
    """Consume pieces; if `apart`, each step in a task of its own, as LangGraph does."""

    async def step(coroutine):
        return await (asyncio.create_task(coroutine) if apart else coroutine)

    seen = 0
    while most is None or seen < most:
        try:
            await step(anext(pieces))
        except StopAsyncIteration:
            return
        seen += 1
    await step(pieces.aclose())


def member(name, scope, **how):
    return Scoped(name=name, scope=scope, tasks=set(), asked=[], **how)


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("stream", [chat, llama, graph])
async def test_scopes_within_a_member_hold(stream, scope, apart):
    big, small = (member(name, scope) for name in PRICES)
    before = asyncio.all_tasks()
    await consumed(stream(big, small), apart=apart)
    assert big.asked == [*"abc"]
    assert len(big.tasks) == 1
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("stream", [chat, llama])
async def test_who_leaves_ends_the_member_in_its_own_task(stream, scope):
    big, small = (member(name, scope) for name in PRICES)
    before, problems = asyncio.all_tasks(), []
    asyncio.get_running_loop().set_exception_handler(lambda _, c: problems.append(c))
    await consumed(stream(big, small), apart=True, most=2)
    async with asyncio.timeout(30):
        while asyncio.all_tasks() != before:
            await asyncio.sleep(0)
    assert len(big.tasks) == 1
    assert not problems


@pytest.mark.parametrize("stream", [chat, llama])
async def test_a_member_is_no_further_than_its_consumer(stream):
    big, small = (member(name, "timeout") for name in PRICES)
    pieces = stream(big, small)
    await anext(pieces)
    for _ in range(20):
        await asyncio.sleep(0)
    assert big.asked == ["a"]
    await pieces.aclose()


@pytest.mark.parametrize("scope", ["timeout", "variable", "fail_after"])
@pytest.mark.parametrize("stream", [chat, llama])
async def test_its_error_is_raised_where_the_stream_is_consumed(stream, scope):
    big, small = (member(name, scope, fails=True) for name in PRICES)
    with pytest.raises(ValueError, match="broken"):
        await consumed(stream(big, small), apart=True)
    assert len(big.tasks) == 1
