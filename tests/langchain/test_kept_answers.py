"""Whatever a message holds, it comes back from a store as it was bought."""

from __future__ import annotations

import warnings
from datetime import date
from decimal import Decimal

import numpy as np
import pytest
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_openai import ChatOpenAI
from loopback import serve
from pydantic import BaseModel, Field

from langchain_smart import Price, SmartChatModel
from langchain_smart.chat.compare import read_answer, write_answer

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}
USAGE = {
    "input_tokens": 5,
    "output_tokens": 2,
    "total_tokens": 7,
    "input_token_details": {"cache_read": 3},
    "output_token_details": {"reasoning": 1},
}
LOGS = {"content": [{"token": "t", "bytes": [1], "logprob": -0.1234567890123456}]}
CALL = {"name": "f", "args": {"a": [1, 2.5, None]}, "id": "1", "type": "tool_call"}
BROKEN = {**CALL, "args": "{", "error": "e", "type": "invalid_tool_call"}
THOUGHT = {"type": "reasoning", "reasoning": "hm", "id": "rs_1", "extras": {"e": "x"}}
PICTURE = {"type": "image", "base64": "aGk=", "mime_type": "image/png"}

MESSAGES = {
    "text": AIMessage("yes", id="run-1", name="n", usage_metadata=USAGE),
    "metadata": AIMessage(
        "yes", response_metadata={"model_name": "m", "logprobs": LOGS}
    ),
    "calls": AIMessage("", tool_calls=[CALL], invalid_tool_calls=[BROKEN]),
    "refusal": AIMessage("", additional_kwargs={"refusal": "I will not."}),
    "reasoning": AIMessage([THOUGHT, {"type": "text", "text": "yes"}]),
    "reasoning beside": AIMessage("yes", additional_kwargs={"reasoning_content": "hm"}),
    "picture": AIMessage([PICTURE]),
    "sound": AIMessage("", additional_kwargs={"audio": {"id": "a", "data": "zz"}}),
    "nothing at all": AIMessage("a\0b"),
    "half a letter": AIMessage("yes \ud83d", additional_kwargs={"said": "\ud83d"}),
    "much": AIMessage("é\n" * 100_000),
    "numbers": AIMessage("", response_metadata={"n": [10**40, float("inf")]}),
    "numpy": AIMessage("", response_metadata={"p": np.float32(0.5)}),
}


@pytest.mark.parametrize("what", MESSAGES)
def test_a_message_comes_back(what):
    text = write_answer(MESSAGES[what])
    assert text.isascii()  # some databases know nothing else
    assert read_answer(text) == MESSAGES[what]


class Client:
    def __repr__(self) -> str:
        return "Client(key='hush')"


def test_what_json_does_not_know_costs_no_answer_and_tells_no_key():
    odd = {"by": Client(), "at": date(2024, 5, 1), "sound": b"\xff", (1, 2): "pair"}
    text = write_answer(AIMessage("yes", response_metadata=odd))
    message = read_answer(text)
    assert message.content == "yes"
    assert message.response_metadata["at"] == "2024-05-01"
    assert "hush" not in text


def test_a_piece_comes_back_as_a_message():
    call = {"name": "f", "args": '{"a": 1}', "id": "1", "index": 0}
    piece = AIMessageChunk("yes", tool_call_chunks=[call], usage_metadata=USAGE)
    message = read_answer(write_answer(piece))
    assert type(message) is AIMessage
    assert (message.content, message.usage_metadata) == ("yes", USAGE)
    assert message.tool_calls == piece.tool_calls != []


class Place(BaseModel):
    """Where it is."""

    model_config = {"extra": "forbid"}

    where: str = Field(alias="where-from")
    since: date
    worth: Decimal


def test_objects_and_halves_of_letters_are_kept_and_read_again(tmp_path):
    def say(model, text, attempt):
        if text.body.get("response_format"):
            return '{"where-from": "here", "since": "2024-05-01", "worth": "1.50"}'
        return "yes \ud83d" if "item 1" in text else "yes"

    items = [f"item {n}" for n in range(6)]
    found = []
    with serve(say) as server, warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            at = {"base_url": server.url, "api_key": "none", "timeout": 20}
            big, small = (ChatOpenAI(model=name, **at) for name in PRICES)
            store = {"store": tmp_path / "answers.db", "prices": PRICES}
            smart = SmartChatModel(reference=big, candidates=[small], **store)
            texts = [answer.content for answer in smart.batch(items)]
            objects = smart.with_structured_output(Place).batch(items)
            found.append([texts, objects, sum(server.requests.values())])
    assert found[0] == found[1]
    given = {"where-from": "here", "since": date(2024, 5, 1), "worth": Decimal("1.50")}
    assert found[0][1] == [Place(**given)] * 6
    assert found[0][0][1] == "yes \ud83d"
