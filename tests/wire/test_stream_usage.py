"""Streams report their usage wherever the plain model streams, in chains as well."""

from __future__ import annotations

import json
import operator
from functools import reduce

import httpx
import pytest
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import RunnableParallel
from langchain_openai import ChatOpenAI
from langchain_openai.chat_models.base import BaseChatOpenAI
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai import OpenAIResponses
from loopback import Fault, serve

from langchain_smart import Price, SmartChatModel, SmartRunnable
from llama_index_smart import LangChainLLM, SmartLLM

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}


class OfAProvider(BaseChatOpenAI):
    """A provider's class on OpenAI's base, as `ChatDeepSeek` is; its streams take no
    further arguments."""

    def _stream(self, messages, stop=None, run_manager=None):
        yield from super()._stream(messages, stop, run_manager)

    async def _astream(self, messages, stop=None, run_manager=None):
        async for piece in super()._astream(messages, stop, run_manager):
            yield piece


class Unstreamed(ChatOpenAI):
    """A model whose class implements no streams."""

    _stream = BaseChatModel._stream
    _astream = BaseChatModel._astream


KINDS = {
    "of another address": (ChatOpenAI, {}),
    "of a provider": (OfAProvider, {}),
    "without streams": (Unstreamed, {}),
    "not to be streamed": (ChatOpenAI, {"disable_streaming": True}),
    "streamed without tools": (ChatOpenAI, {"disable_streaming": "tool_calling"}),
    "streamed always": (ChatOpenAI, {"streaming": True}),
}


def member(server, name, kind="of another address", **settings):
    made, own = KINDS[kind]
    at = {"base_url": server.url, "api_key": "none", "max_retries": 0, **own}
    return made(model=name, **at, **settings)


def chat_of(big, small, **settings):
    return SmartChatModel(reference=big, candidates=[small], prices=PRICES, **settings)


def chain_of(big, small, **settings):
    """Chains that hold their models in a sequence, a mapping and a binding."""
    both = RunnableParallel(said=big | StrOutputParser())
    return SmartRunnable(
        reference={"long": both | (lambda found: found["said"])},
        candidates={"short": small.bind(stop=["#"]) | StrOutputParser()},
        prices=PRICES,
        **settings,
    )


def llama_of(big, small, **settings):
    smart = SmartLLM(reference=big, candidates=[small], prices=PRICES, **settings)
    return Llama(smart)


class Llama:
    """A LlamaIndex LLM under the names of LangChain's verbs."""

    def __init__(self, llm):
        self.llm = llm
        self.report = getattr(llm, "report", None)

    def stream(self, text):
        return self.llm.stream_chat([ChatMessage(text)])

    async def astream(self, text):
        async for piece in await self.llm.astream_chat([ChatMessage(text)]):
            yield piece


ADAPTERS = {"model": chat_of, "chain": chain_of, "LLM": llama_of}
MODES = pytest.mark.parametrize("mode", ["sync", "async"])
WRAPPED = pytest.mark.parametrize("adapter", ADAPTERS)


def spent(smart):
    return reduce(operator.add, smart.report().spend.values())


async def pieces_of(model, mode):
    if mode == "sync":
        return list(model.stream("why?"))
    return [piece async for piece in model.astream("why?")]


@MODES
@WRAPPED
@pytest.mark.parametrize("kind", KINDS)
async def test_a_member_streams_wherever_it_streams_alone(kind, adapter, mode):
    with serve(lambda *_: "yes") as server:
        big, small = (member(server, name, kind) for name in PRICES)
        assert await pieces_of(big, mode)
        server.requests.clear()
        server.input_tokens.clear()
        smart = ADAPTERS[adapter](big, small)
        assert await pieces_of(smart, mode)
        spend = spent(smart)
        assert spend.calls == server.requests.total() == 2
        assert spend.failures == 0
        assert spend.input_tokens == server.input_tokens.total()
        assert big.stream_usage is None  # the user's own model stays as it is


@MODES
async def test_a_langchain_model_in_llama_index_tells_its_usage(mode):
    with serve(lambda *_: "yes") as server:
        for kind in KINDS:
            llm = Llama(LangChainLLM(model=member(server, "big", kind)))
            assert (await pieces_of(llm, mode))[-1].raw["usage"]


@MODES
@WRAPPED
async def test_a_choice_of_the_user_is_kept(adapter, mode):
    told = {"stream_options": {"include_usage": True}}
    with serve(lambda *_: "yes") as server:
        for own, wanted in (({"stream_usage": False}, False), ({}, True)):
            settings = {"model_kwargs": {} if own else told, **own}
            big, small = (member(server, name, **settings) for name in PRICES)
            smart = ADAPTERS[adapter](big, small, estimate_usage=not wanted)
            await pieces_of(smart, mode)
            assert {bool(b.get("stream_options")) for b in server.bodies} == {wanted}
            estimated = spent(smart).estimated
            assert bool(estimated) is not wanted
            server.bodies.clear()


@MODES
@WRAPPED
async def test_an_endpoint_that_refuses_to_report_it_is_named_with_the_way_out(
    adapter, mode
):
    def old(model, text, attempt):
        refused = Fault("Unrecognized request argument supplied: stream_options", 400)
        return refused if "stream_options" in text.body else "yes"

    with serve(old) as server:
        smart = ADAPTERS[adapter](*(member(server, name) for name in PRICES))
        with (
            pytest.warns(UserWarning, match="refuses to report the usage"),
            pytest.raises(Exception, match="stream_options") as raised,
        ):
            await pieces_of(smart, mode)
        assert "stream_usage=False" in raised.value.__notes__[0]
        assert next(iter(smart.report().spend.values())).cost == 0  # the reference's
        off = {"stream_usage": False}
        models = (member(server, name, **off) for name in PRICES)
        way_out = ADAPTERS[adapter](*models, estimate_usage=True)
        assert await pieces_of(way_out, mode)
        assert spent(way_out).failures == 0


def responses(request):
    """Answer as OpenAI's Responses API does, which knows no `include_usage`."""
    body = json.loads(request.content)
    if "stream_options" in body:
        return httpx.Response(400, json={"error": {"message": "unknown parameter"}})
    usage = {"input_tokens": 7, "output_tokens": 2, "total_tokens": 9}
    usage |= {"output_tokens_details": {"reasoning_tokens": 0}}
    usage |= {"input_tokens_details": {"cached_tokens": 0}}
    whole = {"id": "r", "object": "response", "created_at": 0, "model": body["model"]}
    whole |= {"output": [], "tools": [], "tool_choice": "auto", "status": "completed"}
    whole |= {"parallel_tool_calls": True, "usage": usage}
    at = {"output_index": 0, "content_index": 0, "item_id": "m", "logprobs": []}
    events = [
        {"type": "response.output_text.delta", "delta": "yes", **at},
        {"type": "response.completed", "response": whole},
    ]
    numbered = ({**event, "sequence_number": n} for n, event in enumerate(events))
    lines = (f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in numbered)
    headers = {"Content-Type": "text/event-stream"}
    return httpx.Response(200, headers=headers, content="".join(lines))


@MODES
async def test_streams_of_the_responses_api_report_it_unasked(mode):
    transport = httpx.MockTransport(responses)
    big, small = (
        OpenAIResponses(
            model=name,
            api_key="none",
            http_client=httpx.Client(transport=transport),
            async_http_client=httpx.AsyncClient(transport=transport),
        )
        for name in ("gpt-4o", "gpt-4o-mini")
    )
    smart = Llama(SmartLLM(reference=big, candidates=[small]))
    for llm in (Llama(big), smart):
        assert "yes" in [piece.delta for piece in await pieces_of(llm, mode)]
    assert smart.report().spend["gpt-4o"].input_tokens == 7
