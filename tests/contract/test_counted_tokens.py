"""Every member's call is counted once, under its name; an answer tells its own usage.

Counters, tracers and instrumentation must come to what the provider bills.
"""

from __future__ import annotations

from collections import Counter
from typing import ClassVar
from unittest.mock import Mock

import pytest
from langchain_core.callbacks import (
    AsyncCallbackHandler,
    BaseCallbackHandler,
    UsageMetadataCallbackHandler,
    get_usage_metadata_callback,
)
from langchain_core.messages import AIMessageChunk, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tracers.base import BaseTracer
from langchain_core.tracers.context import run_collector_var
from langchain_core.tracers.langchain import LangChainTracer
from langchain_openai import ChatOpenAI
from llama_index.core import PromptTemplate, Settings
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.llm import LLMChatEndEvent
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike
from loopback import Calls, serve
from pydantic import BaseModel, PrivateAttr

from langchain_smart import Price, SmartChatModel, SmartRunnable
from llama_index_smart import SmartLLM

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.3)}
ITEMS = [f"is {n} odd?" for n in range(8)]


class Verdict(BaseModel):
    """Whether it is."""

    odd: str


def tell(odd: str) -> str:
    """Tell whether it is."""
    return odd


def script(model: str, text: str, attempt: int):
    """Answer a question, or, where it says so, by a call or an object."""
    odd = "yes" if int(text.split()[1]) % 2 else "no"
    if text.body.get("tools"):
        return Calls((("tell", {"odd": odd}),))
    return f'{{"odd": "{odd}"}}' if text.body.get("response_format") else odd


def billed(server) -> dict[str, int]:
    return {
        m: server.input_tokens[m] + server.output_tokens[m] for m in server.requests
    }


class Tree(BaseTracer):
    """Tells models' tokens and their runs' parents."""

    def __init__(self):
        super().__init__()
        self.counts, self.items, self.parents = Counter(), [], []

    def _persist_run(self, run):
        inner = run.run_type == "llm" and run.name != "SmartChatModel"
        if run.run_type == "llm":
            message = run.outputs["generations"][0][0]["message"]["kwargs"]
            tokens = (message["usage_metadata"] or {}).get("total_tokens", 0)
            self.counts[message["response_metadata"]["model_name"]] += tokens
            self.items += [] if inner else [(run.id, tokens)]
            self.parents += [run.parent_run_id] if inner else []
        for child in run.child_runs:
            self._persist_run(child)


class Recorder(AsyncCallbackHandler):
    """Counts as services do: it follows chains, and hears of tokens too."""

    def __init__(self):
        self.counts = Counter()

    async def on_chain_start(self, serialized, inputs, **_):
        pass

    async def on_llm_new_token(self, token, **_):
        pass

    async def on_llm_end(self, response, **_):
        message = response.generations[0][0].message
        usage = message.response_metadata.get("token_usage") or message.usage_metadata
        self.counts[message.response_metadata["model_name"]] += usage["total_tokens"]


class Sent(LangChainTracer):
    """Counts what would be sent to LangSmith; core makes copies of it."""

    counts: ClassVar[Counter] = Counter()

    def _persist_run_single(self, run):
        pass

    def _update_run_single(self, run):
        if run.run_type == "llm":
            usage = run.extra["metadata"]["usage_metadata"]
            self.counts[run.name] += usage["total_tokens"]


def model_of(server, name: str, **settings) -> ChatOpenAI:
    at = {"base_url": server.url, "api_key": "none", "max_retries": 0}
    return ChatOpenAI(model=name, stream_usage=True, **at, **settings)


def smart_of(server, **settings) -> SmartChatModel:
    big, small = (model_of(server, name) for name in ("big", "small"))
    return SmartChatModel(reference=big, candidates=[small], prices=PRICES, **settings)


def chain_of(server) -> SmartRunnable:
    def chain(name):
        prompt = ChatPromptTemplate.from_template("{text}")
        return prompt | model_of(server, name) | StrOutputParser()

    prices, long, short = PRICES, {"long": chain("big")}, {"short": chain("small")}
    return SmartRunnable(reference=long, candidates=short, prices=prices)


SHAPES = {
    "text": lambda smart: smart,
    "tools": lambda smart: smart.bind_tools([tell]),
    "object": lambda smart: smart.with_structured_output(Verdict),
}
VERBS = ["invoke", "ainvoke", "stream", "astream", "batch", "abatch"]


async def answers(runnable, verb, config=None):
    """Return an answer to each item, the pieces of a stream joined."""
    if "batch" in verb:
        found = getattr(runnable, verb)(ITEMS, config)
        return found if verb == "batch" else await found
    if "invoke" in verb:
        found = [getattr(runnable, verb)(item, config) for item in ITEMS]
        return found if verb == "invoke" else [await each for each in found]
    said = []
    for item in ITEMS:
        pieces = getattr(runnable, verb)(item, config)
        whole = None
        for piece in [*pieces] if verb == "stream" else [p async for p in pieces]:
            joined = whole is not None and isinstance(piece, AIMessageChunk)
            whole = whole + piece if joined else piece
        said.append(whole)
    return said


@pytest.mark.parametrize(
    ("shape", "verb"),
    [
        *(("text", verb) for verb in VERBS),
        *((shape, verb) for shape in ("tools", "object") for verb in VERBS[1::3]),
        *(("chain", verb) for verb in VERBS[::2]),
    ],
)
async def test_langchain_counts_each_call_once_under_its_model(shape, verb):
    own, given = UsageMetadataCallbackHandler(), UsageMetadataCallbackHandler()
    tree, recorder = Tree(), Recorder()
    Sent.counts.clear()
    config = {"callbacks": [given, tree, recorder, Sent(client=Mock())]}
    with serve(script) as server:
        if shape == "chain":
            smart = chain_of(server).with_config(callbacks=[own])
        else:
            smart = SHAPES[shape](smart_of(server, callbacks=[own]))
        with get_usage_metadata_callback() as ambient:
            await answers(smart, verb, config)
        bill = billed(server)
    assert bill["big"] > 0 < bill["small"]
    for counter in (own, given, ambient):
        counted = counter.usage_metadata.items()
        assert {name: usage["total_tokens"] for name, usage in counted} == bill
    assert tree.counts == bill
    assert recorder.counts == bill
    assert Sent.counts["ChatOpenAI"] == Sent.counts.total() == sum(bill.values())
    if shape != "chain":
        assert [tokens for _, tokens in tree.items] == [0] * len(ITEMS)
        assert set(tree.parents) == {run for run, _ in tree.items}


@pytest.mark.parametrize("verb", VERBS)
async def test_an_answer_of_langchain_has_the_usage_that_its_model_reports(verb):
    with serve(script) as server:
        said = await answers(smart_of(server), verb)
        plain = {n: await answers(model_of(server, n), "invoke") for n in PRICES}
    for place, answer in enumerate(said):
        control = plain[answer.response_metadata["smart"]["model"]][place]
        assert answer.usage_metadata == control.usage_metadata
        name = answer.response_metadata["model_name"]
        assert name == control.response_metadata["model_name"]


class Shown(BaseCallbackHandler):
    """Shows pieces, as a web page does; the end of a run ends it."""

    def __init__(self):
        self.ends = []

    def on_llm_new_token(self, token, **_):
        pass

    def on_llm_end(self, response, **_):
        self.ends.append(response.generations[0][0].message.usage_metadata)


class ShownAsync(AsyncCallbackHandler):
    """The same for async code."""

    __init__ = Shown.__init__

    async def on_llm_new_token(self, token, **_):
        pass

    async def on_llm_end(self, response, **_):
        Shown.on_llm_end(self, response)


@pytest.mark.parametrize("kind", [Shown, ShownAsync])
async def test_who_shows_an_answer_sees_one_run_with_the_usage_of_the_answer(kind):
    shown, events = kind(), []
    with serve(script) as server:
        smart, control = smart_of(server), model_of(server, "big")
        said = control.invoke(ITEMS[0]).usage_metadata
        config = {"callbacks": [shown]}
        async for event in smart.astream_events(ITEMS[0], config, version="v2"):
            events += [event] if event["event"] == "on_chat_model_end" else []
        assert billed(server)["small"] > 0
    assert shown.ends == [said]
    assert [event["data"]["output"].usage_metadata for event in events] == [said]


async def test_counters_of_a_scope_count_even_if_they_hear_of_pieces():
    class Counts(BaseCallbackHandler):
        def __init__(self):
            self.total = 0

        def on_llm_new_token(self, token, **_):
            pass

        def on_llm_end(self, response, **_):
            usage = response.generations[0][0].message.usage_metadata
            self.total += usage["total_tokens"]

    counts = Counts()
    token = run_collector_var.set(counts)  # one of the variables that core reads
    try:
        with serve(script) as server:
            smart_of(server).batch(ITEMS)
            assert counts.total == sum(billed(server).values())
    finally:
        run_collector_var.reset(token)


def test_all_messages_of_one_generate_are_counted_once():
    given = UsageMetadataCallbackHandler()
    with serve(script) as server:
        asked = [[HumanMessage(item)] for item in ITEMS]
        smart_of(server).generate(asked, callbacks=[given])
        counted = given.usage_metadata.items()
        assert {n: usage["total_tokens"] for n, usage in counted} == billed(server)


# -- LlamaIndex ------------------------------------------------------------------------


class Ends(BaseEventHandler):
    """Counts the tokens of all chats, as instrumentation does."""

    _total: int = PrivateAttr(default=0)

    @classmethod
    def class_name(cls) -> str:
        return "Ends"

    def handle(self, event, **_):
        if isinstance(event, LLMChatEndEvent):
            self._total += event.response.raw.usage.total_tokens


@pytest.fixture
def spans():
    """What instrumentation sees: all spans that ended, and the tokens of chats."""
    root, handler, ends = get_dispatcher(), SimpleSpanHandler(), Ends()
    root.add_span_handler(handler)
    root.add_event_handler(ends)
    yield handler.completed_spans, ends
    root.span_handlers.remove(handler)
    root.event_handlers.remove(ends)


@pytest.fixture
def counter():
    """A counter of tokens in LlamaIndex's settings."""
    before = Settings._callback_manager
    counter = TokenCountingHandler(tokenizer=str.split)
    Settings.callback_manager = CallbackManager([counter])
    yield counter
    Settings._callback_manager = before


def llm_of(server) -> SmartLLM:
    at = {"api_base": server.url, "api_key": "none", "max_retries": 0}
    big, small = (OpenAILike(model=n, is_chat_model=True, **at) for n in PRICES)
    llm = SmartLLM(reference=big, candidates=[small], prices=PRICES)
    llm.callback_manager = Settings.callback_manager  # as `Settings.llm` does
    return llm


def chat(text: str) -> list[ChatMessage]:
    return [ChatMessage(content=text)]


ASKED = PromptTemplate("{text}")
LLM_VERBS = {
    "chat": lambda llm, text: llm.chat(chat(text)),
    "stream_chat": lambda llm, text: [*llm.stream_chat(chat(text))],
    "predict": lambda llm, text: llm.predict(ASKED, text=text),
    "stream": lambda llm, text: [*llm.stream(ASKED, text=text)],
}


def check_spans(completed, verb: str, number: int) -> None:
    """Check that the verb has a span for each item, in which members' calls are."""
    own = [span for span in completed if span.id_.startswith(f"SmartLLM.{verb}-")]
    assert len(own) == number
    assert all(span.parent_id is None for span in own)
    roots = {span.id_ for span in completed if span.parent_id is None}
    assert roots == {span.id_ for span in own}


@pytest.mark.parametrize("verb", LLM_VERBS)
def test_llama_index_counts_each_call_once(spans, counter, verb):
    completed, ends = spans
    with serve(script) as server:
        llm = llm_of(server)
        for item in ITEMS:
            LLM_VERBS[verb](llm, item)
        bill = sum(billed(server).values())
        assert len(counter.llm_token_counts) == sum(server.requests.values())
    assert counter.total_llm_token_count == bill == ends._total
    check_spans(completed, verb, len(ITEMS))


@pytest.mark.parametrize("verb", ["chat_batch", "achat_batch"])
async def test_a_batch_of_llama_index_is_a_span_with_each_call_in_it(
    spans, counter, verb
):
    completed, ends = spans
    with serve(script) as server:
        said = getattr(llm_of(server), verb)([chat(item) for item in ITEMS])
        said = await said if verb == "achat_batch" else said
        bill = billed(server)
    assert len(said) == len(ITEMS)
    assert counter.total_llm_token_count == sum(bill.values()) == ends._total
    check_spans(completed, verb, 1)


def test_an_answer_of_llama_index_has_the_counts_of_its_model():
    with serve(script) as server:
        llm = llm_of(server)
        asked = [chat(item) for item in ITEMS]
        for answer in [*map(llm.chat, asked), *llm.chat_batch(asked)]:
            told, raw = answer.additional_kwargs, answer.raw.usage
            assert answer.raw.model == told["smart"]["model"]
            assert told["prompt_tokens"] == raw.prompt_tokens
            assert told["completion_tokens"] == raw.completion_tokens
            assert told["total_tokens"] == raw.total_tokens


def test_copies_of_a_smart_llm_report_each_to_its_own_callbacks():
    counters = [TokenCountingHandler(tokenizer=str.split) for _ in range(2)]
    with serve(script) as server:
        first = llm_of(server)
        second = first.model_copy()
        for llm, counter in zip((first, second), counters, strict=True):
            llm.callback_manager = CallbackManager([counter])
        first.chat(chat(ITEMS[0]))
        second.chat(chat(ITEMS[1]))
        first.chat(chat(ITEMS[2]))
        asked = sum(server.requests.values())
    assert [len(c.llm_token_counts) for c in counters] == [asked * 2 // 3, asked // 3]
