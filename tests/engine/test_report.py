"""Totals over several batches."""

from __future__ import annotations

from contextlib import nullcontext, suppress

import pytest
from items import admitted

from smart_engine import BatchSession, Certificate, Exact, Failure, Guarantee, Outcome
from smart_engine.calls import Call
from smart_engine.errors import BudgetExceededError
from smart_engine.money.reservations import Reservations
from smart_engine.report.content import headlines
from smart_engine.serving.books import Books
from smart_engine.serving.config import ServingConfig


def batch(books: Books, drive, tiers, table, seed: int) -> Certificate:
    """Answer a batch and enter it."""
    scope = books.batch("big", "task")
    session = BatchSession(len(table["big"]), tiers(1), seed=seed, scope=scope)
    certificate = drive(session, table).certificate
    books.end_batch(scope, certificate)
    return certificate


def test_a_report_adds_batches_and_single_calls(drive, tiers, models) -> None:
    books = Books(nullcontext, ["big", "c1"])
    certificates = [
        batch(books, drive, tiers, models(600, 0.0), seed) for seed in (1, 2)
    ]
    before = books.report()
    scope, number = books.item("big", "task")
    scope.record_call(number, "c1", Failure(ValueError(), cost=0.5))
    scope.record_call(number, "big", Outcome("yes", cost=2.0))
    scope, number = books.item("big", "task")
    scope.record_call(number, "big", Outcome("yes", cost=2.0))
    report = books.report()

    assert report.certificates == tuple(certificates)
    assert sum(report.served.values()) == 1200
    batches = sum(certificate.cost for certificate in certificates)
    assert report.cost == pytest.approx(batches + 4.5)
    assert report.saved == pytest.approx(sum(c.saved for c in certificates))
    calls = sum(c.spend["big"].calls for c in certificates)
    assert report.spend["big"].calls == calls + 2
    assert report.spend["c1"].failures == 1
    assert before.cost == pytest.approx(batches)  # a report is a snapshot


def test_a_report_prints_every_model(drive, tiers, models) -> None:
    books = Books(nullcontext, ["big", "c1"])
    assert "cost 0.000000 USD, saved 0.000000 USD" in str(books.report())
    batch(books, drive, tiers, models(600, 0.0), 0)
    head, big, small, total, promise = str(books.report()).splitlines()
    assert (big.split()[0], small.split()[0]) == ("big", "c1")
    assert len(head) == len(big) == len(small)
    assert total.endswith("in 1 batches and 0 single items")
    assert promise == (
        "guarantee: 1 of 1 valid, at most 5 % of the answers differ from big's, "
        "with 95 % confidence"
    )


@pytest.mark.parametrize("single", [True, False])
def test_a_report_counts_apart_what_the_budget_left_uncertified(single) -> None:
    names = ("big", "small")
    books = Books(nullcontext, names)
    config = ServingConfig(names, Guarantee(0.05, 0.95), Exact(), budget_usd=20.0)

    def most(call: Call) -> float:
        return 1.0 if call.tier == "big" else 0.1

    if single:
        for _ in range(30):
            item = config.item(books, Exact(), "task", most)
            with suppress(BudgetExceededError), admitted(item):
                while calls := item.next_calls():
                    for call in calls:
                        item.record(call, Outcome("yes", most(call)))
                item.settle()
    else:
        scope = books.batch("big", "task")
        session = config.session(
            *(100, Exact(), "task"),
            scope=scope,
            books=books,
            reservations=Reservations(config.budget(books), most, nullcontext()),
        )
        while calls := session.next_calls():
            for call in calls:
                session.record(call, Outcome("yes", most(call)))
        books.end_batch(scope, session.certificate)
    report = books.report()
    (record,) = report.records
    left_out = f"nothing is promised; {record.uncertified} items are not certified"
    assert record.uncertified > 0
    assert str(report).splitlines()[-1] == f"guarantee: 0 of 1 valid, {left_out}"
    assert left_out in report.to_markdown()


def test_a_batch_that_has_begun_is_in_the_report_already(tiers) -> None:
    books = Books(nullcontext, ["big", "c1"])
    scope = books.batch("big", "task")
    session = BatchSession(100, tiers(1), scope=scope)
    call, *_ = session.next_calls()
    session.record(call, Outcome("yes", cost=0.5))
    report = books.report()
    assert (report.cost, report.certificates) == (0.5, ())


def test_a_batch_of_failures_counts_no_answer_and_no_guarantee(drive, tiers) -> None:
    books = Books(nullcontext, ["big", "c1"])
    failure = Failure(ValueError("no"), 0.1)
    batch(books, drive, tiers, {"big": [failure] * 50, "c1": [failure] * 50}, 0)
    report = books.report()
    assert sum(report.served.values()) == 0
    *_, answers, guarantee = headlines(report)
    assert (answers.value, guarantee.value) == ("0", "0 of 1 valid")
    assert "none of 50 items has an answer" in report.to_markdown()
