"""An answer that its provider cut off or refused is not whole: its item escalates."""

from __future__ import annotations

import pytest
from langchain_core.messages import AIMessage
from langchain_openai import ChatOpenAI
from llama_index.llms.openai_like import OpenAILike
from loopback import Odd, serve

from langchain_smart import Price, SmartChatModel
from langchain_smart.chat.compare import MessageReading
from llama_index_smart import SmartLLM
from smart_engine.equivalence import Normalized
from smart_engine.errors import UnparseableAnswerError

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.3)}
ITEMS = [f"item {number}" for number in range(60)]

NOT_WHOLE = [
    {"finish_reason": "length"},
    {"finish_reason": "content_filter"},
    {"stop_reason": "max_tokens"},
    {"stop_reason": "refusal"},
    {"finish_reason": "SAFETY"},
    {"finish_reason": "MAX_TOKENS"},
    {"stopReason": "guardrail_intervened"},
    {"done_reason": "length"},
    {"status": "incomplete"},
    {"finish_reason": "whatever comes next"},
]
WHOLE = [
    {},
    {"finish_reason": "stop"},
    {"finish_reason": "STOP"},
    {"finish_reason": None},
    {"stop_reason": "end_turn"},
    {"stop_reason": "tool_use"},
    {"done_reason": "stop"},
    {"status": "completed"},
]


@pytest.mark.parametrize("metadata", NOT_WHOLE, ids=str)
def test_an_answer_that_ended_otherwise_is_not_read(metadata):
    with pytest.raises(UnparseableAnswerError, match="not whole"):
        MessageReading(Normalized()).parse(AIMessage("yes", response_metadata=metadata))


@pytest.mark.parametrize("metadata", WHOLE, ids=str)
def test_a_whole_answer_is(metadata):
    message = AIMessage("yes", response_metadata=metadata)
    assert MessageReading(Normalized()).parse(message) == ("text", "yes")


def cut(model, text, attempt):
    """The candidate's answers are cut off from the forties on."""
    late = int(text.split()[-1]) >= 40
    return Odd("yes", finish="length") if model == "small" and late else "yes"


@pytest.mark.parametrize("adapter", ["LangChain", "LlamaIndex"])
def test_cut_answers_of_a_batch_escalate(adapter):
    with serve(cut) as server:
        at = {"api_key": "none", "timeout": 20}
        settings = {"prices": PRICES, "max_disagreement": 0.2}
        if adapter == "LangChain":
            big, small = (
                ChatOpenAI(model=m, base_url=server.url, **at) for m in PRICES
            )
            smart = SmartChatModel(reference=big, candidates=[small], **settings)
            answers = smart.batch(ITEMS)
            marks = [answer.response_metadata["smart"] for answer in answers]
        else:
            big, small = (
                OpenAILike(model=m, api_base=server.url, is_chat_model=True, **at)
                for m in PRICES
            )
            smart = SmartLLM(reference=big, candidates=[small], **settings)
            answers = smart.complete_batch(ITEMS)
            marks = [answer.additional_kwargs["smart"] for answer in answers]
    assert {mark["model"] for mark in marks[40:]} == {"big"}
    assert "small" in {mark["model"] for mark in marks[:40]}
