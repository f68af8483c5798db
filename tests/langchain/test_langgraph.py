"""A smart chain in a LangGraph node reaches the graph as its reference alone would."""

from __future__ import annotations

from typing import TypedDict

import pytest
from langchain_core.callbacks import BaseCallbackHandler, dispatch_custom_event
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

from langchain_smart import Price, SmartRunnable

PRICES = {"long": Price.per_call(1), "short": Price.per_call(0.01)}


class State(TypedDict, total=False):
    item: str
    answer: str


def function(name, body):
    return RunnableLambda(body, name=name)


def subgraph(name, body, saver=None):
    builder = StateGraph(State)
    builder.add_node(f"{name} inside", lambda state: {"answer": body(state["item"])})
    builder.add_edge(START, f"{name} inside")
    into = RunnableLambda(lambda item: {"item": item})
    return into | builder.compile(checkpointer=saver) | (lambda state: state["answer"])


def smart_of(reference, candidate, **settings):
    return SmartRunnable(
        reference={"long": reference},
        candidates={"short": candidate},
        prices=PRICES,
        max_disagreement=0.4,
        seed=1,
        **settings,
    )


def graph_around(chain, **settings):
    def node(state, config):
        return {"answer": chain.invoke(state["item"], config)}

    async def anode(state, config):
        return {"answer": await chain.ainvoke(state["item"], config)}

    builder = StateGraph(State)
    builder.add_node("node", RunnableLambda(node, anode))
    return builder.add_edge(START, "node").compile(**settings)


async def updates(graph, verb, given, config=None, **kwargs):
    """Return what a graph streams, from either of its verbs."""
    kwargs["stream_mode"] = ["custom", "updates"]
    if verb == "stream":
        return list(graph.stream(given, config, **kwargs))
    return [part async for part in graph.astream(given, config, **kwargs)]


KINDS = pytest.mark.parametrize("kind", [function, subgraph])
VERBS = pytest.mark.parametrize("verb", ["stream", "astream"])


@KINDS
@VERBS
async def test_a_human_is_asked_by_the_reference_only_and_answers_it(kind, verb):
    told = []

    def asking(name):
        def body(item):
            told.append((name, interrupt(f"{name}: {item}?")))
            return told[-1][1]

        return kind(name, body)

    async def ask(chain):
        """Return all questions, and the answers after a human's reply to each."""
        graph = graph_around(chain, checkpointer=InMemorySaver())
        seen = []
        for n in range(4):
            config = {"configurable": {"thread_id": str(n)}}
            given = {"item": f"item {n}"}
            while True:
                *_, (_, last) = await updates(graph, verb, given, config)
                if "__interrupt__" not in last:
                    break
                seen += [each.value for each in last["__interrupt__"]]
                given = Command(resume=f"reply to {len(seen)}")
            seen.append(last["node"]["answer"])
        return seen

    control = await ask(asking("long"))
    told.clear()
    smart = smart_of(asking("long"), asking("short"))
    assert await ask(smart) == control
    assert {name for name, _ in told} == {"long"}
    spend = smart.report().spend
    assert spend["short"].calls == spend["short"].failures > 0


@KINDS
@VERBS
async def test_a_user_of_the_graph_hears_the_chain_whose_answer_is_handed_out(
    kind, verb
):
    def speaking(name):
        def body(item):
            get_stream_writer()(f"{name} works on {item}")
            return "yes"

        return kind(name, body)

    async def heard(chain):
        graph = graph_around(chain)
        return [
            [part[1:] for part in await updates(graph, verb, each, subgraphs=True)]
            for each in ({"item": f"item {n}"} for n in range(15))
        ]

    control = repr(await heard(speaking("long")))
    smart = smart_of(speaking("long"), speaking("short"))
    shown = await heard(smart)
    assert repr(shown).replace("short", "long") == control
    served = {name: repr(shown).count(f"{name} works") for name in PRICES}
    assert served == smart.report().served
    assert smart.report().spend["short"].calls > served["short"] > 0


async def test_no_handler_hears_the_custom_events_of_a_chain_that_is_not_shown():
    class Listener(BaseCallbackHandler):
        def on_custom_event(self, name, data, **kwargs):
            heard.append(data)

    def speaking(name):
        def body(item):
            dispatch_custom_event("works", name)
            return "yes"

        return function(name, body)

    heard = []
    smart = smart_of(speaking("long"), speaking("short"))
    for n in range(15):
        smart.invoke(f"item {n}", {"callbacks": [Listener()]})
        await smart.ainvoke(f"item {n}", {"callbacks": [Listener()]})
    served = smart.report().served
    assert {name: heard.count(name) for name in PRICES} == served
    assert smart.report().spend["short"].calls > served["short"] > 0


@pytest.mark.parametrize("saver", [None, True])
def test_a_candidate_saves_no_checkpoint_of_the_graph_around(saver):
    kept = InMemorySaver()
    smart = smart_of(
        subgraph("long", lambda item: "yes"),
        subgraph("short", lambda item: "yes", saver),
    )
    graph = graph_around(smart, checkpointer=kept)
    for n in range(12):
        graph.invoke({"item": "an item"}, {"configurable": {"thread_id": str(n)}})
    spend = smart.report().spend
    assert spend["short"].calls > spend["short"].failures == 0
    inside = [repr(each.checkpoint) for each in kept.list(None)]
    assert any("long inside" in each for each in inside)
    assert not any("short inside" in each for each in inside)


def test_a_batch_in_a_node_asks_a_human_for_the_reference_alone():
    def answer(item):
        return interrupt(f"long: {item}?") if item == "item 7" else "yes"

    smart = smart_of(
        function("long", answer),
        function("short", lambda item: interrupt("short?") or "yes"),
    )

    def node(state):
        return {"answer": repr(smart.batch([f"item {n}" for n in range(60)]))}

    builder = StateGraph(State).add_node("node", node).add_edge(START, "node")
    graph = builder.compile(checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    stopped = graph.invoke({"item": ""}, config)
    assert [each.value for each in stopped["__interrupt__"]] == ["long: item 7?"]
    answered = graph.invoke(Command(resume="no"), config)
    assert answered["answer"] == repr(["yes"] * 7 + ["no"] + ["yes"] * 52)
    assert smart.report().spend["short"].failures > 0
