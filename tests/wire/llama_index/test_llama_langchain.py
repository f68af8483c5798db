"""LangChain chat models as members: nothing is lost, or counted twice, on the way."""

from __future__ import annotations

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.language_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage
from langchain_openai import ChatOpenAI
from llama_index.core.base.llms.types import (
    AudioBlock,
    ChatMessage,
    ChatResponse,
    DocumentBlock,
    ImageBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.tools import FunctionTool
from loopback import Calls, Verdict, serve

from langchain_smart import SmartChatModel
from llama_index_smart import LangChainLLM, Price, SmartLLM
from llama_index_smart.cost import outcome, usage_of
from llama_index_smart.tools import tool_calls
from smart_engine.errors import InvalidInputError, UnparseableAnswerError

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}
SECRET = "sk-hush"  # noqa: S105


def chain(server, name="big", **settings) -> ChatOpenAI:
    return ChatOpenAI(
        model=name, base_url=server.url, api_key=SECRET, max_retries=0, **settings
    )


def smart_over(server, **settings) -> SmartLLM:
    members = {"reference": chain(server), "candidates": [chain(server, "small")]}
    return SmartLLM(**members, prices=PRICES, **settings)


def user(text: str) -> list[ChatMessage]:
    return [ChatMessage(content=text)]


def pick(city: str) -> str:
    """Pick a city."""
    return city


TOOL = FunctionTool.from_defaults(pick)


def assert_ledger_is_the_bill(smart, server) -> None:
    for name, spend in smart.report().spend.items():
        assert spend.calls == server.requests[name] > 0
        assert spend.failures == 0
        assert spend.input_tokens == server.input_tokens[name]
        assert spend.output_tokens == server.output_tokens[name]


# -- money ---------------------------------------------------------------------


async def test_every_form_of_a_call_is_billed():
    with serve(lambda model, text, attempt: f"to {text}") as server:
        smart = smart_over(server)
        for n in range(5):
            given = user(f"mail {n}")
            pieces = list(smart.stream_chat(given))
            assert "".join(piece.delta for piece in pieces) == f"to mail {n}"
            pieces = [piece async for piece in await smart.astream_chat(given)]
            assert "".join(piece.delta for piece in pieces) == f"to mail {n}"
            assert smart.chat(given).message.content == f"to mail {n}"
            assert (await smart.acomplete(f"mail {n}")).text == f"to mail {n}"
        assert_ledger_is_the_bill(smart, server)


def test_who_turned_usage_off_keeps_it_off():
    with serve(lambda *_: "yes") as server:
        llm = LangChainLLM(model=chain(server, stream_usage=False))
        list(llm.stream_chat(user("it")))
        assert "stream_options" not in server.bodies[-1]


def test_one_set_of_models_costs_both_frameworks_the_same():
    def script(model, text, attempt):
        return "no" if model == "small" and text.endswith("7") else "yes"

    items = [f"mail {n}" for n in range(80)]
    with serve(script) as server:
        told = {"prices": PRICES, "max_disagreement": 0.2, "task": "it"}
        members = {"reference": chain(server), "candidates": [chain(server, "small")]}
        ours = SmartLLM(**members, **told)
        theirs = SmartChatModel(**members, **told)
        answers = [answer.text for answer in ours.complete_batch(items)]
        assert answers == [message.text for message in theirs.batch(items)]
    assert ours.report().certificates == theirs.report().certificates


def test_tokens_of_a_kind_of_their_own_have_their_own_price():
    reported = {
        "input_tokens": 100,
        "output_tokens": 20,
        "total_tokens": 120,
        "input_token_details": {"cache_read": 60, "cache_creation": 30},
        "output_token_details": {"reasoning": 15},
    }
    message = AIMessage("yes", usage_metadata=reported)
    llm = LangChainLLM(model=FakeMessagesListChatModel(responses=[message]))
    response = llm.chat(user("it"))
    used = usage_of(response)
    assert (used.input_tokens, used.output_tokens) == (100, 20)
    assert (used.cache_read, used.cache_write, used.reasoning) == (60, 30, 15)
    assert response.additional_kwargs["prompt_tokens"] == 100
    assert response.additional_kwargs["total_tokens"] == 120
    reported["input_token_details"] = {
        "flex_cache_read": 60,
        "ephemeral_5m_input_tokens": 10,
        "ephemeral_1h_input_tokens": 20,
    }
    message = AIMessage("yes", usage_metadata=reported)
    llm = LangChainLLM(model=FakeMessagesListChatModel(responses=[message]))
    used = usage_of(llm.chat(user("it")))
    assert used.input_tokens == 100
    assert (used.cache_read, used.cache_write, used.cache_write_1h) == (60, 10, 20)


def test_an_answer_from_a_cache_is_not_paid_again():
    with serve(lambda *_: "yes") as server:
        llm = LangChainLLM(model=chain(server, cache=InMemoryCache()))
        first, second = (usage_of(llm.chat(user("it"))) for _ in range(2))
        assert sum(server.requests.values()) == 1
        assert (first.total_tokens, second.total_tokens) == (5, 0)


def test_logprobs_are_confidence():
    with serve(lambda *_: Verdict("ham", (-0.1, -0.3))) as server:
        smart = SmartLLM(
            reference=chain(server, logprobs=True),
            candidates=[chain(server, "small")],
            prices=PRICES,
        )
        member = smart._members["big"]
        brought = outcome(member, member.model.chat(user("it")))
        assert brought.confidence == pytest.approx(0.8187, abs=1e-3)
        before = len(server.bodies)
        answers = smart.complete_batch([f"item {n}" for n in range(24)])
        asked = server.bodies[before:]
        assert {b.get("logprobs") for b in asked if b["model"] == "small"} == {True}
        told = [each for each in answers if each.logprobs or "logprobs" in each.raw]
        assert {each.additional_kwargs["smart"]["model"] for each in told} == {"big"}


# -- messages ------------------------------------------------------------------


def test_who_said_what_is_kept():
    call = ToolCallBlock(tool_call_id="c1", tool_name="pick", tool_kwargs={"city": "A"})
    answered = {"tool_call_id": "c1"}
    history = [
        ChatMessage(role="system", content="s"),
        ChatMessage(role="developer", content="d"),
        ChatMessage(role="user", content="u"),
        ChatMessage(role="assistant", blocks=[ThinkingBlock(content="hm"), call]),
        ChatMessage(role="tool", content="A", additional_kwargs=answered),
        ChatMessage(role="chatbot", content="c"),
        ChatMessage(role="model", content="m"),
        ChatMessage(role="user", blocks=[TextBlock(text="a"), TextBlock(text="b")]),
    ]
    with serve(lambda *_: "yes") as server:
        LangChainLLM(model=chain(server)).chat(history)
        sent = server.bodies[-1]["messages"]
    assert [part["role"] for part in sent] == [
        *("system", "system", "user", "assistant", "tool", "assistant", "assistant"),
        "user",
    ]
    assert sent[3]["tool_calls"][0]["function"]["name"] == "pick"
    assert sent[4]["tool_call_id"] == "c1"
    assert sent[-1]["content"] == "a\nb"


def test_pictures_are_sent():
    picture = ImageBlock(image=b"\x89PNG\r\n\x1a\n", image_mimetype="image/png")
    message = ChatMessage(blocks=[TextBlock(text="see"), picture])
    with serve(lambda *_: "yes") as server:
        LangChainLLM(model=chain(server)).chat([message])
        text, image = server.bodies[-1]["messages"][0]["content"]
    assert text == {"type": "text", "text": "see"}
    assert image["image_url"]["url"].startswith("data:image/png;base64,")


@pytest.mark.parametrize(
    "block",
    [
        DocumentBlock(data=b"%PDF-1", document_mimetype="application/pdf", title="d"),
        AudioBlock(audio=b"x", format="wav"),
    ],
    ids=["document", "audio"],
)
def test_what_cannot_be_sent_is_an_error_not_left_out(block):
    message = ChatMessage(blocks=[TextBlock(text="read"), block])
    with serve(lambda *_: "yes") as server:
        with pytest.raises(InvalidInputError, match=type(block).__name__):
            LangChainLLM(model=chain(server)).chat([message])
        assert not server.requests


# -- tools ---------------------------------------------------------------------


def test_calls_side_by_side_only_where_they_are_allowed():
    both = Calls([("pick", {"city": "A"}), ("pick", {"city": "B"})])
    with serve(lambda *_: both) as server:
        llm = LangChainLLM(model=chain(server))
        for allowed, number in ((False, 1), (True, 2)):
            told = {"allow_parallel_tool_calls": allowed}
            response = llm.chat_with_tools([TOOL], "which?", **told)
            assert len(llm.get_tool_calls_from_response(response)) == number
            assert len(response.message.additional_kwargs["tool_calls"]) == number


def test_arguments_that_are_no_json_cannot_be_read():
    broken = {"name": "pick", "args": '{"city": ', "id": "c1", "error": None}
    message = AIMessage("so be it", invalid_tool_calls=[broken])
    llm = LangChainLLM(model=FakeMessagesListChatModel(responses=[message]))
    response = llm.chat(user("which?"))
    with pytest.raises(UnparseableAnswerError, match="no JSON"):
        tool_calls(response)


@pytest.mark.parametrize("arguments", ['{"city": "Oslo"}', {"city": "Oslo"}])
def test_calls_are_read_from_mappings_too(arguments):
    call = {"id": "c1", "function": {"name": "pick", "arguments": arguments}}
    message = ChatMessage(role="assistant", additional_kwargs={"tool_calls": [call]})
    (found,) = tool_calls(ChatResponse(message=message))
    assert (found.tool_id, found.tool_name) == ("c1", "pick")
    assert found.tool_kwargs == {"city": "Oslo"}


# -- written down --------------------------------------------------------------


def test_nothing_written_down_holds_a_secret():
    with serve(lambda *_: "yes") as server:
        llm, smart = LangChainLLM(model=chain(server)), smart_over(server)
    for model in (llm, smart):
        for text in (repr(model), str(model), model.to_json(), model.model_dump_json()):
            assert SECRET not in text
