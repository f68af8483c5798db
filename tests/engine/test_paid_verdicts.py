"""What rules spend: booked, stored, never paid twice, and known before it is spent."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from types import SimpleNamespace

import numpy as np
import pytest

from smart_engine import (
    BatchSession,
    Exact,
    Failure,
    Guarantee,
    InvalidInputError,
    Judge,
    Normalized,
    Number,
    Outcome,
    Price,
    Similar,
    Spend,
    Tier,
    Usage,
    agree,
)
from smart_engine.money.ledger import LedgerEntries, LedgerScope
from smart_engine.money.spending import add_spend, record_rule_calls
from smart_engine.serving.checks import check
from smart_engine.serving.config import ServingConfig
from smart_engine.serving.resume import ResumedSession
from smart_engine.store.store import Store

pytestmark = pytest.mark.filterwarnings("ignore:.*raised TimeoutError")

TIERS = [Tier("big", role="reference"), Tier("small"), Tier("tiny")]
COST = {"big": 1.0, "small": 0.1, "tiny": 0.01}


def say(call) -> Outcome:
    """Answer in words of one's own; every 11th answer of `tiny` is another."""
    number = -1 if call.tier == "tiny" and call.item % 11 == 0 else call.item
    return Outcome(f"{call.tier} says secret {number}", COST[call.tier])


def last_word(text: str) -> str:
    return text.rpartition(" ")[2]


class Court:
    """Makes judges and embeddings that share one record of what they were asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def judge(self) -> Judge:
        def ask(text: str) -> Outcome | Failure:
            pair = json.loads(text.split("\n")[-4])
            if last_word(pair["A"]).endswith("7"):
                return Failure(TimeoutError(), 0.001)
            self.asked.append(text)
            same = last_word(pair["A"]) == last_word(pair["B"])
            return Outcome("same" if same else "different", 0.001, Usage(9, 1))

        return Judge(ask, "owl")

    def near(self) -> Similar:
        def embed(text: str) -> list[float]:
            self.asked.append(text)
            angle = float(last_word(text))
            return [np.cos(angle), np.sin(angle)]

        return Similar(embed, 0.99, price=Price.per_call(0.001), model="m 1")


def drive(session, cut: int | None) -> bool:
    """Drive a session; stop after so many outcomes."""
    recorded = 0
    while calls := session.next_calls():
        for call in calls:
            if recorded == cut:
                return False
            session.record(call, say(call))
            recorded += 1
    return True


def fresh(rule, entries=None) -> BatchSession:
    scope = LedgerScope(entries or LedgerEntries(), "big", "task")
    return BatchSession(150, TIERS, Guarantee(0.1, 0.9), equivalence=rule, scope=scope)


def spent_by(rule, pairs) -> dict[str, Spend]:
    """Compare pairs of texts; return what that cost, by name."""
    table: dict[str, Spend] = {}
    with record_rule_calls() as calls:
        for left, right in pairs:
            agree(rule, left, right)
    add_spend(table, calls)
    return table


@pytest.mark.parametrize(
    "cut", [1, 60, *(pytest.param(n, marks=pytest.mark.slow) for n in (200, 10_000))]
)
@pytest.mark.parametrize("same_process", [False, True])
def test_a_job_that_is_cut_off_buys_no_verdict_twice(tmp_path, cut, same_process):
    """And it ends with the books of one that was not."""
    whole, parts = Court(), Court()
    uncut = fresh(whole.judge())
    assert drive(uncut, None)
    rule = parts.judge()
    for stop in (cut, None):
        store = Store(tmp_path / "answers.db")
        rule, entries = rule if same_process else parts.judge(), LedgerEntries()
        answers = store.answers("job", write=str, read=str)
        session = ResumedSession(fresh(rule, entries), answers)
        drive(session, stop)
        store.close()
    assert session.certificate == uncut.certificate
    assert len(parts.asked) == len(whole.asked) > 100
    assert sorted(set(parts.asked)) == sorted(set(whole.asked))
    if cut == 10_000:
        ledger, spend = entries.ledger(), session.certificate.spend
        paid_again = 0.001 * spend["judge: owl"].failures
        cost = session.certificate.cost
        assert ledger.sums("outcome")["restored"].cost == pytest.approx(
            cost - paid_again
        )
        assert ledger.sums("role")["judge"] == spend["judge: owl"]


def test_embeddings_bought_for_a_job_are_not_bought_again(tmp_path):
    court, store = Court(), Store(tmp_path / "answers.db")
    certificates = []
    for _ in range(2):
        entries = LedgerEntries()
        answers = store.answers("job", write=str, read=str)
        session = ResumedSession(fresh(court.near(), entries), answers)
        assert drive(session, None)
        certificates.append(session.certificate)
    store.close()
    assert len(court.asked) == len(set(court.asked)) > 50
    assert certificates[0] == certificates[1]
    spend = certificates[0].spend["embedding: m 1"]
    assert spend.calls == len(court.asked)
    assert spend.cost == pytest.approx(0.001 * len(court.asked))
    ledger = entries.ledger()
    assert ledger.sums("outcome").keys() == {"restored"}
    assert ledger.sums("role")["embedding"] == spend


def test_verdicts_are_kept_without_a_text(tmp_path):
    file = tmp_path / "answers.db"
    store = Store(file)
    answers = store.answers("job", write=lambda _: "-", read=str)
    drive(ResumedSession(fresh(Court().judge()), answers), 200)
    store.close()
    with closing(sqlite3.connect(file)) as database:
        rows = database.execute("select * from smart_verdicts_1").fetchall()
    assert len(rows) > 50
    assert "secret" not in repr(rows)
    assert b"secret" not in file.read_bytes()


# -- embeddings -------------------------------------------------------------------


def test_embedding_is_booked_by_the_call_or_by_the_token():
    def embed(text: str) -> list[float]:
        return [1.0, float(len(text))]

    by_call = Similar(embed, price=Price.per_call(0.5))
    by_token = Similar(embed, price=Price(1e6, 0), tokens=len, model="m 2")
    free = Similar(embed, price=Price.free())
    pairs = [("a", "bbb"), ("a", "bbb"), ("a", "cc")]
    named = "test_embedding_is_booked_by_the_call_or_by_the_token.<locals>.embed"
    costs = {
        by_call: {f"embedding: {named}": Spend(calls=3, cost=1.5)},
        by_token: {"embedding: m 2": Spend(calls=3, cost=6, input_tokens=6)},
        free: {f"embedding: {named}": Spend(calls=3)},
    }
    for rule, cost in costs.items():
        assert spent_by(rule, pairs) == cost
    many = Similar(
        lambda texts: [embed(text) for text in texts],
        many=True,
        price=Price.per_call(0.5),
        model="m 3",
    )
    assert spent_by(many, pairs[:1]) == {"embedding: m 3": Spend(calls=1, cost=0.5)}


def test_embedding_that_fails_is_booked_and_asked_again():
    def embed(text: str) -> list[float]:
        raise TimeoutError

    rule = Similar(embed, price=Price.per_call(0.5), model="m")
    for _ in range(2):
        with pytest.warns(UserWarning, match="TimeoutError"):
            table = spent_by(rule, [("a", "b")])
        assert table == {"embedding: m": Spend(calls=1, failures=1)}


@pytest.mark.parametrize(
    ("given", "field", "hint"),
    [
        ({}, "Similar.price", "Price.free()"),
        ({"price": 0.02}, "Similar.price", "Price.free()"),
        ({"price": Price(0.02, 0)}, "Similar.price", "tokens="),
        ({"price": Price(0.02, 0), "tokens": 7}, "Similar.tokens", "a function"),
    ],
)
def test_what_embedding_costs_must_be_said(given, field, hint):
    with pytest.raises(InvalidInputError) as error:
        Similar(lambda _: [1.0], **given)
    assert error.value.field == field
    assert hint in error.value.hint


def test_an_embedding_is_named_after_its_model():
    class Embeddings(SimpleNamespace):
        def embed_query(self, text: str) -> list[float]:
            return [1.0, float(len(text))]

    for fields in ({"model": "m-3"}, {"model_name": "m-3"}, {"model": 7}):
        rule = Similar(Embeddings(**fields).embed_query, 0.9, price=Price.free())
        named = rule.name == "Similar(m-3, threshold=0.9)"
        assert named == ("m-3" in fields.values())
    given = Similar(Embeddings(model="m-3").embed_query, model="n", price=Price.free())
    assert given.name == "Similar(n, threshold=0.85)"


# -- what is known beforehand -------------------------------------------------------


def test_rules_say_whether_they_wait_and_whether_they_cost():
    judge = Court().judge()
    near = Similar(lambda _: [1.0], price=Price.free())
    dear = Similar(lambda _: [1.0], price=Price.per_call(1))
    flags = {
        judge: (True, True),
        near: (True, False),
        dear: (True, True),
        Exact(): (False, False),
        Number() | Normalized(): (False, False),
        Normalized() | near: (True, False),
        Normalized() & judge: (True, True),
        max | (Normalized() | dear): (True, True),
    }
    for rule, expected in flags.items():
        assert (rule.waits, rule.costs) == expected


def test_a_budget_refuses_a_rule_whose_cost_it_cannot_foresee():
    free = Similar(lambda _: [1.0], price=Price.free())
    for rule, fine in ((Court().judge(), False), (Exact(), True), (free, True)):
        terms = ServingConfig(("big", "small"), Guarantee(), rule, budget_usd=1.0)
        if fine:
            check(terms)
            continue
        with pytest.raises(InvalidInputError, match="no budget would hold") as error:
            check(terms)
        assert error.value.field == "budget_usd"


def test_nothing_is_judged_once_all_is_decided():
    """What the reference answers after that is right, whatever a judge would say."""
    court = Court()
    session = BatchSession(
        300, TIERS[:2], Guarantee(0.01, 0.9), equivalence=court.judge(), min_saving=0
    )
    while calls := session.next_calls():
        for call in calls:
            wrong = call.tier == "small"
            answer = f"{call.tier} says {-1 if wrong else 10 * call.item}"
            session.record(call, Outcome(answer, 1.0 if wrong else 1.1))
    certificate = session.certificate
    judged = {json.loads(text.split("\n")[-4])["A"] for text in court.asked}
    assert certificate.spend["small"].calls > certificate.profiled
    assert 0 < len(judged) <= certificate.profiled
