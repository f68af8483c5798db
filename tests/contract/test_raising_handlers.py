"""A handler that raises for one item: its error is that item's, as of a plain model."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from fakes import Scripted, say
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.messages import AIMessageChunk
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGenerationChunk
from llama_index.core.callbacks import CallbackManager
from llama_index.core.callbacks.base_handler import BaseCallbackHandler as LlamaHandler

from langchain_smart import Price, SmartChatModel, SmartRunnable
from llama_index_smart import SmartLLM

pytestmark = pytest.mark.filterwarnings("ignore:.*failed without reporting")

ITEMS = [f"item {n}" for n in range(60)]
BAD = 7
TERMS = {
    "prices": {"big": Price(10, 30), "small": Price(0.1, 0.4)},
    "max_disagreement": 0.2,
    "seed": 1,
}


class HandlerError(Exception):
    """What a handler of the user raises."""


def member(name, *, fails=False):
    answer = say(name)

    def script(text, kwargs):
        failed = fails and text == ITEMS[BAD]
        return ValueError("no answer") if failed else answer(text, kwargs)

    return Scripted(name=name, script=script)


def handler(event, base=BaseCallbackHandler):
    """Return a handler that raises at one event of one item's run."""
    asked, met = {}, Counter()

    def began(serialized, given, *, run_id, parent_run_id=None, **_):
        given = given[0][0].content if isinstance(given, list) else given
        asked[run_id] = given if parent_run_id is None else None

    def meet(name):
        def noted(self, *args, run_id, **kwargs):
            if name.endswith("_start"):
                began(*args, run_id=run_id, **kwargs)
            met[name] += asked.get(run_id) == ITEMS[BAD]
            if name == event and asked.get(run_id) == ITEMS[BAD]:
                raise HandlerError(name)

        async def awaited(self, *args, **kwargs):
            noted(self, *args, **kwargs)

        return noted if base is BaseCallbackHandler else awaited

    names = ["on_llm_end", "on_llm_error", "on_llm_new_token", "on_chain_end"]
    names += ["on_chat_model_start", "on_chain_start", "on_chain_error"]
    methods = {name: meet(name) for name in names}
    made = type("Raising", (base,), {**methods, "raise_error": True})()
    made.met = met
    return made


def chat(fails):
    big, small = (member(name, fails=fails) for name in TERMS["prices"])
    return SmartChatModel(reference=big, candidates=[small], **TERMS), (big, small)


def chain(fails):
    big, small = (member(name, fails=fails) for name in TERMS["prices"])
    tiers = {"reference": {"long": big | StrOutputParser()}}
    tiers["candidates"] = {"short": small | StrOutputParser()}
    return SmartRunnable(**tiers, **TERMS), (big, small)


CASES = [(chat, event) for event in ("on_chat_model_start", "on_llm_end")]
CASES += [(chain, event) for event in ("on_chain_start", "on_chain_end")]
CASES += [(chat, "on_llm_error"), (chain, "on_chain_error")]


@pytest.mark.parametrize("verb", ["batch", "abatch"])
@pytest.mark.parametrize(("made", "event"), CASES)
async def test_its_error_is_that_items_and_all_others_are_answered(made, event, verb):
    async def answered(model, config, **how):
        if verb == "batch":
            return model.batch(ITEMS, config, **how)
        return await model.abatch(ITEMS, config, **how)

    base = BaseCallbackHandler if verb == "batch" else AsyncCallbackHandler
    fails = event.endswith("error")
    raising = handler(event, base)
    smart, members = made(fails)
    config = {"callbacks": [raising]}
    results = await answered(smart, config, return_exceptions=True)
    wrong = {n: str(r) for n, r in enumerate(results) if isinstance(r, Exception)}
    assert wrong == {BAD: event}
    if made is chat:  # as by the plain model
        plain = member("big", fails=fails)
        config = {"callbacks": [handler(event, base)]}
        alone = await answered(plain, config, return_exceptions=True)
        assert [n for n, r in enumerate(alone) if isinstance(r, Exception)] == [BAD]
        assert str(alone[BAD]) == event
    assert raising.met[event] == 1
    (certificate,) = smart.report().certificates
    unmade = 2 if event.endswith("start") else 0
    calls = sum(spend.calls for spend in smart.report().spend.values())
    assert calls - unmade == sum(len(each.calls) for each in members)
    assert certificate.items == 60


@pytest.mark.parametrize("event", ["on_chat_model_start", "on_llm_end"])
def test_where_it_is_raised_it_carries_the_other_answers(event):
    with pytest.raises(HandlerError) as raised:
        chat(fails=False)[0].batch(ITEMS, {"callbacks": [handler(event)]})
    bought = [r for r in raised.value.smart_results if not isinstance(r, Exception)]
    assert len(bought) == 59


@pytest.mark.parametrize("event", ["on_chat_model_start", "on_llm_end"])
def test_an_item_that_shares_its_answer_has_its_own_error(event):
    smart, members = chat(fails=False)
    smart = smart.model_copy(update={"dedupe": True})
    inputs = ["item 8", *ITEMS, ITEMS[BAD]]
    results = smart.batch(
        inputs, {"callbacks": [handler(event)]}, return_exceptions=True
    )
    wrong = [n for n, r in enumerate(results) if isinstance(r, Exception)]
    assert wrong == [1 + BAD, len(inputs) - 1]
    asked = Counter(text for each in members for text, _ in each.calls)
    assert max(asked.values()) <= len(members)


def test_what_was_bought_is_in_the_store(tmp_path):
    def run(config):
        models = [member(name) for name in TERMS["prices"]]
        at = {"reference": models[0], "candidates": models[1:]}
        smart = SmartChatModel(**at, **TERMS, store=str(tmp_path / "answers.db"))
        try:
            return smart.batch(ITEMS, config), models
        except HandlerError:
            return None, models

    run({"callbacks": [handler("on_llm_end")]})
    answers, again = run({})
    assert [len(each.calls) for each in again] == [0, 0]
    assert len(answers) == 60


class LlamaRaising(LlamaHandler):
    """Raises at an event of one item."""

    def __init__(self, event):
        super().__init__([], [])
        self.event, self.asked = event, {}

    def _meet(self, event, prompt):
        if event == self.event and prompt == ITEMS[BAD]:
            raise HandlerError(event)

    def on_event_start(self, kind, payload=None, event_id="", parent_id="", **_):
        messages = (payload or {}).get("messages")  # of a call, not of an exception
        self.asked[event_id] = messages and messages[-1].content
        self._meet("start", self.asked[event_id])
        return event_id

    def on_event_end(self, kind, payload=None, event_id="", **_):
        self._meet("end", self.asked.get(event_id))

    def start_trace(self, trace_id=None):
        pass

    def end_trace(self, trace_id=None, trace_map=None):
        pass


@pytest.mark.parametrize("verb", ["complete_batch", "acomplete_batch"])
@pytest.mark.parametrize("event", ["start", "end"])
def test_so_it_is_in_llama_index(event, verb):
    def answered(**how):
        big, small = (member(name) for name in TERMS["prices"])
        smart = SmartLLM(
            reference=big,
            candidates=[small],
            callback_manager=CallbackManager([LlamaRaising(event)]),
            **TERMS,
        )
        found = getattr(smart, verb)(ITEMS, **how)
        return asyncio.run(found) if verb.startswith("a") else found

    results = answered(return_exceptions=True)
    wrong = {n: str(r) for n, r in enumerate(results) if isinstance(r, Exception)}
    assert wrong == {BAD: event}
    with pytest.raises(HandlerError) as raised:
        answered()
    assert len(raised.value.smart_results) == 60


class Streaming(Scripted):
    """Says its answer in two pieces."""

    async def _astream(self, messages, stop=None, run_manager=None, **kwargs):
        self._enter(messages[-1].text, kwargs)
        usage = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
        for text, used in (("yes", None), (" it is", usage)):
            message = AIMessageChunk(content=text, usage_metadata=used)
            yield ChatGenerationChunk(message=message)


@pytest.mark.parametrize(
    "event", ["on_chat_model_start", "on_llm_new_token", "on_llm_end"]
)
async def test_in_a_stream_it_ends_what_it_ends_for_the_plain_model(event):
    async def seen(model, item):
        pieces = []
        config = {"callbacks": [handler(event, AsyncCallbackHandler)]}
        try:
            async for piece in model.astream(item, config):
                pieces.append(piece.content)
        except HandlerError:
            pieces.append("error")
        return [piece for piece in pieces if piece]

    big, small = (Streaming(name=name, script=say(name)) for name in TERMS["prices"])
    smart = SmartChatModel(reference=big, candidates=[small], **TERMS)
    assert await seen(smart, ITEMS[BAD]) == await seen(big, ITEMS[BAD])
    assert "error" not in await seen(smart, ITEMS[1])
    made = len(big.calls) + len(small.calls) - 1  # the plain model's
    async with asyncio.timeout(30):  # core leaves closing to the event loop
        while sum(s.calls for s in smart.report().spend.values()) < made:
            await asyncio.sleep(0)
