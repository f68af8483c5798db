"""What each message of a batch says of its own item, and of no other."""

from __future__ import annotations

from collections import Counter

import pytest
from fakes import Scripted
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import RunnableLambda

from langchain_smart import Price, SmartChatModel

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}
ITEMS = [f"item {'x' * (n % 9)} {n}" for n in range(200)]
SYNC_AND_ASYNC = pytest.mark.parametrize("mode", ["sync", "async"])


class Starts(BaseCallbackHandler):
    """Keeps what each run was started with, by its item."""

    def __init__(self):
        self.of = {}

    def on_chat_model_start(self, serialized, messages, **kwargs):
        self.of[messages[0][0].content] = kwargs


def pair(big="yes", small="yes", **settings):
    def member(name, answer):
        script = answer if callable(answer) else lambda *_: answer
        return Scripted(name=name, script=script)

    models = member("big", big), member("small", small)
    smart = SmartChatModel(
        reference=models[0], candidates=[models[1]], prices=PRICES, **settings
    )
    return smart, models


async def batch(mode, runnable, *args, **kwargs):
    if mode == "sync":
        return runnable.batch(*args, **kwargs)
    return await runnable.abatch(*args, **kwargs)


def down_on_every_tenth(text, _):
    return ConnectionError("down") if text.endswith("0") else "yes"


@SYNC_AND_ASYNC
async def test_usage_is_of_the_answer_and_cost_of_all_calls_for_the_item(mode):
    smart, models = pair(small=down_on_every_tenth)
    outputs = await batch(mode, smart, ITEMS)
    asked = {m.name: Counter(text for text, _ in m.calls) for m in models}
    assert 20 < asked["big"].total() < 200
    for text, output in zip(ITEMS, outputs, strict=True):
        answered = {
            name: count[text]
            for name, count in asked.items()
            if name == "big" or not text.endswith("0")
        }
        usage, spent = output.usage_metadata, output.response_metadata["smart"]
        assert usage["input_tokens"] == len(text)
        assert usage["output_tokens"] == 1
        assert usage["total_tokens"] == len(text) + 1
        cost = sum(
            count * (len(text) * PRICES[name].input + PRICES[name].output) / 1e6
            for name, count in answered.items()
        )
        assert spent["cost"] == pytest.approx(cost)


@SYNC_AND_ASYNC
async def test_the_models_name_is_set_even_if_the_member_set_none(mode):
    smart, _ = pair()
    outputs = await batch(mode, smart, ITEMS)
    named = Counter(output.response_metadata["model_name"] for output in outputs)
    assert named == smart.report().served
    assert named["small"] > named["big"] > 0


@SYNC_AND_ASYNC
async def test_a_messages_id_is_that_of_its_items_run(mode):
    starts = Starts()
    smart, _ = pair()
    outputs = await batch(mode, smart, ITEMS, {"callbacks": [starts]})
    for text, output in zip(ITEMS, outputs, strict=True):
        assert str(starts.of[text]["run_id"]) in output.id


@SYNC_AND_ASYNC
async def test_ids_are_set_when_nobody_watches(mode):
    smart, _ = pair()
    ids = {output.id for output in await batch(mode, smart, ITEMS)}
    assert None not in ids
    assert len(ids) == len(ITEMS)


@SYNC_AND_ASYNC
async def test_each_items_config_reaches_its_own_run(mode):
    starts = Starts()
    configs = [
        {"callbacks": [starts], "tags": [text], "metadata": {"n": n}, "run_name": text}
        for n, text in enumerate(ITEMS)
    ]
    smart, _ = pair()
    await batch(mode, smart, ITEMS, configs)
    for n, text in enumerate(ITEMS):
        assert starts.of[text]["tags"] == [text]
        assert starts.of[text]["metadata"]["n"] == n
        assert starts.of[text]["name"] == text


@SYNC_AND_ASYNC
async def test_a_batch_inside_a_step_is_seen_by_who_watches_the_step(mode):
    starts = Starts()
    smart, _ = pair()
    config = {"callbacks": [starts], "tags": ["outer"]}
    if mode == "sync":
        RunnableLambda(smart.batch).invoke(ITEMS, config)
    else:
        await RunnableLambda(smart.abatch).ainvoke(ITEMS, config)
    assert set(starts.of) == set(ITEMS)
    assert all("outer" in kwargs["tags"] for kwargs in starts.of.values())


@SYNC_AND_ASYNC
async def test_fallbacks_answer_only_what_failed(mode):
    smart, _ = pair(big=down_on_every_tenth, strategy="reference")
    rescued = []

    def rescue(given):
        rescued.append(given)
        return "rescued"

    runnable = smart.with_fallbacks([RunnableLambda(rescue)])
    outputs = await batch(mode, runnable, ITEMS)
    assert sorted(rescued) == sorted(t for t in ITEMS if t.endswith("0"))
    for text, output in zip(ITEMS, outputs, strict=True):
        assert (output == "rescued") is text.endswith("0")
    assert len(smart.report().certificates) == 1
