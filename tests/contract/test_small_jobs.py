"""Small jobs cost no more than the reference alone; reports say why none is saved."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from fakes import Scripted, say

from langchain_smart import Price, SmartChatModel
from llama_index_smart import SmartLLM

pytestmark = pytest.mark.sparing

HARM = 1.005
ADAPTERS = [SmartChatModel, SmartLLM]
both = pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda made: made.__name__)
BIG, CHEAP, HALF, DEAR = Price(10, 10), Price(0.4, 0.4), Price(2, 2), Price(40, 40)


def useless(text: str, kwargs: dict[str, Any]) -> str:
    return "whatever"


def make(adapter, small, price, **settings: Any) -> Any:
    return adapter(
        reference=Scripted(name="big", script=say("big")),
        candidates=[Scripted(name="small", script=small)],
        prices={"big": BIG, "small": price},
        **{"seed": 0, **settings},
    )


def ask_all(smart, items: list[str]) -> None:
    batch = getattr(smart, "complete_batch", None) or smart.batch
    batch(items)


def paid(report) -> float:
    """Cost in costs of the reference alone."""
    return report.cost / report.reference_only_cost


@both
@pytest.mark.parametrize("price", [CHEAP, HALF])
@pytest.mark.parametrize("size", [1, 10, 20, 30, 50])
@pytest.mark.parametrize("small", [say("small"), useless])
def test_a_small_batch_is_not_dearer(adapter, size, price, small) -> None:
    smart = make(adapter, small, price)
    ask_all(smart, [f"item {n:03}" for n in range(size)])
    assert paid(smart.report()) <= HARM


@both
@pytest.mark.parametrize("price", [CHEAP, HALF])
@pytest.mark.parametrize("mode", ["serve", "shadow"])
@pytest.mark.parametrize("small", [say("small"), useless])
def test_a_short_stream_is_not_dearer(adapter, price, mode, small) -> None:
    smart = make(adapter, small, price, mode=mode)
    ask = smart.complete if adapter is SmartLLM else smart.invoke
    for number in range(60):
        ask(f"item {number:03}")
    report = smart.report()
    (state,) = report.shadows if mode == "shadow" else report.streams
    assert state.cost <= HARM * state.reference_only_cost


@both
def test_a_candidate_at_four_times_the_price_is_never_asked(adapter) -> None:
    with pytest.warns(UserWarning, match="small is priced no lower than the reference"):
        smart = make(adapter, say("small"), DEAR)
    ask_all(smart, [f"item {n:03}" for n in range(150)])
    ask = smart.complete if adapter is SmartLLM else smart.invoke
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is said once, not with every call
        for number in range(50):
            ask(f"item {number:03}")
    assert smart.report().spend["small"].calls == 0


@both
def test_a_report_says_that_a_batch_was_too_small(adapter) -> None:
    smart = make(adapter, say("small"), CHEAP)
    for _ in range(3):
        ask_all(smart, [f"item {n}" for n in range(10)])
    text = smart.report().to_markdown()
    assert text.count("no candidate was asked") == 1
    assert "3 of the batches, of at most 10 items" in text


@both
def test_a_report_says_that_a_candidate_never_agreed(adapter) -> None:
    smart = make(adapter, useless, CHEAP)
    ask_all(smart, [f"item {n:04}" for n in range(400)])
    report = smart.report()
    assert report.served["small"] == 0
    (evidence,) = report.certificates[0].evidence
    assert evidence.verdict == "never right"
    said = f"small agreed with big on 0 of {evidence.draws} items"
    assert said in " ".join(report.to_markdown().split())


@both
def test_with_no_least_gain_candidates_are_tried_at_once(adapter) -> None:
    smart = make(adapter, say("small"), CHEAP, min_saving=0)
    ask_all(smart, [f"item {n}" for n in range(10)])
    assert smart.report().spend["small"].calls > 0
