"""Clients repeat nothing by themselves: each request is an attempt in the ledger."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import suppress

import httpx
import pytest
from langchain_openai import AzureChatOpenAI, ChatOpenAI
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai import OpenAIResponses
from llama_index.llms.openai_like import OpenAILike
from loopback import Fault, serve

import langchain_smart
from langchain_smart import Price, SmartChatModel
from llama_index_smart import ChatJudge, SmartLLM
from smart_engine.errors import InvalidInputError
from smart_engine.runtime.requester import Attempts

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}
SOON = {"Retry-After": "0.01"}
VERBS = ("whole", "awhole", "pieces", "apieces", "batch", "abatch")


def busy(model, text, attempt):
    return Fault("busy", 503, SOON)


def chat_model(name, server, **settings):
    return ChatOpenAI(model=name, base_url=server.url, api_key="none", **settings)


def llm(name, server, **settings):
    can = {"is_chat_model": True, **settings}
    return OpenAILike(model=name, api_base=server.url, api_key="none", **can)


def eager(name, server):
    return OpenAIResponses(model="gpt-4o", api_base=server.url, api_key="none")


MAKERS = {"langchain": chat_model, "llama": llm, "llama over langchain": chat_model}


def smart_of(kind, server, **settings):
    big, small = (MAKERS[kind](name, server) for name in PRICES)
    told = {"prices": PRICES, "strategy": "reference", **settings}
    smart = SmartChatModel if kind == "langchain" else SmartLLM
    return smart(reference=big, candidates=[small], **told)


async def ask(model, verb, items=("?",)):
    """Ask a chat model, or an LLM, in one verb."""
    if isinstance(model, SmartChatModel | ChatOpenAI):
        if verb == "batch":
            return model.batch(list(items))
        if verb == "abatch":
            return await model.abatch(list(items))
        if verb == "pieces":
            return list(model.stream(items[0]))
        if verb == "apieces":
            return [piece async for piece in model.astream(items[0])]
        return await model.ainvoke(items[0]) if verb == "awhole" else model.invoke("?")
    chats = [[ChatMessage(content=item)] for item in items]
    if verb == "batch":
        return model.chat_batch(chats)
    if verb == "abatch":
        return await model.achat_batch(chats)
    if verb == "pieces":
        return list(model.stream_chat(chats[0]))
    if verb == "apieces":
        return [piece async for piece in await model.astream_chat(chats[0])]
    return await model.achat(chats[0]) if verb == "awhole" else model.chat(chats[0])


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("kind", MAKERS)
async def test_every_request_is_an_attempt_in_the_ledger(kind, verb):
    with serve(busy) as server:
        smart = smart_of(kind, server)
        with pytest.raises(Exception, match="busy"):
            await ask(smart, verb)
        assert server.requests["big"] == len(smart.ledger().entries) > 0


@pytest.mark.parametrize("verb", ["whole", "batch"])
@pytest.mark.parametrize("kind", MAKERS)
async def test_every_request_of_a_judge_is_an_attempt_in_the_ledger(kind, verb):
    def script(model, text, attempt):
        if model != "judge":
            return f"{model} says yes"
        return "same" if attempt > 1 else Fault("busy", 503, SOON)

    with serve(script) as server:
        judge = langchain_smart.ChatJudge if kind == "langchain" else ChatJudge
        rule = judge(MAKERS[kind]("judge", server), price=Price(1, 1))
        smart = smart_of(kind, server, strategy="audit", equivalence=rule)
        await ask(smart, verb)
        entries = [row for row in smart.ledger().entries if row.role == "judge"]
        assert server.requests["judge"] == len(entries) == 4  # in both orders, twice
        assert [row.error is None for row in entries] == [False, True] * 2
        assert smart.report().spend["judge: judge"].calls == 4


@pytest.mark.parametrize("kind", ["langchain", "llama"])
async def test_the_users_own_model_still_tries_again(kind):
    with serve(busy) as server:
        own, small = (MAKERS[kind](name, server, max_retries=1) for name in PRICES)
        smart = SmartChatModel if kind == "langchain" else SmartLLM
        smart(reference=own, candidates=[small], prices=PRICES)
        for verb in ("whole", "awhole"):
            server.requests.clear()
            with pytest.raises(Exception, match="busy"):
                await ask(own, verb)
            assert server.requests["big"] == 2


def test_the_model_as_it_was_given_stays_the_reference():
    with serve(lambda *_: "yes") as server:
        big, small = (chat_model(name, server) for name in PRICES)
        smart = SmartChatModel(reference=big, candidates=[small], prices=PRICES)
        assert smart.reference is big
        assert smart.candidates == [small]
        assert big.root_client.max_retries == 2


@pytest.mark.parametrize("retries", [-1, 0.5, "3", True])
@pytest.mark.parametrize("verb", ["invoke", "stream", "batch"])
def test_retries_of_a_call_are_a_whole_number(verb, retries):
    """-1 was never reached: the call was made again without an end."""
    with serve(busy) as server:
        smart = smart_of("langchain", server)
        items = ["?"] if verb == "batch" else "?"
        with pytest.raises(InvalidInputError, match="max_retries"):
            [*getattr(smart, verb)(items, max_retries=retries)]
        assert not server.requests


@pytest.mark.parametrize("verb", ["awhole", "apieces", "abatch"])
@pytest.mark.parametrize("kind", MAKERS)
async def test_who_leaves_in_a_pause_pays_for_no_request_that_was_not_made(
    kind, verb, monkeypatch
):
    paused, pause = asyncio.Event(), Attempts.await_next

    async def noting(attempts):
        paused.set()
        await pause(attempts)

    monkeypatch.setattr(Attempts, "await_next", noting)
    with serve(lambda *_: Fault("busy", 429, {"Retry-After": "60"})) as server:
        smart = smart_of(kind, server)
        asking = asyncio.create_task(ask(smart, verb))
        await asyncio.wait_for(paused.wait(), 60)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        entries = smart.ledger().entries
        assert [entry.error for entry in entries if entry.at is not None][1:] == []
        assert not any(entry.cost or entry.unknown for entry in entries)


# -- event loops -----------------------------------------------------------------


@pytest.mark.parametrize("verb", ["awhole", "apieces", "abatch"])
@pytest.mark.parametrize("kind", MAKERS)
def test_every_event_loop_has_connections_of_its_own(kind, verb):
    with serve(lambda *_: "yes") as server:
        smart = smart_of(kind, server)
        for n in range(10):
            asyncio.run(ask(smart, verb, [f"item {n}"]))
        assert server.requests == {"big": 10}
        assert [row.error for row in smart.ledger().entries] == [None] * 10


@pytest.mark.parametrize("kind", MAKERS)
def test_a_loop_keeps_its_connection_and_closes_it_at_its_end(kind):
    opened, closed = [], []

    async def job(smart):
        for n in range(3):
            await ask(smart, "awhole", [f"item {n}"])

    with serve(lambda *_: "yes") as server:
        finish, shutdown = server.finish_request, server.shutdown_request
        server.finish_request = lambda *of: (opened.append(of[1]), finish(*of))
        server.shutdown_request = lambda of: (shutdown(of), closed.append(of))
        smart = smart_of(kind, server)
        for _ in range(2):
            asyncio.run(job(smart))
        until = time.monotonic() + 20
        while len(closed) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        assert (len(opened), len(closed)) == (2, 2)
        assert server.requests == {"big": 6}


def test_loops_of_several_threads_share_one_model():
    with serve(lambda *_: "yes", latency=0.02) as server:
        smart = smart_of("langchain", server)

        async def both():
            other = asyncio.to_thread(asyncio.run, ask(smart, "abatch", ["a", "b"]))
            await asyncio.gather(other, ask(smart, "abatch", ["c", "d"]))

        for _ in range(3):
            asyncio.run(both())
        assert server.requests == {"big": 12}


# -- all clients that can be ----------------------------------------------------


def counted(status):
    """Return httpx clients of which each answers alike, and what they were asked."""
    asked = Counter()

    def answer(request):
        asked["all"] += 1
        return httpx.Response(status, headers=SOON, json={"error": {"message": "no"}})

    at = {"transport": httpx.MockTransport(answer)}
    return httpx.Client(**at), httpx.AsyncClient(**at), asked


def azure(sync, asynchronous):
    at = {"azure_endpoint": "http://in.process", "api_version": "2024-06-01"}
    at |= {"http_client": sync, "http_async_client": asynchronous, "api_key": "none"}
    return AzureChatOpenAI(model="big", azure_deployment="d", **at)


def by_responses(sync, asynchronous):
    at = {"http_client": sync, "http_async_client": asynchronous, "api_key": "none"}
    return ChatOpenAI(model="big", use_responses_api=True, **at)


def with_fresh_keys(sync, asynchronous):
    at = {"http_client": sync, "http_async_client": asynchronous}
    return ChatOpenAI(model="big", api_key=lambda: "fresh", **at)


def responses_llm(sync, asynchronous):
    at = {"http_client": sync, "async_http_client": asynchronous, "api_key": "none"}
    return OpenAIResponses(model="gpt-4o", **at)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("maker", [azure, by_responses, with_fresh_keys, responses_llm])
async def test_clients_of_every_kind_make_a_request_once(maker, verb):
    sync, asynchronous, asked = counted(503)
    own = maker(sync, asynchronous)
    chats = maker is not responses_llm
    smart = (SmartChatModel if chats else SmartLLM)(
        reference=own,
        candidates=[maker(sync, asynchronous).model_copy(update={"name": "small"})]
        if chats
        else [OpenAILike(model="small", api_key="none")],
        prices={"big": Price(1, 1), "small": Price(1, 1), "gpt-4o": Price(1, 1)},
        strategy="reference",
    )
    with suppress(Exception):
        await ask(smart, verb)
    assert asked["all"] == len(smart.ledger().entries) > 0
