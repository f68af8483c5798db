"""A batch that is cut off goes on where it was: nothing is bought twice."""

from __future__ import annotations

import asyncio
import stat
import warnings
from pathlib import Path

import pytest
import sqlalchemy as sql
from fakes import Foreign, say
from langchain_core.messages import (
    AIMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_openai import ChatOpenAI
from loopback import serve
from pydantic import BaseModel, create_model
from sqlalchemy import make_url

from langchain_smart import Price, SmartChatModel
from smart_engine import Call, Outcome, Usage
from smart_engine.errors import InvalidInputError, StoreError
from smart_engine.store.store import Store

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}
ITEMS = [f"item {number}" for number in range(50)]


def smart_with(store, scripts=say, **settings) -> SmartChatModel:
    big, small = (Foreign(name=name, script=scripts(name)) for name in PRICES)
    settings = {"max_disagreement": 0.2, **settings}
    return SmartChatModel(
        reference=big, candidates=[small], prices=PRICES, store=store, **settings
    )


def calls(smart) -> int:
    return sum(len(member.model.calls) for member in smart._members.values())


def contents(answers) -> list[str]:
    return [answer.content for answer in answers]


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "answers.db"


def test_the_same_batch_again_buys_nothing_and_ends_the_same(place):
    first, second = smart_with(place), smart_with(place)
    answers, again = first.batch(ITEMS), second.batch(ITEMS)
    assert calls(first) > 0
    assert calls(second) == 0
    assert contents(answers) == contents(again)
    assert first.report().certificates == second.report().certificates
    assert first.report().restored == 0
    assert second.report().restored == pytest.approx(first.report().cost)
    assert "is from earlier runs" in str(second.report())


async def test_async_and_sync_share_the_store(place):
    first, second = smart_with(place), smart_with(place)
    answers = await first.abatch(ITEMS)
    assert contents(second.batch(ITEMS)) == contents(answers)
    assert calls(second) == 0


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"max_disagreement": 0.3},
        {"temperature": 0.5},
        {"task": "another"},
        {"equivalence": lambda a, b: a == b},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_job_starts_anew(file, change):
    smart_with(file).batch(ITEMS)
    other = smart_with(file, **change)
    other.batch(ITEMS)
    assert calls(other) > 0
    assert other.report().restored == 0


def test_a_larger_budget_and_another_pace_are_the_same_job(file):
    first = smart_with(file, budget_usd=0.002, max_tokens=5)
    first.batch(ITEMS, return_exceptions=True)
    assert 0 < first.report().cost <= 0.002
    second = smart_with(file, budget_usd=5, max_tokens=5, max_concurrency=4)
    answers = second.batch(ITEMS)
    assert len(contents(answers)) == len(ITEMS)
    assert second.report().certificates[0].valid
    assert second.report().restored == pytest.approx(first.report().cost)


def test_a_model_of_the_same_name_elsewhere_is_another(file):
    def smart_at(url):
        big, small = (
            ChatOpenAI(model=name, base_url=url, api_key="none") for name in PRICES
        )
        return SmartChatModel(
            reference=big, candidates=[small], prices=PRICES, store=file
        )

    with serve(lambda *_: "here") as one, serve(lambda *_: "there") as other:
        for server, said in ((one, "here"), (other, "there"), (one, "here")):
            smart = smart_at(server.url)
            assert contents(smart.batch(ITEMS[:8])) == [said] * 8
            again = sum(server.requests.values())
        assert smart.report().restored > 0
        assert again == sum(other.requests.values())


def test_other_items_are_another_job(file):
    smart_with(file).batch(ITEMS)
    other = smart_with(file)
    other.batch([*ITEMS[1:], ITEMS[0]])
    assert other.report().restored == 0
    other.batch([[HumanMessage(item, name="someone")] for item in ITEMS])
    assert other.report().restored == 0


CALL = {"name": "f", "id": "1", "error": None, "type": "invalid_tool_call"}
LIKE = {
    "role": [ChatMessage("hm", role=role) for role in ("user", "critic")],
    "developer": [
        SystemMessage("hm", additional_kwargs=told)
        for told in ({}, {"__openai_role__": "developer"})
    ],
    "status": [
        ToolMessage("hm", tool_call_id="1", status=status)
        for status in ("success", "error")
    ],
    "broken call": [
        AIMessage("", invalid_tool_calls=[{**CALL, "args": args}]) for args in "{["
    ],
    "id": [AIMessage("hm", id=name) for name in ("run-1", "run-2")],
}


@pytest.mark.parametrize("what", LIKE)
def test_messages_that_only_look_alike_are_other_items(file, what):
    smarts = []
    for message in LIKE[what]:
        smarts.append(smart_with(file, task="mail"))
        smarts[-1].batch([[message, HumanMessage("item 1")]])
    bought = [calls(smart) for smart in smarts]
    assert bought[0] > 0
    assert (bought[1] > 0) == (what != "id")


def test_another_form_of_the_same_name_is_another_job(file):
    bought = []
    for kind in (int, str):
        form = create_model("Form", number=kind)
        smart = smart_with(file)
        smart.bind(response_format=form).batch(ITEMS[:5])
        bought.append(calls(smart))
    assert bought[0] == bought[1] > 0


class Sorted(BaseModel):
    """Where an item belongs."""

    number: int


def test_tool_calls_and_objects_come_back_as_they_were(file):
    def scripts(name):
        def answer(text, kwargs):
            number = int(text.split()[-1])
            call = {"name": "Sorted", "args": {"number": number}, "id": f"{number}"}
            return AIMessage("", tool_calls=[call])

        return answer

    items = ITEMS[:40]
    for bought in (True, False):
        smart = smart_with(file, scripts)
        sorted_ = smart.with_structured_output(Sorted).batch(items)
        assert sorted_ == [Sorted(number=n) for n in range(40)]
        assert (calls(smart) > 0) == bought


def test_a_failed_call_is_made_again(file):
    def fails(name):
        return lambda text, kwargs: ValueError("not today")

    items = ITEMS[:20]
    first = smart_with(file, fails).batch(items, return_exceptions=True)
    assert all(isinstance(result, ValueError) for result in first)
    smart = smart_with(file)
    said = zip(contents(smart.batch(items)), items, strict=True)
    wrong = sum(answer != say("big")(item, {}) for answer, item in said)
    assert wrong <= smart.report().certificates[-1].max_errors
    assert calls(smart) >= 20


def test_the_file_is_its_owners_alone_and_holds_no_question(file):
    smart_with(file).batch(["a secret question, item 1"] * 5)
    for path in file.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
        assert b"secret question" not in path.read_bytes()


def test_a_place_that_cannot_be_used_is_an_error_at_once(tmp_path):
    for place in (tmp_path / "no folder" / "answers.db", tmp_path, 7, ""):
        with pytest.raises(InvalidInputError, match="store"):
            smart_with(place)
    with pytest.raises(InvalidInputError) as caught:
        smart_with("postgresql+psycopg://me:hush@127.0.0.1:1/none")
    assert "hush" not in str(caught.value)
    other = tmp_path / "letter.txt"
    other.write_text("Dear reader, this is no database, and never was. " * 50)
    with pytest.raises(InvalidInputError, match="not a database"):
        smart_with(other)


# As an older version would have written it: without a checksum.
DAMAGED = ["answer = 'no message'", "cost = -1", "input_tokens = -1"]
DAMAGED += ["cache_read = 99", "output_tokens = x'00'", "confidence = 'sure'"]


@pytest.mark.parametrize("change", DAMAGED)
def test_a_damaged_store_is_a_clear_error_before_anything_is_spent(file, change):
    import sqlite3

    smart_with(file).batch(ITEMS[:5])
    with sqlite3.connect(file) as connection:
        connection.execute(f"update smart_outcomes_1 set {change}, checksum = null")  # noqa: S608
    smart = smart_with(file)
    with pytest.raises(StoreError, match="damaged"):
        smart.batch(ITEMS[:5])
    assert calls(smart) == 0


def test_a_store_that_fails_on_the_way_costs_no_answer(file):
    import sqlite3

    def scripts(name):
        def answer(text, kwargs):
            with sqlite3.connect(file) as connection:
                connection.execute("drop table if exists smart_outcomes_1")
            return say(name)(text, kwargs)

        return answer

    smart = smart_with(file, scripts, max_concurrency=1)
    with pytest.warns(UserWarning, match="cannot be resumed"):
        answers = smart.batch(ITEMS)
    assert len(answers) == len(ITEMS)


def test_a_store_says_nothing_of_its_password():
    store = object.__new__(Store)
    store._url = make_url("postgresql+psycopg://me:hush@127.0.0.1/answers?key=hush")
    assert "hush" not in repr(store) + str(store)


async def test_a_cancelled_batch_goes_on(file):
    slow = smart_with(file)
    for member in slow._members.values():
        member.model.latency = 0.01
    task = asyncio.create_task(slow.abatch(ITEMS))
    while len(slow.ledger()) < 20:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    resumed = smart_with(file)
    await resumed.abatch(ITEMS)
    assert resumed.report().restored > 0


def test_every_answer_is_kept(file):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        smart_with(file, strategy="reference").batch(ITEMS)
    held = (
        Store(file)
        ._engine.connect()
        .exec_driver_sql("select count(*) from smart_outcomes_1")
    )
    assert held.scalar() == len(ITEMS)


# -- stores of older versions ----------------------------------------------------------

OLD = """create table smart_outcomes_1 (
    job varchar(64) not null, item integer not null, tier varchar(255) not null,
    answer text not null, cost double precision not null,
    input_tokens double precision, output_tokens double precision,
    confidence double precision, cached boolean not null,
    primary key (job, item, tier))"""
ROWS = """insert into smart_outcomes_1 values
    ('job', 0, 'big', 'yes', 0.5, 7, 1, 0.25, false),
    ('job', 1, 'big', 'no', 0.5, null, null, null, true)"""
HELD = {
    Call(0, "big"): Outcome("yes", 0.5, Usage(7, 1), 0.25),
    Call(1, "big"): Outcome("no", 0.5, cached=True),
}


def answers_of(store):
    return store.answers("job", write=str, read=str)


def url_of(place):
    return place if "://" in place else f"sqlite:///{place}"


def test_a_table_of_an_older_version_is_read_and_goes_on(place) -> None:
    engine = sql.create_engine(url_of(place))
    with engine.begin() as connection:
        connection.exec_driver_sql(OLD)
        connection.exec_driver_sql(ROWS)
    first, second = Store(place), Store(place)
    assert (
        answers_of(first).load_outcomes() == answers_of(second).load_outcomes() == HELD
    )
    new = Outcome("yes", 0.25, Usage(100, 50, 10, 20, 30, 5, 6, 7, estimated=True))
    answers_of(first).save_outcome(Call(2, "big"), new)
    assert answers_of(second).load_outcomes() == {**HELD, Call(2, "big"): new}
    assert second.bought()["job"]["big"].estimated == 0.25
    # Whoever still runs the older version goes on, too.
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "insert into smart_outcomes_1 (job, item, tier, answer, cost, "
            "input_tokens, output_tokens, confidence, cached) "
            "values ('job', 3, 'big', 'yes', 0.5, 7, 1, 0.25, false)"
        )
    assert answers_of(first).load_outcomes()[Call(3, "big")] == HELD[Call(0, "big")]
