"""The loopback server keeps an honest bill, so that tests may lean on it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from langchain_openai import ChatOpenAI
from loopback import Refusal, serve


def client(server, **settings) -> ChatOpenAI:
    settings = {"model": "big", "api_key": "none", "max_retries": 0, **settings}
    return ChatOpenAI(base_url=server.url, timeout=20, **settings)


@pytest.mark.parametrize("answer", ["forty-two", ""])
def test_a_stream_says_and_bills_what_a_plain_answer_does(answer):
    with serve(lambda *_: answer) as server:
        plain = client(server).invoke("why?")
        chunks = list(client(server, stream_usage=True).stream("why?"))
        streamed = chunks[0]
        for chunk in chunks[1:]:
            streamed += chunk
        assert plain.content == streamed.content == answer
        for message in (plain, streamed):
            assert message.usage_metadata["input_tokens"] == len("why?")
            assert message.usage_metadata["output_tokens"] == len(answer)
        assert server.requests == {"big": 2}
        assert server.input_tokens["big"] == 2 * len("why?")
        assert server.output_tokens["big"] == 2 * len(answer)


def test_a_stream_has_no_usage_unless_asked():
    with serve(lambda *_: "yes") as server:
        chunks = list(client(server, stream_usage=False).stream("why?"))
        assert all(chunk.usage_metadata is None for chunk in chunks)


def test_a_refusal_is_no_content_and_is_billed():
    with serve(lambda *_: Refusal("I will not")) as server:
        message = client(server).invoke("why?")
        assert message.additional_kwargs["refusal"] == "I will not"
        assert message.content == ""
        assert server.output_tokens["big"] == len("I will not")


def test_the_gauge_sees_requests_that_overlap():
    with serve(lambda *_: "yes", latency=0.2) as server:
        model = client(server)
        model.invoke("a")
        assert server.most_in_flight == 1
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(model.invoke, "abcd"))
        assert 1 < server.most_in_flight <= 4
        assert server.in_flight == 0
