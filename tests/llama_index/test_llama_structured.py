"""Objects of a class: each member is asked as it would be by itself."""

from __future__ import annotations

import asyncio
import json
from itertools import product

import pytest
from langchain_openai import ChatOpenAI
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.llms.openai import OpenAI
from llama_index.llms.openai_like import OpenAILike
from loopback import Calls, serve
from pydantic import BaseModel

from llama_index_smart import Price, SmartLLM

PROMPT = PromptTemplate("Who wrote to {name}?", prompt_type="sender")
OWN = {"model", "stream", "stream_options", "tool_choice"}
"""What differs: the model; only what is shown is streamed, and reports its usage; and a
tool is required there, too, which LlamaIndex forgets where it streams."""


class Address(BaseModel):
    """Where somebody lives."""

    city: str


class Person(BaseModel):
    """Somebody."""

    name: str
    address: Address


ANN = Person(name="Ann", address=Address(city="Bonn"))


async def last_of(pieces):
    return [piece async for piece in await pieces][-1]


VERBS = {
    "predict": lambda llm: llm.structured_predict(Person, PROMPT, name="Bob"),
    "apredict": lambda llm: asyncio.run(
        llm.astructured_predict(Person, PROMPT, name="Bob")
    ),
    "stream": lambda llm: [*llm.stream_structured_predict(Person, PROMPT, name="B")][
        -1
    ],
    "astream": lambda llm: asyncio.run(
        last_of(llm.astream_structured_predict(Person, PROMPT, name="Bob"))
    ),
    "chat": lambda llm: llm.as_structured_llm(Person).chat([ChatMessage("Who?")]).raw,
    "astream_chat": lambda llm: (
        asyncio.run(
            last_of(llm.as_structured_llm(Person).astream_chat([ChatMessage("Who?")]))
        ).raw
    ),
}


def said(model, text, attempt):
    """Return Ann, as a call where a tool is offered."""
    if tools := text.body.get("tools"):
        return Calls([(tools[0]["function"]["name"], ANN.model_dump())])
    return ANN.model_dump_json()


def like(server, **settings):
    at = {"api_base": server.url, "api_key": "none", "is_chat_model": True}
    return OpenAILike(**{**at, **settings})


def smart_of(big, small, **settings):
    names = [getattr(each, "model_name", None) or each.model for each in (big, small)]
    prices = dict(zip(names, (Price(10, 30), Price(0.1, 0.4)), strict=True))
    return SmartLLM(reference=big, candidates=[small], prices=prices, **settings)


def sent(server, model):
    bodies = [body for body in server.bodies if body["model"] == model]
    return [{k: v for k, v in body.items() if k not in OWN} for body in bodies]


@pytest.mark.parametrize(
    ("kind", "verb"),
    [*product(["tools beside"], VERBS), ("openai", "predict"), ("like", "astream")],
)
def test_members_are_asked_for_objects_as_they_would_be_by_themselves(kind, verb):
    with serve(said) as server:
        at = {"api_base": server.url, "api_key": "none"}
        if kind == "openai":
            members = [OpenAI(model=name, **at) for name in ("gpt-4o", "gpt-4o-mini")]
        else:
            native = {"should_use_structured_outputs": True}
            tools = {"is_function_calling_model": True}
            other = tools if kind == "tools beside" else native
            members = [
                like(server, model="big", **native),
                like(server, model="small", **other),
            ]
        for member in members:
            assert VERBS[verb](member) == ANN
        plain = {member.model: sent(server, member.model) for member in members}
        server.bodies.clear()
        smart = smart_of(*members, mode="shadow", signals=None)
        assert VERBS[verb](smart) == ANN
        for member in members:
            assert sent(server, member.model) == plain[member.model]
        assert "strict" in json.dumps(plain[members[0].model])
        (seen,) = smart.report().shadows
        assert seen.task == ("sender" if "chat" not in verb else "Person")
        assert seen.spend[members[1].model].calls == 1


@pytest.mark.parametrize("native", [True, False])
def test_a_langchain_member_has_to_call_the_tool_that_makes_the_object(native):
    with serve(said) as server:
        tools = {"is_function_calling_model": True}
        big = like(server, model="big", should_use_structured_outputs=native, **tools)
        small = ChatOpenAI(base_url=server.url, api_key="none", model="small")
        smart = smart_of(big, small, mode="shadow")
        assert smart.structured_predict(Person, PROMPT, name="Bob") == ANN
    (body,) = (body for body in server.bodies if body["model"] == "small")
    assert body["tool_choice"] == "required"


def test_a_member_without_either_mode_finds_the_schema_in_the_text():
    with serve(said) as server:
        big = like(server, model="big", should_use_structured_outputs=True)
        small = like(server, model="small")
        smart = smart_of(big, small, mode="shadow")
        assert smart.structured_predict(Person, PROMPT, name="Bob") == ANN
        (body,) = sent(server, "small")
        assert "response_format" not in body
        assert "JSON schema" in json.dumps(body)
        assert "JSON schema" not in json.dumps(sent(server, "big"))


@pytest.mark.parametrize("wrong", [False, True])
def test_objects_in_different_forms_are_compared_by_their_values(wrong):
    """A tool's call and a text of the same object agree; another object does not."""

    def script(model, text, attempt):
        if model == "small" and wrong:
            bob = {**ANN.model_dump(), "name": "Bob"}
            return Calls([("Person", bob)])
        return said(model, text, attempt)

    with serve(script) as server:
        big = like(server, model="big", should_use_structured_outputs=True)
        small = like(server, model="small", is_function_calling_model=True)
        smart = smart_of(big, small)
        for _ in range(40):
            assert smart.structured_predict(Person, PROMPT, name="Bob") == ANN
        (stream,) = smart.report().streams
        assert stream.equivalence == "Json() of Person"
        assert (stream.policy == "small") is not wrong
