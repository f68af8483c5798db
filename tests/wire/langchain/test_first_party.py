"""What users of a first-party chat model rely on: fields, profile, cache, limits."""

from __future__ import annotations

import json
import time

import pytest
from dutiful import dutiful
from fakes import Scripted
from langchain_core.caches import InMemoryCache
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.runnables import ConfigurableField
from langchain_openai import ChatOpenAI
from loopback import Fault, Verdict, serve
from pydantic import BaseModel

from langchain_smart import Price, SmartChatModel
from langchain_smart.chat.cost import outcome
from smart_engine import InvalidInputError


class Fact(BaseModel):
    """A fact."""

    number: int


PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}
ITEMS = [f"item {n}" for n in range(40)]


def openai(server, name, **settings):
    return ChatOpenAI(
        model=name, base_url=server.url, api_key="none", timeout=20, **settings
    )


def smart_at(server, member=None, **settings) -> SmartChatModel:
    big, small = (openai(server, name, **member or {}) for name in PRICES)
    return SmartChatModel(reference=big, candidates=[small], prices=PRICES, **settings)


def scripted(members=None, **settings) -> SmartChatModel:
    big, small = (
        Scripted(name=name, script=lambda *_: "yes", **members or {}) for name in PRICES
    )
    return SmartChatModel(reference=big, candidates=[small], prices=PRICES, **settings)


# -- fields and arguments ------------------------------------------------------


async def test_its_fields_act_on_every_member_and_calls_take_precedence():
    with serve(lambda *_: "yes, no") as server:
        smart = smart_at(
            server, temperature=0.25, max_tokens=7, stop=[","], timeout=9.5
        )
        assert {o.content for o in smart.batch(ITEMS)} == {"yes"}
        assert {body["model"] for body in server.bodies} == set(PRICES)
        await smart.ainvoke("?")
        list(smart.stream("?"))
        for body in server.bodies:
            assert body["temperature"] == 0.25
            assert body["max_completion_tokens"] == 7
            assert body["stop"] == [","]
        smart.invoke("?", temperature=1.0, stop=["s"])
        assert server.bodies[-1]["temperature"] == 1.0
        assert server.bodies[-1]["stop"] == ["s"]
    params = smart._get_ls_params()
    assert params["ls_temperature"] == 0.25
    assert params["ls_max_tokens"] == 7
    assert params["ls_stop"] == [","]


@pytest.mark.parametrize("verb", ["invoke", "ainvoke", "stream", "astream", "batch"])
async def test_what_may_pass_is_tried_again_and_what_lasts_is_not(verb):
    async def ask(smart):
        if verb == "stream":
            return "".join(chunk.content for chunk in smart.stream("?"))
        if verb == "astream":
            return "".join([chunk.content async for chunk in smart.astream("?")])
        if verb == "batch":
            return smart.batch(["?"])[0].content
        if verb == "ainvoke":
            return (await smart.ainvoke("?")).content
        return smart.invoke("?").content

    def busy(model, text, attempt):
        return Fault("busy", 503) if attempt == 1 else "yes"

    with serve(busy) as server:
        smart = smart_at(server, {"max_retries": 0}, max_retries=1)
        assert await ask(smart) == "yes"
        assert server.requests["big"] == 2
    with serve(lambda *_: Fault("no such thing", 400)) as server:
        smart = smart_at(server, {"max_retries": 0}, max_retries=1)
        with pytest.raises(Exception, match="no such thing"):
            await ask(smart)
        assert server.requests["big"] == 1


@pytest.mark.parametrize("verb", ["invoke", "ainvoke", "stream", "batch", "abatch"])
async def test_a_member_can_be_named_and_only_a_member(verb):
    async def ask(smart, name):
        if verb == "stream":
            chunks = list(smart.stream("?", model=name))
            return chunks[0] + chunks[-1]
        if verb == "batch":
            return smart.bind(model=name).batch(["?"])[0]
        if verb == "abatch":
            return (await smart.bind(model=name).abatch(["?"]))[0]
        if verb == "ainvoke":
            return await smart.ainvoke("?", model=name)
        return smart.invoke("?", model=name)

    with serve(lambda *_: "yes") as server:
        smart = smart_at(server)
        told = (await ask(smart, "small")).response_metadata["smart"]
        assert (told["model"], told["role"]) == ("small", "named")
        assert server.requests == {"small": 1}
        spend = smart.report().spend["small"]
        assert spend.input_tokens == server.input_tokens["small"]
        with pytest.raises(InvalidInputError, match="big, small"):
            await ask(smart, "huge")
        assert server.requests == {"small": 1}


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_pictures_and_other_blocks_reach_every_member_as_they_are(mode):
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    question = {"type": "text", "text": "what is this?"}
    item = [SystemMessage("look"), HumanMessage([question, picture])]
    with serve(lambda *_: "a cat") as server:
        smart = smart_at(server)
        if mode == "sync":
            smart.batch([item] * 30)
        else:
            await smart.abatch([item] * 30)
        assert {body["model"] for body in server.bodies} == set(PRICES)
        for body in server.bodies:
            assert body["messages"][1]["content"] == [question, picture]


# -- what it tells of itself ---------------------------------------------------


@pytest.mark.filterwarnings("ignore:small takes 128 tokens")
def test_its_profile_is_what_all_members_can_do_with_the_window_of_the_reference():
    one = {"max_input_tokens": 400, "tool_calling": True, "image_inputs": True}
    other = {"max_input_tokens": 128, "tool_calling": True, "image_inputs": False}
    other |= {"max_output_tokens": 9}
    smart = scripted()
    big, small = smart.reference, smart.candidates[0]
    big.profile, small.profile = one, other
    smart = SmartChatModel(reference=big, candidates=[small], prices=PRICES)
    shared = {"max_input_tokens": 400, "tool_calling": True, "image_inputs": False}
    assert smart.profile == shared
    small.profile = None
    smart = SmartChatModel(reference=big, candidates=[small], prices=PRICES)
    assert smart.profile == {"max_input_tokens": 400}
    big.profile = None
    smart = SmartChatModel(reference=big, candidates=[small], prices=PRICES)
    assert smart.profile is None


def test_tokens_are_counted_without_a_network(monkeypatch):
    import tiktoken

    def unreachable(*_):
        raise ConnectionError

    monkeypatch.setattr(tiktoken, "encoding_for_model", unreachable)
    with serve(lambda *_: "yes") as server:
        smart = smart_at(server)
        assert smart.get_num_tokens("a" * 40) == 10
        assert 8 < smart.get_num_tokens_from_messages([HumanMessage("a" * 40)]) < 20
    exact = scripted({"custom_get_token_ids": lambda text: list(range(len(text)))})
    assert exact.get_num_tokens("four") == 4


def test_the_cache_knows_one_model_from_another():
    cache, seen = InMemoryCache(), set()
    for change, asked in (
        ({}, 1),
        ({"max_disagreement": 0.1}, 0),  # a member answers whatever the promise
        ({"confidence": 0.9}, 0),
        ({"strategy": "mix"}, 0),
        ({"temperature": 1.0}, 1),
        ({"task": "other"}, 0),
        ({"members": {"latency": 1e-9}}, 1),
    ):
        smart = scripted(cache=cache, **change)
        for _ in range(2):
            smart.invoke("?")
            assert len(smart.reference.calls) == asked
        seen.add(json.dumps(smart._identifying_params, default=str))
    assert len(seen) == 6
    with serve(lambda *_: "yes") as server:
        for name in ("gpt-a", "gpt-b"):
            big = ChatOpenAI(
                model=name, name="big", base_url=server.url, api_key="none"
            )
            smart = SmartChatModel(
                reference=big,
                candidates=[Scripted(name="small", script=lambda *_: "yes")],
                prices=PRICES,
                cache=cache,
            )
            smart.invoke("?")
        assert server.requests == {"gpt-a": 1, "gpt-b": 1}


async def test_an_answer_from_the_cache_says_that_it_cost_nothing():
    smart = scripted(cache=InMemoryCache())
    first, again = smart.invoke("?"), await smart.ainvoke("?")
    costs = [m.response_metadata["smart"]["cost"] for m in (first, again)]
    assert costs == [smart.report().cost, 0.0]
    assert again.usage_metadata["total_cost"] == 0
    assert smart.report().cost > 0


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_configured_copies_share_the_books_and_keep_batches_whole(mode):
    smart = scripted()
    flexible = smart.configurable_fields(max_disagreement=ConfigurableField(id="delta"))
    configs = [{"configurable": {"delta": (0.2, 0.3)[n % 2]}} for n in range(40)]
    for runnable, config in (
        (flexible, None),
        (flexible.with_config(configurable={"delta": 0.1}), None),
        (flexible, configs),
    ):
        if mode == "sync":
            outputs = runnable.batch(ITEMS, config)
        else:
            outputs = await runnable.abatch(ITEMS, config)
        assert [output.content for output in outputs] == ["yes"] * 40
    flexible.invoke("?", {"configurable": {"delta": 0.4}})
    smart.model_copy(update={"max_disagreement": 0.5}).batch(ITEMS)
    report = smart.report()
    seen = [(c.items, c.max_disagreement) for c in report.certificates]
    assert seen == [(40, 0.05), (40, 0.1), (20, 0.2), (20, 0.3), (40, 0.5)]
    asked = len(smart.reference.calls)
    assert report.spend["big"].calls == asked
    assert flexible.batch([]) == []
    assert scripted().report().spend["big"].calls == 0


def test_a_configured_model_is_still_a_chat_model():
    with serve(dutiful) as server:
        smart = smart_at(server, max_tokens=5)
        flexible = smart.configurable_fields(temperature=ConfigurableField(id="t"))
        warm = flexible.with_config(configurable={"t": 0.75})
        assert warm.bind_tools([Fact]).invoke("fact 3").tool_calls
        assert warm.with_structured_output(Fact).invoke("fact 3") == Fact(number=3)
        assert {body["temperature"] for body in server.bodies} == {0.75}
        with pytest.raises(ValueError, match="nothing"):
            smart.configurable_fields(nothing=ConfigurableField(id="n"))


def test_copies_with_other_members_share_the_books_too():
    smart = scripted(strategy="reference")
    tiny = Scripted(name="tiny", script=lambda *_: "yes")
    field = ConfigurableField(id="candidates")
    priced = SmartChatModel(
        reference=smart.reference,
        candidates=smart.candidates,
        prices={**PRICES, "tiny": Price.free()},
    )
    flexible = priced.configurable_fields(candidates=field)
    flexible.invoke("?", {"configurable": {"candidates": [tiny]}}, model="tiny")
    assert priced.report().spend["tiny"].calls == 1


# -- limits --------------------------------------------------------------------


@pytest.mark.parametrize("where", ["member", "smart"])
@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_rate_limiters_are_kept(where, mode):
    limiter = InMemoryRateLimiter(
        requests_per_second=50, check_every_n_seconds=0.002, max_bucket_size=1
    )
    settings = {"rate_limiter": limiter}
    smart = scripted(settings) if where == "member" else scripted(**settings)
    started = time.perf_counter()
    smart.batch(ITEMS[:10]) if mode == "sync" else await smart.abatch(ITEMS[:10])
    calls = sum(spend.calls for spend in smart.report().spend.values())
    assert time.perf_counter() - started > 0.9 * (calls - 2) / 50


# -- forms of answers ----------------------------------------------------------


@pytest.mark.parametrize("verb", ["invoke", "batch", "abatch"])
async def test_output_version_v1_gives_blocks(verb):
    with serve(lambda *_: "yes") as server:
        smart = smart_at(server, output_version="v1")
        if verb == "invoke":
            answers = [smart.invoke("?")]
        elif verb == "batch":
            answers = smart.batch(ITEMS)
        else:
            answers = await smart.abatch(ITEMS)
    for answer in answers:
        assert answer.content == [{"type": "text", "text": "yes"}]
        assert answer.response_metadata["output_version"] == "v1"


def test_a_members_logprobs_are_its_confidence():
    import math

    with serve(lambda *_: Verdict("ham", (-0.1, -0.3))) as server:
        sure = smart_at(server, {"logprobs": True})
        silent = smart_at(server)
        member = sure._members["small"]
        brought = outcome(member, member.model.invoke("?"))
        assert brought.confidence == pytest.approx(math.exp(-0.2))
        member = silent._members["small"]
        assert outcome(member, member.model.invoke("?")).confidence is None
        before = len(server.bodies)
        silent.batch(ITEMS)
        asked = server.bodies[before:]
        assert {b.get("logprobs") for b in asked if b["model"] == "small"} == {True}
        assert {b.get("logprobs") for b in asked if b["model"] == "big"} == {None}


def test_a_stated_confidence_wins():
    logs = {"content": [{"logprob": -1.0}]}
    message = AIMessage("yes", response_metadata={"confidence": 0.5, "logprobs": logs})
    smart = scripted()
    (member, _) = smart._members.values()
    free = type(member)("big", member.model, Price.free())
    assert outcome(free, message).confidence == 0.5
    message.response_metadata.pop("confidence")
    assert outcome(free, message).confidence == pytest.approx(0.3679, abs=1e-4)
    message.response_metadata["logprobs"] = {"content": None}
    assert outcome(free, message).confidence is None
