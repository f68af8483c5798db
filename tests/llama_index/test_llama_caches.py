"""The key of an `IngestionCache` changes with whatever may change an answer."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_openai import ChatOpenAI
from llama_index.core.extractors import TitleExtractor
from llama_index.core.ingestion.pipeline import get_transformation_hash
from llama_index.core.schema import TextNode
from llama_index.llms.openai import OpenAI

from llama_index_smart import Price, SmartLLM
from smart_engine import Label

SECRET = "sk-not-to-be-seen"  # noqa: S105 - that is the test

MEMBERS = [
    (OpenAI, {"model": "gpt-4.1"}),
    (OpenAI, {"api_base": "http://127.0.0.1:9/v1"}),
    (OpenAI, {"temperature": 0.7}),
    (OpenAI, {"additional_kwargs": {"top_p": 0.1}}),
    (ChatOpenAI, {"model": "gpt-4.1"}),
    (ChatOpenAI, {"base_url": "http://127.0.0.1:9/v1"}),
    (ChatOpenAI, {"temperature": 0.7}),
]


def extractor(kind: Any = OpenAI, member: Any = None, **settings: Any) -> Any:
    """Return a transformation with a smart LLM whose reference has these settings."""
    given = {"model": "gpt-4o", "api_key": SECRET, **(member or {})}
    small = OpenAI(model="gpt-4o-mini", api_key=SECRET)
    prices = {name: Price(1, 2) for name in (given["model"], small.model)}
    terms = {"prices": prices, **settings}
    llm = SmartLLM(reference=kind(**given), candidates=[small], **terms)
    return TitleExtractor(llm=llm)


def key(*given: Any, **settings: Any) -> str:
    made = extractor(*given, **settings)
    assert SECRET not in str(made.to_dict())
    return get_transformation_hash([TextNode(text="x")], made)


@pytest.mark.parametrize(("kind", "changed"), MEMBERS)
def test_it_changes_with_a_member(kind, changed):
    assert key(kind, changed) != key(kind) == key(kind)


@pytest.mark.parametrize(
    "changed",
    [
        {"max_disagreement": 0.1},
        {"confidence": 0.9},
        {"equivalence": Label(["a", "b"])},
        {"equivalence": lambda left, right: left[:1] == right[:1]},
    ],
)
def test_it_changes_with_the_promise(changed):
    assert key(**changed) != key() == key()


def test_it_stays_with_another_key_of_the_same_account():
    assert key(OpenAI, {"api_key": "sk-another"}) == key()
