"""What a job would cost, asked of both adapters before it is bought."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fakes import Scripted

from langchain_smart import Price, SmartChatModel, SmartRunnable
from llama_index_smart import SmartLLM
from smart_engine import InvalidInputError, SmartError

ADAPTERS = [SmartChatModel, SmartLLM]
both = pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda made: made.__name__)
PRICES = {"big": Price(10, 10), "small": Price(0.4, 0.4)}
TEXTS = [f"item {number}" for number in range(400)]
SETTINGS = {"n": 30, "sizes": [50, 200], "shares": [0.2]}


def script(name: str):
    """Tell odd from even; the small model errs now and then."""

    def answer(text: str, kwargs: dict[str, Any]) -> str:
        number = int(text.rsplit(maxsplit=1)[-1])
        return (
            "odd" if (number + (name == "small" and number % 40 == 0)) % 2 else "even"
        )

    return answer


def make(adapter, **settings: Any) -> Any:
    big, small = (Scripted(name=name, script=script(name)) for name in PRICES)
    terms = {"reference": big, "candidates": [small], "prices": PRICES, "seed": 0}
    return adapter(**terms, **settings)


@both
def test_a_job_is_estimated_from_a_few_of_its_items(adapter) -> None:
    smart, again = make(adapter, task="parity"), make(adapter, task="parity")
    expected = smart.estimate(TEXTS, **SETTINGS)
    assert asyncio.run(again.aestimate(TEXTS, **SETTINGS)) == expected
    assert (expected.task, expected.items, expected.sampled) == ("parity", 400, 30)
    report = smart.report()
    assert {name: spend.calls for name, spend in report.spend.items()} == {
        "big": 30,
        "small": 30,
    }
    assert report.estimates == (expected,)
    assert 0.1 < expected.saved_share.mean < expected.choices[0].saved_share.mean
    assert 50 <= expected.pays_from <= 200


@pytest.mark.slow
def test_both_adapters_say_the_same_of_the_same_job() -> None:
    one, other = (
        make(adapter, task="parity").estimate(TEXTS, **SETTINGS) for adapter in ADAPTERS
    )
    assert one.differing == other.differing
    assert one.saved_share.mean == pytest.approx(other.saved_share.mean)
    assert one.pays_from == other.pays_from
    assert [*one.by_size] == [*other.by_size] == SETTINGS["sizes"]


@pytest.mark.parametrize(
    "adapter", [SmartChatModel, pytest.param(SmartLLM, marks=pytest.mark.slow)]
)
def test_what_earlier_jobs_of_the_task_change_is_said(adapter) -> None:
    smart = make(adapter, task="parity", promise="task")
    texts, settings = TEXTS[:150], {"n": 30, "sizes": []}
    first = smart.estimate(texts, **settings)
    ask = smart.batch if adapter is SmartChatModel else smart.complete_batch
    ask(texts)
    later = smart.estimate([f"another {text}" for text in texts], **settings)
    assert (first.earlier_jobs, later.earlier_jobs) == (0, 1)
    assert later.with_history.mean > first.with_history.mean
    assert smart.report().estimates == (later,)
    assert make(adapter).estimate(texts, **settings).with_history is None


def test_chains_are_estimated_as_models_are() -> None:
    chains = [
        Scripted(name=n, script=script(n)).with_config(run_name=n) for n in PRICES
    ]
    smart = SmartRunnable(
        reference=chains[0], candidates=chains[1:], prices=PRICES, task="parity"
    )
    expected = smart.estimate(TEXTS, **SETTINGS)
    assert expected.saved_share.mean > 0.1
    assert expected.by_batch is None


@both
def test_what_cannot_be_estimated_is_refused_before_anything_is_asked(adapter) -> None:
    smart = make(adapter)
    for items, settings, hint in [
        ([], {}, "items of one task"),
        (TEXTS, {"n": 0}, "one or more"),
        (TEXTS, {"sizes": [0]}, "one or more"),
        (TEXTS, {"shares": [5]}, "0.05 means 5 %"),
        (TEXTS, {"shares": [0]}, "0.05 means 5 %"),
        ("item 1", {}, "list of items"),
    ]:
        with pytest.raises(InvalidInputError, match=hint):
            smart.estimate(items, **settings)
    assert smart.report().cost == 0


@both
def test_a_reference_that_answers_nothing_is_said_to_be_silent(adapter) -> None:
    def gone(text: str, kwargs: dict[str, Any]) -> str:
        raise ConnectionError("gone")

    smart = make(adapter)
    smart.reference.script = gone
    with pytest.raises(SmartError, match="answered none of the items: ConnectionError"):
        smart.estimate(TEXTS, n=3)
