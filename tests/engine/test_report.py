"""Totals over several batches."""

from __future__ import annotations

import pytest

from smart_engine import BatchSession, Ledger, Spend


def test_a_ledger_adds_batches_and_single_calls(drive, tiers, models) -> None:
    certificates = [
        drive(BatchSession(600, tiers(1), seed=seed), models(600, 0.0)).certificate
        for seed in (1, 2)
    ]
    ledger = Ledger(["big", "c1"])
    for certificate in certificates:
        ledger.add_batch(certificate)
    before = ledger.report()
    ledger.add({"c1": Spend(calls=1, failures=1, cost=0.5)})
    ledger.add({"big": Spend(calls=2, cost=4.0)})
    report = ledger.report()

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
    ledger = Ledger(["big", "c1"])
    assert "cost 0.000000 USD, saved 0.000000 USD" in str(ledger.report())
    ledger.add_batch(drive(BatchSession(600, tiers(1)), models(600, 0.0)).certificate)
    head, big, small, total = str(ledger.report()).splitlines()
    assert (big.split()[0], small.split()[0]) == ("big", "c1")
    assert len(head) == len(big) == len(small)
    assert total.endswith("in 1 batches and 0 single items")


def test_a_ledger_loses_no_money_of_whoever_spent_it() -> None:
    ledger = Ledger(["big"])
    ledger.add({"judge: small": Spend(calls=1, cost=0.5)})
    assert ledger.report().cost == 0.5
