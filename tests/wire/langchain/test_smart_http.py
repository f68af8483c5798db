"""Real HTTP: the ledger is the server's bill, and faults lose nothing."""

from __future__ import annotations

import asyncio
import threading

import pytest
from langchain_openai import ChatOpenAI
from loopback import Fault, Server, serve

from langchain_smart import Price, SmartChatModel

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}
ITEMS = [f"item {n}" for n in range(300)]


def smart_at(server: Server, retries: int = 2, **settings) -> SmartChatModel:
    def member(name):
        where = {"base_url": server.url, "api_key": "none", "timeout": 20}
        return ChatOpenAI(model=name, max_retries=retries, **where)

    return SmartChatModel(
        reference=member("big"),
        candidates=[member("small")],
        prices=PRICES,
        max_concurrency=16,
        **settings,
    )


def assert_ledger_is_the_bill(smart: SmartChatModel, server: Server) -> None:
    for name, spend in smart.report().spend.items():
        assert spend.input_tokens == server.input_tokens[name]
        assert spend.output_tokens == server.output_tokens[name]
        bill = spend.input_tokens * PRICES[name].input
        bill += spend.output_tokens * PRICES[name].output
        assert spend.cost == pytest.approx(bill / 1e6)


def agreeing(model, text, attempt):
    number = int(text.split()[1])
    return "no" if model == "small" and number % 50 == 0 else "yes"


@pytest.mark.parametrize(
    ("size", "share"),
    [
        pytest.param(60, 0.2, id="60"),
        pytest.param(300, 0.05, id="300", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_the_ledger_is_the_servers_bill(mode, size, share):
    items = ITEMS[:size]
    with serve(agreeing) as server:
        smart = smart_at(server, max_disagreement=share)
        if mode == "sync":
            outputs = await asyncio.to_thread(smart.batch, items)
        else:
            outputs = await smart.abatch(items)
        assert_ledger_is_the_bill(smart, server)
        assert sum(o.content != "yes" for o in outputs) <= size * share
        assert server.requests["big"] < size * 2 / 3
        assert server.requests["small"] == size


FAULTS = {
    "500": Fault("boom", 500),
    "malformed": Fault("malformed"),
    "reset": Fault("reset"),
    "400": Fault("context too long", 400),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_a_candidates_faults_escalate(fault, mode):
    def script(model, text, attempt):
        if model == "small" and text in {"item 3", "item 4", "item 30"}:
            return FAULTS[fault]
        return "yes"

    with serve(script) as server:
        smart = smart_at(server, max_disagreement=0.2, signals=None)
        items = ITEMS[:40]
        if mode == "sync":
            outputs = await asyncio.to_thread(smart.batch, items)
        else:
            outputs = await smart.abatch(items)
        assert [o.content for o in outputs] == ["yes"] * 40
        by = [outputs[n].response_metadata["smart"]["model"] for n in (3, 4, 30)]
        assert by == ["big"] * 3
        attempts = 3 if fault in {"500", "reset"} else 1
        assert smart.report().spend["small"].failures == 3 * attempts
        assert_ledger_is_the_bill(smart, server)


async def test_a_reference_that_is_busy_once_is_asked_again_as_by_its_own_client():
    def script(model, text, attempt):
        if model == "big" and attempt == 1:
            return Fault("busy", 429, {"Retry-After": "0"})
        return "yes"

    with serve(script) as server:
        smart = smart_at(server, strategy="reference")
        outputs = await smart.abatch(ITEMS[:20])
        assert [o.content for o in outputs] == ["yes"] * 20
        assert server.requests["big"] == 40
        assert_ledger_is_the_bill(smart, server)


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_a_reference_fault_is_delivered_in_its_place(mode):
    def script(model, text, attempt):
        return Fault("boom") if (model, text) == ("big", "item 5") else "yes"

    with serve(script) as server:
        smart = smart_at(server, strategy="reference")
        if mode == "sync":
            run = asyncio.to_thread(smart.batch, ITEMS[:20], return_exceptions=True)
        else:
            run = smart.abatch(ITEMS[:20], return_exceptions=True)
        outputs = await run
        failed = [n for n, o in enumerate(outputs) if isinstance(o, Exception)]
        assert failed == [5]
        assert smart.report().spend["big"].failures == 3  # attempts
        assert_ledger_is_the_bill(smart, server)


async def test_a_cancelled_batch_keeps_its_books_and_leaves_nothing_running():
    release = threading.Event()

    def script(model, text, attempt):
        if int(text.split()[1]) >= 50:
            release.wait(60)
        return "yes"

    with serve(script) as server:
        smart = smart_at(server, strategy="reference")
        before = asyncio.all_tasks()
        running = asyncio.create_task(smart.abatch(ITEMS[:100]))
        while server.requests["big"] < 60:
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        release.set()
        spend = smart.report().spend["big"]
        assert 50 - 16 <= spend.calls - spend.failures <= 50
        assert 0 < spend.failures <= 16
        assert smart.report().certificates == ()
        assert asyncio.all_tasks() <= before


def test_an_interrupted_batch_keeps_its_books_and_leaves_no_thread():
    from langchain_core.callbacks import BaseCallbackHandler

    class Stop(BaseCallbackHandler):
        raise_error = True

        def on_chat_model_start(self, serialized, messages, **_):
            if messages[0][0].content == "item 70":
                raise KeyboardInterrupt

    with serve(lambda *_: "yes") as server:
        smart = smart_at(server, strategy="reference")
        with pytest.raises(KeyboardInterrupt):
            smart.batch(ITEMS[:100], {"callbacks": [Stop()]})
        assert smart.report().spend["big"].calls == server.requests["big"]
        assert 35 < smart.report().spend["big"].calls <= 70
        assert_ledger_is_the_bill(smart, server)
    assert not [t for t in threading.enumerate() if t.name.startswith("smart")]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("verb", ["invoke", "astream"])
async def test_a_candidates_faults_escalate_one_at_a_time(fault, verb):
    def script(model, text, attempt):
        if model == "small" and int(text.split()[-1]) % 3 == 0:
            return FAULTS[fault]
        return "yes"

    async def ask(item):
        if verb == "invoke":
            return await asyncio.to_thread(smart.invoke, item)
        pieces = [piece async for piece in smart.astream(item)]
        whole = pieces[0]
        for piece in pieces[1:]:
            whole += piece
        return whole

    with serve(script) as server:
        smart = smart_at(server, retries=0, max_disagreement=0.4)
        outputs = [await ask(item) for item in ITEMS[:30]]
        assert [output.content for output in outputs] == ["yes"] * 30
        (stream,) = smart.report().streams
        assert stream.in_flight == stream.abandoned == 0
        assert stream.answered == 30
        assert stream.roles["escalated"] > 0
        assert stream.served["small"] > 2
        assert stream.possible_misses <= stream.allowed == 12
        assert_ledger_is_the_bill(smart, server)
