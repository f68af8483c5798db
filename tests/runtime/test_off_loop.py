"""What may wait, a judge's verdict or a store, never waits on the event loop."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from functools import partial

import pytest
from langchain_openai import ChatOpenAI
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike
from loopback import serve

from langchain_smart import Price, SmartChatModel
from llama_index_smart import SmartLLM
from smart_engine import Rule
from smart_engine.runtime.loop import take
from smart_engine.store.streams import SqlRow

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}
ADAPTERS = pytest.mark.parametrize("adapter", ["langchain", "llama_index"])


class Noting(Rule):
    """Notes in which threads it compares."""

    def __init__(self, *, slow: bool) -> None:
        self.slow = slow
        self.threads: set[int] = set()

    @property
    def waits(self) -> bool:
        return self.slow

    def parse(self, answer):
        return answer

    def same(self, left, right):
        self.threads.add(threading.get_ident())
        return left == right


@pytest.fixture
def server():
    with serve(lambda *_: "yes") as server:
        yield server


def smart_of(adapter, server, **settings):
    """Return a smart object, and its verbs: one item, pieces, a batch."""
    at = {"api_key": "none", "timeout": 20, "max_retries": 0}
    settings = {"prices": PRICES, "max_disagreement": 0.2, **settings}
    if adapter == "langchain":
        big, small = (ChatOpenAI(model=m, base_url=server.url, **at) for m in PRICES)
        smart = SmartChatModel(reference=big, candidates=[small], **settings)

        async def pieces(item):
            return [piece async for piece in smart.astream(item)]

        return smart, smart.ainvoke, pieces, smart.abatch
    at["is_chat_model"] = True
    big, small = (OpenAILike(model=m, api_base=server.url, **at) for m in PRICES)
    smart = SmartLLM(reference=big, candidates=[small], **settings)

    async def whole(item):
        return await smart.achat([ChatMessage(item)])

    async def pieces(item):
        return [piece async for piece in await smart.astream_chat([ChatMessage(item)])]

    return smart, whole, pieces, smart.acomplete_batch


@ADAPTERS
@pytest.mark.parametrize("slow", [True, False])
@pytest.mark.parametrize("verb", ["whole", "pieces", "batch"])
async def test_a_rule_that_waits_compares_in_other_threads(adapter, slow, verb, server):
    rule = Noting(slow=slow)
    _, whole, pieces, batch = smart_of(adapter, server, equivalence=rule)
    here = {threading.get_ident()}
    if verb == "batch":
        assert len(await batch([f"item {n}" for n in range(12)])) == 12
    else:
        for number in range(3):
            await {"whole": whole, "pieces": pieces}[verb](f"item {number}")
    assert rule.threads
    assert not rule.threads & here if slow else rule.threads == here


@ADAPTERS
async def test_a_store_is_written_in_other_threads(
    adapter, server, tmp_path, monkeypatch
):
    locked, threads = SqlRow.locked, set()

    @contextmanager
    def noting(self, *, durable):
        threads.add(threading.get_ident())
        with locked(self, durable=durable) as row:
            yield row

    monkeypatch.setattr(SqlRow, "locked", noting)
    file = tmp_path / "answers.db"
    first, whole, pieces, _ = smart_of(adapter, server, store=file)
    await asyncio.gather(*(whole(f"item {number}") for number in range(8)))
    await pieces("item 8")
    assert threads
    assert threading.get_ident() not in threads
    second, whole, *_ = smart_of(adapter, server, store=file)
    await whole("item 9")
    (state,) = second.report().streams
    assert (state.arrived, state.answered, state.unresolved) == (10, 10, 0)
    assert first.report().streams[0].answered == 10
    both = first.report().cost + second.report().cost
    assert state.cost == pytest.approx(both)


@ADAPTERS
async def test_who_is_cancelled_leaves_a_stored_stream_sound(adapter, server, tmp_path):
    smart, whole, *_ = smart_of(adapter, server, store=tmp_path / "answers.db")
    await whole("item")
    for turn in range(12):
        task = asyncio.create_task(whole(f"item {turn}"))
        await asyncio.sleep(0.001 * turn)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await whole("item")
    report = smart.report()
    (state,) = report.streams
    assert state.in_flight == state.unresolved == 0
    assert state.answered + state.abandoned == state.arrived
    assert state.cost == pytest.approx(report.cost)


# -- the mechanism -------------------------------------------------------------------


class Slow:
    waits = True


class Quick:
    waits = False


async def test_a_step_runs_elsewhere_only_where_it_may_wait():
    assert await take(Quick, threading.get_ident) == threading.get_ident()
    assert await take(Slow, threading.get_ident) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await take(Slow, partial(divmod, 1, 0))


@pytest.mark.parametrize("fails", [False, True])
async def test_who_is_cancelled_waits_until_the_step_is_done(fails):
    begun, may_end, ended = threading.Event(), threading.Event(), []

    def step():
        begun.set()
        assert may_end.wait(20)
        ended.append(True)
        if fails:
            raise ValueError

    task = asyncio.create_task(take(Slow, step))
    while not begun.is_set():
        await asyncio.sleep(0.001)
    for _ in range(3):  # however often
        task.cancel()
        await asyncio.sleep(0.005)
    assert not task.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [True]
