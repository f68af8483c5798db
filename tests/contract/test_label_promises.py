"""Recall and precision of labels, as parameters of every smart object."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fakes import Scripted
from langchain_core.output_parsers import StrOutputParser
from pydantic import BaseModel

from langchain_smart import Price, SmartChatModel, SmartRunnable
from llama_index_smart import SmartLLM
from smart_engine import InvalidInputError, Label, verify

ADAPTERS = [SmartChatModel, SmartLLM]
both = pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda made: made.__name__)
PRICES = {"big": Price(10, 10), "small": Price(0.4, 0.4)}


def script(name: str):
    """Say "fraud" to one item in five; the small model misses one in 40 of them."""

    def answer(text: str, kwargs: dict[str, Any]) -> str:
        number = int(text.rsplit(maxsplit=1)[-1])
        missed = name == "small" and number % 200 == 0
        return "Fraud." if number % 5 == 0 and not missed else "fine"

    return answer


def members() -> list[Scripted]:
    return [Scripted(name=name, script=script(name)) for name in ("big", "small")]


def make(adapter, **settings: Any) -> Any:
    big, small = members()
    given = {"max_disagreement": None, "recall": {"fraud": 0.8}, "seed": 0}
    terms = {"reference": big, "candidates": [small], "prices": PRICES}
    return adapter(**terms, **{**given, **settings})


def ask(smart: Any, texts: list[str]) -> list[str]:
    if isinstance(smart, SmartLLM):
        return [reply.text for reply in smart.complete_batch(texts)]
    return [reply.content for reply in smart.batch(texts)]


TEXTS = [f"item {number}" for number in range(500)]


@both
def test_a_batch_keeps_the_recall_of_a_label(adapter) -> None:
    smart = make(
        adapter, precision={"fraud": 0.8}, equivalence=Label(["fraud", "fine"])
    )
    replies = ask(smart, TEXTS)
    (record,) = smart.report().certificates
    assert record.valid
    assert record.spend["big"].calls < 400
    assert sum(reply == "Fraud." for reply in replies) >= 80
    assert "recall of 'fraud' is at least 0.8" in record.claim
    assert "recall of 'fraud' at least 80 %" in str(smart.report())
    assert all(check.holds for check in verify(record))


@both
def test_plain_answers_are_their_own_labels(adapter) -> None:
    smart = make(adapter)
    assert len(ask(smart, TEXTS)) == 500
    (record,) = smart.report().certificates
    recall = next(each for each in record.promised if each.of == "recall")
    assert recall.holds
    assert recall.label == "fraud"


def test_a_chain_keeps_the_recall_of_what_a_function_calls_a_label() -> None:
    big, small = (member | StrOutputParser() for member in members())
    smart = SmartRunnable(
        reference={"big": big},
        candidates={"small": small},
        prices=PRICES,
        max_disagreement=None,
        recall={"F": 0.8},
        label_of=lambda answer: answer[0],
        seed=0,
    )
    replies = asyncio.run(smart.abatch(TEXTS))
    assert sum(reply == "Fraud." for reply in replies) >= 80
    assert smart.report().certificates[0].valid


@both
def test_single_items_are_refused_where_labels_are_promised(adapter) -> None:
    smart = make(adapter)
    with pytest.raises(InvalidInputError, match="hand all items in as one batch"):
        smart.complete("item 1") if adapter is SmartLLM else smart.invoke("item 1")


@both
@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"promise": "task", "task": "mails"}, "hold for each batch by itself"),
        ({"recall": {}}, "nothing is promised"),
        ({"recall": {"fraud": 2}}, "0.9 means 90 %"),
        ({"strategy": "mix"}, "use 'audit'"),
        ({"equivalence": Label(["spam", "ham"])}, "does not know this label"),
        ({"label_of": "first word"}, "a function from an answer"),
    ],
)
def test_what_cannot_be_promised_is_refused_at_construction(
    adapter, settings: dict[str, Any], hint: str
) -> None:
    with pytest.raises(InvalidInputError, match=hint):
        make(adapter, **settings)


class Ticket(BaseModel):
    """What a mail is."""

    category: str


def test_objects_without_a_function_that_reads_labels_are_refused() -> None:
    smart = make(SmartChatModel)
    with pytest.raises(InvalidInputError, match="label_of=lambda answer"):
        smart.with_structured_output(Ticket)
    smart = make(SmartLLM, equivalence=Label(["fraud", "fine"]))
    with pytest.raises(InvalidInputError, match="label_of=lambda answer"):
        smart.as_structured_llm(Ticket).complete("item 1")


@both
def test_shadow_mode_is_refused_where_labels_are_promised(adapter) -> None:
    with pytest.raises(InvalidInputError, match="answered one by one"):
        make(adapter, mode="shadow")
    with pytest.raises(InvalidInputError, match="as many waves as they need"):
        make(adapter, max_rounds=4)


def test_a_label_that_no_answer_has_is_named_in_the_report() -> None:
    smart = make(SmartChatModel, recall={"Betrug": 0.9})
    ask(smart, TEXTS[:60])
    assert "no answer is 'Betrug'" in smart.report().to_markdown()
