"""What goes wrong in other routers' chat models, and does not here.

Each test is one defect seen in a peer, in the order of a user's day: structured output,
tools, streams, callbacks, costs, batches, failures, event loops, bindings.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from dutiful import dutiful
from fakes import Foreign, Scripted
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import (
    UsageMetadataCallbackHandler,
    get_usage_metadata_callback,
)
from langchain_core.messages import AIMessage
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.runnables import RunnableLambda
from langchain_core.tracers.base import BaseTracer
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from loopback import serve
from pydantic import BaseModel

from langchain_smart import Price, SmartChatModel
from smart_engine import InvalidInputError

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}
ITEMS = [f"item {n}" for n in range(36)]


class Fact(BaseModel):
    """A fact."""

    number: int


class Roots(BaseTracer):
    """Keeps every finished root run."""

    def __init__(self):
        super().__init__()
        self.roots = []

    def _persist_run(self, run):
        self.roots.append(run)


def smart_at(server, **settings) -> SmartChatModel:
    big, small = (
        ChatOpenAI(model=name, base_url=server.url, api_key="none", timeout=20)
        for name in PRICES
    )
    return SmartChatModel(reference=big, candidates=[small], prices=PRICES, **settings)


def scripted_pair(big: Any = "yes", small: Any = "yes", **settings) -> SmartChatModel:
    def member(name, answer):
        script = answer if callable(answer) else lambda *_: answer
        return Scripted(name=name, script=script)

    reference, candidate = member("big", big), member("small", small)
    return SmartChatModel(
        reference=reference, candidates=[candidate], prices=PRICES, **settings
    )


def graph_of(smart):
    async def node(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await smart.ainvoke(state["messages"])]}

    def sync_node(state: MessagesState) -> dict[str, Any]:
        return {"messages": [smart.invoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("ask", RunnableLambda(sync_node, node))
    graph.add_edge(START, "ask")
    return graph.compile()


async def test_structured_output_can_be_invoked():
    with serve(dutiful) as server:
        model = smart_at(server).with_structured_output(Fact)
        assert model.invoke("fact 7") == await model.ainvoke("fact 7") == Fact(number=7)


def test_a_member_never_sees_another_providers_tools():
    foreign = Foreign(name="small", script=lambda *_: AIMessage("no tool"))
    with serve(dutiful) as server:
        big = ChatOpenAI(model="big", base_url=server.url, api_key="none")
        smart = SmartChatModel(reference=big, candidates=[foreign], prices=PRICES)
        smart.bind_tools([Fact]).batch(ITEMS)
        assert all("function" in tool for b in server.bodies for tool in b["tools"])
    assert all("function" not in t for _, kw in foreign.calls for t in kw["tools"])


async def test_a_stream_shows_one_answer():
    with serve(lambda model, *_: f"the {model} answer") as server:
        smart = smart_at(server)
        sync = [chunk.content for chunk in smart.stream("?")]
        asynchronous = [chunk.content async for chunk in smart.astream("?")]
        events = [
            event["data"]["chunk"].content
            async for event in smart.astream_events("?", version="v2")
            if event["event"] == "on_chat_model_stream"
        ]
    for chunks in (sync, asynchronous, events):
        assert "".join(chunks) == "the big answer"
        assert len(chunks) > 10


@pytest.mark.parametrize("verb", ["invoke", "ainvoke", "stream", "astream", "batch"])
async def test_stop_is_kept(verb):
    with serve(lambda *_: "one two three") as server:
        smart = smart_at(server)
        stop = ["two"]
        if verb == "stream":
            said = "".join(c.content for c in smart.stream("?", stop=stop))
        elif verb == "astream":
            said = "".join([c.content async for c in smart.astream("?", stop=stop)])
        elif verb == "batch":
            said = smart.batch(["?"], stop=stop)[0].content
        elif verb == "ainvoke":
            said = (await smart.bind(stop=stop).ainvoke("?")).content
        else:
            said = smart.invoke("?", stop=stop).content
        assert said == "one "
        assert all(body["stop"] == stop for body in server.bodies)


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_langgraph_shows_each_token_once(mode):
    with serve(lambda model, *_: f"the {model} answer") as server:
        graph = graph_of(smart_at(server))
        given = {"messages": [("human", "?")]}
        if mode == "sync":
            pieces = list(graph.stream(given, stream_mode="messages"))
        else:
            pieces = [p async for p in graph.astream(given, stream_mode="messages")]
        assert server.requests["big"] == 1
    assert "".join(chunk.content for chunk, _ in pieces) == "the big answer"
    assert len({chunk.id for chunk, _ in pieces}) == 1


@pytest.mark.parametrize("verb", ["invoke", "ainvoke", "batch", "abatch"])
async def test_members_are_traced_below_and_counted_once(verb):
    with serve(lambda *_: "yes") as server:
        smart, tracer = smart_at(server), Roots()
        counter = UsageMetadataCallbackHandler()
        config = {"callbacks": [tracer, counter]}
        given = ITEMS if "batch" in verb else ITEMS[0]
        with get_usage_metadata_callback() as ambient:
            answering = getattr(smart, verb)(given, config)
            if verb.startswith("a"):
                await answering
        billed = sum(server.input_tokens.values()) + sum(server.output_tokens.values())
        for counts in (ambient.usage_metadata, counter.usage_metadata):
            assert sum(u["total_tokens"] for u in counts.values()) == billed
        assert all(root.run_type == "llm" for root in tracer.roots)
        below = Counter(r.name for root in tracer.roots for r in root.child_runs)
        assert below == {"ChatOpenAI": sum(server.requests.values())}


@pytest.mark.parametrize("verb", ["stream", "astream"])
async def test_the_tokens_of_a_stream_are_counted_once(verb):
    with serve(lambda *_: "forty-two") as server:
        smart, counter = smart_at(server), UsageMetadataCallbackHandler()
        config = {"callbacks": [counter]}
        with get_usage_metadata_callback() as ambient:
            if verb == "stream":
                list(smart.stream("why?", config))
            else:
                [chunk async for chunk in smart.astream("why?", config)]
        billed = sum(server.input_tokens.values()) + sum(server.output_tokens.values())
        for counts in (ambient.usage_metadata, counter.usage_metadata):
            assert sum(u["total_tokens"] for u in counts.values()) == billed > 0


def test_costs_come_from_usage_and_an_unknown_price_is_an_error():
    with serve(lambda *_: "yes") as server:
        smart = smart_at(server)
        smart.batch(ITEMS)
        for name, spend in smart.report().spend.items():
            price, spent = PRICES[name], server.input_tokens[name]
            expected = spent * price.input + server.output_tokens[name] * price.output
            assert spend.cost == pytest.approx(expected / 1e6)
        with pytest.raises(InvalidInputError, match="no price is known"):
            SmartChatModel(
                reference=smart.reference,
                candidates=smart.candidates,
                prices={"big": Price(10, 30)},
            )


def test_a_batch_keeps_each_items_own_result():
    smart = scripted_pair(lambda text, _: f"to {text}", lambda text, _: f"to {text}")
    outputs = smart.batch(ITEMS)
    assert [output.content for output in outputs] == [f"to {item}" for item in ITEMS]
    told = [output.response_metadata["smart"] for output in outputs]
    cost = smart.report().cost
    assert sum(one["cost"] for one in told) == pytest.approx(cost)
    assert Counter(one["model"] for one in told) == smart.report().served


def test_a_candidates_exception_is_no_answer():
    smart = scripted_pair(small=lambda *_: ConnectionError("down"))
    assert {output.content for output in smart.batch(ITEMS)} == {"yes"}


async def test_a_sync_call_inside_an_event_loop_is_an_ordinary_call(recwarn):
    with serve(lambda *_: "yes") as server:
        smart = smart_at(server)
        assert smart.invoke("?").content == "yes"
        assert "".join(c.content for c in smart.stream("?")) == "yes"
        assert {output.content for output in smart.batch(ITEMS)} == {"yes"}
        assert len(smart.report().certificates) == 1
    await asyncio.sleep(0)
    assert not [w for w in recwarn if "never awaited" in str(w.message)]


def test_bindings_keep_cache_rate_limiter_and_name():
    limiter = InMemoryRateLimiter(requests_per_second=1000)
    smart = scripted_pair(cache=InMemoryCache(), rate_limiter=limiter, name="sorter")
    for bound in (
        smart.bind(stop=["x"]),
        smart.with_config(tags=["t"]),
        smart.bind(stop=["x"]).with_config(run_name="r"),
    ):
        tracer = Roots()
        for _ in range(2):
            bound.invoke("?", {"callbacks": [tracer]})
        kept = bound
        while hasattr(kept, "bound"):
            kept = kept.bound
        assert kept is smart
        assert kept.rate_limiter is limiter
        assert {root.name for root in tracer.roots} <= {"sorter", "r"}
    assert len(smart.reference.calls) == 2  # with stop, and without
