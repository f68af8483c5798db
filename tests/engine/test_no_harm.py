"""Trying candidates never makes a job noticeably dearer than the reference alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from statistics import mean

import numpy as np
import pytest

from smart_engine import Failure, Guarantee, InvalidInputError, Outcome, Tier
from smart_engine.batch.session import BatchSession
from smart_engine.jobs.job import job_of
from smart_engine.jobs.task import Task
from smart_engine.stream.choice import Choice
from smart_engine.stream.session import StreamSession

HARM = 1.005
"""Most that a job may cost in the mean, in costs of the reference alone."""

SIZES = [1, 2, 5, 10, 20, 30, 50, 100, 150]
LENGTHS = [20, 50, 100, 200, 500]
EVERY = [(a, r) for a in (0.97, 0.92, 0.8, 0.3, 0.0) for r in (0.04, 0.2, 4.0)]
LONG = [pytest.mark.slow, pytest.mark.long]
HOPELESS = [(0.0, 0.04), (0.0, 0.2), (0.3, 0.2), (0.97, 4.0)]


def tiers(price: float, *, known: bool = True) -> list[Tier]:
    costs = (1.0, price) if known else (None, None)
    return [
        Tier("big", "reference", costs[0]),
        Tier("small", "candidate", costs[1]),
    ]


def outcome(call, wrong, price):
    """The reference says 0 or 1 at a cost of 1; where wrong, the candidate does not."""
    right = call.item * 7919 % 1009 % 2
    if call.tier == "big":
        return Outcome(right, 1.0)
    return Outcome(int(right != wrong[call.item]), price)


def mistakes(n_items: int, agreement: float, seed: int) -> np.ndarray:
    return np.random.default_rng([seed, n_items]).random(n_items) >= agreement


def batch(n_items, agreement, price, seed, *, known=True, **settings):
    """Run a batch; return its session."""
    wrong = mistakes(n_items, agreement, seed)
    session = BatchSession(
        n_items, tiers(price, known=known), seed=seed, max_in_flight=32, **settings
    )
    while calls := session.next_calls():
        for call in calls:
            session.record(call, outcome(call, wrong, price))
    return session


def batch_cost(n_items, agreement, price, seed) -> float:
    session = batch(n_items, agreement, price, seed)
    return session.certificate.cost / n_items


class Shared:
    """A task that jobs share, one step at a time."""

    def __init__(self, price: float, seed: int) -> None:
        self.task = Task(tiers(price), seed=seed)

    @contextmanager
    def step(self, *, durable: bool = False) -> Iterator[Task]:
        yield self.task


def jobs(n_items, agreement, price, seed) -> list[float]:
    """Return the cost of all jobs of a task so far, after each of ten."""
    shared, paid, costs = Shared(price, seed), 0.0, []
    for number in range(1, 11):
        wrong = mistakes(n_items, agreement, 1000 * seed + number)
        session = BatchSession(
            n_items,
            tiers(price),
            seed=seed,
            max_in_flight=32,
            decide=job_of(shared, f"{seed} {number}", lambda: False),
        )
        while calls := session.next_calls():
            for call in calls:
                session.record(call, outcome(call, wrong, price))
        paid += session.certificate.cost
        costs.append(paid / (number * n_items))
    return costs


def show(what: str, agreement: float, price: float, costs: dict[int, float]) -> None:
    """Print a row of a table; see it with `pytest -s`."""
    cells = " | ".join(f"{cost:.3f}" for cost in costs.values())
    print(f"\n| {what} | {agreement} | {price} | {cells} |", end="")


def stream(length, agreement, price, seed, *, answer=None, known=True):
    """Run a stream; return its cost after each of `LENGTHS`, and its state."""
    wrong = mistakes(length, agreement, seed)
    session = StreamSession(tiers(price, known=known), seed=seed)
    costs = {}
    for count in range(1, length + 1):
        item = session.arrive()
        while calls := session.next_calls(item):
            for call in calls:
                said = outcome(call, wrong, price)
                if answer is not None and call.tier == "small":
                    said = answer
                session.record(call, said)
        session.answer(item)
        if count in LENGTHS:
            costs[count] = session.state().cost / count
    return costs, session.state()


@pytest.mark.parametrize(
    ("agreement", "price", "seeds"),
    [pytest.param(*cell, 20, marks=pytest.mark.slow) for cell in EVERY]
    + [(*cell, 3) for cell in HOPELESS],
)
def test_no_small_batch_becomes_dearer(agreement, price, seeds) -> None:
    costs = {
        size: mean(batch_cost(size, agreement, price, seed) for seed in range(seeds))
        for size in SIZES
    }
    show("batch", agreement, price, costs)
    assert max(costs.values()) <= HARM, costs


@pytest.mark.parametrize(
    ("agreement", "price", "seeds"),
    [pytest.param(*cell, 20, marks=pytest.mark.slow) for cell in EVERY]
    + [(*cell, 2) for cell in HOPELESS],
)
def test_no_short_stream_becomes_dearer(agreement, price, seeds) -> None:
    runs = [stream(500, agreement, price, seed)[0] for seed in range(seeds)]
    costs = {length: mean(run[length] for run in runs) for length in LENGTHS}
    show("stream", agreement, price, costs)
    assert max(costs.values()) <= HARM, costs


@pytest.mark.timeout(0)
@pytest.mark.parametrize(
    ("agreement", "price", "seeds"),
    [pytest.param(*cell, 20, marks=LONG) for cell in EVERY]
    + [(*cell, 2) for cell in HOPELESS],
)
def test_no_jobs_of_a_task_become_dearer(agreement, price, seeds) -> None:
    """After each of ten jobs, all of them so far are no dearer."""
    most, last = {}, {}
    for size in SIZES if seeds > 2 else (5, 50):
        runs = [jobs(size, agreement, price, seed) for seed in range(seeds)]
        means = [mean(costs) for costs in zip(*runs, strict=True)]
        most[size], last[size] = max(means), means[-1]
    show("jobs, at most", agreement, price, most)
    show("ten jobs", agreement, price, last)
    assert max(most.values()) <= HARM, most


PROMISES = {
    "recall": Guarantee(None, recall={"1": 0.9}),
    "recall and precision": Guarantee(None, recall={"1": 0.9}, precision={"1": 0.9}),
    "recall and agreement": Guarantee(0.05, recall={"1": 0.9}),
    "recall and slices": Guarantee(0.05, recall={"1": 0.9}),
    "slices": Guarantee(0.05),
}
SHARES = [0.01, 0.05, 0.2]
AUDITED = [(a, r) for a in (0.97, 0.8, 0.5, 0.0) for r in (0.04, 0.2, 1.0)]


def labelled_cost(promise, size, share, agreement, price, seed) -> float:
    """Cost of a batch of three labels, one of which has that share of the items."""
    rng = np.random.default_rng([seed, size])
    truth = rng.choice(3, size, p=[0.9 - share, share, 0.1])
    wrong = rng.random(size) >= agreement
    said = {"big": truth, "small": (truth + wrong * rng.integers(1, 3, size)) % 3}
    session = BatchSession(
        size,
        tiers(price),
        PROMISES[promise],
        seed=seed,
        max_in_flight=32,
        slices=rng.integers(0, 5, size).tolist() if "slices" in promise else None,
    )
    while calls := session.next_calls():
        for call in calls:
            cost = 1.0 if call.tier == "big" else price
            session.record(call, Outcome(str(said[call.tier][call.item]), cost))
    return session.certificate.cost / size


@pytest.mark.timeout(0)
@pytest.mark.parametrize(
    ("agreement", "price", "sizes", "seeds"),
    [pytest.param(*cell, [50, 300, 1000, 5000], 12, marks=LONG) for cell in AUDITED]
    + [(0.97, 0.2, [50, 300], 3), (0.5, 0.04, [50], 4), (0.0, 0.2, [300], 2)],
)
@pytest.mark.parametrize("promise", PROMISES)
def test_no_audit_of_labels_or_slices_becomes_dearer(
    promise, agreement, price, sizes, seeds
) -> None:
    for share in SHARES if seeds > 4 else [0.05]:
        costs = {
            size: mean(
                labelled_cost(promise, size, share, agreement, price, seed)
                for seed in range(seeds if price < 1 else 1)
            )
            for size in sizes
        }
        show(f"{promise}, {share} of the label", agreement, price, costs)
        assert max(costs.values()) <= HARM, costs


def test_a_good_cheap_candidate_still_saves_where_labels_are_promised() -> None:
    assert labelled_cost("recall", 3000, 0.2, 0.97, 0.04, 0) < 0.5
    assert labelled_cost("recall and precision", 6000, 0.2, 0.97, 0.2, 0) < 0.8


@pytest.mark.parametrize("size", [1, 10, 19])
@pytest.mark.parametrize("price", [0.0, 0.04])
def test_where_nothing_can_be_proven_the_reference_answers_alone(size, price) -> None:
    certificate = batch(size, 1.0, price, 0).certificate
    assert certificate.spend["small"].calls == 0
    assert certificate.cost == size
    assert certificate.valid


def test_a_good_cheap_candidate_still_saves_on_a_hundred_items() -> None:
    assert mean(batch_cost(100, 0.97, 0.04, seed) for seed in range(8)) < 0.95
    assert mean(batch_cost(300, 0.97, 0.2, seed) for seed in range(8)) < 0.9


def test_a_dear_candidate_is_dropped_though_its_price_was_not_known() -> None:
    certificate = batch(2000, 1.0, 1.5, 0, known=False).certificate
    assert certificate.spend["small"].calls <= 32
    assert certificate.served == {"big": 2000, "small": 0}
    assert certificate.evidence[0].verdict == "too dear"


@pytest.mark.parametrize("answer", [Failure(RuntimeError("down"), 0.04), None])
def test_a_useless_candidate_is_asked_at_ever_longer_distances(answer) -> None:
    _, state = stream(1500, 0.0, 0.04, 0, answer=answer)
    assert 4 <= state.spend["small"].calls <= 20
    assert state.served["small"] == 0


def test_a_dear_candidate_is_asked_once_in_a_stream_if_its_price_is_unknown() -> None:
    assert stream(1500, 1.0, 4.0, 0, known=False)[1].spend["small"].calls <= 2
    assert stream(1500, 1.0, 4.0, 0)[1].spend["small"].calls == 0


def test_a_call_that_was_cheap_by_chance_buys_no_further_one() -> None:
    choice = Choice([1], tolerated=0.05, ratios=[1.0, 0.04], min_saving=0.05)
    choice.paid(0, 1.0)
    choice.paid(1, 0.01)
    assert choice.price(1) == 0.04
    assert choice.to_compare(0, spare=0.03) == ()
    for _ in range(3):
        choice.paid(1, 0.01)
    assert choice.price(1) == 0.01


def test_a_useless_candidate_does_not_serve_what_its_errors_would_fit_into() -> None:
    certificate = batch(2000, 0.0, 0.01, 0, guarantee=Guarantee(0.2, 0.95)).certificate
    assert certificate.served["small"] == 0
    assert certificate.evidence[0].verdict == "never right"


def test_no_candidate_serves_for_less_than_the_least_gain() -> None:
    def served(least: float) -> int:
        promise = Guarantee(0.02, 0.95)
        session = batch(4000, 0.6, 0.05, 1, guarantee=promise, min_saving=least)
        return session.certificate.served["small"]

    assert served(0.0) > 0
    assert served(0.05) == 0


@pytest.mark.parametrize("share", [-0.1, 1, 1.5, "5 %", True, None])
def test_a_least_gain_that_is_no_share_is_refused(share) -> None:
    with pytest.raises(InvalidInputError, match="min_saving"):
        BatchSession(10, tiers(0.1), min_saving=share)
    with pytest.raises(InvalidInputError, match="min_saving"):
        StreamSession(tiers(0.1), min_saving=share)
