"""Many calls and results at once are the same calls and results as one by one."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from smart_engine import BatchSession, Guarantee
from smart_engine.bulk import Calls
from smart_engine.calls import Call, Failure, Outcome, Timing
from smart_engine.equivalence import Normalized
from smart_engine.equivalence.keys import ByKey, key_of
from smart_engine.errors import InvalidInputError, ProtocolError
from smart_engine.money.ledger import LedgerEntries, LedgerScope
from smart_engine.money.pricing import Usage
from smart_engine.serving.result_columns import Row, read_columns, to_columns
from smart_engine.tiers import Tier

ITEMS = 500


def result(call: Call) -> Outcome | Failure:
    """Return what a call brings: at times odd, by its item."""
    cost = {"big": 1.0, "small": 0.05, "tiny": 0.01}[call.tier]
    usage = Usage(10 + call.item % 7, 1.5, cache_read=2, estimated=call.item % 50 == 0)
    if call.tier == "tiny" and call.item % 31 == 0:
        return Failure(ConnectionError("reset"), cost, usage)
    wrong = call.tier != "big" and call.item % 29 == 0
    lost = Failure(TimeoutError("late"), unknown=0.25)
    return Outcome(
        key_of("other" if wrong else f"label {call.item % 3}"),
        cost,
        usage if call.item % 11 else None,
        call.item % 10 / 10 if call.item % 3 else None,
        cached=call.item % 17 == 0,
        timing=Timing(call.item, 0.5) if call.item % 13 else None,
        earlier=(lost,) if call.item % 43 == 0 else (),
    )


def session(entries: LedgerEntries, rule: object = None, **settings) -> BatchSession:
    return BatchSession(
        ITEMS,
        [Tier("big", role="reference"), Tier("small"), Tier("tiny")],
        Guarantee(0.1, 0.9),
        seed=4,
        equivalence=rule or ByKey(Normalized()),
        keep_answers=False,
        min_saving=0.0,
        scope=LedgerScope(entries, "big", "a task", 1),
        **settings,
    )


@pytest.mark.parametrize("most", [None, 1, 30])
@pytest.mark.parametrize("strategy", ["audit", "exhaustive", "reference"])
def test_a_batch_ends_alike_in_blocks_and_call_by_call(strategy, most) -> None:
    single, many = LedgerEntries(), LedgerEntries()
    one = session(single, strategy=strategy)
    while calls := one.next_calls():
        for call in calls:
            one.record(call, result(call))
    other, dice = session(many, strategy=strategy), random.Random(1)
    while block := other.next_block(most):
        rows = [Row(call, result(call)) for call in block]
        dice.shuffle(rows)
        together, alone = read_columns(to_columns(rows))
        for outcomes in together:
            other.record_all(outcomes)
        for row in alone:
            other.record(row.call, row.result)
    assert other.certificate == one.certificate
    assert other.answers == one.answers
    shown, expected = many.ledger(), single.ledger()
    for by in ("model", "role", "outcome"):
        sums = {name: each.model_dump() for name, each in shown.sums(by).items()}
        assert sums == {
            name: pytest.approx(each.model_dump())
            for name, each in expected.sums(by).items()
        }
    assert [entry.number for entry in shown] == [*range(len(shown))]
    rows, others = (
        sorted(entry._replace(number=0)[4:] for entry in ledger.entries)
        for ledger in (shown, expected)
    )
    assert [*map(repr, rows)] == [*map(repr, others)]


def test_what_was_bought_before_is_marked_in_the_ledger() -> None:
    entries = LedgerEntries()
    one = session(entries, strategy="reference")
    rows = [Row(call, Outcome(b"key", 1.0)) for call in one.next_block(10)]
    ((outcomes,), _) = read_columns(to_columns(rows))
    one.record_all(replace(outcomes, restored=True))
    assert entries.ledger().sums("outcome")["restored"].calls == 10


def test_a_call_is_recorded_once_and_at_a_cost_that_can_be() -> None:
    one = session(LedgerEntries(), strategy="reference")
    rows = [Row(call, Outcome(b"key", 1.0)) for call in one.next_block(10)]
    ((outcomes,), _) = read_columns(to_columns(rows))
    for wrong in (
        replace(outcomes, items=outcomes.items + ITEMS),
        replace(outcomes, items=np.zeros(10, np.int64)),
        replace(outcomes, tier="nobody"),
        replace(outcomes, tier="small"),
    ):
        with pytest.raises(ProtocolError, match="record each call once"):
            one.record_all(wrong)
    for cost in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InvalidInputError, match="cost"):
            one.record_all(replace(outcomes, costs=np.full(10, cost)))
    one.record_all(outcomes)
    with pytest.raises(ProtocolError, match="in flight"):
        one.record_all(outcomes)
    assert one.progress().calls == 10


def test_answers_that_are_compared_here_are_recorded_one_by_one() -> None:
    one = session(LedgerEntries(), rule=Normalized(), strategy="reference")
    rows = [Row(call, Outcome(b"key", 1.0)) for call in one.next_block(10)]
    ((outcomes,), _) = read_columns(to_columns(rows))
    with pytest.raises(ProtocolError, match="one by one"):
        one.record_all(outcomes)


def test_calls_are_a_sequence_whose_parts_are_calls() -> None:
    given = [Call(3, "small"), Call(1, "small"), Call(1, "big")]
    calls = Calls.of(["big", "small"], given)
    assert [*calls] == given
    assert calls[-1] == given[-1]
    assert [*calls[1:]] == given[1:]
    assert [*(calls + calls[:1])] == [*given, given[0]]
    assert [*calls.in_order()] == sorted(given)
    assert [*calls.where(calls.items == 1)] == given[1:]
    assert not calls[:0]
