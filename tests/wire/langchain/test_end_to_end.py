"""Whole programs over real HTTP: an agent with tools, and maps in LangGraph."""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import START, StateGraph
from langgraph.types import Send
from loopback import Calls, serve

from langchain_smart import Label, Price, SmartChatModel

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}
QUESTIONS = [f"{('add', 'double', 'spell')[n % 3]} {n}" for n in range(50)]
ITEMS = [f"ticket {n}" for n in range(300)]
FEW = pytest.param(60, 0.3, id="60")
MANY = pytest.param(300, 0.1, id="300", marks=pytest.mark.slow)
SIZES = pytest.mark.parametrize(("items", "share"), [FEW, MANY])
"""How many items, and which share of their answers may differ."""


@tool
def add(number: int) -> str:
    """Add a hundred to a number."""
    return str(number + 100)


@tool
def double(number: int) -> str:
    """Double a number."""
    return str(2 * number)


@tool
def spell(number: int) -> str:
    """Spell a number."""
    return "-".join(str(number))


def by_tool(model, text, attempt):
    """Call the tool that the question names, then say what it returned."""
    last = text.body["messages"][-1]
    if last["role"] == "tool":
        return f"It is {text}."
    name, number = text.split()
    return Calls([(name, {"number": int(number)})])


def label(model, text, attempt):
    """Sort by number; `small` errs on one in fifty."""
    number = int(text.split()[-1])
    right = ["billing", "bug"][number % 2]
    return "other" if model == "small" and number % 50 == 7 else right


def smart_at(server, **settings) -> SmartChatModel:
    big, small = (
        ChatOpenAI(model=name, base_url=server.url, api_key="none", timeout=20)
        for name in PRICES
    )
    return SmartChatModel(reference=big, candidates=[small], prices=PRICES, **settings)


def assert_ledger_is_the_bill(smart, server) -> None:
    for name, spend in smart.report().spend.items():
        assert spend.calls == server.requests[name]
        assert spend.input_tokens == server.input_tokens[name]
        assert spend.output_tokens == server.output_tokens[name]


@pytest.mark.parametrize(
    ("asked", "share"), [(20, 0.4), pytest.param(50, 0.2, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_an_agent_answers_questions_with_three_tools(mode, asked, share):
    questions = QUESTIONS[:asked]
    with serve(by_tool) as server:
        smart = smart_at(server, max_disagreement=share)
        agent = create_agent(smart, [add, double, spell])
        given = [{"messages": [("human", question)]} for question in questions]
        config = {"max_concurrency": 8}
        if mode == "sync":
            states = agent.batch(given, config)
        else:
            states = await agent.abatch(given, config)
        tools = {"add": add, "double": double, "spell": spell}
        for question, state in zip(questions, states, strict=True):
            name, number = question.split()
            expected = tools[name].invoke({"number": int(number)})
            assert state["messages"][-1].content == f"It is {expected}."
            assert [m.type for m in state["messages"]] == ["human", "ai", "tool", "ai"]
        assert_ledger_is_the_bill(smart, server)
    report = smart.report()
    (stream,) = report.streams
    assert stream.answered == 2 * asked
    assert stream.equivalence.startswith("same tool calls as JSON")
    assert stream.served["small"] > asked / 5
    assert report.saved == pytest.approx(
        2 * asked * stream.reference_cost - report.cost
    )
    assert report.saved > 0


class Batch(TypedDict):
    """A batch of tickets, and their labels."""

    tickets: list[str]
    labels: Annotated[list[tuple[str, str]], operator.add]


@SIZES
def test_a_graph_that_maps_in_one_node_saves(items, share):
    tickets = ITEMS[:items]
    with serve(label) as server:
        rule = Label(["billing", "bug", "other"])
        smart = smart_at(server, equivalence=rule, max_disagreement=share)

        def sort_all(state: Batch) -> dict[str, Any]:
            answers = smart.batch(state["tickets"])
            said = [answer.content for answer in answers]
            return {"labels": list(zip(state["tickets"], said, strict=True))}

        graph = StateGraph(Batch)
        graph.add_node("sort", sort_all)
        graph.add_edge(START, "sort")
        labels = dict(graph.compile().invoke({"tickets": tickets})["labels"])
        assert_ledger_is_the_bill(smart, server)
    report = smart.report()
    differ = sum(labels[item] != label("big", item, 1) for item in tickets)
    assert differ <= report.certificates[0].max_errors
    assert report.saved > 0.5 * report.certificates[0].reference_only_cost
    assert report.saved == pytest.approx(report.certificates[0].saved)


@SIZES
async def test_a_graph_that_sends_each_item_gets_every_answer(items, share):
    tickets = ITEMS[:items]
    with serve(label) as server:
        smart = smart_at(server, max_disagreement=share)

        async def sort_one(ticket: str) -> dict[str, Any]:
            return {"labels": [(ticket, (await smart.ainvoke(ticket)).content)]}

        graph = StateGraph(Batch)
        graph.add_node("sort", sort_one)
        graph.add_conditional_edges(
            START, lambda state: [Send("sort", ticket) for ticket in state["tickets"]]
        )
        state = await graph.compile().ainvoke(
            {"tickets": tickets}, {"max_concurrency": 16}
        )
        assert_ledger_is_the_bill(smart, server)
    labels, report = dict(state["labels"]), smart.report()
    (stream,) = report.streams
    differ = sum(labels[item] != label("big", item, 1) for item in tickets)
    assert differ <= stream.possible_misses <= stream.allowed == items * share
    assert stream.served["small"] > items / 10
    assert report.saved > 0
