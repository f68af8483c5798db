"""Structured output: each member by its own method, compared as objects."""

from __future__ import annotations

import json
from typing import TypedDict

import pytest
from dutiful import dutiful
from fakes import Foreign
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI
from loopback import serve
from pydantic import BaseModel

from langchain_smart import Price, SmartChatModel

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}
ITEMS = [f"sort number {n}" for n in range(100)]


class Sorted(BaseModel):
    """Where something belongs."""

    number: int
    place: str = "here"


class SortedDict(TypedDict):
    """Where something belongs."""

    number: int
    place: str


def openai(server, name="big"):
    return ChatOpenAI(
        model=name, base_url=server.url, api_key="none", timeout=20, stream_usage=True
    )


def filled_in(text, _=None, **more):
    """Return the tool call by which a foreign model gives the object."""
    arguments = {"number": int(text.split()[-1]), **more}
    call = {"name": "Sorted", "args": arguments, "id": "1", "type": "tool_call"}
    return AIMessage(content="", tool_calls=[call])


def smart_at(server, candidate=None, **settings):
    return SmartChatModel(
        reference=openai(server),
        candidates=[candidate or openai(server, "small")],
        prices=PRICES,
        **settings,
    )


@pytest.mark.parametrize("include_raw", [False, True])
@pytest.mark.parametrize("verb", ["invoke", "ainvoke", "stream", "astream"])
async def test_every_verb_returns_the_object(verb, include_raw):
    with serve(dutiful) as server:
        model = smart_at(server).with_structured_output(Sorted, include_raw=include_raw)
        if verb == "invoke":
            result = model.invoke("sort 7")
        elif verb == "ainvoke":
            result = await model.ainvoke("sort 7")
        else:
            parts = list(model.stream("sort 7"))
            if verb == "astream":
                parts = [part async for part in model.astream("sort 7")]
            result = parts[0]
            for part in parts[1:]:
                result += part
    expected = Sorted(number=7, place="some place")
    if include_raw:
        assert result["parsed"] == expected
        assert result["parsing_error"] is None
        used = result["raw"].usage_metadata["input_tokens"]
        assert used == len("sort 7")
    else:
        assert result == expected


def test_a_chain_knows_the_type_of_its_objects():
    with serve(dutiful) as server:
        smart = smart_at(server)
        one = smart.with_structured_output(Sorted)
        assert one.get_output_jsonschema()["title"] == "Sorted"
        assert set(one.get_output_jsonschema()["properties"]) == {"number", "place"}
        both = smart.with_structured_output(Sorted, include_raw=True)
        assert both.get_output_jsonschema()["type"] == "object"
        assert "Parsed" in one.get_graph().draw_mermaid()


def test_a_schema_that_is_a_dict_streams_as_it_grows():
    with serve(dutiful) as server:
        model = smart_at(server).with_structured_output(SortedDict)
        parts = list(model.stream("sort 7"))
    assert parts[-1] == {"number": 7, "place": "some place"}
    assert len(parts) > 3
    assert {} in parts or {"number": 7} in parts


@pytest.mark.parametrize("include_raw", [False, True])
@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_a_batch_is_one_session_of_members_that_differ_in_method(
    mode, include_raw
):
    foreign = Foreign(name="small", script=filled_in)  # leaves `place` to its default

    def script(model, text, attempt):
        return json.dumps({"place": "here", "number": int(text.split()[-1])})

    prompt = ChatPromptTemplate.from_template("{item}")
    with serve(script) as server:
        smart = smart_at(server, foreign)
        chain = prompt | smart.with_structured_output(Sorted, include_raw=include_raw)
        given = [{"item": item} for item in ITEMS]
        outputs = chain.batch(given) if mode == "sync" else await chain.abatch(given)
        assert {b["response_format"]["type"] for b in server.bodies} == {"json_schema"}
    if include_raw:
        models = [o["raw"].response_metadata["smart"]["model"] for o in outputs]
        assert 40 < models.count("small") < 100
        outputs = [output["parsed"] for output in outputs]
    assert outputs == [Sorted(number=n) for n in range(100)]
    (certificate,) = smart.report().certificates
    assert certificate.items == 100
    assert certificate.served["small"] > 40
    assert "'Json() of Sorted'" in certificate.claim
    assert all(kwargs["tools"] for _, kwargs in foreign.calls)


@pytest.mark.parametrize("bad", [AIMessage("dunno"), filled_in("x 1", number="no")])
def test_an_object_that_does_not_fit_escalates(bad):
    def script(text, _):
        return bad.model_copy() if text.endswith("3") else filled_in(text)

    def reference(model, text, attempt):
        return json.dumps({"number": int(text.split()[-1])})

    with serve(reference) as server:
        smart = smart_at(
            server, Foreign(name="small", script=script), max_disagreement=0.2
        )
        outputs = smart.with_structured_output(Sorted).batch(ITEMS)
    assert outputs == [Sorted(number=n) for n in range(100)]
    assert smart.report().spend["small"].failures > 0


def test_an_object_that_cannot_be_parsed_is_an_error_as_in_core():
    with serve(lambda *_: '{"number": "many"}') as server:
        smart = smart_at(server)
        for method in ("json_mode", "json_schema"):
            plain = openai(server).with_structured_output(Sorted, method=method)
            with pytest.raises(Exception, match="number") as expected:
                plain.invoke("sort 7")
            with pytest.raises(type(expected.value)):
                smart.with_structured_output(Sorted, method=method).invoke("sort 7")
        raw = smart.with_structured_output(
            Sorted, method="json_mode", include_raw=True
        ).batch(ITEMS[:30])
    assert len(smart.report().certificates) == 1
    for output in raw:
        assert output["parsed"] is None
        assert isinstance(output["parsing_error"], OutputParserException)
        assert output["raw"].content == '{"number": "many"}'


def test_method_strict_and_further_arguments_reach_the_members():
    with serve(dutiful) as server:
        smart = smart_at(server)
        smart.with_structured_output(
            Sorted, method="function_calling", strict=True
        ).invoke("sort 7")
        assert server.bodies[-1]["tools"][0]["function"]["strict"] is True
        anything = smart.with_structured_output(None, method="json_mode", seed=5)
        assert anything.invoke("give 'a' and 'b'") == {"a": "some a", "b": "some b"}
        assert server.bodies[-1]["seed"] == 5
        assert server.bodies[-1]["response_format"] == {"type": "json_object"}


def test_what_a_member_cannot_do_is_an_error_that_names_it():
    with serve(dutiful) as server:
        smart = smart_at(server, Foreign(name="small", script=filled_in))
        with pytest.raises(ValueError, match="big cannot give structured output"):
            smart.with_structured_output(Sorted, method="telepathy")
        with pytest.raises(ValueError, match="small cannot give structured output"):
            smart.with_structured_output(Sorted, seed=5)


def test_a_rule_of_your_own_is_given_the_objects():
    seen = []

    def same_number(left, right):
        seen.append((left, right))
        return left.number == right.number

    def script(model, text, attempt):
        return json.dumps({"number": int(text.split()[-1]), "place": model})

    with serve(script) as server:
        smart = smart_at(server, equivalence=same_number)
        smart.with_structured_output(Sorted).batch(ITEMS)
    assert smart.report().served["small"] > 40
    assert seen[0][0].place in PRICES
    assert "same_number of Sorted" in smart.report().certificates[0].claim
