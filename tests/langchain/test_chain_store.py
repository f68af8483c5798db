"""Whole chains in a store: batches go on where they were cut off, streams are one."""

from __future__ import annotations

import asyncio
import warnings
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from fakes import Scripted, say
from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.output_parsers import PydanticOutputParser, StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from pydantic import BaseModel, Field

from langchain_smart import Price, SmartRunnable
from langchain_smart.chains.store import ChainAnswers, identity_of
from smart_engine.equivalence import Exact
from smart_engine.errors import BudgetExceededError, InvalidInputError, StoreError

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}
LONG = ChatPromptTemplate.from_template("With advice: {t}")
SHORT = ChatPromptTemplate.from_template("{t}")
ITEMS = [{"t": f"item {number}"} for number in range(60)]


class Found(BaseModel):
    where: str


def models(scripts=say, **settings) -> list[Scripted]:
    return [Scripted(name=name, script=scripts(name), **settings) for name in PRICES]


def smart_of(store, asked=None, ending=None, **settings) -> SmartRunnable:
    big, small = asked or models()
    ending = ending or StrOutputParser()
    told = {"prices": PRICES, "max_disagreement": 0.1, "version": "1", "task": "mail"}
    told |= {"promise": "batch"}
    return SmartRunnable(
        reference={"long": LONG | big | ending},
        candidates={"short": SHORT | small | ending},
        store=store,
        **(told | settings),
    )


def calls(asked) -> int:
    return sum(len(model.calls) for model in asked)


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "answers.db"


# -- batches ---------------------------------------------------------------------


async def test_the_same_batch_again_buys_nothing_and_ends_the_same(place):
    first, second = models(), models()
    one, other = smart_of(place, first), smart_of(place, second)
    answers = one.batch(ITEMS)
    assert await other.abatch(ITEMS) == answers
    assert calls(first) > 0
    assert calls(second) == 0
    assert one.report().certificates == other.report().certificates
    assert other.report().restored == pytest.approx(one.report().cost)


async def test_a_cancelled_batch_goes_on(file):
    asked = models(latency=0.01)
    task = asyncio.create_task(smart_of(file, asked, max_concurrency=4).abatch(ITEMS))
    while calls(asked) < 20:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    again = models()
    resumed = smart_of(file, again)
    answers = resumed.batch(ITEMS)
    assert 0 < resumed.report().restored < resumed.report().cost
    assert answers == smart_of(None, version=None).batch(ITEMS)


def test_a_batch_whose_budget_ended_goes_on_with_a_larger_one(file):
    def bounded():
        return [model.bind(max_tokens=4) for model in models()]

    poor = smart_of(file, bounded(), budget_usd=0.005, mode="strict")
    with pytest.raises(BudgetExceededError):
        poor.batch(ITEMS)
    assert 0.0025 < poor.report().cost <= 0.005
    rich = smart_of(file, bounded(), budget_usd=1.0, mode="strict")
    assert len(rich.batch(ITEMS)) == len(ITEMS)
    bought = [entry for entry in poor.ledger().entries if entry.outcome == "answered"]
    kept = sum(entry.cost for entry in bought if entry.role != "inside")
    assert rich.report().restored == pytest.approx(kept)


CHANGES = {
    "version": {"version": "2"},
    "seed": {"seed": 1},
    "equivalence": {"equivalence": Exact()},
    "guarantee": {"confidence": 0.9},
    "model": {"asked": [m.bind(stop=["x"]) for m in models()]},
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_job_starts_anew(file, change):
    smart_of(file).batch(ITEMS[:20])
    changed = smart_of(file, **CHANGES[change])
    changed.batch(ITEMS[:20])
    assert changed.report().restored == 0


def test_other_arguments_are_another_job(file):
    smart_of(file).batch(ITEMS[:20])
    other = smart_of(file)
    other.bind(stop=["x"]).batch(ITEMS[:20])
    assert other.report().restored == 0


def test_messages_count_by_what_they_say_not_by_their_ids(file):
    def items(start):
        return [[HumanMessage(f"item {n}", id=f"{start + n}")] for n in range(20)]

    def smart(asked):
        big, small = asked
        told = {"prices": PRICES, "version": "1", "store": file}
        return SmartRunnable(reference={"a": big}, candidates={"b": small}, **told)

    smart(models()).batch(items(0))
    again = models()
    answers = smart(again).batch(items(100))
    assert calls(again) == 0
    assert answers[1].text == "yes 1"


def test_an_object_of_the_references_class_comes_back(file):
    def objects(name):
        return lambda text, kwargs: f'{{"where": "{text}"}}'

    parser = PydanticOutputParser(pydantic_object=Found)
    first, again = models(objects), models(objects)
    answers = smart_of(file, first, parser).batch(ITEMS[:20])
    assert smart_of(file, again, parser).batch(ITEMS[:20]) == answers
    assert calls(again) == 0
    assert isinstance(answers[0], Found)


def test_what_would_not_come_back_the_same_is_handed_out_and_not_kept(file):
    ending = StrOutputParser() | RunnableLambda(lambda text: (text, text))
    with pytest.warns(UserWarning, match=r"buy some.*\(tuple\) cannot be stored"):
        answers = smart_of(file, None, ending).batch(ITEMS[:20])
    assert answers[1] == ("yes 1", "yes 1")
    again = smart_of(file, None, ending)
    with pytest.warns(UserWarning, match="cannot be stored"):
        again.batch(ITEMS[:20])
    assert again.report().restored == 0


class Colour(StrEnum):
    RED = "red"


class Card(BaseModel):
    """A card, of which a dump tells the number only, as does comparing."""

    number: int
    hidden: int = Field(0, exclude=True)
    _note: str = ""

    def __eq__(self, other):
        return isinstance(other, Card) and self.number == other.number

    __hash__ = None

    @classmethod
    def noted(cls, number):
        made = cls(number=number)
        made._note = "seen"
        return made


class Coloured(Found):
    """An object that stands where its base class is expected."""

    colour: str


class Pair(BaseModel):
    left: Found

    def __eq__(self, other):
        return self.left.where == other.left.where

    __hash__ = None


@pytest.mark.parametrize(
    ("answer", "made"),
    [
        (Card(number=1, hidden=2), Card),
        (Card.noted(1), Card),
        (Pair(left=Coloured(where="here", colour="red")), Pair),
        (Colour.RED, str),
        ({"colour": [Colour.RED]}, dict),
    ],
    ids=repr,
)
def test_what_a_store_does_not_hold_whole_is_bought_again(file, answer, made):
    def chain(given):
        asked.append(given)
        return answer

    def smart():
        return SmartRunnable(
            reference={"long": RunnableLambda(chain).with_types(output_type=made)},
            candidates={"short": RunnableLambda(chain)},
            prices={"long": Price.free(), "short": Price.free()},
            store=file,
            version="1",
        )

    for _ in range(2):
        asked = []
        with pytest.warns(UserWarning, match="buy some.*cannot be stored"):
            answers = smart().batch([1, 2])
        assert asked
        assert all(each is answer for each in answers)


def test_what_it_holds_whole_is_stored():
    text = AIMessage("a text of a class of its own").text
    for answer in (Card(number=1), Pair(left=Found(where="x")), {"a": [text]}):
        assert ChainAnswers(type(answer)).write(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "text",
        "answer:text",
        '{"where": "here"}',
        "",
        None,
        4,
        {"found": [1, 2.5, True, None], "lc": 1, "type": "constructor", "id": ["os"]},
        AIMessage("hi", tool_calls=[{"name": "f", "args": {"x": 1}, "id": "1"}]),
        {"answer": "yes", "context": [Document("page", metadata={"page": 3})]},
        Found(where="here"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("made", [str, Found, Any])
def test_answers_come_back_as_they_were_or_are_not_kept(answer, made):
    answers = ChainAnswers(made)
    if isinstance(answer, Found) and made is not Found:
        with pytest.raises(StoreError, match="cannot be stored"):
            answers.write(answer)
    else:
        assert answers.read(answers.write(answer)) == answer


def test_reading_makes_nothing_but_messages_and_documents():
    prompt = '{"lc": 1, "type": "constructor", "kwargs": {"template": "x"}, "id": %s}'
    named = prompt % '["langchain", "prompts", "prompt", "PromptTemplate"]'
    with pytest.raises(ValueError, match="PromptTemplate"):
        ChainAnswers(str).read(f"answer:{named}")


DIFFERENT = [
    "1",
    1,
    True,
    None,
    ["1"],
    {"a": 1},
    {"a": "1"},
    {1: "a"},
    {"1": "a"},
    HumanMessage("1"),
    AIMessage("1"),
    HumanMessage([{"type": "text", "text": "1"}]),
    SystemMessage("1"),
    SystemMessage("1", additional_kwargs={"__openai_role__": "developer"}),
    ChatMessage("1", role="critic"),
    ChatMessage("1", role="judge"),
    ToolMessage("1", tool_call_id="1"),
    ToolMessage("1", tool_call_id="1", status="error"),
    HumanMessage([{"type": "image_url", "image_url": {"url": "data:1"}}]),
    b"1",
    Found(where="1"),
    Document("1"),
]


def test_items_are_told_apart():
    assert len({identity_of(item) for item in DIFFERENT}) == len(DIFFERENT)


def test_an_item_that_cannot_be_told_from_others_is_an_error_before_any_call(file):
    asked = models()
    with pytest.raises(InvalidInputError, match=r"inputs.*leave store out"):
        smart_of(file, asked).batch([{"t": object()}])
    assert calls(asked) == 0


def test_a_store_needs_a_version(file):
    with pytest.raises(InvalidInputError, match="version='1'"):
        smart_of(file, version=None)
    assert not file.exists()


# -- streams ---------------------------------------------------------------------


async def test_a_stream_goes_on_in_another_process(place):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        one = smart_of(place)
        for item in ITEMS[:30]:
            one.invoke(item)
        other = smart_of(place)
        for item in ITEMS[30:60]:
            await other.ainvoke(item)
    (state,) = other.report().streams
    assert state.arrived == 60
    changed = smart_of(place, version="2")
    with pytest.warns(UserWarning, match="the store knows task 'mail'.*models "):
        changed.invoke(ITEMS[0])


async def test_the_budget_of_a_stream_is_kept_by_all(place):
    def bounded():
        return smart_of(
            place,
            [model.bind(max_tokens=4) for model in models()],
            budget_usd=0.01,
            mode="strict",
        )

    spent = []
    for verb in ("invoke", "ainvoke", "invoke"):
        smart = bounded()
        for item in ITEMS[:25]:
            try:
                answer = getattr(smart, verb)(item)
                await answer if verb == "ainvoke" else None
            except BudgetExceededError:
                break
        spent.append(smart.report().cost)
    assert 0.005 < sum(spent) <= 0.01
