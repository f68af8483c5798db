"""Objects that were asked for are compared by value and by the user's rule."""

from __future__ import annotations

import asyncio
import json

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ToolStrategy
from langchain_core.messages import AIMessage
from langchain_openai import ChatOpenAI
from llama_index.core import PromptTemplate
from llama_index.core.llms import ChatMessage, ChatResponse
from llama_index.core.output_parsers.selection import Answer, SelectionOutputParser
from llama_index.core.program import FunctionCallingProgram, LLMTextCompletionProgram
from llama_index.core.selectors import (
    LLMMultiSelector,
    LLMSingleSelector,
    PydanticSingleSelector,
)
from llama_index.llms.openai_like import OpenAILike
from loopback import Calls, serve
from pydantic import BaseModel, Field, SecretStr, field_serializer
from pydantic.v1 import BaseModel as BaseModelV1
from pydantic.v1 import Field as FieldV1

from langchain_smart import (
    Json,
    Normalized,
    Number,
    Price,
    SmartChatModel,
    SmartMiddleware,
)
from langchain_smart.chains.compare import compared_outputs
from langchain_smart.chat.call import _as_chunk
from langchain_smart.chat.compare import MessageReading, read_answer, write_answer
from langchain_smart.chat.structured import Schema
from langchain_smart.chat.tools import Tools
from llama_index_smart import SmartLLM
from llama_index_smart.compare import ResponseReading
from smart_engine.equivalence import agree, as_equivalence
from smart_engine.errors import InvalidInputError

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}
ITEMS = [f"item {number}" for number in range(40)]


class Card(BaseModel):
    """A card, which does not show all that it holds."""

    number: int
    pin: SecretStr = SecretStr("0")
    hidden: int = Field(0, exclude=True)
    amount: float = Field(0.0, alias="theAmount")

    @field_serializer("amount")
    def rounded(self, amount: float) -> int:
        return round(amount)


class OldCard(BaseModelV1):
    """A card of pydantic 1."""

    number: int
    hidden: int = FieldV1(0, exclude=True)


RIGHT = {"number": 1, "pin": "1", "hidden": 1, "theAmount": 1.1}
WRONG = [{"pin": "2"}, {"hidden": 2}, {"theAmount": 1.2}, {"number": 2}]


def langchain_call(fields, kind=Card):
    call = {"name": kind.__name__, "args": fields, "id": "1", "type": "tool_call"}
    return AIMessage("", tool_calls=[call])


def llama_index_call(fields):
    function = {"name": "Card", "arguments": json.dumps(fields)}
    extra = {"tool_calls": [{"id": "1", "function": function}]}
    return ChatResponse(message=ChatMessage(role="assistant", additional_kwargs=extra))


SCHEMA = Schema(Card, {})
FORMS = {
    "LangChain call": (lambda rule: MessageReading(rule, SCHEMA), langchain_call),
    "LangChain text": (
        lambda rule: MessageReading(rule, SCHEMA),
        lambda fields: AIMessage(json.dumps(fields)),
    ),
    "LangChain tool": (
        lambda rule: MessageReading(rule, tools=Tools([Card], {})),
        langchain_call,
    ),
    "chain": (compared_outputs, Card.model_validate),
    "LlamaIndex call": (
        lambda rule: ResponseReading(rule, frozenset({"Card"}), {"Card": Card}),
        llama_index_call,
    ),
    "LlamaIndex text": (
        lambda rule: ResponseReading(rule, output_cls=Card),
        lambda fields: ChatResponse(message=ChatMessage(json.dumps(fields))),
    ),
}


def same(form, rule, left, right):
    reading, answer = FORMS[form]
    return agree(reading(as_equivalence(rule)), answer(left), answer(right))


@pytest.mark.parametrize("form", FORMS)
def test_objects_are_compared_by_value_and_by_the_rule(form):
    for wrong in WRONG:
        for rule in (Normalized(), Json(), lambda left, right: left == right):
            assert same(form, rule, RIGHT, {**RIGHT})
            assert not same(form, rule, RIGHT, {**RIGHT, **wrong})
    near = Json(fields={"amount": Number(absolute=0.5)}, ignore=["pin"])
    assert same(form, near, RIGHT, {**RIGHT, "pin": "2", "theAmount": 1.2})
    assert not same(form, near, RIGHT, {**RIGHT, "hidden": 2})
    assert not same(form, near, RIGHT, {**RIGHT, "theAmount": 2.1})
    assert same(form, lambda left, right: left.number == right.number, RIGHT, RIGHT)
    if form != "chain":  # which makes its objects itself
        assert not same(form, Normalized(), {"pin": "1"}, {"pin": "1"})


def test_objects_of_pydantic_1_are_compared_by_value():
    reading = MessageReading(Normalized(), Schema(OldCard, {}))
    one, two = (langchain_call({"number": 1, "hidden": n}, OldCard) for n in (1, 2))
    assert agree(reading, one, one)
    assert not agree(reading, one, two)


class Token(Card):
    """Another class of the same fields."""


def test_objects_of_two_tools_differ():
    both = {"Card": Card, "Token": Token}
    reading = ResponseReading(Normalized(), frozenset(both), both)
    card = llama_index_call(RIGHT)
    token = card.model_copy(deep=True)
    token.message.additional_kwargs["tool_calls"][0]["function"]["name"] = "Token"
    assert agree(reading, card, card)
    assert not agree(reading, card, token)
    reading = MessageReading(Normalized(), tools=Tools([Card, Token], {}))
    assert not agree(reading, langchain_call(RIGHT), langchain_call(RIGHT, Token))


def test_parallel_calls_of_tools_that_make_objects_have_no_order():
    reading = MessageReading(Normalized(), tools=Tools([Card], {}))
    calls = [langchain_call({"number": n}).tool_calls for n in (1, 2)]
    both = [[*calls[0], *calls[1]], [*calls[1], *calls[0]]]
    one, two = (AIMessage("", tool_calls=made) for made in both)
    assert agree(reading, one, two)


@pytest.mark.parametrize("wrapped", [False, True], ids=["model", "middleware"])
def test_an_agents_response_is_compared_by_the_rule(wrapped):
    def near(model, text, attempt):
        return Calls([("Card", {**RIGHT, "pin": model})])

    def rule(left, right):
        seen.extend((left, right))
        return True

    seen: list[dict[str, object]] = []
    with serve(near) as server:
        terms = {"equivalence": rule, "mode": "shadow"}
        smart = smart_of(SmartChatModel, server, **terms)
        middleware = SmartMiddleware(smart.candidates, prices=PRICES, **terms)
        agent = create_agent(
            smart.reference if wrapped else smart,
            response_format=ToolStrategy(Card),
            middleware=[middleware] if wrapped else [],
        )
        state = agent.invoke({"messages": [("human", "it")]})
    assert state["structured_response"] == Card(**{**RIGHT, "pin": "big"})
    assert {card["pin"] for card in seen} == set(PRICES)


def test_several_objects_are_compared_in_their_order():
    reading = ResponseReading(Normalized(), frozenset({"Card"}), {"Card": Card})
    calls = [llama_index_call({"number": n}).message for n in (1, 2)]
    one, two = (call.additional_kwargs["tool_calls"] for call in calls)

    def response(calls):
        message = ChatMessage(additional_kwargs={"tool_calls": calls})
        return ChatResponse(message=message)

    assert agree(reading, response(one + two), response(one + two))
    assert not agree(reading, response(one + two), response(two + one))
    assert not agree(reading, response(one + two), response(one))


def script(model, text, attempt):
    tools = text.body.get("tools")
    if not tools:
        return json.dumps(RIGHT)
    name = tools[0]["function"]["name"]
    return Calls([(name, RIGHT if name == "Card" else {"index": 1, "reason": model})])


def smart_of(adapter, server, **settings):
    at = {"api_key": "none", "timeout": 20}
    if adapter is SmartChatModel:
        models = [ChatOpenAI(model=m, base_url=server.url, **at) for m in PRICES]
    else:
        at |= {"is_chat_model": True, "is_function_calling_model": True}
        models = [OpenAILike(model=m, api_base=server.url, **at) for m in PRICES]
    return adapter(
        reference=models[0], candidates=models[1:], prices=PRICES, **settings
    )


async def all_of(pieces):
    return [piece async for piece in await pieces]


PROMPT = PromptTemplate("say {what}")
USER = [ChatMessage("it")]
VERBS = {
    "structured_predict": lambda llm: llm.structured_predict(Card, PROMPT, what="it"),
    "astructured_predict": lambda llm: asyncio.run(
        llm.astructured_predict(Card, PROMPT, what="it")
    ),
    "stream_structured_predict": lambda llm: [
        *llm.stream_structured_predict(Card, PROMPT, what="it")
    ],
    "astream_structured_predict": lambda llm: asyncio.run(
        all_of(llm.astream_structured_predict(Card, PROMPT, what="it"))
    ),
    "chat": lambda llm: llm.as_structured_llm(Card).chat(USER),
    "astream_chat": lambda llm: asyncio.run(
        all_of(llm.as_structured_llm(Card).astream_chat(USER))
    ),
    "program": lambda llm: FunctionCallingProgram.from_defaults(
        output_cls=Card, llm=llm, prompt_template_str="say it"
    )(),
    "selector": lambda llm: PydanticSingleSelector.from_defaults(llm=llm).select(
        ["one", "two"], "which?"
    ),
}


@pytest.mark.parametrize("mode", ["default", "llm"])
@pytest.mark.parametrize("verb", VERBS)
def test_a_function_gets_the_objects_in_every_verb_of_llama_index(verb, mode):
    seen = []

    def rule(left, right):
        seen.extend((left, right))
        return True

    with serve(script) as server:
        settings = {"equivalence": rule, "mode": "shadow"}
        smart = smart_of(SmartLLM, server, pydantic_program_mode=mode, **settings)
        VERBS[verb](smart)
    if verb == "selector":
        assert {selection.reason for selection in seen} == {"big", "small"}
    else:
        assert seen == [Card(**RIGHT)] * 2


@pytest.mark.parametrize("field", ["reference", "candidates"])
def test_a_structured_llm_is_no_member(field):
    big, small = (OpenAILike(model=model, api_key="none") for model in PRICES)
    given = {"reference": big, "candidates": [small]}
    wrong = {"reference": big.as_structured_llm(Card)}
    wrong["candidates"] = [small.as_structured_llm(Card)]
    refused = f"{field}='StructuredLLM'.* Card .*as_structured_llm"
    with pytest.raises(InvalidInputError, match=refused):
        SmartLLM(**{**given, field: wrong[field]}, prices=PRICES)
    assert SmartLLM(**given, prices=PRICES).as_structured_llm(Card)


@pytest.mark.parametrize("kind", [LLMSingleSelector, LLMMultiSelector])
@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_selections_in_a_text_are_compared_by_the_rule(kind, mode):
    def chosen(model, text, attempt):
        prose = "" if model == "big" else "I would choose:\n"
        return prose + json.dumps([{"choice": 2, "reason": model}])

    def rule(left, right):
        seen.extend((left, right))
        return left.choice == right.choice

    seen: list[Answer] = []
    with serve(chosen) as server:
        smart = smart_of(SmartLLM, server, equivalence=rule, mode="shadow")
        selector = kind.from_defaults(llm=smart)
        if mode == "sync":
            result = selector.select(["one", "two"], "which?")
        else:
            result = await selector.aselect(["one", "two"], "which?")
    assert result.selections[0].index == 1
    assert {(each.choice, each.reason) for each in seen} == {(2, "big"), (2, "small")}
    reading = ResponseReading(Json(ignore=["reason"]), output_cls=SelectionOutputParser)

    def answer(*choices):
        return ChatResponse(message=ChatMessage(json.dumps(choices)))

    one = {"choice": 2, "reason": "big"}
    assert agree(reading, answer(one), answer({**one, "reason": "small"}))
    assert not agree(reading, answer(one), answer({**one, "choice": 1}))
    assert not agree(reading, answer(one), answer(one, one))
    assert not agree(reading, answer("none"), answer("none"))


@pytest.mark.parametrize(("margin", "agreed"), [(0.2, True), (0.05, False)])
def test_a_text_completion_program_has_the_rule_for_its_text(margin, agreed):
    """Its parser is its own: the LLM sees a text, which `Json` reads."""

    def near(model, text, attempt):
        return json.dumps({**RIGHT, "theAmount": 1.1 if model == "big" else 1.2})

    def spy(left, right):
        seen.append(agree(rule, left, right))
        return seen[-1]

    seen: list[bool] = []
    rule = Json(fields={"theAmount": Number(absolute=margin)})
    with serve(near) as server:
        smart = smart_of(SmartLLM, server, equivalence=spy, mode="shadow")
        program = LLMTextCompletionProgram.from_defaults(
            output_cls=Card, llm=smart, prompt_template_str="say it"
        )
        assert program() == Card(**RIGHT)
    assert seen == [agreed]


def test_wrong_objects_of_a_batch_stay_within_the_promise():
    def hides(model, text, attempt):
        wrong = WRONG[int(text.split()[-1]) % 3] if model == "small" else {}
        return json.dumps({**RIGHT, **wrong})

    with serve(hides) as server:
        smart = smart_of(SmartChatModel, server, max_disagreement=0.2, seed=7)
        cards = smart.with_structured_output(Card).batch(ITEMS)
    assert sum(card != Card(**RIGHT) for card in cards) <= 0.2 * len(ITEMS)


def test_an_object_in_a_message_stays_as_it_was_written():
    card = Card(**RIGHT)
    message = AIMessage(json.dumps(RIGHT), additional_kwargs={"parsed": card})
    assert _as_chunk(message).additional_kwargs["parsed"] is card
    stored = read_answer(write_answer(message))
    assert Card(**stored.additional_kwargs["parsed"]) == card
