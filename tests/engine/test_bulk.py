"""Many calls and results at once are the same calls and results as one by one."""

from __future__ import annotations

import random
from contextlib import nullcontext
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smart_engine import BatchSession, Guarantee
from smart_engine.bulk import Calls
from smart_engine.calls import Call, Failure, Outcome, Timing
from smart_engine.equivalence import Normalized
from smart_engine.equivalence.keys import ByKey, key_of
from smart_engine.errors import InvalidInputError, OversizedError, ProtocolError
from smart_engine.money.budget import Budget
from smart_engine.money.ledger import LedgerEntries, LedgerScope
from smart_engine.money.pricing import Usage
from smart_engine.money.reservations import Reservations
from smart_engine.money.spending import Spend
from smart_engine.serving.budgeted import BudgetedSession
from smart_engine.serving.result_columns import (
    Row,
    from_columns,
    read_columns,
    to_columns,
)
from smart_engine.tiers import Tier

ITEMS = 60


def result(call: Call, seed: int, odd: float) -> Row:
    """Return what a call brings; so much of it is odd. Sums of its costs are exact."""
    dice = random.Random(f"{seed} {call}")

    def oddly() -> bool:
        return dice.random() < odd

    cost = {"big": 64, "small": 4, "tiny": 1}[call.tier] * dice.randrange(9) / 64
    usage = Usage(dice.choice([9, 9.25]), 3, cache_read=2, estimated=oddly())
    given = None if oddly() else usage
    timing = None if oddly() else Timing(dice.randrange(100), 0.5)
    lost = Failure(TimeoutError("late"), unknown=dice.choice([0.0, 0.25]))
    earlier = (lost,) * (oddly() + oddly())
    if oddly():
        error = dice.choice([ConnectionError("reset"), OversizedError("big", 9, 8)])
        if isinstance(error, OversizedError):
            return Row(call, Failure(error))
        return Row(call, Failure(error, cost, given, timing, earlier=earlier))
    unread = ValueError("what?") if oddly() else None
    wrong = call.tier != "big" and dice.random() < 0.05
    answer = Outcome(
        None if unread else key_of("other" if wrong else f"label {call.item % 3}"),
        cost,
        given,
        dice.choice([None, 0.5, float("nan"), 0.75]),
        cached=oddly(),
        timing=timing,
        unknown=0.5 if oddly() else None,
        earlier=earlier,
    )
    return Row(call, answer, unread)


def session(entries: LedgerEntries, rule: object = None, **settings) -> BatchSession:
    options = {"keep_answers": False, "strategy": "reference", **settings}
    return BatchSession(
        ITEMS,
        [Tier("big", role="reference"), Tier("small"), Tier("tiny")],
        Guarantee(0.2, 0.8),
        seed=4,
        equivalence=rule or ByKey(Normalized()),
        min_saving=0.0,
        scope=LedgerScope(entries, "big", "a task", 1),
        **options,
    )


def restored(call: Call) -> bool:
    return call.item % 5 == 0


def record_singly(one, rows: list[Row]) -> None:
    for row in from_columns(to_columns(rows)):
        again = restored(row.call) and isinstance(row.result, Outcome)
        one.record(
            row.call, row.result._replace(restored=True) if again else row.result
        )


def record_together(one, rows: list[Row]) -> None:
    for again in (False, True):
        chosen = [row for row in rows if restored(row.call) == again]
        together, alone = read_columns(to_columns(chosen))
        for outcomes in together:
            one.record_all(replace(outcomes, restored=again))
        record_singly(one, alone)


def end(one: BatchSession, entries: LedgerEntries, budget: Budget | None) -> list:
    """Return all that a session and its ledger say in the end."""
    ledger = entries.ledger()
    spend = {name: each for name, each in one.spend.items() if each != Spend()}
    assert ledger.sums() == spend
    assert [entry.number for entry in ledger] == [*range(len(ledger))]
    rows = sorted(repr(entry._replace(number=0)) for entry in ledger)
    answers = [(each._replace(error=None), str(each.error)) for each in one.answers]
    left = budget and (budget.left, budget.needs)
    return [one.certificate, answers, spend, ledger.keyed, rows, one.progress(), left]


@given(
    seed=st.integers(0, 2**32),
    odd=st.sampled_from([0.0, 0.05, 0.3]),
    strategy=st.sampled_from(["audit", "audit", "mix", "reference"]),
    most=st.sampled_from([None, 1, 30]),
    slices=st.sampled_from([None, ["a", "b", "b"] * (ITEMS // 3)]),
    firsts=st.sampled_from([None, [item // 2 * 2 for item in range(ITEMS)]]),
    limit=st.sampled_from([None, 40.0, 1e6]),
    cut=st.integers(0, 9),
)
def test_a_batch_ends_alike_in_blocks_and_call_by_call(
    seed, odd, strategy, most, slices, firsts, limit, cut
) -> None:
    """Within a budget too, and where it is stopped, in whatever order results come."""
    slices = slices if strategy == "audit" else None

    def run(*, singly: bool) -> list:
        dice, entries = random.Random(f"{seed} {singly}"), LedgerEntries()
        options = {"strategy": strategy, "slices": slices, "firsts": firsts}
        inner = driven = session(entries, **options)
        budget = None if limit is None else Budget(limit, nullcontext())
        if budget is not None:
            reserved = Reservations(budget, lambda call: 10.0, nullcontext())
            driven = BudgetedSession(inner, reserved, strict=False)
        for wave in count():
            stops = wave == cut and budget is None
            first = calls = [
                *(driven.next_calls() if singly else driven.next_block(most))
            ]
            if not calls:
                return end(inner, entries, budget)
            if stops:
                first = calls[:most]
            else:
                while block := [] if singly else driven.next_block(most):
                    calls += block
            made = [call for call in first if not (stops and call.item % 2)]
            rows = [result(call, seed, odd) for call in made]
            dice.shuffle(rows)
            while rows:
                size = dice.randrange(1, 50)
                few, rows = rows[:size], rows[size:]
                (record_singly if singly else record_together)(driven, few)
            if stops and not inner.done:
                unmade = [call for call in calls if call not in made]
                driven.stop(unmade, TimeoutError("no time"))
        raise AssertionError

    assert run(singly=True) == run(singly=False)


def test_what_was_bought_before_is_marked_in_the_ledger() -> None:
    entries = LedgerEntries()
    one = session(entries)
    rows = [Row(call, Outcome(b"key", 1.0)) for call in one.next_block(10)]
    ((outcomes,), _) = read_columns(to_columns(rows))
    one.record_all(replace(outcomes, restored=True))
    assert entries.ledger().sums("outcome")["restored"].calls == 10


def test_a_call_is_recorded_once_and_at_a_cost_that_can_be() -> None:
    one = session(LedgerEntries())
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


@pytest.mark.parametrize("needed", [{"rule": Normalized()}, {"keep_answers": True}])
def test_answers_that_are_needed_here_are_recorded_one_by_one(needed) -> None:
    one = session(LedgerEntries(), **needed)
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
