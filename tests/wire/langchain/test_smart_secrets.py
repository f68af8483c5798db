"""A member's key shows nowhere: in no error, record, or callback's payload."""

from __future__ import annotations

import json

import pytest
from fakes import Scripted
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.tracers.base import BaseTracer
from langchain_openai import ChatOpenAI
from loopback import Fault, serve

from langchain_smart import Price, SmartChatModel
from smart_engine import InvalidInputError

KEY = "sk-this-must-stay-secret"
PRICES = {"big": Price(10, 30), "small": Price.free()}


class Everything(BaseCallbackHandler):
    """Keeps all that a plain handler is told."""

    def __init__(self):
        self.told = []

    def on_chat_model_start(self, *args, **kwargs):
        self.told.append(repr((args, kwargs)))

    def on_llm_end(self, *args, **kwargs):
        self.told.append(repr((args, kwargs)))

    def on_llm_error(self, *args, **kwargs):
        self.told.append(repr((args, kwargs)))


class Runs(BaseTracer):
    """Keeps every run as a tracer would send it."""

    def __init__(self):
        super().__init__()
        self.told = []

    def _persist_run(self, run):
        assert run.child_runs
        self.told.append(run.model_dump_json(fallback=repr))


def smart_with_a_key(url: str, **settings) -> SmartChatModel:
    big = ChatOpenAI(
        model="big", api_key=KEY, base_url=url, max_retries=0, timeout=20, name="big"
    )
    small = Scripted(name="small", script=lambda *_: "yes")
    return SmartChatModel(reference=big, candidates=[small], prices=PRICES, **settings)


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_neither_a_good_nor_a_failed_item_tells_the_key(mode):
    def script(model, text, attempt):
        return Fault("not authorized", 401) if text == "item 3" else "yes"

    with serve(script) as server:
        smart = smart_with_a_key(server.url)
        plain, tracer = Everything(), Runs()
        config = {"callbacks": [plain, tracer]}
        items = [f"item {n}" for n in range(8)]
        outputs = (
            smart.batch(items, config, return_exceptions=True)
            if mode == "sync"
            else await smart.abatch(items, config, return_exceptions=True)
        )
    assert "not authorized" in str(outputs[3])
    # Its items begin and end, and so do all calls of members.
    calls = sum(spent.calls for spent in smart.report().spend.values())
    assert len(plain.told) == 16 + 2 * calls
    assert len(tracer.told) == 8
    shown = [
        *plain.told,
        *tracer.told,
        *map(repr, outputs),
        repr(smart),
        str(smart.report()),
        smart.report().model_dump_json(),
        smart.report().certificates[0].model_dump_json(),
        smart.report().certificates[0].claim,
        json.dumps(smart._identifying_params, default=repr),
        json.dumps(smart.to_json(), default=repr),
    ]
    assert not [text for text in shown if KEY in text]


@pytest.mark.parametrize(
    "change",
    [{"candidates": "the model itself"}, {"prices": {}}, {"max_disagreement": 2}],
    ids=lambda change: next(iter(change)),
)
def test_construction_errors_do_not_tell_the_key(change):
    big = ChatOpenAI(model="big", api_key=KEY, base_url="http://127.0.0.1:9/v1")
    small = Scripted(name="small", script=lambda *_: "yes")
    if "candidates" in change:
        change = {"candidates": big}
    good = {"reference": big, "candidates": [small], "prices": PRICES}
    with pytest.raises(InvalidInputError) as caught:
        SmartChatModel(**{**good, **change})
    assert caught.value.field == next(iter(change))
    assert KEY not in str(caught.value) + repr(caught.value)
