"""A session whose calls are made elsewhere ends as one in memory, whoever is lost."""

from __future__ import annotations

import os
import random
import re
import signal
import threading
import time

import pytest
from pools import KilledError, Threads, without_labels

from smart_engine import BatchSession, Guarantee
from smart_engine.calls import Failure, Outcome
from smart_engine.equivalence import Normalized
from smart_engine.equivalence.keys import ByKey, key_of
from smart_engine.errors import BudgetExceededError, RemoteCallError
from smart_engine.money.budget import Budget
from smart_engine.money.pricing import Usage
from smart_engine.money.reservations import Reservations
from smart_engine.runtime.blocks import WorkerLostError, drive_blocks
from smart_engine.serving.budgeted import BudgetedSession
from smart_engine.serving.result_columns import Row, to_columns
from smart_engine.tiers import Tier

ITEMS = 600
RULE = Normalized()


def result(call):
    """Small models are wrong on one item in 29, unreadable on others, and fail."""
    cost = {"big": 1.0, "small": 0.05, "tiny": 0.01}[call.tier]
    usage = Usage(10 + call.item % 7, 2)
    if call.tier != "big" and call.item % 41 == 0:
        return Failure(ConnectionError("reset"), cost / 2, usage)
    answer = f"label {call.item % 3}"
    if call.tier == "tiny" and call.item % 37 == 0:
        answer = None  # unreadable
    wrong = {"small": 29, "tiny": 3}.get(call.tier)
    if wrong and call.item % wrong == 0:
        answer = "other"
    score = None if call.tier == "big" else (call.item % 10) / 10
    return Outcome(answer, cost, usage, score)


def row(call, attempts=0):
    """The result as a worker sends it."""
    got, unread = result(call), None
    if isinstance(got, Outcome):
        try:
            got = got._replace(answer=key_of(RULE.parse(got.answer)))
        except Exception as error:  # noqa: BLE001 - whatever it is
            unread, got = error, got._replace(answer=None)
    lost = Failure(WorkerLostError("gone"), unknown=0.5)
    return Row(call, got._replace(earlier=(lost,) * attempts), unread)


def session(*, keep_answers, seed=5):
    return BatchSession(
        ITEMS,
        [Tier("big", role="reference"), Tier("small"), Tier("tiny")],
        Guarantee(0.1, 0.9),
        seed=seed,
        equivalence=RULE if keep_answers else ByKey(RULE),
        max_in_flight=8,
        min_saving=0.0,
        keep_answers=keep_answers,
    )


def in_memory(seed=5):
    one = session(keep_answers=True, seed=seed)
    while calls := one.next_calls():
        for call in calls:
            one.record(call, result(call))
    return one


def make(piece, stopped):
    return to_columns([row(call, piece.attempts) for call in piece.calls])


@pytest.mark.parametrize(("workers", "batch_size"), [(1, 1000), (2, 64), (4, 7)])
def test_blocks_end_as_the_session_in_memory_does(workers, batch_size):
    one, other = in_memory(), session(keep_answers=False)
    drive_blocks(other, Threads(make, workers), batch_size)
    assert other.certificate == without_labels(one.certificate)
    assert other.certificate.served["big"] < ITEMS
    kept = [served._replace(answer=None) for served in one.answers]
    assert other.answers == kept


def test_tables_and_single_items_say_who_answers_alike():
    one = in_memory()
    table = one.handed_out
    for served in one.answers:
        place = served.item
        assert table.names[table.models[place]] == served.tier
        assert table.costs[place] == served.cost
    assert [*table.errors] == [s.item for s in one.answers if s.error is not None]


def test_pieces_are_no_larger_than_asked_and_few_calls_are_shared():
    pool = Threads(make, 3)
    drive_blocks(session(keep_answers=False), pool, 20)
    sizes = [len(piece.calls) for piece in pool.pieces]
    assert max(sizes) == 20
    assert all([*piece.calls] == sorted(piece.calls) for piece in pool.pieces)
    first = [len(piece.calls) for piece in pool.pieces[:3]]
    assert max(first) - min(first) <= 2


@pytest.mark.parametrize("seed", range(5))
def test_whoever_is_lost_each_call_is_recorded_once_and_attempts_are_booked(seed):
    draw, lock, lost = random.Random(seed), threading.Lock(), []

    def killed_at_times(piece, stopped):
        with lock:
            gone = draw.random() < 0.3
        if gone and piece.attempts < 2:  # three times is what a row does that kills
            lost.extend(piece.calls)
            raise KilledError("out of memory")
        return make(piece, stopped)

    one, other = in_memory(), session(keep_answers=False)
    pool = Threads(killed_at_times, 2)
    drive_blocks(other, pool, 16)
    assert pool.lost
    assert not other.handed_out.errors
    spend = {name: each.calls for name, each in other.spend.items()}
    before = {name: each.calls for name, each in one.spend.items()}
    for call in lost:
        before[call.tier] += 1
    assert spend == before
    unknown = sum(each.unknown for each in other.spend.values())
    assert unknown == pytest.approx(0.5 * len(lost))
    assert other.certificate.served == one.certificate.served


MOST = {"big": 1.5, "small": 0.5, "tiny": 0.5}


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_a_budget_holds_whoever_is_lost(seed, strict):
    draw, lock, billed = random.Random(seed), threading.Lock(), []
    limit = draw.choice([0.3, 7.0, 40.0, 90.0, 400.0, 10_000.0])

    def killed_at_times(piece, stopped):
        with lock:
            gone = draw.random() < 0.2
            if gone:  # at the worst moment, with answers as long as they may be
                billed.extend(MOST[call.tier] for call in piece.calls)
                raise KilledError("out of memory")
            billed.extend(result(call).total for call in piece.calls)
        rows = []
        for call in piece.calls:
            lost = Failure(WorkerLostError("gone"), unknown=MOST[call.tier])
            made = row(call)
            earlier = (lost,) * piece.attempts
            rows.append(made._replace(result=made.result._replace(earlier=earlier)))
        return to_columns(rows)

    inner = session(keep_answers=False)
    budget = Budget(limit, threading.Lock())
    reserved = Reservations(budget, lambda call: MOST[call.tier], threading.Lock())
    pool = Threads(killed_at_times, 3)
    pool.worst_case = lambda call: MOST[call.tier]
    within = BudgetedSession(inner, reserved, strict=strict)
    drive_blocks(within, pool, 16, repeat=reserved.repeat)
    assert sum(billed) <= limit * (1 + 1e-9)
    booked = sum(each.cost for each in inner.spend.values())
    assert booked == pytest.approx(sum(billed))
    assert limit - budget.left == pytest.approx(booked)  # nothing stays reserved
    certificate = inner.certificate
    if limit == 10_000:
        assert certificate.valid
        assert certificate.unanswered == 0
        assert certificate.uncertified == 0
    elif limit < 10:
        assert not certificate.valid
        errors = {type(error) for error in inner.handed_out.errors.values()}
        assert errors <= {BudgetExceededError, WorkerLostError, RemoteCallError}
        assert BudgetExceededError in errors


def test_a_row_that_kills_is_charged_at_its_most():
    def make_unless_poisoned(piece, stopped):
        if 137 in {call.item for call in piece.calls}:
            raise KilledError("signal 11")
        return make(piece, stopped)

    other = session(keep_answers=False)
    pool = Threads(make_unless_poisoned, 2)
    pool.most = 0.75
    drive_blocks(other, pool, 256)
    error = str(other.handed_out.errors[137])
    attempts = int(re.search(r"each of (\d+) workers", error).group(1))
    unknown = {name: spend.unknown for name, spend in other.spend.items()}
    assert unknown["big"] >= 0.75 * attempts
    assert other.handed_out.costs[137] >= 0.75 * attempts


def test_a_row_that_kills_whoever_takes_it_fails_alone():
    poisoned = {137, 138, 500}

    def make_unless_poisoned(piece, stopped):
        if poisoned & {call.item for call in piece.calls}:
            raise KilledError("signal 11")
        return make(piece, stopped)

    other = session(keep_answers=False)
    pool = Threads(make_unless_poisoned, 2)
    drive_blocks(other, pool, 256)
    errors = other.handed_out.errors
    assert set(errors) == poisoned
    assert all("signal 11" in str(error) for error in errors.values())
    assert len(pool.lost) <= 3 * 3 * 8  # rows, models that are asked
    assert other.certificate.unanswered == 3


def test_where_every_worker_is_lost_the_job_ends():
    def gone(piece, stopped):
        raise KilledError("no such library")

    with pytest.raises(WorkerLostError, match=r"60 workers .* no such library"):
        drive_blocks(session(keep_answers=False), Threads(gone, 2), 50)


def test_an_error_that_forbids_further_calls_comes_after_what_was_made():
    def two_and_no_more(piece, stopped):
        return to_columns(map(row, piece.calls[:2])), ValueError("no price")

    other = session(keep_answers=False)
    pool = Threads(two_and_no_more, 2)
    with pytest.raises(ValueError, match="no price"):
        drive_blocks(other, pool, 10)
    assert pool.stopped.is_set()
    made = sum(min(2, len(piece.calls)) for piece in pool.pieces)
    assert sum(each.calls for each in other.spend.values()) == made


def test_an_error_of_the_pool_itself_is_raised():
    def broken(piece, stopped):
        raise TypeError("cannot begin")

    with pytest.raises(TypeError, match="cannot begin"):
        drive_blocks(session(keep_answers=False), Threads(broken, 2), 10)


def test_an_interrupt_records_what_was_made_and_begins_nothing_more():
    made, sent = [], threading.Event()

    def slow(piece, stopped):
        done = []
        for call in piece.calls:
            if stopped.is_set():
                break
            done.append(row(call))
            made.append(call)
            if len(made) > 40 and not sent.is_set():
                sent.set()
                os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.0005)
        return to_columns(done)

    other = session(keep_answers=False)
    pool = Threads(slow, 2)
    with pytest.raises(KeyboardInterrupt):
        drive_blocks(other, pool, 50)
    assert sum(each.calls for each in other.spend.values()) == len(made)
    assert len(made) < ITEMS


def test_a_second_interrupt_leaves_what_is_in_flight():
    release = threading.Event()

    def stuck(piece, stopped):
        if not stopped.is_set():
            os.kill(os.getpid(), signal.SIGINT)
            stopped.wait()
            while not pool.left.is_set():  # Python may miss one on its way into a wait
                os.kill(os.getpid(), signal.SIGINT)
                pool.left.wait(1)
            release.wait(30)
        return make(piece, stopped)

    pool = Threads(stuck, 1)
    try:
        with pytest.raises(KeyboardInterrupt):
            drive_blocks(session(keep_answers=False), pool, 50)
        assert pool.left.is_set()
    finally:
        release.set()
