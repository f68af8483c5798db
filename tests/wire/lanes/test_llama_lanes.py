"""LlamaIndex: a provider's batches as a lane, over real HTTP."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import pytest
from batch_loopback import BatchServer, serve_batches
from lane_models import ITEMS, PRICES, agreeing, assert_ledger_is_the_bill, member
from langchain_core.caches import InMemoryCache
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.llms import ChatMessage
from llama_index.core.llms.mock import MockLLM
from llama_index.llms.openai_like import OpenAILike
from pydantic import Field

from llama_index_smart import Price, SmartLLM
from smart_engine import InvalidInputError


def llm(server: BatchServer, name: str, kind: str) -> Any:
    if kind == "LangChain":
        return member(server, name)
    at = {"api_base": server.url, "api_key": "none", "is_chat_model": True}
    own = {"reuse_client": kind != "client for each call", "temperature": 0.5}
    return OpenAILike(model=name, **at, **own)


def smart_at(server: BatchServer, kind: str = "OpenAI", **settings: Any) -> SmartLLM:
    big, small = (llm(server, name, kind) for name in PRICES)
    terms = {"max_disagreement": 0.2, "seed": 5, "lane": "batch", "prices": PRICES}
    terms |= {"max_rounds": 6}
    return SmartLLM(reference=big, candidates=[small], **{**terms, **settings})


def items_of(verb: str) -> list[Any]:
    if "chat" not in verb:
        return [*ITEMS]
    return [[ChatMessage("be brief", role="system"), ChatMessage(i)] for i in ITEMS]


async def answered(smart: SmartLLM, verb: str) -> list[str]:
    items = items_of(verb)
    ask = getattr(smart, verb)
    answers = await (ask(items) if verb[0] == "a" else asyncio.to_thread(ask, items))
    return [a.message.content if "chat" in verb else a.text for a in answers]


@pytest.mark.parametrize(
    ("verb", "kind"),
    [
        ("achat_batch", "OpenAI"),
        ("chat_batch", "client for each call"),
        ("acomplete_batch", "LangChain"),
        *(
            pytest.param(verb, kind, marks=pytest.mark.slow)
            for verb in ("complete_batch", "acomplete_batch")
            for kind in ("OpenAI", "client for each call")
        ),
    ],
)
async def test_a_batch_answers_as_live_calls_would_at_half_the_price(verb, kind):
    def bodies(provider):
        return Counter(json.dumps(b, sort_keys=True) for b in provider.bodies)

    with serve_batches(agreeing) as server:
        smart, live = smart_at(server, kind), smart_at(server, kind, lane="live")
        answers = await answered(smart, verb)
        assert server.requests.total() == 0
        assert_ledger_is_the_bill(smart, server)
        assert answers == await answered(live, verb)
        assert smart.report().cost == pytest.approx(live.report().cost / 2)
        assert bodies(server.batched) == bodies(server)


async def test_equal_items_are_billed_and_then_in_the_cache(monkeypatch):
    monkeypatch.setattr("langchain_core.globals._llm_cache", InMemoryCache())
    with serve_batches(agreeing) as server:
        smart = smart_at(server, "LangChain")
        await smart.acomplete_batch(ITEMS[:10] * 3)
        assert server.batched.requests["small"] > 10
        assert_ledger_is_the_bill(smart, server)
        bought = server.batched.requests["small"]
        await smart.acomplete_batch(ITEMS[:10] * 3)
        assert server.batched.requests["small"] == bought
        assert_ledger_is_the_bill(smart, server)


class Events(BaseEventHandler):
    """Counts events of models by their classes."""

    counts: Counter[str] = Field(default_factory=Counter)

    def handle(self, event, **kwargs):
        if "LLM" in type(event).__name__ or "Exception" in type(event).__name__:
            self.counts[type(event).__name__] += 1


@pytest.mark.parametrize("kind", ["OpenAI", "LangChain"])
async def test_callbacks_and_instrumentation_hear_of_each_call_once(kind):
    events, spans, tokens = Events(), SimpleSpanHandler(), TokenCountingHandler()
    root = get_dispatcher()
    before = list(root.event_handlers), list(root.span_handlers)
    root.add_event_handler(events)
    root.add_span_handler(spans)
    try:
        with serve_batches(agreeing) as server:
            callbacks = CallbackManager([tokens])
            smart = smart_at(server, kind, callback_manager=callbacks)
            await smart.achat_batch([[ChatMessage(item)] for item in ITEMS[:20]])
            calls = server.batched.requests.total()
            assert events.counts == {
                "LLMChatStartEvent": calls,
                "LLMChatEndEvent": calls,
            }
            assert not spans.dropped_spans
            assert len(tokens.llm_token_counts) == calls
            assert tokens.prompt_llm_token_count == server.batched.input_tokens.total()
    finally:
        root.event_handlers, root.span_handlers = before


def test_who_cannot_be_asked_in_batches_is_named_at_construction():
    with serve_batches(agreeing) as server:
        mock, prices = MockLLM(), {**PRICES, "MockLLM": Price.free()}
        made = {"reference": llm(server, "big", "OpenAI"), "candidates": [mock]}
        with pytest.raises(
            InvalidInputError, match=r"MockLLM .* cannot be asked by ba"
        ):
            SmartLLM(**made, prices=prices, lane="batch")
        smart = SmartLLM(**made, prices=prices, lane={"big": "batch"})
        assert len(smart.complete_batch(ITEMS[:3])) == 3
        assert server.batched.requests.keys() == {"big"}


@pytest.mark.parametrize("verb", ["complete_batch", "chat_batch"])
async def test_a_submitted_batch_answers_as_its_verb_does(verb, tmp_path):
    with serve_batches(agreeing) as server:
        smart = smart_at(server, store=tmp_path / "answers.db")
        items = items_of(verb)
        job = smart.submit(items)
        answers = await job
        status = job.status()
        assert (status.state, status.items, status.settled) == ("done", 60, 60)
        assert status.spent == pytest.approx(smart.report().cost)
        assert_ledger_is_the_bill(smart, server)
        bought = server.batched.requests.total()
        again = smart_at(server, store=tmp_path / "answers.db")
        repeated = await asyncio.to_thread(getattr(again, verb), items)
        assert [str(a) for a in repeated] == [str(a) for a in answers]
        assert server.batched.requests.total() == bought


def test_items_of_a_submitted_batch_are_all_prompts_or_all_chats():
    with serve_batches(agreeing) as server:
        smart = smart_at(server, lane="live")
        for items, hint in [
            ("item 1", "brackets"),
            ([3], "list of ChatMessage"),
            (["item 1", [ChatMessage("item 2")]], "use chat_batch"),
        ]:
            with pytest.raises(InvalidInputError, match=hint):
                smart.submit(items)
        assert smart.submit([]).results() == []
