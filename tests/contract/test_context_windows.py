"""A candidate with a small context window sits out what does not fit, at no cost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fakes import Scripted, say
from llama_index.core.llms.mock import MockLLM

from langchain_smart import Price, SmartChatModel
from llama_index_smart import SmartLLM

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}
LONG = "word " * 1600
ITEMS = [f"{LONG if n % 4 == 0 else ''}item {n}" for n in range(48)]
both = pytest.mark.parametrize(
    "adapter", [SmartChatModel, SmartLLM], ids=lambda made: made.__name__
)


class TooLongError(Exception):
    """A provider's error: HTTP 400."""

    status_code = 400


def limited(text: str, kwargs: dict[str, Any]) -> Any:
    return TooLongError() if len(text) > 4000 else say("big")(text, kwargs)


def models(big: int | None = 100_000, small: int | None = 1000) -> dict[str, Any]:
    windows = {"big": big, "small": small}
    big_one, small_one = (
        Scripted(
            name=name,
            script=limited if name == "small" else say(name),
            profile=None if window is None else {"max_input_tokens": window},
        )
        for name, window in windows.items()
    )
    return {"reference": big_one, "candidates": [small_one], "prices": PRICES}


def make(adapter, **settings: Any) -> tuple[Any, Scripted]:
    given = models()
    with pytest.warns(
        UserWarning, match="small takes 1,000 tokens, the .* big 100,000"
    ):
        smart = adapter(**given, max_disagreement=0.2, **settings)
    return smart, given["candidates"][0]


def ask_all(smart, verb) -> list[Any]:
    one = "complete" if isinstance(smart, SmartLLM) else "invoke"
    if verb == "batch":
        together = "complete_batch" if isinstance(smart, SmartLLM) else "batch"
        return getattr(smart, together)(ITEMS)
    if verb == "single":
        return [getattr(smart, one)(item) for item in ITEMS]
    if verb == "async":
        asked = getattr(smart, f"a{one}")

        async def ask() -> list[Any]:
            return [await asked(item) for item in ITEMS]

        return asyncio.run(ask())
    asked = smart.stream_complete if isinstance(smart, SmartLLM) else smart.stream
    return [list(asked(item))[-1] for item in ITEMS]


@both
@pytest.mark.parametrize("verb", ["batch", "single", "async", "stream"])
def test_a_candidate_sits_out_items_that_do_not_fit(adapter, verb):
    smart, small = make(adapter, seed=1)
    assert len(ask_all(smart, verb)) == len(ITEMS)
    report, ledger = smart.report(), smart.ledger()
    asked = [text for text, _ in small.calls]
    assert len(asked) > 20
    assert not any(text.startswith("word") for text in asked)
    for spend in (report.spend["small"], ledger.sums()["small"]):
        assert (spend.calls, spend.failures) == (len(asked), 0)
    assert sum(entry.model == "small" for entry in ledger.entries) == len(asked)
    assert report.served["big"] >= 20
    assert report.served["small"] > 5
    records = [*report.certificates, *report.streams]
    assert all(
        record.valid and record.spend["small"].failures == 0 for record in records
    )
    assert all(stream.found == 0 for stream in report.streams)


@both
def test_the_room_for_the_answer_counts(adapter):
    smart, small = make(adapter)
    ask = smart.invoke if adapter is SmartChatModel else smart.complete
    text = "word " * 600 + "item 1"
    for limit in (100, 900):
        for _ in range(4):
            ask(text, max_tokens=limit)
    assert {kwargs["max_tokens"] for _, kwargs in small.calls} == {100}


@both
def test_a_named_model_is_asked_in_any_case(adapter):
    smart, small = make(adapter)
    named = (
        {"model": "small"} if adapter is SmartChatModel else {"smart_model": "small"}
    )
    with pytest.raises(TooLongError):
        (smart.invoke if adapter is SmartChatModel else smart.complete)(LONG, **named)
    assert len(small.calls) == 1


@both
@pytest.mark.parametrize("windows", [(1000, 1000), (1000, 5000), (None, 9), (9, None)])
def test_there_is_no_warning_of_a_window_that_is_unknown_or_large_enough(
    adapter, windows, recwarn
):
    smart = adapter(**models(*windows))
    assert not [warning for warning in recwarn if "tokens" in str(warning.message)]
    if windows[0] and adapter is SmartChatModel:
        assert smart.profile["max_input_tokens"] == windows[0]
    elif windows[0]:
        assert smart.metadata.context_window == windows[0]


def test_a_small_default_window_does_not_shrink_prompts_of_llama_index():
    class Small(MockLLM):
        @classmethod
        def class_name(cls) -> str:
            return "Small"

    class Big(Small):
        @property
        def metadata(self):
            return super().metadata.model_copy(update={"context_window": 128_000})

        @classmethod
        def class_name(cls) -> str:
            return "Big"

    prices = {"Big": Price.free(), "Small": Price.free()}
    with pytest.warns(UserWarning, match="Small takes 3,900 .* context_window=…"):
        smart = SmartLLM(reference=Big(), candidates=[Small()], prices=prices)
    assert smart.metadata.context_window == 128_000
    smart.complete("word " * 5000)
    assert "Small" not in smart.ledger().sums()
