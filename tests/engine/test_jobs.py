"""The jobs of a task: the promise exactly, over all draws; and what jobs share."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from scipy.stats import binom

from smart_engine import BatchSession, Guarantee, Outcome, StoreError, Tier, verify
from smart_engine.batch.slice_counts import SliceCount
from smart_engine.jobs import guard as guards
from smart_engine.jobs import task as tasks
from smart_engine.jobs.beliefs import informed
from smart_engine.jobs.guard import AUDITED, TaskGuard
from smart_engine.jobs.job import job_of
from smart_engine.jobs.record import JobWave, OwnAudit, TaskRecord
from smart_engine.jobs.task import Task
from smart_engine.labels.promise import Promised
from smart_engine.strategies import STRATEGIES
from smart_engine.stream.bound import ErrorBound
from smart_engine.stream.rate import Plan

TIERS = [Tier("big", role="reference", cost=1.0), Tier("small", cost=0.05)]
RATE, ITEMS, JOBS = 0.6, 5, 2


class Known:
    """Draws that are settled beforehand: so many audits come first."""

    def __init__(self, audits: int, first: int) -> None:
        self._until = first + audits

    def __getitem__(self, number: int) -> float:
        return 0.0 if number < self._until else 1.0


def breach(guard: TaskGuard, out: int, jobs: int, monkeypatch) -> float:
    """Return the chance with which the best adversary breaks the promise.

    Before each job it sees all that happened, and chooses how many items err; once the
    job is drawn it may never end it; where answers are checked, right ones come first.
    """
    if not jobs:
        return 0.0
    best = 0.0
    for errors in range(ITEMS + 1):
        chance = 0.0
        for found in range(errors + 1):
            after = copy.copy(guard)
            after.bound, after.unresolved = copy.copy(guard.bound), {}
            known = Known(found, guard.arrived)
            monkeypatch.setattr(guards, "AuditDraws", lambda seed, known=known: known)
            ways = after.draw(ITEMS, Plan(RATE, 0.6))
            assert ways.count(AUDITED) == found
            for number in list(after.unresolved):
                after.settle(number, detected=True)
            left = breach(after, out, jobs - 1, monkeypatch)
            wrong, unseen, corrected = errors - found, ITEMS - found, 0
            while after.excess(ITEMS, unseen, corrected) > 0:
                corrected += unseen == wrong
                wrong -= unseen == wrong
                unseen -= 1
            after.hand_out(ITEMS, unseen, corrected)
            if out + wrong > after.allowed(0):
                ended = 1.0
            else:
                ended = breach(after, out + wrong, jobs - 1, monkeypatch)
            chance += binom.pmf(found, errors, RATE) * max(left, ended)
        best = max(best, chance)
    return best


GUARANTEE = Guarantee(0.3, 0.4)


def test_no_adversary_breaks_the_promise_more_often_than_stated(monkeypatch) -> None:
    chance = breach(TaskGuard(GUARANTEE, seed=0), 0, JOBS, monkeypatch)
    assert 0 < chance <= GUARANTEE.alpha


def test_an_adversary_breaks_it_where_detected_errors_are_free(monkeypatch) -> None:
    monkeypatch.setattr(ErrorBound, "charge", lambda self, charged: None)
    chance = breach(TaskGuard(GUARANTEE, seed=0), 0, JOBS, monkeypatch)
    assert chance > GUARANTEE.alpha


@pytest.mark.parametrize("stops_at", [2, 4, None])
def test_errors_of_a_jobs_own_audit_have_no_less_weight_than_they_should(
    stops_at,
) -> None:
    """The mean of e^(λm − U) is at most 1, wherever the draws end; see Theorem 10."""
    items, errors, kept, total = 8, 3, np.linspace(0.1, 0.9, 24), []
    for seed in range(2000):
        guard = TaskGuard(GUARANTEE, seed)
        own = OwnAudit(answers=8, elsewhere=0, expected_errors=1, kept=tuple(kept))
        wave = JobWave(first=0, ways="s" * items, policy=0, own=own)
        order = guard.order(wave)
        until = stops_at or 1
        # None: as soon as fewer errors are found than were to be expected.
        while stops_at is None and until < items - 1:
            if (order[:until] < errors).mean() < errors / items:
                break
            until += 1
        found = int((order[:until] < errors).sum())
        guard.bound.slopes = np.full(24, 9.0)  # none of which is in the way
        drawn = wave.model_copy(update={"own": own.model_copy(update={"drawn": until})})
        slopes = guard.slopes(drawn)
        total.append(np.exp(slopes * (errors - found)) * kept**found)
    mean, error = np.mean(total, 0), np.std(total, 0) / len(total) ** 0.5
    assert (mean <= 1 + 4 * error).all()
    assert (mean >= 0.85).all()


class Row:
    """A task that jobs share as text: each step loads it, and writes it."""

    def __init__(self) -> None:
        self.text, self.broken = "", False

    @contextmanager
    def step(self, *, durable: bool = False) -> Iterator[Task]:
        if self.broken:
            raise StoreError("gone")
        task = Task(TIERS, Guarantee(0.1, 0.9), seed=3, min_saving=0)
        if self.text:
            task.take_up(TaskRecord.model_validate_json(self.text))
        yield task
        self.text = task.shared().model_dump_json()


def session(row: Row, key: str, items: int = 120, **how) -> BatchSession:
    job = job_of(row, key, lambda: how.get("kept", False))
    return BatchSession(items, TIERS, Guarantee(0.1, 0.9), decide=job, task="t")


def run(brain: BatchSession, steps: int = 10**6) -> BatchSession:
    """Make so many waves of calls; the candidate errs on one item in 40."""
    while steps and (calls := brain.next_calls()):
        for call in calls:
            right = call.tier == "big" or call.item % 40
            cost = 1.0 if call.tier == "big" else 0.05
            brain.record(call, Outcome("yes" if right else "no", cost))
        steps -= 1
    return brain


def test_a_job_that_is_cut_off_goes_on_with_its_draws() -> None:
    row = Row()
    run(session(row, "first"))
    run(session(row, "second", kept=True), steps=3)
    begun = TaskRecord.model_validate_json(row.text)
    assert begun.jobs["second"].waves
    resumed = run(session(row, "second", kept=True))
    ended = TaskRecord.model_validate_json(row.text)
    assert resumed.certificate.promise.answers == ended.answered == 240
    assert not ended.unresolved
    waves = sum(len(wave.ways) for wave in begun.jobs["second"].waves)
    assert ended.arrived - begun.arrived <= 120 - waves


def test_a_job_that_is_never_resumed_counts_at_its_worst() -> None:
    row = Row()
    run(session(row, "first"))
    lost = session(row, "lost")
    while not TaskRecord.model_validate_json(row.text).unresolved:
        run(lost, steps=1)
    record = run(session(row, "third")).certificate
    assert record.promise.unresolved > 0
    assert record.promise.answers == 240
    assert all(check.holds for check in verify(record))


def test_the_same_job_twice_at_once_is_two_jobs_of_the_task() -> None:
    row = Row()
    run(session(row, "first", kept=True))
    slow = run(session(row, "second", kept=True), steps=4)
    assert TaskRecord.model_validate_json(row.text).jobs["second"].waves
    fast = run(session(row, "second", kept=True))
    run(slow)
    assert [b.certificate.promise.answers for b in (fast, slow)] == [240, 360]
    assert slow.certificate.spend["big"].calls < 120
    for brain in (fast, slow):
        assert all(check.holds for check in verify(brain.certificate))
    assert not TaskRecord.model_validate_json(row.text).unresolved


def unresolved(row: Row) -> set[int]:
    """Return the numbers of all audits without an outcome."""
    record = TaskRecord.model_validate_json(row.text)
    return {number for late in record.unresolved for number in late.numbers}


def test_a_run_whose_job_was_taken_draws_anew_whoever_begins_it_after_that() -> None:
    row = Row()
    for number in range(3):
        run(session(row, f"{number}"))
    slow = session(row, "job")
    while not unresolved(row):
        run(slow, steps=1)
    run(session(row, "job"))  # goes on with its draws, and ends
    run(session(row, "job"), steps=1)  # begins the job anew
    before = TaskRecord.model_validate_json(row.text).arrived
    run(slow)
    assert TaskRecord.model_validate_json(row.text).arrived == before + 120
    assert all(check.holds for check in verify(slow.certificate))


def test_draws_stay_with_their_items_where_answers_are_not_stored() -> None:
    row = Row()
    for number in range(3):
        run(session(row, f"{number}"))
    asked: list[set[int]] = []

    def step(brain: BatchSession) -> None:
        calls = brain.next_calls()
        for call in calls:
            brain.record(call, Outcome("yes", 1.0 if call.tier == "big" else 0.05))
        asked.append({call.item for call in calls if call.tier == "small"})

    cut_off = session(row, "job")
    job = TaskRecord.model_validate_json(row.text)
    while len(job.jobs["job"].waves if "job" in job.jobs else ()) < 2:
        step(cut_off)
        job = TaskRecord.model_validate_json(row.text)
    first, second = job.jobs["job"].waves
    assert first.anew
    assert not second.anew
    drawn_for = [items for items in asked if items][-1]
    resumed = session(row, "job")
    asked.clear()
    step(resumed)
    assert asked == [drawn_for]
    run(resumed)
    after = TaskRecord.model_validate_json(row.text)
    assert after.arrived == job.arrived + 120 - len(second.ways)
    assert not after.unresolved


def test_jobs_that_nobody_goes_on_with_are_given_up(monkeypatch) -> None:
    monkeypatch.setattr(tasks, "_OPEN", 2)
    row = Row()
    for number in range(3):
        run(session(row, f"{number}", items=600))
    lost = session(row, "lost", items=400)
    while not (audits := unresolved(row)):
        run(lost, steps=1)
    found = TaskRecord.model_validate_json(row.text).found
    for number in range(3):
        run(session(row, f"begun {number}"), steps=1)
    record = TaskRecord.model_validate_json(row.text)
    still_open = [key for key, job in record.jobs.items() if not job.ended]
    assert still_open == ["begun 1", "begun 2"]
    assert not audits & unresolved(row)
    assert record.found == found + len(audits)
    again = run(session(row, "lost", items=400)).certificate
    assert again.promise.answers == 2200
    assert all(check.holds for check in verify(again))


def test_a_job_without_its_task_is_answered_by_the_reference() -> None:
    row = Row()
    run(session(row, "first"))
    brain = session(row, "second")
    run(brain, steps=2)
    row.broken = True
    with pytest.warns(UserWarning, match="a job goes on without its task"):
        run(brain)
    assert {served.tier for served in brain.answers} == {"big"}
    assert brain.certificate.promise is None
    assert brain.certificate.valid


def test_a_stored_job_that_has_ended_is_counted_once() -> None:
    row = Row()
    once = run(session(row, "first", kept=True))
    again = run(session(row, "first", kept=True))
    assert [s.tier for s in once.answers] == [s.tier for s in again.answers]
    promise = again.certificate.promise
    assert promise.jobs == 1
    assert promise.answers == 120
    assert promise.again == once.certificate.promise.unseen
    assert all(check.holds for check in verify(again.certificate))


def test_two_jobs_at_once_count_each_other() -> None:
    row, brains = Row(), []
    run(session(row, "first"))
    for key in ("left", "right"):
        brains.append(session(row, key))
    for _ in range(60):
        for brain in brains:
            run(brain, steps=1)
    first, second = sorted(b.certificate.promise.answers for b in brains)
    assert (first, second) == (240, 360)
    for brain in brains:
        assert all(check.holds for check in verify(brain.certificate))


@pytest.mark.parametrize(
    "forged",
    [
        {"slopes": ()},
        {"slopes": (0.5,)},
        {"slopes": (50.0,) * 24},
        {"slopes": (float("nan"),) * 24},
        {"log_wealth": ()},
        {"log_wealth": (1000.0,) * 24},
        {"possible": 3},
        {"unseen": 10},
        {"answers": 100},
    ],
)
def test_a_promise_that_was_changed_does_not_verify(forged) -> None:
    record = run(session(Row(), "first")).certificate
    assert all(check.holds for check in verify(record))
    promise = record.promise.model_copy(update=forged)
    update = {"promise": promise}
    if "answers" in forged:
        counts = {"answers": 100, "allowed": 10, "possible": 0, "before": 0}
        update = {"max_errors": 10, "promise": promise.model_copy(update=counts)}
    assert not all(check.holds for check in verify(record.model_copy(update=update)))


@pytest.mark.parametrize(
    "forged",
    [
        {
            "slices": [
                SliceCount(name="a", items=1, unanswered=0, profiled=0, served={})
            ]
        },
        {
            "promised": [
                Promised(
                    of="recall", label="x", share=0.9, answers=9, unseen=0, undetected=0
                )
            ]
        },
    ],
)
def test_nothing_of_labels_or_slices_follows_from_a_promise_of_jobs(forged) -> None:
    record = run(session(Row(), "first")).certificate
    told = record.model_copy(update={key: tuple(of) for key, of in forged.items()})
    assert told.claim != record.claim
    assert not all(check.holds for check in verify(told))


def apart(row: Row, key: str, *, agrees: bool, price: float = 0.05) -> BatchSession:
    """Run a batch with a promise of its own, told by the task; return its session."""
    brain = BatchSession(
        400,
        TIERS,
        Guarantee(0.1, 0.9),
        decide=informed(row, key, STRATEGIES["audit"]),
        task="t",
    )
    while calls := brain.next_calls():
        for call in calls:
            big = call.tier == "big"
            right = big or (agrees and call.item % 40)
            cost = 1.0 if big else price
            brain.record(call, Outcome("yes" if right else "no", cost))
    return brain


def asked(brain: BatchSession) -> int:
    return brain.certificate.spend["small"].calls


@pytest.mark.parametrize("how", [{"agrees": False}, {"agrees": True, "price": 1.5}])
def test_a_useless_candidate_is_not_asked_in_the_next_batch_but_rarely(how) -> None:
    row = Row()
    counts = [asked(apart(row, f"{night}", **how)) for night in range(17)]
    assert counts[0] > 0
    assert counts[1:15] == [0] * 14
    assert counts[15] > 0


def test_the_same_batch_again_is_told_the_same_and_teaches_nothing() -> None:
    row = Row()
    first = apart(row, "first", agrees=False)
    known = TaskRecord.model_validate_json(row.text)
    again = apart(row, "first", agrees=False)
    assert again.certificate == first.certificate
    assert TaskRecord.model_validate_json(row.text) == known


def test_what_a_batch_of_its_own_promise_showed_serves_jobs_under_the_tasks() -> None:
    def cost(row: Row) -> float:
        return run(session(row, "small", 120)).certificate.cost

    taught = Row()
    apart(taught, "large", agrees=True)
    record = TaskRecord.model_validate_json(taught.text)
    assert record.compared[1] > 0
    assert (record.answered, record.arrived, record.possible) == (0, 0, 0)
    assert cost(taught) <= cost(Row())


def test_a_batch_goes_on_without_what_cannot_be_read() -> None:
    row = Row()
    row.broken = True
    with pytest.warns(UserWarning, match="without what its task has learned"):
        brain = apart(row, "first", agrees=True)
    assert brain.certificate.valid
    assert brain.certificate.cost < 400


def test_items_whose_answers_are_not_stored_are_drawn_for_again() -> None:
    row = Row()
    run(session(row, "first"))
    first = TaskRecord.model_validate_json(row.text)
    run(session(row, "second"), steps=4)
    begun = TaskRecord.model_validate_json(row.text)
    (open_wave,) = [w for w in begun.jobs["second"].waves if not w.anew]
    assert begun.arrived > first.arrived + len(open_wave.ways)
    resumed = run(session(row, "second")).certificate
    ended = TaskRecord.model_validate_json(row.text)
    assert ended.arrived == begun.arrived + 120 - len(open_wave.ways)
    assert resumed.promise.unresolved == 0
    assert resumed.promise.answers == 240


def calls_of_the_reference(workers: int) -> float:
    """Return its calls per item in jobs of 250 items, so many of them at a time."""
    row, waiting = Row(), [f"{number}" for number in range(8)]
    active: list[BatchSession] = []
    calls = 0
    while waiting or active:
        while waiting and len(active) < workers:
            active.append(session(row, waiting.pop(0), items=250))
        brain = active.pop(0)
        run(brain, steps=1)
        if brain.done:
            calls += brain.certificate.spend["big"].calls
        else:
            active.append(brain)
    return calls / (8 * 250)


def test_two_jobs_at_a_time_save_most_of_what_one_at_a_time_saves() -> None:
    assert calls_of_the_reference(2) < 1.6 * calls_of_the_reference(1)


def first_job(row: Row, items: int = 200, **how) -> BatchSession:
    """Return the session of a job that audits itself once its candidate is known."""
    apart(row, "before", agrees=True)
    return session(row, "first", items, **how)


def test_the_first_job_costs_no_more_than_with_a_promise_of_its_own() -> None:
    row = Row()
    shared = run(first_job(row)).certificate
    own = run(BatchSession(200, TIERS, Guarantee(0.1, 0.9))).certificate
    assert not TaskRecord.model_validate_json(row.text).own_left
    assert shared.cost < 1.2 * own.cost
    (test,) = shared.tests
    assert test.accepted == test.draws
    assert shared.promise.hidden == test.max_errors
    assert shared.promise.possible <= shared.promise.allowed == 20
    assert all(check.holds for check in verify(shared))


@pytest.mark.parametrize(
    "forged",
    [
        {"level": 0.1},
        {"max_errors": 21},
        {"elsewhere": 3},
        {"items": 100},
        {"accepted": 1, "draws": 1, "errors": ()},
        {"errors": (1, 2, 3, 4, 5, 6, 7, 8)},
    ],
)
def test_an_audit_of_its_own_that_was_changed_does_not_verify(forged) -> None:
    record = run(first_job(Row())).certificate
    (test,) = record.tests
    changed = record.model_copy(update={"tests": (test.model_copy(update=forged),)})
    assert not all(check.holds for check in verify(changed))
    more = record.promise.model_copy(update={"hidden": 0, "possible": 0})
    assert not all(c.holds for c in verify(record.model_copy(update={"promise": more})))


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("steps", range(1, 6))
def test_a_first_job_that_is_cut_off_is_finished_by_another_run(kept, steps) -> None:
    row = Row()
    run(first_job(row, kept=kept), steps=steps)
    before = TaskRecord.model_validate_json(row.text)
    ended = run(session(row, "first", 200, kept=kept))
    record = ended.certificate
    after = TaskRecord.model_validate_json(row.text)
    assert record.promise.answers == after.answered == 200
    assert all(check.holds for check in verify(record))
    if kept:  # the same draws in the same order: none is made twice
        assert after.arrived == max(before.arrived, 200) == 200
        (whole,) = [w for w in after.jobs["first"].waves if w.own]
        assert whole.ways.count(AUDITED) == record.tests[0].draws


def test_a_second_job_makes_no_audit_of_its_own() -> None:
    row = Row()
    run(first_job(row))
    second = run(session(row, "second", 400)).certificate
    assert second.tests == ()
    assert second.promise.hidden is None
    assert all(check.holds for check in verify(second))


def test_of_two_first_jobs_at_once_one_audits_itself() -> None:
    row = Row()
    brains = [first_job(row), session(row, "other", 200)]
    while not all(brain.done for brain in brains):
        for brain in brains:
            run(brain, steps=1)
    records = [brain.certificate for brain in brains]
    assert sum(len(record.tests) for record in records) == 1
    assert {r.promise.answers for r in records} == {200, 400}
    assert all(check.holds for record in records for check in verify(record))
