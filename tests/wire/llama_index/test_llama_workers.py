"""Copies of a smart LLM in other processes share a store, or warn that they do not."""

from __future__ import annotations

import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
from llama_index.core.extractors import KeywordExtractor
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.llms import ChatMessage
from llama_index.core.schema import TextNode
from llama_index.llms.openai_like import OpenAILike
from loopback import serve

from llama_index_smart import Price, SmartLLM
from smart_engine.errors import BudgetExceededError

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}


def smart_at(server, **settings) -> SmartLLM:
    big, small = (
        OpenAILike(
            model=name,
            api_base=server.url,
            api_key="none",
            is_chat_model=True,
            max_retries=0,
            max_tokens=50,
        )
        for name in PRICES
    )
    return SmartLLM(reference=big, candidates=[small], prices=PRICES, **settings)


def work(smart: SmartLLM, items: int) -> tuple[list[str], int, int]:
    """Ask in another process; return warnings, answers and calls in the ledger."""
    answered = 0
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for number in range(items):
            try:
                smart.chat([ChatMessage(content=f"mail {number}")])
            except BudgetExceededError:
                break
            answered += 1
    told = [str(one.message) for one in seen if "smart model" in str(one.message)]
    return told, answered, len(smart.ledger().entries)


def elsewhere(kind: str, smart: SmartLLM, items: int) -> tuple[list[str], int, int]:
    with ProcessPoolExecutor(1, mp_context=get_context(kind)) as pool:
        return pool.submit(work, smart, items).result(timeout=100)


@pytest.mark.parametrize(
    "kind", [pytest.param("spawn", marks=pytest.mark.slow), "fork"]
)
def test_a_copy_without_a_store_warns_once_and_begins_anew(kind):
    with serve(lambda *_: "yes") as server:
        smart = smart_at(server, budget_usd=1.0)
        assert work(smart, 2)[0] == []
        here = len(smart.ledger().entries)
        (told,), answered, calls = elsewhere(kind, smart, 3)
        assert "its ledger, its streams and its budget are its own" in told
        assert answered == 3
        assert calls == sum(server.requests.values()) - here
        assert work(smart, 1)[0] == []
        assert len(smart.ledger().entries) > here


@pytest.mark.slow
def test_copies_share_a_budget_in_a_store(tmp_path):
    """Without one, the copy could spend all of it again."""
    with serve(lambda *_: "yes") as server:
        settings = {"budget_usd": 0.003, "mode": "strict", "task": "mail"}
        smart = smart_at(server, store=tmp_path / "answers.db", **settings)
        _, answered, _ = work(smart, 50)
        assert 0 < answered < 50
        assert elsewhere("spawn", smart, 50)[:2] == ([], 0)


@pytest.mark.slow
def test_workers_of_a_pipeline_share_a_stream_in_a_store(tmp_path):
    with serve(lambda *_: "A word") as server:
        smart = smart_at(server, store=tmp_path / "answers.db", task="words")
        pipeline = IngestionPipeline(transformations=[KeywordExtractor(llm=smart)])
        nodes = [TextNode(text=f"text {number}") for number in range(4)]
        pipeline.run(nodes=nodes[:1])
        pipeline.run(nodes=nodes[1:], num_workers=2)
        (stream,) = smart.report().streams
        calls = sum(spend.calls for spend in stream.spend.values())
        assert calls == sum(server.requests.values())
        assert stream.answered == 4
