"""What a sample says of a whole job: an honest range, and nothing bought twice."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pytest

from smart_engine import BatchSession, Exact, Failure, Guarantee, Label, Outcome, Tier
from smart_engine.calls import Call
from smart_engine.equivalence import as_equivalence
from smart_engine.errors import InvalidInputError
from smart_engine.jobs.job import job_of
from smart_engine.jobs.record import TaskRecord
from smart_engine.jobs.task import Task
from smart_engine.money.ledger import LedgerEntries, LedgerScope
from smart_engine.money.pricing import Price, Usage
from smart_engine.offline.estimate import SampleSession, estimate
from smart_engine.serving.resume import Resumed

COSTS = {"big": 1.0, "small": 0.02}
PROMISE = Guarantee(0.1, 0.95)
SIZES = (20, 50, 200, 500)
EQUAL = as_equivalence(operator.eq)


def answers(n_items: int, share: float, rng: np.random.Generator):
    """Return both models' outcomes; `small` differs on that share of the items."""
    wrong = rng.random(n_items) < share
    return {
        "big": [Outcome("yes", COSTS["big"])] * n_items,
        "small": [Outcome("no" if w else "yes", COSTS["small"]) for w in wrong],
    }


def real(job, seed: int) -> tuple[float, int]:
    """Return what a job really costs, and its audits."""
    session = BatchSession(
        len(job["big"]),
        [Tier("big", role="reference"), Tier("small")],
        PROMISE,
        seed=seed,
        equivalence=operator.eq,
    )
    while calls := session.next_calls():
        for call in calls:
            session.record(call, job[call.tier][call.item])
    return session.certificate.cost, session.certificate.profiled


def test_the_more_differs_the_less_is_saved():
    rng = np.random.default_rng(0)
    expected = [
        estimate(answers(40, share, rng), 300, PROMISE, EQUAL, jobs=6)
        for share in (0.0, 0.3, 1.0)
    ]
    none, some, all_ = (each.saved.mean for each in expected)
    assert none > some > all_
    assert expected[0].differing == {"small": 0}
    assert expected[2].differing == {"small": 40}
    assert all_ <= 30  # one in ten may differ, whatever the candidate says
    for each in expected:
        assert each.reference_only.mean == pytest.approx(300)
        assert each.saved.mean == pytest.approx(300 - each.cost.mean)
        assert each.certifying.mean <= each.cost.mean


def test_an_estimate_says_from_which_size_on_a_job_pays():
    sure = answers(40, 0.0, np.random.default_rng(0))
    expected = estimate(sure, 300, PROMISE, EQUAL, sizes=SIZES, jobs=6)
    by_size = [share.mean for _, share in sorted(expected.by_size.items())]
    assert all(before <= later + 0.05 for before, later in pairwise(by_size))
    assert by_size[-1] > 0.5 > by_size[0]
    size = expected.pays_from
    there = estimate(sure, 300, PROMISE, EQUAL, sizes=[size], jobs=6)
    assert there.by_size[size].mean >= 0.05
    fewer = [share.mean for n, share in expected.by_size.items() if n < size]
    assert all(share < 0.05 for share in fewer)
    share = expected.saved.mean / expected.reference_only.mean
    assert expected.saved_share.mean == pytest.approx(share)
    assert expected.saved_share.low <= share <= expected.saved_share.high


def test_what_may_differ_is_chosen_in_view_of_what_it_saves() -> None:
    sure = answers(40, 0.02, np.random.default_rng(0))
    shares = [0.02, 0.1, 0.2]
    expected = estimate(sure, 300, PROMISE, EQUAL, sizes=SIZES, shares=shares, jobs=6)
    few, same, many = expected.choices
    assert [choice.max_disagreement for choice in expected.choices] == shares
    assert few.saved_share.mean < same.saved_share.mean < many.saved_share.mean
    assert same.saved_share == expected.saved_share
    assert same.pays_from == expected.pays_from
    assert many.pays_from < same.pays_from < (few.pays_from or 1_000)
    for choice in expected.choices:
        saved = choice.saved_share
        assert saved.low <= saved.mean <= saved.high


def test_jobs_of_more_items_save_more_and_not_by_luck() -> None:
    """Jobs of all sizes have the same candidates: a curve has no bumps by chance."""
    sizes = (100, 200, 400, 800, 1_600)
    some = answers(40, 0.05, np.random.default_rng(0))
    by_size = estimate(some, 100, PROMISE, EQUAL, sizes=sizes).by_size
    saved = [by_size[size].mean for size in sizes]
    assert all(few <= many for few, many in pairwise(saved)), saved


def test_a_useless_candidate_pays_at_no_size():
    useless = answers(40, 1.0, np.random.default_rng(0))
    expected = estimate(useless, 300, PROMISE, EQUAL, sizes=SIZES, jobs=6)
    assert expected.pays_from is None
    assert max(share.mean for share in expected.by_size.values()) <= 0


def test_a_job_that_must_save_more_is_served_by_the_reference_more_often():
    some = answers(40, 0.05, np.random.default_rng(0))
    easy, hard = (
        estimate(some, 300, PROMISE, EQUAL, sizes=[300], jobs=6, min_saving=least)
        for least in (0.05, 0.95)
    )
    assert easy.pays_from == 300
    assert easy.saved.mean > 0.2 * easy.reference_only.mean
    assert hard.saved.mean <= 0
    assert hard.pays_from is None


def test_a_sample_without_an_error_does_not_promise_a_job_without_one():
    sure = answers(20, 0.0, np.random.default_rng(0))
    expected = estimate(sure, 300, PROMISE, EQUAL, jobs=10)
    least, _ = real(answers(300, 0.0, np.random.default_rng(0)), seed=0)
    assert expected.cost.mean > least * 1.1
    assert expected.cost.high > least * 1.2


def test_what_fails_or_cannot_be_read_is_counted_and_escalates():
    rule = Label(["yes", "no"])
    small = [Outcome("yes", 0.02)] * 10 + [Outcome("perhaps", 0.02)] * 5
    small += [Failure(ValueError("gone"), 0.01)] * 5
    sample = {"big": [Outcome("Yes.", 1.0)] * 20, "small": small}
    expected = estimate(sample, 300, PROMISE, rule, jobs=5)
    assert expected.failed == {"big": 0, "small": 10}
    assert expected.differing == {"small": 0}
    assert expected.cost.mean > 100  # half of the items go to the reference


def test_large_jobs_are_scaled():
    sure = answers(20, 0.0, np.random.default_rng(0))
    expected = estimate(sure, 10**7, PROMISE, EQUAL, jobs=1)
    assert expected.reference_only.mean == pytest.approx(10**7)


@pytest.mark.parametrize("sample", [0, 3])
def test_a_sample_that_says_nothing_is_refused(sample):
    nothing = {name: [Failure(ValueError("gone"))] * sample for name in COSTS}
    with pytest.raises(InvalidInputError, match="answered no item"):
        estimate(nothing, 300, PROMISE, EQUAL)


def test_batches_of_the_provider_are_estimated_beside_live_calls() -> None:
    sure = answers(40, 0.05, np.random.default_rng(0))
    usage = Usage(1_000_000, 0)
    priced = {
        name: [result._replace(usage=usage) for result in results]
        for name, results in sure.items()
    }
    prices = {name: Price(cost / 2, 0) for name, cost in COSTS.items()}
    settings = {"jobs": 2, "max_rounds": 4, "max_batches": 4, "batch_prices": prices}
    expected = estimate(priced, 300, PROMISE, EQUAL, **settings)
    by_batch = expected.by_batch
    for field in ("cost", "reference_only"):
        live, cheaper = getattr(expected, field), getattr(by_batch, field)
        assert cheaper.mean == pytest.approx(live.mean / 2)
    assert by_batch.rounds == expected.rounds
    assert 1 <= by_batch.rounds.low <= by_batch.rounds.high <= by_batch.max_rounds
    unknown = estimate(sure, 300, PROMISE, EQUAL, **settings)  # of no known usage
    assert unknown.by_batch.cost == unknown.cost
    assert estimate(sure, 300, PROMISE, EQUAL, jobs=1).by_batch is None


def test_simulated_answers_do_not_say_which_of_them_are_right() -> None:
    """A session learns from answers: what it is given must look like free text."""
    job = answers(300, 0.08, np.random.default_rng(3))
    expected = estimate(job, 300, PROMISE, EQUAL, jobs=8)
    cost = np.mean([real(job, seed)[0] for seed in range(8)])
    assert expected.cost.mean == pytest.approx(cost, rel=0.1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_jobs_cost_what_was_estimated():
    """Over jobs of unknown quality, the real cost lies mostly within the range."""
    rng = np.random.default_rng(7)
    inside, ratios, trials, n_items = 0, [], 60, 500
    for trial in range(trials):
        job = answers(n_items, rng.beta(1, 12), rng)
        drawn = rng.choice(n_items, 50, replace=False)
        sample = {name: [results[i] for i in drawn] for name, results in job.items()}
        expected = estimate(sample, n_items, PROMISE, EQUAL, seed=trial)
        cost, _ = real(job, trial)
        inside += expected.cost.low <= cost <= expected.cost.high
        ratios.append(cost / expected.cost.mean)
    print(
        f"\n{inside} of {trials} within the range (11 of 13 would be exact); "
        f"real ÷ expected cost: {np.mean(ratios):.2f} on average, 8 in 10 within "
        f"{np.quantile(ratios, [0.1, 0.9]).round(2).tolist()}"
    )
    assert inside >= 0.7 * trials
    assert 0.7 < np.mean(ratios) < 1.3


class Memory(dict):
    """An answer store."""

    def load_outcomes(self):
        return dict(self)

    def save_outcome(self, call, outcome):
        self[call] = outcome


def test_a_sample_asks_every_model_once_and_stores_the_answers():
    stored = Memory({Call(4, "big"): Outcome("yes", 1.0)})
    journal = LedgerEntries()
    sample = SampleSession([4, 2], ["big", "small"], LedgerScope(journal, "big", "t"))
    session = Resumed(sample, stored)
    calls = session.next_calls()
    assert calls == [Call(4, "small"), Call(2, "big"), Call(2, "small")]
    for call in calls[:2]:
        assert session.record(call, Outcome("no", 0.5)) is None
    gone = Failure(ValueError("gone"), 0.1)
    assert session.record(calls[2], gone) is gone.error
    assert session.next_calls() == []
    answers = {m: [one[0] for one in row] for m, row in sample.outcomes.items()}
    assert answers == {"big": ["yes", "no"], "small": ["no", gone.error]}
    assert set(stored) == {Call(4, "big"), *calls[:2]}
    sums = journal.ledger().sums
    assert sums("outcome")["restored"].cost == 1.0
    assert sums()["big"].cost == 1.5
    assert (sums()["small"].calls, sums()["small"].failures) == (2, 1)


TIERS = [Tier("big", role="reference", cost=1.0), Tier("small", cost=0.02)]
GUARANTEE = Guarantee(0.05, 0.95)
SAMPLE = {
    "big": [Outcome("yes", 1.0)] * 50,
    "small": [Outcome("yes" if item else "no", 0.02) for item in range(50)],
}


class Steps:
    """A task of one job at a time."""

    def __init__(self, task: Task) -> None:
        self._task = task

    @contextmanager
    def step(self, *, durable: bool = False) -> Iterator[Task]:
        yield self._task


def test_the_jobs_of_a_task_so_far_change_what_the_next_one_saves() -> None:
    def record(jobs: int) -> TaskRecord:
        task = Task(TIERS, GUARANTEE)
        for number in range(jobs):
            job = job_of(Steps(task), f"{number}", lambda: False)
            session = BatchSession(200, TIERS, GUARANTEE, decide=job)
            while calls := session.next_calls():
                for call in calls:
                    session.record(call, SAMPLE[call.tier][call.item % 50])
        return task.shared()

    settings = {"items": 200, "guarantee": GUARANTEE, "rule": Exact(), "jobs": 3}
    alone = estimate(SAMPLE, **settings)
    first = estimate(SAMPLE, **settings, history=record(0))
    sixth = estimate(SAMPLE, **settings, history=record(5))
    assert alone.with_history is None
    assert (first.earlier_jobs, sixth.earlier_jobs) == (0, 5)
    assert first.cost == sixth.cost == alone.cost
    assert first.with_history.mean < sixth.with_history.mean
    assert sixth.with_history.mean > alone.saved_share.mean + 0.1
