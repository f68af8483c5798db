"""One answer, piece by piece: the user sees it as it comes, and the books hold."""

from __future__ import annotations

import asyncio
import threading

import pytest
from fakes import Scripted
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.messages import AIMessageChunk
from langchain_core.runnables import RunnableLambda
from langchain_core.tracers.base import BaseTracer
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from loopback import Fault, serve

from langchain_smart import Price, SmartChatModel

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}
SYNC_AND_ASYNC = pytest.mark.parametrize("mode", ["sync", "async"])


def smart_at(server, **member) -> SmartChatModel:
    member = {"timeout": 20, "max_retries": 0, "api_key": "none", **member}
    big, small = (
        ChatOpenAI(model=name, base_url=server.url, **member) for name in PRICES
    )
    return SmartChatModel(reference=big, candidates=[small], prices=PRICES)


async def chunks_of(mode, smart, given="why?", most=None):
    seen = []
    if mode == "sync":
        stream = smart.stream(given)
        for chunk in stream:
            seen.append(chunk)
            if len(seen) == most:
                stream.close()
                break
    else:
        stream = smart.astream(given)
        async for chunk in stream:
            seen.append(chunk)
            if len(seen) == most:
                await stream.aclose()
                break
    return seen


def whole(chunks) -> AIMessageChunk:
    message = chunks[0]
    for chunk in chunks[1:]:
        message += chunk
    return message


@SYNC_AND_ASYNC
async def test_the_pieces_make_the_answer_that_invoke_gives(mode):
    with serve(lambda *_: "forty-two") as server:
        smart = smart_at(server)
        chunks = await chunks_of(mode, smart)
        message, plain = whole(chunks), smart.invoke("why?")
    assert len(chunks) > len("forty-two")
    assert message.content == plain.content == "forty-two"
    same = ("input_tokens", "output_tokens", "total_tokens")
    for key in same:
        assert message.usage_metadata[key] == plain.usage_metadata[key]
    for key in ("smart", "model_name", "finish_reason"):
        assert message.response_metadata[key] == plain.response_metadata[key]
    assert chunks[0].response_metadata["smart"]["model"] == "big"
    assert [c.chunk_position for c in chunks if c.chunk_position] == ["last"]
    assert len({chunk.id for chunk in chunks}) == 1


@SYNC_AND_ASYNC
async def test_a_stream_is_in_the_books_to_the_token(mode):
    with serve(lambda *_: "forty-two") as server:
        smart = smart_at(server)
        for _ in range(3):
            await chunks_of(mode, smart)
        spend = smart.report().spend["big"]
        assert spend.calls == server.requests["big"] == 3
        assert spend.input_tokens == server.input_tokens["big"]
        assert spend.output_tokens == server.output_tokens["big"]


async def booked(smart, calls):
    """Wait until so many calls are booked: core leaves closing to the event loop."""
    while smart.report().spend["big"].calls < calls:
        await asyncio.sleep(0.01)
    return smart.report().spend["big"]


@SYNC_AND_ASYNC
async def test_a_stream_that_is_broken_off_is_a_failed_call(mode):
    with serve(lambda *_: "forty-two") as server:
        smart = smart_at(server)
        assert len(await chunks_of(mode, smart, most=3)) == 3
        spend = await booked(smart, 1)
        assert (spend.calls, spend.failures) == (1, 1)


@SYNC_AND_ASYNC
async def test_what_a_broken_stream_has_told_of_its_usage_is_in_the_books(mode):
    with serve(lambda *_: "forty-two") as server:
        smart = smart_at(server)
        chunks = await chunks_of(mode, smart)
        await chunks_of(mode, smart, most=len(chunks) - 1)  # all but the ending
        spend = await booked(smart, 2)
        assert (spend.calls, spend.failures) == (2, 1)
        assert spend.output_tokens == server.output_tokens["big"]


@SYNC_AND_ASYNC
async def test_a_stream_that_fails_is_a_failed_call(mode):
    with serve(lambda *_: Fault("busy", 503)) as server:
        smart = smart_at(server)
        with pytest.raises(Exception, match="busy"):
            await chunks_of(mode, smart)
        spend = smart.report().spend["big"]
        assert (spend.calls, spend.failures) == (1, 1)


@pytest.mark.filterwarnings("ignore:big reported no usage")
@SYNC_AND_ASYNC
async def test_usage_is_asked_for_unless_you_have_said_no(mode):
    with serve(lambda *_: "forty-two") as server:
        await chunks_of(mode, smart_at(server))
        (streamed,) = [body for body in server.bodies if body["stream"]]
        assert streamed["stream_options"] == {"include_usage": True}
        refusing = smart_at(server, stream_usage=False)
        with pytest.raises(Exception, match="stream_usage=True"):
            await chunks_of(mode, refusing)
        *_, refused = [body for body in server.bodies if body["stream"]]
        assert "stream_options" not in refused
        assert refusing.report().spend["big"].failures == 1


@SYNC_AND_ASYNC
async def test_a_member_that_cannot_stream_answers_in_one_piece(mode):
    big, small = (Scripted(name=name, script=lambda *_: "yes") for name in PRICES)
    smart = SmartChatModel(reference=big, candidates=[small], prices=PRICES)
    chunks = await chunks_of(mode, smart)
    assert all(isinstance(chunk, AIMessageChunk) for chunk in chunks)
    assert [chunk.content for chunk in chunks if chunk.content] == ["yes"]
    assert whole(chunks).usage_metadata["input_tokens"] == len("why?")
    assert smart.report().spend["big"].output_tokens == 1


@SYNC_AND_ASYNC
async def test_the_first_piece_does_not_wait_for_the_last(mode):
    seen, in_time = threading.Event(), []

    class Slow(Scripted):
        def _stream(self, messages, stop=None, run_manager=None, **kwargs):
            from langchain_core.outputs import ChatGenerationChunk

            usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
            for text in ("a", "b", "c"):
                last = usage if text == "c" else None
                message = AIMessageChunk(content=text, usage_metadata=last)
                yield ChatGenerationChunk(message=message)
                in_time.append(seen.wait(60))

    big, small = (Slow(name=name, script=lambda *_: "yes") for name in PRICES)
    smart = SmartChatModel(reference=big, candidates=[small], prices=PRICES)
    said = []
    if mode == "sync":
        for piece in smart.stream("?"):
            said.append(piece.content)
            seen.set()
    else:
        async for piece in smart.astream("?"):
            said.append(piece.content)
            seen.set()
    assert said[:3] == ["a", "b", "c"]
    assert in_time == [True] * 3


class Roots(BaseTracer):
    """Keeps every finished root run."""

    def __init__(self):
        super().__init__()
        self.roots = []

    def _persist_run(self, run):
        self.roots.append(run)


@pytest.mark.parametrize("road", ["stream", "astream", "events", "log", "graph"])
async def test_members_are_traced_below_a_stream_and_shown_once(road):
    with serve(lambda *_: "forty-two") as server:
        smart, tracer = smart_at(server), Roots()
        counter = UsageMetadataCallbackHandler()
        config = {"callbacks": [tracer, counter], "tags": ["mine"]}
        step = RunnableLambda(smart.invoke, smart.ainvoke)
        if road == "stream":
            said = "".join(chunk.content for chunk in smart.stream("why?", config))
        elif road == "astream":
            said = whole([c async for c in smart.astream("why?", config)]).content
        elif road == "events":
            said = ""
            async for event in step.astream_events("why?", config, version="v2"):
                if event["event"] == "on_chat_model_stream":
                    said += event["data"]["chunk"].content
        elif road == "log":
            said = ""
            async for patch in step.astream_log("why?", config):
                for change in patch.ops:
                    if change["path"].endswith("/streamed_output_str/-"):
                        said += change["value"]
        else:
            graph = StateGraph(MessagesState)
            graph.add_node("ask", lambda s: {"messages": [smart.invoke(s["messages"])]})
            graph.add_edge(START, "ask")
            given = {"messages": [("human", "why?")]}
            compiled = graph.compile()
            pieces = compiled.stream(given, config, stream_mode="messages")
            said = "".join(chunk.content for chunk, _ in pieces)
        billed = sum(server.input_tokens.values()) + sum(server.output_tokens.values())
    assert said == "forty-two"
    assert sum(u["total_tokens"] for u in counter.usage_metadata.values()) == billed
    (run,) = tracer.roots
    while run.run_type != "llm":
        (run,) = run.child_runs
    assert run.name == "SmartChatModel"
    assert len(run.child_runs) == sum(server.requests.values()) == 2
    for member in run.child_runs:
        assert member.name == "ChatOpenAI"
        assert "mine" in member.tags
        assert member.error is run.error is None


def test_the_cache_does_not_see_who_watches():
    cache = InMemoryCache()
    big, small = (Scripted(name=name, script=lambda *_: "yes") for name in PRICES)
    smart = SmartChatModel(
        reference=big, candidates=[small], prices=PRICES, cache=cache
    )
    for config in ({}, {"callbacks": [Roots()]}, {"callbacks": [Roots()]}):
        smart.invoke("?", config)
    assert len(big.calls) == 1
