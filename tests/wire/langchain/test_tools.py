"""Tools reach each member in its own form, and tool calls are what is compared."""

from __future__ import annotations

import pytest
from dutiful import dutiful
from fakes import Foreign, Scripted
from langchain.agents import create_agent
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.caches import InMemoryCache
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from loopback import Calls, serve
from pydantic import BaseModel

from langchain_smart import Price, SmartChatModel

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}
VERBS = ["invoke", "ainvoke", "stream", "astream", "batch", "abatch"]


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
def weather(place: str) -> str:
    """Say how the weather is."""
    return f"sunny in {place}"


class Answer(BaseModel):
    """The answer to a question."""

    number: int


async def ask(verb, runnable, given):
    """Return one answer, whatever the verb."""
    if verb == "invoke":
        return runnable.invoke(given)
    if verb == "ainvoke":
        return await runnable.ainvoke(given)
    if verb == "batch":
        return runnable.batch([given])[0]
    if verb == "abatch":
        return (await runnable.abatch([given]))[0]
    if verb == "stream":
        chunks = list(runnable.stream(given))
    else:
        chunks = [chunk async for chunk in runnable.astream(given)]
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return whole


def openai(server, name="big", **settings):
    return ChatOpenAI(
        model=name, base_url=server.url, api_key="none", timeout=20, **settings
    )


def called(name, **arguments):
    call = {"name": name, "args": arguments, "id": "1", "type": "tool_call"}
    return AIMessage(content="", tool_calls=[call])


def smart_of(reference, candidate, **settings):
    return SmartChatModel(
        reference=reference, candidates=[candidate], prices=PRICES, **settings
    )


@pytest.mark.parametrize("verb", VERBS)
async def test_each_member_gets_the_tools_in_its_own_form(verb):
    foreign = Foreign(name="small", script=lambda *_: called("add", a=3, b=3))
    with serve(dutiful) as server:
        smart = smart_of(openai(server), foreign)
        bound = smart.bind_tools([add, weather], tool_choice="any", strict=True)
        message = await ask(verb, bound, "add 3")
        assert [call["name"] for call in message.tool_calls] == ["add"]
        assert message.tool_calls[0]["args"] == {"a": 3, "b": 3}
        (body,) = server.bodies
        assert body["tool_choice"] == "required"
        assert [t["function"]["name"] for t in body["tools"]] == ["add", "weather"]
        assert all(t["function"]["strict"] for t in body["tools"])
        await ask(verb, bound.bind(model="small"), "add 3")
        _, kwargs = foreign.calls[-1]
        assert kwargs["tool_choice"] == {"type": "any"}
        assert [set(t) for t in kwargs["tools"]] == [{"name", "input_schema"}] * 2
        assert server.requests == {"big": 1}


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_a_batch_with_tools_is_one_session(mode):
    foreign = Foreign(name="small", script=lambda *_: called("add", b=3, a=3.0))
    with serve(dutiful) as server:
        smart = smart_of(openai(server), foreign)
        bound = smart.bind_tools([add], tool_choice="any")
        items = [f"add 3, please ({'x' * n})" for n in range(80)]
        for _ in range(2):
            if mode == "sync":
                outputs = bound.batch(items)
            else:
                outputs = await bound.abatch(items)
        assert all(o.tool_calls[0]["args"] == {"a": 3, "b": 3} for o in outputs)
        report = smart.report()
        assert [c.items for c in report.certificates] == [80, 80]
        assert report.served["small"] > 40
        assert report.spend["big"].calls == server.requests["big"]
    assert len(foreign.bindings) == 1
    assert "same tool calls as JSON" in report.certificates[0].claim


@pytest.mark.parametrize(
    "other",
    [
        called("add", a=3, b=4),
        called("subtract", a=3, b=3),
        AIMessage(content="6"),
        AIMessage(
            content="",
            invalid_tool_calls=[{"name": "add", "args": "{", "id": "1", "error": None}],
        ),
    ],
    ids=["arguments", "name", "text", "no JSON"],
)
def test_other_calls_are_other_answers(other):
    reference = Foreign(name="big", script=lambda *_: called("add", a=3, b=3))
    smart = smart_of(reference, Foreign(name="small", script=lambda *_: other))
    smart.bind_tools([add]).batch([str(n) for n in range(60)])
    (certificate,) = smart.report().certificates
    assert certificate.served["small"] <= certificate.max_errors


@pytest.mark.parametrize(
    "plain",
    [
        Scripted(name="small", script=lambda *_: "yes"),
        FakeListChatModel(name="small", responses=["yes"]),
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_member_without_tools_is_named_at_once(plain):
    smart = smart_of(Foreign(name="big", script=lambda *_: "yes"), plain)
    with pytest.raises(NotImplementedError, match="small cannot call tools"):
        smart.bind_tools([add])
    with pytest.raises(NotImplementedError, match="small cannot call tools"):
        smart.with_structured_output(Answer)


def test_a_tool_that_a_member_refuses_is_an_error_that_names_it():
    with serve(dutiful) as server:
        smart = smart_of(openai(server), openai(server, "small"))
        with pytest.raises(ValueError, match="tool") as caught:
            smart.bind_tools([{"no": "tool"}]).invoke("hello")
        assert "big.bind_tools" in caught.value.__notes__[0]
        assert server.bodies == []


def test_tools_may_also_come_with_the_call():
    schema = {"type": "object", "properties": {}}
    definition = {"type": "function", "function": {"name": "f", "parameters": schema}}
    foreign = Foreign(name="small", script=lambda *_: called("f"))
    with serve(dutiful) as server:
        smart = smart_of(openai(server), foreign)
        assert smart.invoke("go", tools=[definition]).tool_calls[0]["name"] == "f"
        assert smart.bind(tools=[definition]).batch(["go"])[0].tool_calls
        smart.invoke("go", tools=[definition], model="small", tool_choice="any")
    assert foreign.calls[-1][1]["tools"] == [{"name": "f", "input_schema": schema}]
    assert foreign.calls[-1][1]["tool_choice"] == {"type": "any"}


def test_the_cache_knows_one_choice_of_tools_from_another():
    with serve(dutiful) as server:
        smart = smart_of(openai(server), openai(server, "small"), cache=InMemoryCache())
        for runnable in (
            smart,
            smart.bind_tools([add]),
            smart.bind_tools([weather]),
            smart.bind_tools([add], tool_choice="none"),
        ):
            for _ in range(2):
                runnable.invoke("1")
        assert server.requests == {"big": 4, "small": 4}


STRATEGIES = {
    "tools": ToolStrategy(Answer),
    "provider": ProviderStrategy(Answer),
    "none": None,
}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_an_agent_takes_it_as_any_chat_model(strategy, mode):
    def script(model, text, attempt):
        asked = text.body["messages"]
        if strategy == "tools" and asked[-1]["role"] == "tool":
            return Calls([("Answer", {"number": int(text)})])
        return dutiful(model, text, attempt)

    with serve(script) as server:
        smart = smart_of(openai(server), openai(server, "small"))
        agent = create_agent(smart, [add], response_format=STRATEGIES[strategy])
        given = {"messages": [("human", "add 3")]}
        state = agent.invoke(given) if mode == "sync" else await agent.ainvoke(given)
        kinds = [message.type for message in state["messages"]]
        assert kinds[:3] == ["human", "ai", "tool"]
        assert state["messages"][2].content == "6"
        if strategy != "none":
            assert state["structured_response"] == Answer(number=6)
        if strategy == "provider":
            assert all("response_format" in body for body in server.bodies)
        spend = smart.report().spend["big"]
        assert spend.input_tokens == server.input_tokens["big"]
        assert spend.output_tokens == server.output_tokens["big"]
