"""A stream in a store is good for what it was learned on, and for nothing else."""

from __future__ import annotations

import warnings

import pytest
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from loopback import Calls, serve
from pydantic import BaseModel

from langchain_smart import Exact, Price, SmartChatModel
from langchain_smart.middleware import SmartMiddleware

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}
ASKED = [("system", "Answer yes or no."), ("human", "Well?")]
ARGUMENTS = [("look", {"where": "here"})]


@tool
def look(where: str) -> str:
    """Look somewhere."""
    return where


def say(model, text, attempt):
    return Calls(ARGUMENTS) if text.body.get("tools") else "yes"


@pytest.fixture(scope="module")
def server():
    with serve(say) as server:
        yield server


def members(server, **settings):
    at = {"base_url": server.url, "api_key": "none", "timeout": 20, **settings}
    return [ChatOpenAI(model=name, **at) for name in PRICES]


def smart_at(server, store, task="mail", member=None, **settings) -> SmartChatModel:
    big, small = members(server, **(member or {}))
    terms = {"prices": PRICES, "task": task, "store": store, **settings}
    return SmartChatModel(reference=big, candidates=[small], **terms)


def arrived(smart) -> int:
    (state,) = smart.report().streams
    return state.arrived


def ask(smart):
    return smart.invoke(ASKED)


def shout(smart):
    return smart.invoke([("system", "ANSWER YES OR NO."), *ASKED[1:]])


def with_tools(smart):
    return smart.bind_tools([look]).invoke(ASKED)


def with_others(smart):
    other = look.model_copy(update={"description": "Look elsewhere."})
    return smart.bind_tools([other]).invoke(ASKED)


class Found(BaseModel):
    where: str


def with_schema(smart):
    method = {"method": "function_calling", "include_raw": True}
    return smart.with_structured_output(Found, **method).invoke(ASKED)


CHANGES = {
    "models": (ask, {"member": {"temperature": 0.9}}, ask),
    "guarantee": (ask, {"confidence": 0.9}, ask),
    "equivalence": (ask, {"equivalence": Exact()}, ask),
    "seed": (ask, {"seed": 3}, ask),
    "prompt": (ask, {}, shout),
    "prompt, by its settings": (ask, {"temperature": 0.2}, ask),
    "prompt, by its tools": (with_tools, {}, with_others),
    "equivalence, by a schema": (ask, {}, with_schema),
}


@pytest.mark.parametrize("what", CHANGES)
def test_only_the_same_goes_on(server, tmp_path, what):
    before, settings, after = CHANGES[what]
    file = tmp_path / "answers.db"
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for count in (1, 2):
            smart = smart_at(server, file)
            before(smart)
            assert arrived(smart) == count
    smart = smart_at(server, file, **settings)
    part = what.split(",")[0]
    with pytest.warns(UserWarning, match=rf"the store knows task 'mail'.*{part}\b"):
        after(smart)
    assert arrived(smart) == 1


def test_without_a_name_another_prompt_is_another_task(server, tmp_path):
    smart = smart_at(server, tmp_path / "answers.db", task=None)
    ask(smart)
    shout(smart)
    again = smart_at(server, tmp_path / "answers.db", task=None)
    shout(again)
    assert arrived(again) == 2


def test_a_named_task_is_one_stream_in_a_process_whatever_the_system_says(
    server, tmp_path
):
    smart = smart_at(server, tmp_path / "answers.db")
    ask(smart)
    shout(smart)
    assert arrived(smart) == 2


def test_an_agents_middleware_keeps_its_stream(server, tmp_path):
    from langchain.agents import create_agent

    big, small = members(server)
    for count in (1, 2):
        told = {"prices": PRICES, "store": tmp_path / "answers.db"}
        middleware = SmartMiddleware([small], **told)
        agent = create_agent(big, middleware=[middleware])
        agent.invoke({"messages": [("human", "Well?")]})
        assert arrived(middleware) == count
