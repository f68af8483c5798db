"""Slices, as a parameter of every smart object: a function, or a key of the config."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fakes import Scripted
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from langchain_smart import Price, SmartChatModel, SmartRunnable
from llama_index_smart import SmartLLM
from smart_engine import InvalidInputError, verify

ADAPTERS = [SmartChatModel, SmartLLM]
both = pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda made: made.__name__)
PRICES = {"big": Price(10, 10), "small": Price(0.4, 0.4)}
TEXTS = [
    *(f"de item {number}" for number in range(500)),
    *(f"en item {number}" for number in range(500)),
    *(f"fr item {number}" for number in range(3)),
]


def script(name: str):
    """Tell odd from even; the small model errs on all of French."""

    def answer(text: str, kwargs: dict[str, Any]) -> str:
        number = int(text.rsplit(maxsplit=1)[-1])
        return "odd" if (number + (name == "small" and "fr" in text)) % 2 else "even"

    return answer


def language(given: Any) -> str:
    """Return the language of a prompt, or of the last message."""
    text = given if isinstance(given, str) else given[-1].content
    return text.split()[0]


def make(adapter, **settings: Any) -> Any:
    big, small = (Scripted(name=name, script=script(name)) for name in PRICES)
    terms = {"reference": big, "candidates": [small], "prices": PRICES, "seed": 0}
    return adapter(**terms, **{"slices": language, **settings})


def ask(smart: Any, texts: list[str]) -> list[str]:
    if isinstance(smart, SmartLLM):
        return [reply.text for reply in smart.complete_batch(texts)]
    return [reply.content for reply in smart.batch(texts)]


@both
def test_a_batch_keeps_the_share_in_each_slice(adapter) -> None:
    smart = make(adapter)
    replies = ask(smart, TEXTS)
    (record,) = smart.report().certificates
    assert [(each.name, each.items) for each in record.slices] == [
        ("de", 500),
        ("en", 500),
        ("fr", 3),
    ]
    assert replies[-3:] == ["even", "odd", "even"]
    assert record.valid
    assert record.spend["big"].calls < 600
    assert all(check.holds for check in verify(record))
    assert "0.05 of each slice" in record.claim
    assert "of the answers in each slice differ" in str(smart.report())


def test_a_key_of_each_config_names_the_slice_through_a_chain() -> None:
    smart = make(SmartChatModel, slices="tenant")
    prompt = ChatPromptTemplate.from_template("{text}")
    chain = prompt | smart | StrOutputParser()
    configs = [{"metadata": {"tenant": number % 2}} for number in range(600)]
    inputs = [{"text": text} for text in TEXTS[:600]]
    asyncio.run(chain.abatch(inputs, configs))
    (record,) = smart.report().certificates
    assert {each.name: each.items for each in record.slices} == {"0": 300, "1": 300}


def test_a_chain_is_sliced_by_its_own_input() -> None:
    big, small = (
        Scripted(name=name, script=script(name)) | StrOutputParser() for name in PRICES
    )
    smart = SmartRunnable(
        reference={"big": ChatPromptTemplate.from_template("{text}") | big},
        candidates={"small": ChatPromptTemplate.from_template("{text}") | small},
        prices=PRICES,
        slices=lambda given: given["language"],
        seed=0,
    )
    smart.batch([{"text": text, "language": text[:2]} for text in TEXTS])
    (record,) = smart.report().certificates
    assert [each.name for each in record.slices] == ["de", "en", "fr"]


def test_messages_of_a_chat_are_what_a_function_gets() -> None:
    from llama_index.core.llms import ChatMessage

    smart = make(SmartLLM)
    smart.chat_batch([[ChatMessage(role="user", content=text)] for text in TEXTS])
    (record,) = smart.report().certificates
    assert len(record.slices) == 3


@both
def test_calls_that_are_gathered_are_sliced_however_few_they_are(adapter) -> None:
    from concurrent.futures import ThreadPoolExecutor
    from contextvars import copy_context

    smart = make(adapter)
    with smart.batching(gather_ms=100), ThreadPoolExecutor(4) as pool:
        one = smart.complete if adapter is SmartLLM else smart.invoke
        made = [pool.submit(copy_context().run, one, text) for text in TEXTS[:4]]
        assert len([each.result() for each in made]) == 4
    assert sum(record.items for record in smart.report().certificates) == 4


@both
def test_single_items_are_refused_where_slices_are_promised(adapter) -> None:
    smart = make(adapter)
    with pytest.raises(InvalidInputError, match="hand all items in as one batch"):
        smart.complete("de item 1") if adapter is SmartLLM else smart.invoke("de 1")


def test_an_item_without_a_slice_ends_the_batch_before_anything_is_paid() -> None:
    smart = make(SmartChatModel, slices="tenant")
    configs = [{"metadata": {"tenant": "a"}}, {}]
    with pytest.raises(InvalidInputError, match="item 1 has no such key"):
        smart.batch(TEXTS[:2], configs)
    assert not smart.report().cost
    reply, error = smart.batch(TEXTS[:2], configs, return_exceptions=True)
    assert reply.content == "even"
    assert isinstance(error, InvalidInputError)


@both
def test_a_function_that_fails_names_the_item(adapter) -> None:
    smart = make(adapter, slices=lambda given: 1 / 0)
    with pytest.raises(InvalidInputError, match="failed on item 0: ZeroDivisionError"):
        ask(smart, TEXTS)
    with pytest.raises(InvalidInputError, match="item 0 is in no slice"):
        ask(make(adapter, slices=lambda given: None), TEXTS)


@both
@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"max_disagreement": None, "recall": {"odd": 0.9}}, "give one, such as 0.05"),
        ({"promise": "task", "task": "numbers"}, "hold for each batch by itself"),
        ({"strategy": "mix"}, "use 'audit'"),
        ({"mode": "shadow"}, "answered one by one"),
        ({"slices": 3}, "a function from an input"),
        ({"slices": ""}, "a function from an input"),
    ],
)
def test_what_cannot_be_promised_of_slices_is_refused_at_construction(
    adapter, settings: dict[str, Any], hint: str
) -> None:
    with pytest.raises(InvalidInputError, match=hint):
        make(adapter, **settings)


def test_a_key_is_refused_where_items_have_none() -> None:
    with pytest.raises(InvalidInputError, match="a function from an input"):
        make(SmartLLM, slices="tenant")


def test_the_agreement_of_a_reference_with_itself_needs_no_slices() -> None:
    smart = make(SmartChatModel, slices="tenant")
    assert smart.self_agreement(TEXTS[:20]).disagreements == 0
