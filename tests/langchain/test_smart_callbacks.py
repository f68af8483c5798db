"""Who shows answers sees each item once; who records sees who was asked below it."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from langchain_core.callbacks import (
    BaseCallbackHandler,
    UsageMetadataCallbackHandler,
    get_usage_metadata_callback,
)
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tracers.base import BaseTracer

PROMPT = ChatPromptTemplate.from_template("{t}")


class Collector(BaseTracer):
    """Keeps every finished root run."""

    def __init__(self):
        super().__init__()
        self.roots = []

    def _persist_run(self, run):
        self.roots.append(run)


class Counting(BaseCallbackHandler):
    """Counts events, as a page does that shows answers while they are written."""

    def __init__(self):
        self.events = Counter()
        self.lock = threading.Lock()
        self.seen = []

    def _note(self, event):
        with self.lock:
            self.events[event] += 1

    def on_chat_model_start(self, serialized, messages, **kwargs):
        self._note("start")
        self.seen.append((messages[0][0].content, kwargs))

    def on_llm_new_token(self, token, **_):
        pass

    def on_llm_end(self, response, **_):
        self._note("end")

    def on_llm_error(self, error, **_):
        self._note("error")


async def run(runnable, verb, inputs, config):
    if verb == "batch":
        return runnable.batch(inputs, config)
    if verb == "abatch":
        return await runnable.abatch(inputs, config)
    if verb == "invoke":
        return [runnable.invoke(given, config) for given in inputs]
    return [await runnable.ainvoke(given, config) for given in inputs]


VERBS = ["batch", "abatch", "invoke", "ainvoke"]


@pytest.mark.parametrize("verb", VERBS)
async def test_each_item_is_one_run_with_its_members_below(make, inputs, verb):
    smart, tracer = make(), Collector()
    chain = PROMPT | smart | StrOutputParser()
    await run(chain, verb, [{"t": t} for t in inputs[:24]], {"callbacks": [tracer]})
    assert len(tracer.roots) == 24
    asked = Counter()
    for root in tracer.roots:
        (item,) = [r for r in root.child_runs if r.run_type == "llm"]
        assert item.name == "SmartChatModel"
        assert item.outputs is not None
        for member in item.child_runs:
            assert member.run_type == "llm"
            told = member.extra["metadata"]
            asked[told["ls_model_name"]] += 1
            role = "reference" if told["ls_model_name"] == "big" else "candidate"
            assert (told["smart_model"], told["smart_role"]) == (
                *(told["ls_model_name"], role),
            )
            assert told["smart_task"] in {
                record.task for record in smart.report().records
            }
    calls = {name: s.calls for name, s in smart.report().spend.items() if s.calls}
    assert asked == calls


@pytest.mark.parametrize("verb", VERBS)
async def test_handlers_that_show_answers_see_each_item_once(make, inputs, verb):
    smart, handler = make(), Counting()
    config = {"callbacks": [handler], "tags": ["mine"], "metadata": {"m": 1}}
    await run(smart.with_config(run_name="sorter"), verb, inputs[:20], config)
    assert handler.events == {"start": 20, "end": 20}
    for _, kwargs in handler.seen:
        assert "mine" in kwargs["tags"]
        assert kwargs["metadata"]["m"] == 1
        assert kwargs["name"] == "sorter"


@pytest.mark.parametrize("verb", VERBS)
async def test_every_token_is_counted_once(make, inputs, verb):
    smart, handler = make(), UsageMetadataCallbackHandler()
    with get_usage_metadata_callback() as ambient:
        await run(smart, verb, inputs[:24], {"callbacks": [handler]})
        first = sum(u["total_tokens"] for u in ambient.usage_metadata.values())
        await run(smart, verb, inputs[:24], {})
        both = sum(u["total_tokens"] for u in ambient.usage_metadata.values())
    spend = smart.report().spend.values()
    billed = sum(s.input_tokens + s.output_tokens for s in spend)
    counted = sum(u["total_tokens"] for u in handler.usage_metadata.values())
    assert counted == first
    assert both == billed
    assert "batch" not in verb or first == billed / 2


@pytest.mark.parametrize("verb", ["batch", "abatch"])
async def test_a_failed_item_ends_its_run_with_the_error(make, verb):
    smart, handler = make(strategy="reference"), Counting()
    given = ["mail number 0001", "nothing recorded", "mail number 0002"]
    config = {"callbacks": [handler]}
    if verb == "batch":
        outputs = smart.batch(given, config, return_exceptions=True)
    else:
        outputs = await smart.abatch(given, config, return_exceptions=True)
    assert isinstance(outputs[1], Exception)
    assert handler.events == {"start": 3, "end": 2, "error": 1}
