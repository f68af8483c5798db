"""Measured violations of a promise over a task's jobs, after any of hostile ones."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
from scipy.stats import beta
from verdicts import refuted, surely_above

from smart_engine import BatchSession, Failure, Guarantee, Outcome, Tier
from smart_engine.evidence.acceptance import Acceptance
from smart_engine.jobs import own_audit
from smart_engine.jobs.guard import TaskGuard
from smart_engine.jobs.job import job_of
from smart_engine.jobs.task import Task
from smart_engine.stream.bound import ErrorBound
from smart_engine.stream.choice import Choice

RIGHT, WRONG, REFERENCE = Outcome("y", 0.01), Outcome("n", 0.01), Outcome("y", 1.0)
FAILED = Failure(ValueError("no answer"))
TIERS = [Tier("big", role="reference"), Tier("small")]


class Shared:
    """A task that jobs share, one step at a time."""

    def __init__(self, guarantee: Guarantee, seed: int) -> None:
        self.task = Task(TIERS, guarantee, seed=seed, min_saving=0)

    @contextmanager
    def step(self, *, durable: bool = False) -> Iterator[Task]:
        yield self.task


class View(NamedTuple):
    """What an adversary sees before a job begins: everything but its draws."""

    task: Task
    job: int
    undetected: int  # differing answers that were handed out
    dice: random.Random


Adversary = Callable[[View], tuple[int, float]]
"""Returns the number of items of the next job, and the share on which it errs."""


def growing(view: View) -> tuple[int, float]:
    """Jobs that grow, with as many errors as are tolerated."""
    return 8 + 6 * view.job, 0.1


def shrinking(view: View) -> tuple[int, float]:
    """Jobs that shrink, with as many errors as are tolerated."""
    return max(5, 150 - 7 * view.job), 0.1


def one_bad(view: View) -> tuple[int, float]:
    """One job that is all wrong after twenty good ones."""
    return (100, 1.0) if view.job == 20 else (40, 0.0)


def twice_as_many(view: View) -> tuple[int, float]:
    """Twice as many errors as are tolerated."""
    return 60, 0.2


def when_nearly_full(view: View) -> tuple[int, float]:
    """Err where few more errors would break the promise."""
    room = view.task.guard.allowed(60) - view.undetected
    return 60, min(1.0, 1.3 * room / 60) if view.job else 0.1


def when_rare(view: View) -> tuple[int, float]:
    """Be right until audits are rare, then err as much as just goes undetected."""
    return 60, 0.0 if view.job < 8 else view.dice.choice([0.3, 0.6, 0.0])


def two_of_ten(view: View) -> tuple[int, float]:
    """Small jobs with twice as many errors as are tolerated, after a good one."""
    return (10, 0.2) if view.job else (80, 0.0)


def one_by_one(view: View) -> tuple[int, float]:
    """Large good jobs between jobs of a few items, all wrong."""
    return (120, 0.0) if view.job % 4 == 0 else (9, 1.0)


def bad_first(view: View) -> tuple[int, float]:
    """A first job with just more errors than are allowed, and good ones after it."""
    return 60, 0.0 if view.job else (view.task.guard.allowed(60) + 1) / 60


HOSTILE = [
    bad_first,
    growing,
    shrinking,
    one_bad,
    twice_as_many,
    when_nearly_full,
    when_rare,
    one_by_one,
    two_of_ten,
]


class Played(NamedTuple):
    """How a task went.

    Attributes:
        broken: Whether the promise was broken after any job.
        worst: Largest number of differing answers as a share of what was allowed + 1.
    """

    broken: bool
    worst: float


def play(
    adversary: Adversary,
    guarantee: Guarantee,
    jobs: int,
    seed: int,
    *,
    workers: int = 1,
    failing: float = 0.0,
    killed: float = 0.0,
    twice: float = 0.0,
    hiding: bool = False,
) -> Played:
    """Run a task's jobs to their end, and count what differs after each.

    Args:
        adversary: Decides on each job before it begins.
        guarantee: What is promised.
        jobs: Number of jobs.
        seed: Seed of the draws.
        workers: Jobs under way at once, whose steps come in any order.
        failing: Share of items on which the reference fails.
        killed: Chance at each step that the job is cut off; half are run again.
        twice: Chance that a job is run twice at once.
        hiding: Whether a job is cut off, for good, as soon as the reference is about to
            see one of its errors.
    """
    shared, dice = Shared(guarantee, seed), random.Random(seed)
    answered = undetected = started = 0
    broken, worst = False, 0.0
    under_way: list[tuple[str, list[Outcome], list[Failure | Outcome], Any]] = []

    def session(key: str, items: int) -> BatchSession:
        job = job_of(shared, key, lambda: False)
        return BatchSession(items, TIERS, guarantee, decide=job)

    while started < jobs or under_way:
        while started < jobs and len(under_way) < workers:
            view = View(shared.task, started, undetected, dice)
            items, share = adversary(view)
            small = [WRONG if dice.random() < share else RIGHT for _ in range(items)]
            big = [FAILED if dice.random() < failing else REFERENCE for _ in small]
            key = f"job {started}"
            under_way.append((key, small, big, session(key, items)))
            if twice and dice.random() < twice:
                under_way.append((key, small, big, session(key, items)))
            started += 1
        job = under_way.pop(dice.randrange(len(under_way)))
        key, small, big, brain = job
        calls = brain.next_calls()
        if hiding and any(c.tier == "big" and small[c.item] is WRONG for c in calls):
            continue
        if calls and dice.random() < killed:
            if dice.random() < 0.5:
                under_way.append((key, small, big, session(key, len(small))))
            continue
        for call in calls:
            brain.record(call, (big if call.tier == "big" else small)[call.item])
        if not brain.done:
            under_way.append(job)
            continue
        given = [served for served in brain.answers if served.error is None]
        answered += len(given)
        undetected += sum(served.answer != "y" for served in given)
        assert brain.certificate.promise.answers == answered
        allowed = guarantee.max_errors(answered)
        broken |= undetected > allowed
        worst = max(worst, undetected / (allowed + 1))
    return Played(broken, worst)


@pytest.fixture
def trusting(monkeypatch) -> None:
    """Let jobs serve by the first candidate, however bad: validity must not care."""
    monkeypatch.setattr(Choice, "choose", lambda self, answered, rate=None: None)
    monkeypatch.setattr(Choice, "cost", lambda self, tier: 1.0)
    monkeypatch.setattr(Choice, "seen_error_of", lambda self, place: 0.0)
    monkeypatch.setattr(Choice, "worthwhile", lambda self, place, rate: True)
    monkeypatch.setattr(own_audit, "TRIAL", 0)


BY_NAME = {plot.__name__: plot for plot in HOSTILE}


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("growing", {"workers": 3, "failing": 0.1}),
        ("twice_as_many", {"killed": 0.05}),
        ("when_rare", {}),
        ("two_of_ten", {"hiding": True}),
        ("growing", {"workers": 2, "twice": 0.5}),
        ("bad_first", {}),
    ],
)
def test_hostile_jobs_do_not_break_the_promise(name, how) -> None:
    guarantee, trials = Guarantee(0.1, 0.8), 6  # all of 6 would have to be broken
    broken = (play(BY_NAME[name], guarantee, 9, s, **how).broken for s in range(trials))
    assert not refuted(guarantee.alpha, trials, broken)


def breaks_promise(plot: Adversary, jobs: int, **how) -> bool:
    """Whether such tasks surely break a promise."""
    guarantee, trials = Guarantee(0.1, 0.9), 8
    broken = (play(plot, guarantee, jobs, seed, **how).broken for seed in range(trials))
    return refuted(guarantee.alpha, trials, broken)


@pytest.mark.usefixtures("trusting")
def test_trap_answers_are_handed_out_without_the_rule(monkeypatch) -> None:
    def bad_at_last(view: View) -> tuple[int, float]:
        return (150, 1.0) if view.job == 4 else (60, 0.0)

    assert not breaks_promise(bad_at_last, 5)
    monkeypatch.setattr(TaskGuard, "excess", lambda self, *end: 0)
    assert breaks_promise(bad_at_last, 5)


@pytest.mark.usefixtures("trusting")
def test_trap_detected_errors_are_not_charged(monkeypatch) -> None:
    monkeypatch.setattr(ErrorBound, "charge", lambda self, charged: None)
    assert breaks_promise(twice_as_many, 10)


@pytest.mark.usefixtures("trusting")
def test_trap_audits_of_jobs_that_were_cut_off_are_left_out(monkeypatch) -> None:
    monkeypatch.setattr(TaskGuard, "at_worst", lambda self: self.bound)
    assert breaks_promise(two_of_ten, 80, hiding=True)


ROUNDS = 32


@pytest.mark.guarantee
@pytest.mark.timeout(0)
@pytest.mark.parametrize("trust", [True, False], ids=["trusting", "choosing"])
def test_violation_rates_of_hostile_tasks(request, trust) -> None:
    if trust:
        request.getfixturevalue("trusting")
    print("\n| jobs | how | δ | γ | tasks | broken | worst errors/(⌊δt⌋+1) |")
    print("|---|---|---:|---:|---:|---:|---:|")
    too_often, total = [], Counter[float]()
    seen = Counter[float]()
    for plot in HOSTILE:
        for how, share, confidence in (
            ({}, 0.05, 0.95),
            ({}, 0.1, 0.8),
            ({"workers": 2}, 0.1, 0.8),
            ({"workers": 3, "twice": 0.2}, 0.1, 0.8),
            ({"workers": 2, "failing": 0.1}, 0.1, 0.8),
            ({"killed": 0.05}, 0.1, 0.8),
            ({"hiding": True}, 0.1, 0.8),
        ):
            guarantee = Guarantee(share, confidence)
            runs = [play(plot, guarantee, 22, seed, **how) for seed in range(ROUNDS)]
            count, worst = sum(run.broken for run in runs), max(r.worst for r in runs)
            total[guarantee.alpha] += ROUNDS
            seen[guarantee.alpha] += count
            print(
                f"| {plot.__name__} | {how} | {share} | {confidence} | {ROUNDS} "
                f"| {count} | {worst:.2f} |",
                flush=True,
            )
            if surely_above(count, ROUNDS, guarantee.alpha):
                too_often.append((plot, guarantee, how))
    assert total.total() >= 2000
    assert not too_often
    for alpha, tasks in total.items():
        most = beta.ppf(0.999, seen[alpha] + 1, tasks - seen[alpha])
        print(
            f"α = {alpha:.2f}: {seen[alpha]} of {tasks} broken, so at most {most:.4f}"
        )
        assert most <= alpha


@pytest.mark.usefixtures("trusting")
def test_trap_a_jobs_own_audit_stops_too_early(monkeypatch) -> None:
    assert not breaks_promise(twice_as_many, 1)
    enough = Acceptance.draws
    monkeypatch.setattr(Acceptance, "draws", lambda self, n: enough(self, n) // 8)
    assert breaks_promise(twice_as_many, 1)
