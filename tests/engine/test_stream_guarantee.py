"""Measured violations of a stream's promise, at any moment, by hostile streams."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

import pytest
from verdicts import refuted, surely_above

from smart_engine import Exact, Guarantee, Outcome, StreamSession, Tier
from smart_engine.stream.bound import ErrorBound
from smart_engine.stream.choice import Choice
from smart_engine.stream.guard import StreamGuard

RIGHT, WRONG, REFERENCE = Outcome("y", 0.01), Outcome("n", 0.01), Outcome("y", 1.0)


class View(NamedTuple):
    """What an adversary sees before an item arrives: everything but its draw."""

    stream: StreamSession
    item: int
    undetected: int
    dice: random.Random

    @property
    def rate(self) -> float:
        """Audit rate of the next item."""
        return self.stream._guard.rate

    @property
    def room(self) -> int:
        """Further undetected errors that are allowed."""
        return self.stream._guard.allowed() - self.undetected


Adversary = Callable[[View], bool]


def always(view: View) -> bool:
    """Err always."""
    return True


def lulled_briefly(view: View) -> bool:
    """Be right for a while, then err always."""
    return view.item > 150


def lulled(view: View) -> bool:
    """Be right for long, then err always."""
    return view.item > 500


def lulled_longer(view: View) -> bool:
    """Be right until audits are rare, then err always."""
    return view.item > 1500


def drift(view: View) -> bool:
    """Err more and more often."""
    return view.dice.random() < view.item / 8000


def bursts(view: View) -> bool:
    """Err in bursts that grow with the stream."""
    return view.item % 400 > 360


def as_tolerated(view: View) -> bool:
    """Err just as often as is tolerated."""
    return view.dice.random() < view.stream._guarantee.max_disagreement


def when_rare(view: View) -> bool:
    """Err exactly when the audit rate is low."""
    return view.item % 5 == 0 and view.rate < 0.2


def when_nearly_full(view: View) -> bool:
    """Err when few more errors are allowed, a little when many are."""
    return view.item > 100 and (view.room < 8 or view.dice.random() < 0.1)


class Hit:
    """Err until detected; then wait until the stream trusts again."""

    def __init__(self) -> None:
        self.detected, self.until = 0, 0

    def __call__(self, view: View) -> bool:
        detected = view.stream._guard.detected
        if detected > self.detected:
            self.detected, self.until = detected, view.item + 300
        return view.item >= max(150, self.until)


HOSTILE: dict[str, Callable[[], Adversary]] = {
    **{
        plot.__name__: (lambda plot=plot: plot)
        for plot in (
            always,
            lulled_briefly,
            lulled,
            lulled_longer,
            drift,
            bursts,
            as_tolerated,
            when_rare,
            when_nearly_full,
        )
    },
    "hit and wait": Hit,
}


class Played(NamedTuple):
    """How a stream went.

    Attributes:
        broken: Whether the promise was broken at any moment.
        worst: Largest number of undetected errors as a share of what was allowed + 1.
        undetected: Undetected errors in the end.
    """

    broken: bool
    worst: float
    undetected: int


def play(
    adversary: Adversary,
    guarantee: Guarantee,
    items: int,
    seed: int,
    *,
    window: int = 1,
    candidates: int = 1,
    sees_draw: bool = False,
) -> Played:
    """Run a stream to its end.

    Args:
        adversary: Decides, before each draw, whether the candidates err.
        guarantee: What is promised.
        items: Number of items.
        seed: Seed of the draws.
        window: Items in flight; audits report as late as they can.
        candidates: Number of candidates, all of them wrong together.
        sees_draw: Whether the adversary sees each draw, as no one may.
    """
    tiers = [Tier("big", role="reference")]
    tiers += [Tier(f"c{k}") for k in range(1, candidates + 1)]
    stream = StreamSession(tiers, guarantee, seed=seed, equivalence=Exact())
    dice = random.Random(seed + 10**6)
    undetected = answered = 0
    broken, worst = False, 0.0
    wrong: dict[int, bool] = {}
    flying: list = []

    def land(call) -> None:
        nonlocal undetected, answered, broken, worst
        outcome = WRONG if wrong[call.item] else RIGHT
        stream.record(call, REFERENCE if call.tier == "big" else outcome)
        if call.item in open_items and stream.ready(call.item):
            open_items.discard(call.item)
            undetected += stream.answer(call.item).answer != "y"
            answered += 1
            allowed = guarantee.max_errors(answered)
            broken |= undetected > allowed
            worst = max(worst, undetected / (allowed + 1))
        elif call.item in open_items:
            flying.extend(stream.next_calls(call.item))

    open_items: set[int] = set()
    for number in range(items):
        err = adversary(View(stream, number, undetected, dice))
        if sees_draw:
            guard = stream._guard
            draw = guard._draws[guard.arrived]
            err = draw >= (guard.plan.rate if guard.plan else 1.0)
        item = stream.arrive()
        wrong[item] = err
        open_items.add(item)
        flying += stream.next_calls(item)
        while flying and (len(open_items) >= window or len(flying) > 4 * window):
            # Audits report last.
            audited = stream._guard.unresolved
            free = [k for k, call in enumerate(flying[:64]) if call.item not in audited]
            land(flying.pop(dice.choice(free) if free else 0))
    while flying:
        land(flying.pop())
    return Played(broken, worst, undetected)


@pytest.fixture
def trusting(monkeypatch) -> None:
    """Let streams serve by the first candidate, however bad: validity must not care."""
    monkeypatch.setattr(Choice, "choose", lambda self, answered: None)


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize("trials", [6, pytest.param(8, marks=pytest.mark.slow)])
@pytest.mark.parametrize("window", [pytest.param(1, marks=pytest.mark.slow), 25])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_streams_do_not_break_the_promise(name, window, trials) -> None:
    guarantee = Guarantee(0.1, 0.8)  # all of 6, or 7 of 8, would have to be broken
    broken = (
        play(HOSTILE[name](), guarantee, 900, seed, window=window).broken
        for seed in range(trials)
    )
    assert not refuted(guarantee.alpha, trials, broken)


def breaks_promise(**how) -> bool:
    """Whether streams whose candidate errs after a while surely break a promise."""
    guarantee, trials = Guarantee(0.1, 0.9), 12
    broken = (
        play(lulled_briefly, guarantee, 500, seed, **how).broken
        for seed in range(trials)
    )
    return refuted(guarantee.alpha, trials, broken)


def test_trap_a_draw_that_is_known_before_the_answer() -> None:
    assert breaks_promise(sees_draw=True)


def test_trap_outcomes_in_flight_are_left_out(monkeypatch) -> None:
    assert not breaks_promise(window=60)
    monkeypatch.setattr(
        StreamGuard, "_undetected", lambda self, more=0: self.bound.undetected
    )
    assert breaks_promise(window=60)


def test_trap_detected_errors_are_not_charged(monkeypatch) -> None:
    monkeypatch.setattr(ErrorBound, "charge", lambda self, charged: None)
    assert breaks_promise()


ROUNDS = 26


@pytest.mark.guarantee
@pytest.mark.timeout(0)
@pytest.mark.parametrize("trust", [True, False], ids=["trusting", "choosing"])
def test_violation_rates_of_hostile_streams(request, trust) -> None:
    if trust:
        request.getfixturevalue("trusting")
    print("\n| adversary | δ | γ | in flight | streams | broken | worst m/(⌊δt⌋+1) |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    too_often, total = [], 0
    for name, hostile in HOSTILE.items():
        for share, confidence, window, candidates in (
            (0.05, 0.95, 1, 1),
            (0.1, 0.8, 1, 1),
            (0.1, 0.8, 30, 1),
            (0.2, 0.8, 8, 3),
        ):
            guarantee = Guarantee(share, confidence)
            runs = [
                play(
                    hostile(),
                    guarantee,
                    2000,
                    seed,
                    window=window,
                    candidates=candidates,
                )
                for seed in range(ROUNDS)
            ]
            count, worst = sum(run.broken for run in runs), max(r.worst for r in runs)
            total += ROUNDS
            print(
                f"| {name} | {share} | {confidence} | {window} | {ROUNDS} | {count} "
                f"| {worst:.2f} |",
                flush=True,
            )
            if surely_above(count, ROUNDS, guarantee.alpha):
                too_often.append((name, guarantee, window, candidates))
    assert total >= 1000
    assert not too_often
