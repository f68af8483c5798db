"""Batches in a few waves: the limit always holds, and so does the guarantee."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from verdicts import refuted

from smart_engine import (
    BatchSession,
    Failure,
    Guarantee,
    InvalidInputError,
    Outcome,
    Tier,
    verify,
)
from smart_engine.evidence.acceptance import Acceptance, SequentialTest
from smart_engine.evidence.policies import Policy
from smart_engine.evidence.record import ANSWERED, BatchRecord
from smart_engine.evidence.waves import next_wave
from smart_engine.offline.replay import replay
from smart_engine.offline.traces import Simulation
from smart_engine.serving.checks import check
from smart_engine.serving.config import ServingConfig
from smart_engine.strategies.audit_state import AuditState


def run(session: BatchSession, table) -> int:
    """Run a session; return how often it handed out calls after the last ones."""
    waves = 0
    while calls := session.next_calls():
        waves += 1
        for call in calls:
            session.record(call, table[call.tier][call.item])
    return waves


SLOW = pytest.mark.slow


@pytest.mark.parametrize("max_rounds", [2, 3, 4, pytest.param(6, marks=SLOW)])
@pytest.mark.parametrize(
    "rates",
    [
        (0.03,),
        (0.06, 0.05, 0.03),
        *(pytest.param(r, marks=SLOW) for r in [(0.0,), (0.2,), (1.0,), (0.5, 0.12)]),
    ],
)
def test_no_batch_takes_more_waves_than_allowed(
    tiers, models, rates, max_rounds
) -> None:
    for n_items, seed in [(1, 0), (40, 0), (300, 0), (300, 1)]:
        table = models(n_items, *rates, seed=seed)
        session = BatchSession(
            *(n_items, tiers(len(rates)), Guarantee(0.1, 0.95)),
            seed=seed,
            max_rounds=max_rounds,
        )
        waves = run(session, table)
        assert waves == session.rounds <= max_rounds
        assert all(check.holds for check in verify(session.certificate))
        assert len(session.answers) == n_items


@pytest.mark.parametrize("max_rounds", [3, 6])
def test_calls_that_fail_add_one_wave_at_most(tiers, models, max_rounds) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        table = models(300, 0.04, 0.08, seed=seed)
        for results in table.values():
            for item in np.flatnonzero(rng.random(300) < 0.05).tolist():
                results[item] = Failure(RuntimeError("no answer"))
        session = BatchSession(
            *(300, tiers(2), Guarantee(0.1, 0.95)), seed=seed, max_rounds=max_rounds
        )
        assert run(session, table) <= max_rounds + 1
        assert all(check.holds for check in verify(session.certificate))


def test_two_waves_suffice_for_a_good_and_cheap_candidate() -> None:
    tiers = [Tier("big", "reference", 1.0), Tier("small", "candidate", 1e-5)]
    table = {
        "big": [Outcome(0, 1.0)] * 2000,
        "small": [Outcome(0, 1e-5)] * 2000,
    }
    session = BatchSession(2000, tiers, Guarantee(0.05, 0.95), max_rounds=2)
    assert run(session, table) <= 2
    assert session.certificate.cost < 700


@pytest.mark.parametrize(("price", "at_once"), [(0.001, True), (0.008, False)])
def test_the_first_wave_asks_about_all_items_where_that_costs_few_draws(
    price, at_once
) -> None:
    """17 draws are the fewest at 20 %: what 5 of them cost is spent, not 40."""
    tiers = [Tier("big", "reference", 1.0), Tier("small", "candidate", price)]
    session = BatchSession(5000, tiers, Guarantee(0.2, 0.95), seed=0, max_rounds=6)
    asked = sum(call.tier == "small" for call in session.next_calls())
    assert (asked == 5000) == at_once


def test_draws_are_late_for_each_policy_whose_candidates_were_asked_before() -> None:
    """Not only for the policy for whose sake they were asked."""
    tiers = [Tier("big", "reference", 1.0), Tier("a", cost=0.01), Tier("b", cost=0.02)]
    batch = BatchRecord(100, tiers, Guarantee(0.1, 0.95), 0, max_rounds=6)
    state = AuditState(batch)
    one, both = Policy((1,)), Policy((1, 2))
    for policy in (one, both):
        state.registered[policy] = state.open_test(policy, 100, 0.02, 1.0)
    state.draws = 20
    batch.status[1] = ANSWERED
    state.note_asked()
    state.draws = 30
    state.note_asked()
    assert state.late_enough(one) == math.ceil(20 / 0.7)
    assert state.late_enough(both) == math.ceil(30 / 0.7)


def test_with_no_wave_to_spare_a_dear_candidate_is_not_asked(tiers, models) -> None:
    session = BatchSession(200, tiers(1), Guarantee(0.1, 0.95), max_rounds=2)
    assert run(session, models(200, 0.0, costs=(1.0, 0.5))) == 1
    assert session.certificate.spend["c1"].calls == 0


@pytest.mark.slow
def test_six_waves_cost_little_more_than_any_number() -> None:
    models = Simulation(
        4000,
        "big",
        agreement={"medium": 0.98, "small": 0.91},
        costs={"big": 0.01, "medium": 0.0005, "small": 0.0001},
    )
    free = replay(models, Guarantee(0.05, 0.95), trials=6)
    few = replay(models, Guarantee(0.05, 0.95), trials=6, max_rounds=6)
    assert few.rounds <= 6
    assert few.cost_ratio < free.cost_ratio + 0.1


@pytest.mark.parametrize("strategy", ["exhaustive", "efficient", "mix"])
def test_strategies_without_a_limit_say_so(tiers, strategy) -> None:
    with pytest.raises(InvalidInputError, match="max_rounds"):
        BatchSession(10, tiers(1), strategy=strategy, max_rounds=6)


def test_limits_that_cannot_be_kept_are_errors(tiers) -> None:
    for rounds in (0, 1, 2.5):
        with pytest.raises(InvalidInputError, match="max_rounds"):
            BatchSession(10, tiers(1), max_rounds=rounds)
    alone = BatchSession(10, tiers(1), strategy="reference", max_rounds=1)
    assert len(alone.next_calls()) == 10
    config = ServingConfig(
        ("big", "small"), Guarantee(0.05, 0.95), "exact", promise="task", max_rounds=6
    )
    with pytest.raises(InvalidInputError, match="promise='task'"):
        check(config)


def test_a_wave_is_as_large_as_the_waves_left_make_cheapest() -> None:
    rng = np.random.default_rng(0)
    test = SequentialTest("small", Acceptance(2000, 100, 0.05))
    rate = np.full(48, 0.02)
    ends = [next_wave(test, rate, waves, 1900, rng).end for waves in (0, 1, 2, 8)]
    assert ends[0] == 1900
    assert ends[1] > ends[2] >= ends[3]
    assert ends[3] == test.target
    sure = next_wave(test, np.zeros(48), 1, 1900, rng)
    assert sure.end == test.target
    assert (sure.draws == test.target).all()


@pytest.mark.parametrize(
    ("max_rounds", "share", "candidates", "trials"),
    [
        (4, 0.1, 1, 10),
        pytest.param(4, 0.1, 1, 100, marks=SLOW),
        pytest.param(2, 0.1, 1, 100, marks=SLOW),
        pytest.param(3, 0.1, 2, 100, marks=SLOW),
        pytest.param(6, 0.1, 1, 100, marks=SLOW),
        *(
            pytest.param(rounds, share, candidates, 400, marks=pytest.mark.guarantee)
            for rounds, share, candidates in product((2, 3, 4, 6), (0.05, 0.2), (1, 3))
        ),
    ],
)
def test_the_promise_is_kept_in_a_few_waves(
    quick, max_rounds, share, candidates, trials
) -> None:
    guarantee, n_items = Guarantee(share, 0.95), 300

    def violated(seed: int) -> bool:
        rng = np.random.default_rng(seed)
        allowed = guarantee.max_errors(n_items)
        wrong = np.zeros(n_items, np.uint8)
        wrong[rng.choice(n_items, allowed + 1 + allowed // 8, replace=False)] = 1
        done = quick(
            [wrong] * candidates,
            [1.0, *[1e-6] * candidates],
            guarantee,
            strategy="audit",
            seed=seed,
            max_rounds=max_rounds,
        )
        return bool(done.differing > allowed)

    assert not refuted(0.05, trials, map(violated, range(trials)))
