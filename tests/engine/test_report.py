"""Totals over several batches."""

from __future__ import annotations

from contextlib import nullcontext, suppress

import pytest
from items import admitted

from smart_engine import BatchSession, Certificate, Exact, Failure, Guarantee, Outcome
from smart_engine.amounts import usd
from smart_engine.calls import Call
from smart_engine.errors import BudgetExceededError
from smart_engine.money.ledger import LedgerEntries, LedgerScope
from smart_engine.money.reservations import Reservations
from smart_engine.report.headline import headlines
from smart_engine.report.report import Report
from smart_engine.report.words import at_least
from smart_engine.serving.books import Books
from smart_engine.serving.config import ServingConfig
from smart_engine.serving.routing import single_item
from smart_engine.serving.sessions import batch_budget, begin_session, wrapped


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
    assert "cost 0.00 USD, saved 0.00 USD" in str(books.report())
    batch(books, drive, tiers, models(600, 0.0), 0)
    report = books.report()
    share = at_least(report.saved / report.reference_only_cost)
    lines = str(report).splitlines()
    first, served, compared, within, head, big, small, total, promise = lines
    assert first.startswith(f"Saved about {share} against big alone: 600 answers for ")
    assert first.endswith(f" for {usd(report.cost)} USD.")
    assert served == "policy: c1 (1 batch)"
    assert (big.split()[0], small.split()[0]) == ("big", "c1")
    assert len(head) == len(big) == len(small)
    (evidence,) = report.certificates[0].evidence
    assert compared == f"c1 differed on 0 of {evidence.draws} items drawn from all"
    later = report.certificates[0].profiled - evidence.draws
    assert within == f"{later} more were drawn from the parts that policies may serve"
    assert total.endswith("in 1 batch and 0 single items")
    assert promise == (
        "guarantee: 1 of 1 valid, at most 5 % of the answers differ from big's, "
        "with 95 % confidence"
    )


@pytest.mark.parametrize("single", [True, False])
def test_a_report_counts_apart_what_the_budget_left_uncertified(single) -> None:
    names = ("big", "small")
    books = Books(nullcontext, names)
    config = ServingConfig(
        *(names, Guarantee(0.05, 0.95), Exact()), budget_usd=20.0, min_saving=0
    )

    def most(call: Call) -> float:
        return 1.0 if call.tier == "big" else 0.1

    if single:
        for _ in range(30):
            item = single_item(config, books, Exact(), "task", most)
            with suppress(BudgetExceededError), admitted(item):
                while calls := item.next_calls():
                    for call in calls:
                        item.record(call, Outcome("yes", most(call)))
                item.settle()
    else:
        scope = books.batch("big", "task")
        begun = begin_session(config, 100, Exact(), "task", scope=scope, books=books)
        reserved = Reservations(batch_budget(config, books), most, nullcontext())
        session = wrapped(begun, config, reservations=reserved)
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


def test_totals_hold_when_old_certificates_are_dropped(
    drive, tiers, models, monkeypatch
) -> None:
    whole, short = Books(nullcontext, ["big", "c1"]), Books(nullcontext, ["big", "c1"])
    for kept, books in ((9, whole), (3, short)):
        monkeypatch.setattr("smart_engine.serving.books._CERTIFICATES", kept)
        for seed, items in enumerate((600, 400, 0, 20, 300, 0, 500)):
            batch(books, drive, tiers, models(items, 0.0), seed)
    all_, last = whole.report(), short.report()
    assert last.certificates == all_.certificates[-3:]
    assert last.earlier.batches == 4
    assert headlines(last) == headlines(all_)
    totals = ("cost", "saved", "reference_only_cost", "compared_cost", "batches")
    for name in (*totals, "not_compared", "served", "spend"):
        assert getattr(last, name) == pytest.approx(getattr(all_, name)), name
    for text in (last.to_html(), last.to_markdown(), str(last)):
        assert text
    assert "The first 4 batches are in all totals" in last.to_markdown()
    assert Report.model_validate_json(last.to_json()) == last
    ids = {entry.certificate for entry in short.ledger().entries}
    assert ids >= {c.id for c in all_.certificates if c.items}


def test_the_ledger_keeps_certificates_only_of_rows_that_stay() -> None:
    entries = LedgerEntries(10)
    for number in range(5000):
        scope = LedgerScope(entries, "big", "task", number)
        scope.record_call(0, "big", Outcome("yes", 1.0))
        entries.end_batch(number, f"certificate {number}")
    assert len(entries.ledger()._certificates) < 1100
    assert [e.certificate for e in entries.ledger().entries] == [
        f"certificate {number}" for number in range(4990, 5000)
    ]
