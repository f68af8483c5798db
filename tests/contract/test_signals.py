"""Candidates are asked for logprobs, at no cost, where their classes have them."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_openai import ChatOpenAI
from llama_index.core.llms.mock import MockLLM
from llama_index.llms.openai import OpenAI, OpenAIResponses
from llama_index.llms.openai_like import OpenAILike
from loopback import Fault, InProcess, Verdict
from pydantic import BaseModel

from langchain_smart import Price, SmartChatModel, SmartRunnable
from llama_index_smart import SmartLLM
from llama_index_smart.langchain_llm import LangChainLLM
from llama_index_smart.logprobs import has_logprobs
from smart_engine import InvalidInputError
from smart_engine.runtime.signals import (
    CallSignals,
    Signals,
    completes_chats,
    reports_logprobs,
)
from smart_engine.serving.members import Member

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}
ITEMS = [f"item {n}" for n in range(24)]
SURE, UNSURE = (-0.1, -0.3), (-2.0,)


def answers(model, text, attempt):
    """Be unsure of every third answer."""
    unsure = int(text.split()[-1]) % 3 == 0
    return Verdict("yes", UNSURE if unsure else SURE)


def refuses(kind, status=400):
    """Answer who does not ask for logprobs."""

    def script(model, text, attempt):
        return Fault(kind, status) if "logprobs" in text.body else "yes"

    return script


class LangChain:
    """The verbs of the chat model."""

    def __init__(self, provider, settings=(), bound=(), **terms):
        def member(name, **more):
            http = {"http_client": httpx.Client(transport=provider)}
            http["http_async_client"] = httpx.AsyncClient(transport=provider)
            at = {"base_url": provider.url, "api_key": "none", **http}
            return ChatOpenAI(
                model=name, max_retries=0, stream_usage=True, **at, **more
            )

        small = member("small", **dict(settings))
        small = small.bind(**dict(bound)) if bound else small
        members = {"reference": member("big"), "candidates": [small]}
        self.smart = SmartChatModel(**members, prices=PRICES, task="t", **terms)
        self.batch, self.abatch = self.smart.batch, self.smart.abatch
        self.ask = self.smart.invoke

    def stream(self, item):
        return list(self.smart.stream(item))

    async def astream(self, item):
        return [piece async for piece in self.smart.astream(item)]

    def named(self, item):
        return self.smart.invoke(item, model="small")

    @staticmethod
    def shown(answer):
        return answer.model_dump_json()

    @staticmethod
    def model(answer):
        return answer.response_metadata["smart"]["model"]


class LlamaIndex:
    """The verbs of the LLM."""

    def __init__(self, provider, settings=(), bound=(), **terms):
        def member(name, **more):
            http = {"http_client": httpx.Client(transport=provider)}
            http["async_http_client"] = httpx.AsyncClient(transport=provider)
            at = {"api_base": provider.url, "api_key": "none", **http}
            chats = {"is_chat_model": True, "max_retries": 0}
            return OpenAILike(model=name, **chats, **at, **more)

        small = member("small", **dict(settings), additional_kwargs=dict(bound))
        members = {"reference": member("big"), "candidates": [small]}
        self.smart = SmartLLM(**members, prices=PRICES, task="t", **terms)
        self.batch = self.smart.complete_batch
        self.abatch = self.smart.acomplete_batch
        self.ask = self.smart.complete

    def stream(self, item):
        return list(self.smart.stream_complete(item))

    async def astream(self, item):
        return [piece async for piece in await self.smart.astream_complete(item)]

    def named(self, item):
        return self.smart.complete(item, smart_model="small")

    @staticmethod
    def shown(answer):
        return answer.model_dump_json()

    @staticmethod
    def model(answer):
        return answer.additional_kwargs["smart"]["model"]


ADAPTERS = pytest.mark.parametrize("adapter", [LangChain, LlamaIndex])
EASY = {"min_saving": 0, "max_disagreement": 0.4, "promise": "batch"}


def asked_by(provider, model):
    return {body.get("logprobs") for body in provider.bodies if body["model"] == model}


@ADAPTERS
@pytest.mark.parametrize("verb", ["batch", "abatch"])
async def test_a_batch_asks_candidates_for_logprobs_and_the_reference_for_none(
    adapter, verb
):
    provider = InProcess(answers)
    asked = adapter(provider, **EASY)
    given = asked.batch(ITEMS) if verb == "batch" else await asked.abatch(ITEMS)
    assert asked_by(provider, "small") == {True}
    assert asked_by(provider, "big") == {None}
    assert "small" in map(asked.model, given)
    assert not any("-0.3" in asked.shown(answer) for answer in given)


@ADAPTERS
async def test_streams_ask_for_them_and_show_none(adapter):
    provider = InProcess(answers)
    asked = adapter(provider, mode="shadow")
    pieces = [*asked.stream("item 1"), *await asked.astream("item 2")]
    pieces.append(asked.ask("item 3"))
    assert asked_by(provider, "small") == {True}
    assert asked_by(provider, "big") == {None}
    assert not any("-0.3" in asked.shown(piece) for piece in pieces)


@ADAPTERS
def test_a_named_model_is_not_asked_for_them(adapter):
    provider = InProcess(answers)
    asked = adapter(provider)
    asked.named("item 1")
    assert asked_by(provider, "small") == {None}


@ADAPTERS
def test_they_can_be_turned_off(adapter):
    provider = InProcess(answers)
    asked = adapter(provider, signals=None, **EASY)
    asked.batch(ITEMS)
    asked.smart.signals = "logprobs"
    asked.batch(ITEMS)
    said = [body.get("logprobs") for body in provider.bodies]
    assert None in said[:24]
    assert True not in said[:24]
    assert True in said[24:]
    with pytest.raises(InvalidInputError, match="signals"):
        adapter(provider, signals="tokens")


@ADAPTERS
@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("how", ["settings", "bound"])
def test_the_users_own_setting_wins(adapter, given, how):
    provider = InProcess(answers)
    asked = adapter(provider, **{how: {"logprobs": given}}, **EASY)
    shown = [asked.shown(answer) for answer in asked.batch(ITEMS)]
    assert asked_by(provider, "small") <= {given, given or None}
    assert any("-0.3" in answer for answer in shown) == given


@ADAPTERS
@pytest.mark.parametrize(
    ("verb", "said"),
    [
        ("batch", "Unrecognized request argument supplied: logprobs"),
        ("abatch", "Bad Request"),
        ("stream", "Bad Request"),
        ("astream", "This model does not support the 'logprobs' parameter."),
    ],
)
async def test_a_server_that_refuses_them_costs_nothing_and_fails_nothing(
    adapter, verb, said
):
    provider = InProcess(refuses(said))
    asked = adapter(provider, mode="shadow" if "stream" in verb else "serve", **EASY)
    given = ITEMS if "batch" in verb else ITEMS[0]
    for _ in range(2):
        done = getattr(asked, verb)(given)
        await done if verb.startswith("a") else None
    report = asked.smart.report()
    asking = [body for body in provider.bodies if body.get("logprobs")]
    assert 0 < len(asking) < len(ITEMS) * 2
    assert "logprobs" not in provider.bodies[-1]
    rows = list(asked.smart.ledger())
    assert len(rows) == len(provider.bodies)
    refused = [row for row in rows if row.outcome == "failed"]
    assert len(refused) == len(asking)
    assert report.spend["small"].cost == pytest.approx(
        sum(row.cost for row in rows if row.model == "small" and row not in refused)
    )


def test_a_cache_answers_the_same_question_again():
    provider, cache = InProcess(answers), InMemoryCache()
    first = LangChain(provider, cache=cache, seed=1, **EASY)
    said = [answer.text for answer in first.batch(ITEMS)]
    before = len(provider.bodies)
    again = LangChain(provider, cache=cache, seed=1, **EASY).batch(ITEMS)
    assert [answer.text for answer in again] == said
    assert len(provider.bodies) == before
    assert not any("-0.3" in answer.model_dump_json() for answer in again)


@ADAPTERS
def test_an_error_that_is_not_about_them_stays_one(adapter):
    def script(model, text, attempt):
        return Fault("?", 400) if model == "small" and text != "item 1" else "yes"

    provider = InProcess(script)
    asked = adapter(provider, mode="shadow")
    for item in ITEMS[:4]:
        asked.ask(item)
    said = [b.get("logprobs") for b in provider.bodies if b["model"] == "small"]
    assert said == [True, None, True, True, True]


class Chat(BaseModel):
    """A chat model of a provider that nobody knows."""

    logprobs: bool | None = None
    profile: dict[str, Any] | None = None
    model_kwargs: dict[str, Any] = {}
    extra_body: dict[str, Any] | None = None


class Counting(BaseModel):
    """Of one that takes the number of alternatives."""

    logprobs: int | None = None


OPEN = ChatOpenAI(model="gpt-4.1", api_key="none")
OPENAI = OpenAI(model="gpt-4.1", api_key="none")


@pytest.mark.parametrize(
    ("model", "can"),
    [
        (Chat(), True),
        (Chat(logprobs=True), False),
        (Chat(logprobs=False), False),
        (Chat(profile={"reasoning_output": True}), False),
        (Chat(model_kwargs={"logprobs": False}), False),
        (Chat(extra_body={"logprobs": False}), False),
        (Counting(), False),
        (OPEN, True),
        (OPEN.model_copy(update={"profile": {"reasoning_output": True}}), False),
    ],
)
def test_the_class_and_its_settings_say_who_can_be_asked(model, can):
    assert reports_logprobs(model, {}) == can
    assert not reports_logprobs(model, {"logprobs": None})


@pytest.mark.parametrize(
    ("llm", "can"),
    [
        (OPENAI, True),
        (OpenAI(model="o3", api_key="none"), False),
        (OpenAI(model="gpt-3.5-turbo-instruct", api_key="none"), False),
        (OpenAIResponses(model="gpt-4.1", api_key="none"), False),
        (OpenAILike(model="m", is_chat_model=True), True),
        (OpenAILike(model="m"), False),
        (LangChainLLM(model=OPEN), True),
        (MockLLM(), False),
    ],
)
def test_of_llms_those_that_chat_and_do_not_reason_can_be_asked(llm, can):
    assert has_logprobs(Member("m", llm, Price.free())) == can


@pytest.mark.parametrize(
    ("given", "chats"),
    [
        ({}, True),
        ({"use_responses_api": True}, False),
        ({"reasoning": {"effort": "low"}}, False),
    ],
)
def test_the_responses_api_is_not_asked(given, chats):
    model = ChatOpenAI(model="gpt-4.1", api_key="none", **given)
    assert completes_chats(model, {}) == chats
    assert not completes_chats(model, {"tools": [{"type": "web_search"}]})


@pytest.mark.parametrize(
    "said",
    [
        "Unrecognized request argument supplied: logprobs",
        "[{'type': 'extra_forbidden', 'loc': ('body', 'logprobs')}]",
        "You are not allowed to request logprobs from this model",
        "400 Logprobs is not supported for the current model",
        "litellm does not support parameters: {'logprobs': True}",
    ],
)
def test_whatever_names_them_refuses_them(said):
    signals = Signals(["small"])
    first, second = CallSignals(signals, "small"), CallSignals(signals, "small")
    assert first.dropped(RuntimeError(said))
    assert second.dropped(RuntimeError(said))  # was under way
    assert not first.dropped(RuntimeError(said))
    assert not signals.asked("small")


def test_an_unnamed_refusal_counts_until_a_server_has_taken_them():
    signals = Signals(["small", "tiny"])
    refused = ValueError("too long")
    refused.status_code = 400
    small, tiny = CallSignals(signals, "small"), CallSignals(signals, "tiny")
    assert small.dropped(refused)
    assert not small.dropped(refused)
    assert signals.asked("small")
    small.answered()
    assert not signals.asked("small")
    tiny.answered()
    assert not tiny.dropped(refused)
    assert signals.asked("tiny")


class Chains:
    """The verbs of the chain whose answers are messages."""

    def __init__(self, provider, around=lambda chain: chain, **terms):
        def chain(name):
            http = {"http_client": httpx.Client(transport=provider)}
            http["http_async_client"] = httpx.AsyncClient(transport=provider)
            at = {"base_url": provider.url, "api_key": "none", **http}
            model = ChatOpenAI(model=name, max_retries=0, stream_usage=True, **at)
            asked = ChatPromptTemplate.from_template("{text}") | around(model)
            return asked | RunnableLambda(lambda message: {"said": message})

        self.smart = SmartRunnable(
            reference={"big": chain("big")},
            candidates={"small": chain("small")},
            prices=PRICES,
            equivalence=lambda one, two: one["said"].text == two["said"].text,
            **terms,
        )

    async def ask(self, verb):
        inputs = [{"text": item} for item in ITEMS]
        if verb == "batch":
            return self.smart.batch(inputs)
        if verb == "abatch":
            return await self.smart.abatch(inputs)
        if verb == "stream":
            return [piece for each in inputs for piece in self.smart.stream(each)]
        return [piece for each in inputs async for piece in self.smart.astream(each)]


@pytest.mark.parametrize("verb", ["batch", "abatch", "stream", "astream"])
async def test_the_only_model_of_a_candidate_chain_is_asked(verb):
    provider = InProcess(answers)
    chains = Chains(provider, **EASY)
    given = await chains.ask(verb)
    assert asked_by(provider, "small") == {True}
    assert asked_by(provider, "big") == {None}
    assert "-0.3" not in repr(given)


@pytest.mark.parametrize("verb", ["batch", "abatch", "stream", "astream"])
async def test_a_chain_whose_server_refuses_them_is_made_again_without(verb):
    provider = InProcess(refuses("Bad Request"))
    chains = Chains(provider, **EASY)
    await chains.ask(verb)
    asking = [body for body in provider.bodies if body.get("logprobs")]
    assert 0 < len(asking) < len(ITEMS)
    assert "logprobs" not in provider.bodies[-1]
    failed = [row for row in chains.smart.ledger() if row.outcome == "failed"]
    assert {row.model for row in failed} == {"small"}
    assert sum(row.role == "candidate" for row in failed) == len(asking)


@pytest.mark.parametrize(
    "around",
    [
        lambda model: model.with_retry(),
        lambda model: model.with_fallbacks([model]),
        lambda model: model.bind(reasoning={"effort": "low"}) | model,
        lambda model: model.bind(logprobs=False),
    ],
)
def test_a_chain_that_may_hide_a_refusal_is_not_asked(around):
    chains = Chains(InProcess(answers), around=around)
    assert chains.smart._members["small"].scored is None
