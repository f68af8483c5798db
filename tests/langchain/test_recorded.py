"""`RecordedChatModel` plays one model of a trace."""

from __future__ import annotations

import gzip
import json
import time

import pytest

from langchain_smart import Price, RecordedChatModel
from smart_engine import InvalidInputError, SmartError, Trace
from smart_engine.offline.traces import Row

FREE = {"big": Price.free(), "small": Price.free()}


def trace(*inputs, answers=("A", "B", "C", "D")):
    rows = [
        Row(item_id=f"id{n}", input=given, answers={"big": a}, tokens={"big": (7, 2)})
        for n, (given, a) in enumerate(zip(inputs, answers, strict=False))
    ]
    return Trace(rows, "big", [], FREE)


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("cat", "A"),
        ("Name it: cat, please", "A"),
        ("the cat sat here", "B"),
        ("see id2 here", "C"),
    ],
)
async def test_it_finds_the_item_in_the_prompt(prompt, answer):
    model = RecordedChatModel(trace=trace("cat", "the cat sat", None), model="big")
    for message in (model.invoke(prompt), await model.ainvoke(prompt)):
        assert message.content == answer
        assert message.usage_metadata["input_tokens"] == 7
        assert message.usage_metadata["output_tokens"] == 2
        assert message.response_metadata["model_name"] == "big"


def test_items_that_share_an_input_share_the_first_answers():
    model = RecordedChatModel(trace=trace("cat", "cat"), model="big")
    assert model.invoke("cat").content == "A"


def test_an_unknown_prompt_or_model_is_an_error():
    model = RecordedChatModel(trace=trace("cat"), model="big")
    with pytest.raises(SmartError, match="no recorded input"):
        model.invoke("dog")
    with pytest.raises(InvalidInputError, match="no answers of this model"):
        RecordedChatModel(trace=trace("cat"), model="huge")
    with pytest.raises(InvalidInputError, match="no price"):
        RecordedChatModel(trace=Trace(trace("cat").rows, "big", [], {}), model="big")
    with pytest.raises(InvalidInputError, match="latency"):
        RecordedChatModel(trace=trace("cat"), model="big", latency=-1)
    with pytest.raises(InvalidInputError, match=r"Trace\.read"):
        RecordedChatModel(trace="items.jsonl", model="big")


def test_a_missing_answer_is_an_error():
    rows = [
        Row(input="cat", answers={"big": "A"}, tokens={"big": (1, 1)}),
        Row(input="dog", answers={}, tokens={}),
    ]
    model = RecordedChatModel(trace=Trace(rows, "big", [], FREE), model="big")
    with pytest.raises(SmartError, match="no recorded answer"):
        model.invoke("dog")


async def test_latency_is_waited_for():
    slow = RecordedChatModel(trace=trace("cat"), model="big", latency=0.05)
    started = time.perf_counter()
    slow.invoke("cat")
    await slow.ainvoke("cat")
    assert time.perf_counter() - started >= 0.1


def test_read_returns_the_files_models(tmp_path):
    row = {"item_id": "1", "input": "cat", "answers": {"big": "A", "small": "B"}}
    row["tokens"] = {"big": [1, 1], "small": [1, 1]}
    path = tmp_path / "t.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(row).encode()))
    prices = {name: {"input": 1, "output": 2} for name in ("big", "small")}
    about = {"reference": "big", "candidates": ["small"]}
    about["prices_usd_per_million_tokens"] = prices
    (tmp_path / "t.models.json").write_text(json.dumps(about))
    models = RecordedChatModel.read(path)
    assert list(models) == ["big", "small"]
    assert models["small"].invoke("cat").content == "B"
    assert list(RecordedChatModel.read(path, ["small", "big"])) == ["small", "big"]
