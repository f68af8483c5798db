"""An agent whose model calls are answered for less, with everything else as it was."""

from __future__ import annotations

import pytest
from fakes import Scripted
from langchain.agents import create_agent
from langchain.agents.middleware import wrap_model_call
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from loopback import Calls, serve
from pydantic import BaseModel

from langchain_smart import Price, SmartMiddleware
from smart_engine.errors import InvalidInputError
from smart_engine.serving.members import UnpricedError

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}
QUESTIONS = [f"{('add', 'double', 'spell')[n % 3]} {n}" for n in range(50)]


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


TOOLS = {"add": add, "double": double, "spell": spell}


class Answer(BaseModel):
    """The answer."""

    text: str


def by_tool(model, text, attempt):
    """Call the tool that the question names, then say what it returned."""
    body = text.body
    if body["messages"][-1]["role"] != "tool":
        name, number = text.split()
        return Calls([(name, {"number": int(number)})])
    if "response_format" in body:
        return Answer(text=text).model_dump_json()
    offered = [offer["function"]["name"] for offer in body["tools"]]
    if "Answer" in offered:
        return Calls([("Answer", {"text": text})])
    return f"It is {text}."


def openai(server, name):
    return ChatOpenAI(model=name, base_url=server.url, api_key="none", timeout=20)


def smart_at(server, **settings) -> SmartMiddleware:
    given = {"prices": PRICES, "max_disagreement": 0.2}
    return SmartMiddleware([openai(server, "small")], **(given | settings))


def assert_ledger_is_the_bill(smart, server) -> None:
    for name, spend in smart.report().spend.items():
        assert spend.calls == server.requests[name]
        assert spend.input_tokens == server.input_tokens[name]
        assert spend.output_tokens == server.output_tokens[name]


FORMATS = {
    "none": None,
    "tools": ToolStrategy(Answer),
    "provider": ProviderStrategy(Answer),
    "schema": Answer,
}


@pytest.mark.parametrize(
    ("asked", "share"), [(16, 0.5), pytest.param(50, 0.2, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_questions_with_three_tools(mode, form, asked, share):
    questions = QUESTIONS[:asked]
    with serve(by_tool) as server:
        smart = smart_at(server, max_disagreement=share)
        agent = create_agent(
            openai(server, "big"),
            list(TOOLS.values()),
            system_prompt="Be brief.",
            response_format=FORMATS[form],
            middleware=[smart],
        )
        given = [{"messages": [("human", question)]} for question in questions]
        config = {"max_concurrency": 4}
        if mode == "sync":
            states = agent.batch(given, config)
        else:
            states = await agent.abatch(given, config)
        for question, state in zip(questions, states, strict=True):
            name, number = question.split()
            expected = TOOLS[name].invoke({"number": int(number)})
            if form == "none":
                assert state["messages"][-1].content == f"It is {expected}."
            else:
                assert state["structured_response"] == Answer(text=expected)
        assert_ledger_is_the_bill(smart, server)
        for body in server.bodies:
            assert body["messages"][0] == {"role": "system", "content": "Be brief."}
            assert {offer["function"]["name"] for offer in body["tools"]} >= {*TOOLS}
            assert ("response_format" in body) == (form == "provider")
            if form in {"tools", "schema"}:
                assert body["tool_choice"] == "required"
    report = smart.report()
    (stream,) = report.streams
    assert stream.answered == 2 * asked
    assert stream.served["small"] > asked / 5
    assert report.saved > 0


def test_settings_of_the_request_reach_every_model():
    @wrap_model_call
    def cooler(request, handler):
        return handler(request.override(model_settings={"temperature": 0.25}))

    with serve(by_tool) as server:
        smart = smart_at(server, mode="shadow")
        agent = create_agent(openai(server, "big"), [add], middleware=[cooler, smart])
        agent.invoke({"messages": [("human", "add 1")]})
        assert server.requests == {"big": 2, "small": 2}
        assert {body["temperature"] for body in server.bodies} == {0.25}


def test_a_reference_of_its_own_replaces_the_agents_model():
    with serve(by_tool) as server:
        smart = smart_at(server, reference=openai(server, "big"))
        agent = create_agent(openai(server, "other"), [add], middleware=[smart])
        agent.invoke({"messages": [("human", "add 1")]})
        assert server.requests["other"] == 0
        assert_ledger_is_the_bill(smart, server)


def free(name):
    return Scripted(name=name, script=lambda *_: "yes")


FREE = {name: Price.free() for name in ("big", "small", "other")}


def test_the_stream_goes_on_where_the_model_changes_and_comes_back():
    models = [free("big"), free("other")]

    @wrap_model_call
    def choose(request, handler):
        return handler(request.override(model=models[len(request.messages) % 2]))

    smart = SmartMiddleware(
        [free("small")], prices=FREE, equivalence=lambda left, right: left == right
    )
    agent = create_agent(free("big"), middleware=[choose, smart])
    for number in range(20):
        agent.invoke({"messages": [("human", "?")] * (1 + number % 2)})
    assert [stream.answered for stream in smart.report().streams] == [10, 10]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"candidates": []}, "candidates"),
        ({"prices": {}}, "small"),
        ({"max_disagrement": 0.1}, "max_disagrement"),
        ({"mode": "?"}, "mode"),
        ({"equivalence": 3}, "equivalence"),
    ],
)
def test_settings_are_checked_before_the_agent_runs(wrong, field):
    given = {"candidates": [free("small")], "prices": FREE}
    with pytest.raises(InvalidInputError, match=field):
        SmartMiddleware(**(given | wrong))


def test_an_agents_model_without_a_price_is_an_error():
    smart = SmartMiddleware([free("small")], prices={"small": Price.free()})
    agent = create_agent(free("big"), middleware=[smart])
    with pytest.raises(UnpricedError, match="'big': Price"):
        agent.invoke({"messages": [("human", "?")]})
