"""A reference asked twice: booked, cached replies told, and too small a δ refused."""

from __future__ import annotations

import itertools

import pytest
from fakes import Scripted
from langchain_core.caches import InMemoryCache
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser

from langchain_smart import Price, SmartChatModel, SmartRunnable
from smart_engine import SmartError
from smart_engine.batch.self_agreement import NoisyReferenceError

ITEMS = [f"item {number}" for number in range(40)]
PRICES = {"big": Price(1000, 1000), "small": Price(1, 1)}


def moody(share: int):
    """Answer anew each time about one item in `share`."""
    turns = itertools.count()

    def script(text: str, _: object) -> str:
        number = int(text.rsplit(maxsplit=1)[-1])
        return f"word {next(turns)}" if number % share == 0 else f"the {number}"

    return script


def smart_with(share: int = 4, **settings) -> SmartChatModel:
    big = Scripted(name="big", script=moody(share))
    small = Scripted(name="small", script=lambda text, _: f"the {text.split()[-1]}")
    return SmartChatModel(reference=big, candidates=[small], prices=PRICES, **settings)


@pytest.mark.parametrize("is_async", [False, True])
async def test_noise_is_measured_booked_and_kept_by_copies(is_async):
    smart = smart_with(max_disagreement=0.05, budget_usd=0.001, max_tokens=9)
    if is_async:
        noise = await smart.aself_agreement(ITEMS, n=1000)
    else:
        noise = smart.self_agreement(ITEMS)
    assert (noise.items, noise.disagreements) == (40, 10)
    report = smart.report()
    assert report.spend["big"].calls == 80
    assert report.spend["small"].calls == 0
    assert 0 < noise.cost == pytest.approx(report.cost)
    assert report.noise == (noise,)
    for same in (smart, smart.model_copy()):
        with pytest.raises(NoisyReferenceError, match=r"10 of 40 items.*accept_noise"):
            same.batch(ITEMS)
        with pytest.raises(NoisyReferenceError):
            same.invoke(ITEMS[0])
        with pytest.raises(NoisyReferenceError):
            await same.abatch(ITEMS)
    assert smart.report().cost == report.cost  # refused before anything is spent
    asked = smart.bind(smart_task="another").invoke(ITEMS[0])
    assert asked.response_metadata["smart"]["task"] == "another"


def test_a_refusal_can_be_forced_and_does_not_touch_the_reference_alone():
    smart = smart_with(share=2)
    smart.self_agreement(ITEMS)
    for way in ({"accept_noise": True}, {"max_disagreement": 0.5}):
        other = smart.model_copy(update=way)
        assert len(other.batch(ITEMS[:5])) == 5
    assert smart.bind(model="small").invoke(ITEMS[1]).text == "the 1"
    smart.self_agreement(ITEMS)  # measured again, though serving is refused


def test_only_a_few_items_are_asked_about_and_their_task_is_told():
    smart = smart_with()
    noise = smart.self_agreement(ITEMS, {"metadata": {"smart_task": "words"}}, n=7)
    assert noise.items == 7
    assert noise.task == "words"
    assert smart.report().spend["big"].calls == 14


def test_a_cached_reply_is_no_second_answer():
    smart = smart_with()
    smart.reference.cache = InMemoryCache()
    for item in ITEMS[:30]:
        smart.invoke(item, model="big")
    smart.reference.cache.update = lambda *_: None  # no more than that is kept
    before = smart.report().cost
    noise = smart.self_agreement(ITEMS)
    assert (noise.items, noise.cached) == (10, 30)
    assert noise.cost == pytest.approx(smart.report().cost - before)
    with pytest.raises(SmartError, match="30 were answered by a cache"):
        smart.self_agreement(ITEMS[:30])


def test_a_reference_that_fails_is_left_out_and_what_was_paid_is_booked():
    big = Scripted(
        name="big",
        script=lambda text, _: OSError("no") if text == "item 3" else AIMessage("yes"),
    )
    smart = SmartChatModel(
        reference=big, candidates=[smart_with().candidates[0]], prices=PRICES
    )
    noise = smart.self_agreement(ITEMS[:10])
    assert (noise.items, noise.failed, noise.disagreements) == (9, 1, 0)
    assert smart.report().spend["big"].failures == 2


@pytest.mark.parametrize("is_async", [False, True])
async def test_chains_are_asked_twice_as_well(is_async):
    big = Scripted(name="big", script=moody(2))
    small = FakeListChatModel(name="small", responses=["x"])
    smart = SmartRunnable(
        reference={"long": big | StrOutputParser()},
        candidates={"short": small | StrOutputParser()},
        prices={"big": Price(1000, 1000), "small": Price.free()},
    )
    ask = smart.aself_agreement if is_async else smart.self_agreement
    told = ask(ITEMS)
    noise = await told if is_async else told
    assert (noise.reference, noise.disagreements, noise.items) == ("long", 20, 40)
    assert 0 < noise.cost == pytest.approx(smart.report().spend["long"].cost)
    assert smart.report().inside["big"].calls == 80
    with pytest.raises(NoisyReferenceError):
        smart.batch(ITEMS)
    with pytest.raises(NoisyReferenceError):
        smart.invoke(ITEMS[0])
    assert len(smart.model_copy(update={"accept_noise": True}).batch(ITEMS[:3])) == 3
