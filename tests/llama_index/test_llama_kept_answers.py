"""Whatever a response holds, it comes back from a store as it was bought."""

from __future__ import annotations

import pytest
from llama_index.core.base.llms.types import (
    AudioBlock,
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    ImageBlock,
    LogProb,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from llama_index_smart.call import marked
from llama_index_smart.compare import read_response, write_response
from llama_index_smart.cost import usage_of

USED = {"prompt_tokens": 5, "completion_tokens": 2}
LOG = {"token": "yes", "logprob": -0.1234567890123456, "bytes": [1]}


def said(*blocks, kwargs=None, **told) -> ChatResponse:
    given = {"blocks": list(blocks), "additional_kwargs": kwargs or {}}
    return ChatResponse(message=ChatMessage(role="assistant", **given), **told)


RESPONSES = {
    "text": said(
        TextBlock(text="yes"), additional_kwargs=USED, logprobs=[[LogProb(**LOG)]]
    ),
    "calls": said(ToolCallBlock(tool_call_id="1", tool_name="f", tool_kwargs={"a": 1})),
    "refusal": said(kwargs={"refusal": "I will not."}),
    "thinking": said(ThinkingBlock(content="hm"), TextBlock(text="yes")),
    "picture": said(ImageBlock(image=b"\x89PNG\r\n\x1a\n123")),
    "sound": said(AudioBlock(audio=b"123", format="wav")),
    "half a letter": said(TextBlock(text="a\0 yes \ud83d"), kwargs={"x": "\ud83d"}),
    "completion": CompletionResponse(text="yes \ud83d", additional_kwargs=USED),
}


@pytest.mark.parametrize("what", RESPONSES)
def test_a_response_comes_back(what):
    text = write_response(RESPONSES[what])
    assert text.isascii()
    assert read_response(text) == RESPONSES[what]


def test_what_json_does_not_know_costs_no_answer():
    response = said(TextBlock(text="yes"), additional_kwargs={"by": object()})
    assert read_response(write_response(response)).message.content == "yes"


@pytest.mark.parametrize("raw", [{"usage": USED}, {"usage_metadata": USED}])
def test_the_usage_that_the_raw_form_tells_comes_back(raw):
    response = said(TextBlock(text="yes"), raw=raw)
    again = read_response(write_response(response))
    assert usage_of(again) == usage_of(response)
    smart = {"model": "big"}
    before, after = (marked(r, smart) for r in (response, again))
    assert before.additional_kwargs == after.additional_kwargs
