"""Every verb of a LlamaIndex LLM: of the smart one, of one over a LangChain model, of
both mixed and, as a control, of a plain one.
"""

from __future__ import annotations

import json
from collections import Counter

import pytest
from langchain_openai import ChatOpenAI
from llama_index.core.llms import ChatMessage, MockLLM
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from loopback import Calls, start
from pydantic import BaseModel

from llama_index_smart import LangChainLLM, Price, SmartLLM

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}
FREE = {"big": Price.free(), "MockLLM": Price.free()}
RAN: Counter[str] = Counter()
CASES = 4 * 40


class Weather(BaseModel):
    """The weather in a city."""

    city: str
    degrees: int


def get_weather(city: str, degrees: int) -> str:
    """Return the weather in a city."""
    return f"{degrees} degrees in {city}"


TOOL = FunctionTool.from_defaults(get_weather)
SAID = {"city": "Oslo", "degrees": 3}


def script(model, text, attempt):
    offered = text.body.get("tools")
    if offered:
        return Calls([(offered[0]["function"]["name"], SAID)])
    if "JSON" in text:
        return json.dumps(SAID)
    return f"hello {text}"


@pytest.fixture(scope="module")
def server():
    return start(script)


def plain(server, name="big", **settings) -> OpenAILike:
    told = {"is_chat_model": True, "is_function_calling_model": True, **settings}
    return OpenAILike(
        model=name, api_base=server.url, api_key="none", max_retries=1, **told
    )


def chain(server, name="big") -> ChatOpenAI:
    return ChatOpenAI(
        model=name,
        base_url=server.url,
        api_key="none",
        max_retries=1,
        profile={"max_input_tokens": 3900, "tool_calling": True},
    )


@pytest.fixture(params=["plain", "smart", "langchain", "mixed"])
def llm(request, server):
    RAN[request.node.name] += 1
    if request.param == "plain":
        return plain(server)
    if request.param == "langchain":
        return LangChainLLM(model=chain(server))
    small = (
        plain(server, "small") if request.param == "smart" else chain(server, "small")
    )
    return SmartLLM(reference=plain(server), candidates=[small], prices=PRICES)


MESSAGES = [ChatMessage(role="system", content="be kind"), ChatMessage(content="you")]
PROMPT = PromptTemplate("tell {what}")
CHAT_PROMPT = ChatPromptTemplate.from_messages([("system", "s"), ("user", "{what}")])


def drain(pieces) -> tuple[list, str]:
    found = list(pieces)
    return found, "".join(piece.delta or "" for piece in found)


async def adrain(pieces) -> tuple[list, str]:
    found = [piece async for piece in pieces]
    return found, "".join(piece.delta or "" for piece in found)


# -- chat and complete ---------------------------------------------------------


def test_chat(llm):
    assert llm.chat(MESSAGES).message.content == "hello you"


async def test_achat(llm):
    assert (await llm.achat(MESSAGES)).message.content == "hello you"


def test_stream_chat(llm):
    found, text = drain(llm.stream_chat(MESSAGES))
    assert text == found[-1].message.content == "hello you"
    assert len(found) > 5


async def test_astream_chat(llm):
    found, text = await adrain(await llm.astream_chat(MESSAGES))
    assert text == found[-1].message.content == "hello you"
    assert len(found) > 5


def test_complete(llm):
    assert llm.complete("you").text == "hello you"


async def test_acomplete(llm):
    assert (await llm.acomplete("you")).text == "hello you"


def test_stream_complete(llm):
    found, text = drain(llm.stream_complete("you"))
    assert text == found[-1].text == "hello you"


async def test_astream_complete(llm):
    found, text = await adrain(await llm.astream_complete("you"))
    assert text == found[-1].text == "hello you"


def test_usage_is_told(llm, server):
    before = dict(server.output_tokens)
    told = llm.chat(MESSAGES).additional_kwargs
    assert told["total_tokens"] == told["prompt_tokens"] + told["completion_tokens"]
    answered = told.get("smart", {"model": "big"})["model"]
    written = server.output_tokens[answered] - before.get(answered, 0)
    assert told["completion_tokens"] == written


def test_call_arguments_reach_the_model(llm, server):
    llm.chat(MESSAGES, stop=["you"], temperature=0.25)
    assert server.bodies[-1]["stop"] == ["you"]
    assert server.bodies[-1]["temperature"] == 0.25


def test_messages_are_not_changed(llm):
    before = [message.model_copy(deep=True) for message in MESSAGES]
    llm.chat(MESSAGES)
    llm.chat_with_tools([TOOL], chat_history=MESSAGES)
    assert before == MESSAGES


# -- prompts -------------------------------------------------------------------


@pytest.mark.parametrize("prompt", [PROMPT, CHAT_PROMPT], ids=["text", "chat"])
def test_predict(llm, prompt):
    assert llm.predict(prompt, what="me").startswith("hello")


@pytest.mark.parametrize("prompt", [PROMPT, CHAT_PROMPT], ids=["text", "chat"])
async def test_apredict(llm, prompt):
    assert (await llm.apredict(prompt, what="me")).startswith("hello")


def test_stream(llm):
    assert "".join(llm.stream(PROMPT, what="me")) == "hello tell me"


async def test_astream(llm):
    pieces = [piece async for piece in await llm.astream(PROMPT, what="me")]
    assert "".join(pieces) == "hello tell me"


# -- tools ---------------------------------------------------------------------


def assert_calls(llm, response) -> None:
    (call,) = llm.get_tool_calls_from_response(response)
    assert (call.tool_name, call.tool_kwargs) == ("get_weather", SAID)
    assert call.tool_id


def test_chat_with_tools(llm):
    assert_calls(llm, llm.chat_with_tools([TOOL], "weather?"))


async def test_achat_with_tools(llm):
    assert_calls(llm, await llm.achat_with_tools([TOOL], "weather?"))


def test_stream_chat_with_tools(llm):
    assert_calls(llm, list(llm.stream_chat_with_tools([TOOL], "weather?"))[-1])


async def test_astream_chat_with_tools(llm):
    pieces = await llm.astream_chat_with_tools([TOOL], "weather?")
    assert_calls(llm, [piece async for piece in pieces][-1])


def test_tools_with_a_history_and_a_message(llm, server):
    message = ChatMessage(content="weather?")
    llm.chat_with_tools(
        [TOOL], user_msg=message, chat_history=[ChatMessage(content="a")]
    )
    sent = [part["content"] for part in server.bodies[-1]["messages"]]
    assert sent == ["a", "weather?"]


def test_a_tool_may_be_required(llm, server):
    llm.chat_with_tools([TOOL], "weather?", tool_required=True)
    assert server.bodies[-1]["tool_choice"] == "required"


def test_a_tool_may_be_chosen(llm, server):
    llm.chat_with_tools([TOOL], "weather?", tool_choice="get_weather")
    assert server.bodies[-1]["tool_choice"]["function"]["name"] == "get_weather"


def test_predict_and_call(llm):
    assert llm.predict_and_call([TOOL], "weather?").response == "3 degrees in Oslo"


async def test_apredict_and_call(llm):
    answer = await llm.apredict_and_call([TOOL], "weather?")
    assert answer.response == "3 degrees in Oslo"


def test_no_tool_call_is_an_error_or_not(llm):
    response = llm.chat(MESSAGES)
    with pytest.raises(ValueError, match="at least one tool call"):
        llm.get_tool_calls_from_response(response)
    assert not llm.get_tool_calls_from_response(response, error_on_no_tool_call=False)


# -- objects -------------------------------------------------------------------


def test_structured_predict(llm):
    assert llm.structured_predict(Weather, PROMPT, what="it") == Weather(**SAID)


async def test_astructured_predict(llm):
    assert await llm.astructured_predict(Weather, PROMPT, what="it") == Weather(**SAID)


def test_stream_structured_predict(llm):
    found = list(llm.stream_structured_predict(Weather, PROMPT, what="it"))
    assert Weather(**found[-1].model_dump()) == Weather(**SAID)


async def test_astream_structured_predict(llm):
    found = await llm.astream_structured_predict(Weather, PROMPT, what="it")
    last = [each async for each in found][-1]
    assert Weather(**last.model_dump()) == Weather(**SAID)


def test_as_structured_llm_chat(llm):
    response = llm.as_structured_llm(Weather).chat(MESSAGES)
    assert response.raw == Weather(**SAID)


async def test_as_structured_llm_achat(llm):
    response = await llm.as_structured_llm(Weather).achat(MESSAGES)
    assert response.raw == Weather(**SAID)


def test_as_structured_llm_complete(llm):
    assert llm.as_structured_llm(Weather).complete("it").raw == Weather(**SAID)


def test_as_structured_llm_stream_chat(llm):
    last = list(llm.as_structured_llm(Weather).stream_chat(MESSAGES))[-1]
    assert Weather(**last.raw.model_dump()) == Weather(**SAID)


# -- the model itself ----------------------------------------------------------


def test_metadata(llm):
    table = llm.metadata
    assert table.is_chat_model
    assert table.is_function_calling_model
    assert table.context_window == 3900


def test_to_payload_holds_no_secret(llm):
    assert "none" not in json.dumps(llm.to_payload())
    assert llm.to_payload()["class_name"] == llm.class_name()


def test_a_system_prompt_is_put_before_a_prompt(llm, server):
    llm.system_prompt = "be brief"
    llm.predict(PROMPT, what="me")
    assert server.bodies[-1]["messages"][0]["content"] == "be brief"


def test_a_rate_limiter_is_asked(llm):
    if isinstance(llm, LangChainLLM):
        llm = SmartLLM(reference=llm, candidates=[MockLLM()], prices=FREE)

    class Gate:
        acquired = 0

        def acquire(self):
            self.acquired += 1

    llm.rate_limiter = gate = Gate()
    llm.chat(MESSAGES)
    assert gate.acquired == 1


def test_a_failed_call_is_raised(llm, server):
    with pytest.raises(Exception, match="extra_nonsense"):
        llm.chat(MESSAGES, extra_nonsense=1)


def test_the_number_of_cases_that_ran():
    assert sum(RAN.values()) == len(RAN) == CASES
