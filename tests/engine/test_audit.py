"""The audit strategy: what it spends, what it certifies, what it survives."""

from __future__ import annotations

import json
from collections import Counter
from itertools import count, product
from random import Random
from statistics import mean

import numpy as np
import pytest
from scipy.stats import binom
from verdicts import refuted

from smart_engine import (
    BatchSession,
    Certificate,
    Failure,
    Guarantee,
    InvalidInputError,
    Label,
    Number,
    Outcome,
    Tier,
    verify,
)
from smart_engine.evidence.policies import Answers, Policy, family, pairs
from smart_engine.evidence.record import ANSWERED, BatchRecord

BROKEN = RuntimeError("no answer")


def errors(n_items: int, rate: float, seed: int) -> np.ndarray:
    """Wrong on an exact share of the items, at random places."""
    count = round(rate * n_items)
    return (
        np.random.default_rng(seed).permutation(np.arange(n_items) < count).view("u1")
    )


def cost(quick, wrong, costs, share, *, seed=0, strategy="audit", **how) -> float:
    """Cost of one run as a share of what the reference alone costs."""
    done = quick(
        wrong, costs, Guarantee(share, 0.95), strategy=strategy, seed=seed, **how
    )
    return done.cost / len(wrong[0]) / costs[0]


# -- cost --------------------------------------------------------------------------

SEEDS = pytest.mark.parametrize("seeds", [3, pytest.param(6, marks=pytest.mark.slow)])
"""How many runs a mean is taken of."""


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.03])
@pytest.mark.parametrize(
    "n_items", [300, 1000, pytest.param(4000, marks=pytest.mark.slow)]
)
def test_one_good_candidate_costs_less_than_with_the_paper_s_mix(
    quick, n_items, rate
) -> None:
    def spent(strategy: str) -> float:
        return mean(
            cost(
                quick,
                [errors(n_items, rate, seed)],
                [1.0, 0.02],
                0.05,
                seed=seed,
                strategy=strategy,
            )
            for seed in range(12)
        )

    assert spent("audit") < spent("mix")


@pytest.mark.parametrize("share", [0.02, 0.1])
def test_useless_candidates_cost_next_to_nothing(quick, share) -> None:
    wrong = [errors(2000, rate, 1) for rate in (0.9, 0.8, 1.0)]
    assert cost(quick, wrong, [1.0, 0.05, 0.05, 0.1], share) <= 1.02


def test_a_weak_candidate_serves_the_part_its_errors_fit_into(quick) -> None:
    weak = [errors(12_000, 0.33, 2)]
    assert cost(quick, weak, [1.0, 0.06], 0.02) < 0.99
    assert cost(quick, weak, [1.0, 0.06], 0.2) < 0.7


@SEEDS
def test_candidates_that_disagree_are_worth_more_than_each_alone(quick, seeds) -> None:
    # Each is wrong on a tenth, but hardly ever both at once.
    apart = [errors(3000, 0.1, seed) for seed in (1, 2)]
    costs = [1.0, 0.01, 0.01]
    both = mean(cost(quick, apart, costs, 0.05, seed=s) for s in range(seeds))
    one = mean(cost(quick, apart[:1], costs[:2], 0.05, seed=s) for s in range(seeds))
    assert both < one - 0.1


@SEEDS
@pytest.mark.parametrize("turned", [False, True])
def test_confidence_that_tells_wrong_from_right_saves(quick, turned, seeds) -> None:
    wrong = errors(2000, 0.25, 3)
    noise = np.random.default_rng(4).normal(size=2000)
    score = noise + 3.0 * wrong * (1 if turned else -1)  # any score, also upside down
    blind = mean(cost(quick, [wrong], [1.0, 0.01], 0.05, seed=s) for s in range(seeds))
    told = mean(
        cost(quick, [wrong], [1.0, 0.01], 0.05, seed=s, confidence=score)
        for s in range(seeds)
    )
    assert told < blind - 0.2


@SEEDS
@pytest.mark.parametrize(
    ("signal", "share", "saved"),
    [("none", 0.1, -0.03), ("opposite", 0.1, 0.08), ("shifted", 0.05, 0.1)],
)
def test_a_confidence_saves_where_it_tells_something_and_costs_little_elsewhere(
    quick, signal, share, saved, seeds
) -> None:
    """It may mean the opposite, or another risk at the same score, by the answer."""
    rng = np.random.default_rng(5)
    wrong, kinds = errors(2000, 0.25, 3), rng.integers(0, 2, 2000)
    score = rng.normal(size=2000)
    if signal == "opposite":
        score += 2.0 * wrong * np.where((kinds + wrong) % 2, -1, 1)
    if signal == "shifted":  # one answer is rare, and riskier at every score
        answer, hard = rng.random(2000) < 0.15, rng.normal(size=2000)
        odds = 2.4 * hard - 4.0 + 3.5 * answer
        wrong = (rng.random(2000) < 1 / (1 + np.exp(-odds))).view("u1")
        kinds, score = (answer ^ wrong).astype(np.int64), 0.3 * score - hard

    def spent(confidence: np.ndarray | None) -> float:
        how = {"confidence": confidence, "kinds": kinds}
        return mean(
            cost(quick, [wrong], [1.0, 0.01], share, seed=s, **how)
            for s in range(seeds)
        )

    assert spent(score) < spent(None) - saved


@SEEDS
def test_the_answer_itself_is_a_signal(quick, seeds) -> None:
    kinds = np.arange(4000) % 4
    wrong = ((kinds == 3) & (np.arange(4000) % 3 > 0)).astype(np.uint8)  # one class
    plain = mean(cost(quick, [wrong], [1.0, 0.01], 0.05, seed=s) for s in range(seeds))
    told = mean(
        cost(quick, [wrong], [1.0, 0.01], 0.05, seed=s, kinds=kinds)
        for s in range(seeds)
    )
    assert told < plain - 0.05


def test_dear_candidates_are_asked_only_where_cheap_ones_differ(quick) -> None:
    wrong = [errors(3000, rate, seed) for seed, rate in enumerate((0.08, 0.07, 0.02))]
    done = quick(wrong, [1.0, 0.01, 0.02, 0.3], Guarantee(0.05, 0.95), strategy="audit")
    assert done.cost < 0.5 * 3000
    assert done.calls[3] < 1500


# -- the certificate ---------------------------------------------------------------


def certify(drive, tiers, models, *rates, n_items=2000, **how) -> Certificate:
    """Run a session and return its certificate."""
    session = BatchSession(n_items, tiers(len(rates)), Guarantee(0.1, 0.95), **how)
    return drive(session, models(n_items, *rates)).certificate


@pytest.mark.parametrize("rates", [(0.0,), (0.04, 0.02), (0.15, 0.1, 0.08), (0.9,)])
@pytest.mark.parametrize("seed", [0, 1, pytest.param(2, marks=pytest.mark.slow)])
def test_every_certificate_can_be_checked_from_its_own_record(
    drive, tiers, models, rates, seed
) -> None:
    certificate = certify(drive, tiers, models, *rates, seed=seed)
    again = Certificate.model_validate_json(certificate.model_dump_json())
    assert again == certificate
    checks = verify(again)
    assert all(check.holds for check in checks), checks
    assert certificate.valid
    assert certificate.looks is None
    assert sum(test.level for test in certificate.tests) <= 0.05 * (1 + 1e-9)
    assert sum(test.accepted is not None for test in certificate.tests) <= len(
        certificate.tests
    )


def test_what_was_tampered_with_does_not_verify(drive, tiers, models) -> None:
    certificate = certify(drive, tiers, models, 0.03)
    (test,) = [test for test in certificate.tests if test.accepted is not None]
    others = tuple(one for one in certificate.tests if one is not test)

    def changed(**of_test: object) -> list[bool]:
        forged = (*others, test.model_copy(update=of_test))
        copy = certificate.model_copy(update={"tests": forged})
        return [check.holds for check in verify(copy)]

    assert all(changed())
    assert not all(changed(errors=tuple(range(1, 12))))  # more errors than accepted
    assert not all(changed(level=0.06))  # more level than there is
    assert not all(changed(accepted=test.accepted - 5))  # too early
    assert not all(changed(accepted=None))  # served without evidence
    assert not all(changed(max_errors=test.max_errors + 1))
    assert not all(changed(items=certificate.items + 1))
    larger = certificate.model_copy(update={"max_errors": certificate.max_errors + 1})
    assert not all(check.holds for check in verify(larger))


@pytest.mark.parametrize(
    ("forged", "told"),
    [
        ({"valid": False}, "claims"),
        ({"uncertified": 900}, "left out"),
        ({"unanswered": 900}, "may differ"),
        ({"unanswered": 3000}, "no count"),
        ({"unanswered": -1}, "no count"),
        ({"escalated": -1}, "no count"),
        ({"profiled": 2001}, "no count"),
        ({"profiled": 5}, "items were drawn"),
        ({"served": {"big": 2100, "c1": -100}}, "no count"),
        ({"served": {"big": 200, "c1": 1700}}, "have an answer"),
        ({"served": {"big": 200, "c9": 1800}}, "audit of c9 left undrawn"),
        ({"served": {"big": 0, "c1": 2000}}, "not compared"),
        ({"items": 10**12}, "no count"),
        ({"max_errors": 150}, "may differ"),
    ],
)
def test_a_certificate_that_was_changed_does_not_verify(
    drive, tiers, models, forged, told
) -> None:
    certificate = certify(drive, tiers, models, 0.03)
    checks = verify(certificate.model_copy(update=forged))
    assert any(told in check.statement for check in checks if not check.holds), checks


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("level", -0.01),
        ("level", float("nan")),
        ("errors", (1, 1)),
        ("errors", (2, 1)),
        ("errors", (0,)),
        ("errors", (5000,)),
        ("failures", (1,)),
        ("draws", -1),
        ("items", -5),
        ("answers", 1900),
        ("answers", 2100),
        ("max_errors", -1),
        ("expected_errors", -1.0),
        ("policy", "c11 = c2"),
    ],
)
def test_a_test_that_was_changed_does_not_verify(
    drive, tiers, models, field, value
) -> None:
    certificate = certify(drive, tiers, models, 0.03)
    tests = [
        test.model_copy(update={} if test.accepted is None else {field: value})
        for test in certificate.tests
    ]
    copy = certificate.model_copy(update={"tests": tuple(tests)})
    assert not all(check.holds for check in verify(copy))
    # A negative level of another test pays for none of this one's.
    (test,) = [test for test in certificate.tests if test.accepted is not None]
    debt = test.model_copy(update={"level": -0.05, "accepted": None})
    copy = certificate.model_copy(update={"tests": (*certificate.tests, debt)})
    assert not all(check.holds for check in verify(copy))


def test_a_batch_that_its_budget_ended_claims_nothing(tiers, models) -> None:
    table = models(2000, 0.03)
    session = BatchSession(2000, tiers(1), Guarantee(0.1, 0.95))
    for _ in range(3):
        calls = session.next_calls()
        for call in calls:
            session.record(call, table[call.tier][call.item])
    session.stop([], RuntimeError("the budget"))
    checks = verify(session.certificate)
    assert not checks[0].holds
    assert session.certificate.claim.startswith("Nothing is claimed")


def test_only_audits_can_be_verified(drive, tiers, models) -> None:
    certificate = certify(drive, tiers, models, 0.0, strategy="mix")
    with pytest.raises(InvalidInputError, match="audit"):
        verify(certificate)


def test_waves_fill_what_may_be_in_flight_and_buy_nothing_for_it(
    drive, tiers, models
) -> None:
    table = models(3000, 0.02)

    def run(flight: int) -> tuple[Certificate, list[int]]:
        session = BatchSession(
            3000, tiers(1), Guarantee(0.1, 0.95), max_in_flight=flight
        )
        waves = []
        while calls := session.next_calls():
            waves.append(sum(call.tier == "big" for call in calls))
            for call in calls:
                session.record(call, table[call.tier][call.item])
        return session.certificate, waves

    tight, many = run(1)
    wide, few = run(64)
    assert all(check.holds for check in verify(wide))
    assert len(few) < len(many)
    assert tight.wasted == wide.wasted == 0
    assert abs(wide.profiled - tight.profiled) < 32


def test_scores_leave_more_of_the_level_to_plans(drive, tiers) -> None:
    def whole(confidence: float | None) -> float:
        table = {
            "big": [Outcome("yes", 1.0)] * 500,
            "c1": [Outcome("yes", 0.01, confidence=confidence)] * 500,
        }
        session = BatchSession(500, tiers(1), Guarantee(0.05, 0.95))
        return drive(session, table).certificate.tests[0].level

    assert 0.02 < whole(0.9) < whole(None) < 0.05


# -- validity: how evidence may and may not be used --------------------------------


def test_draws_that_chose_a_plan_are_no_evidence_for_it(drive, tiers, models) -> None:
    plans = 0
    for seed in range(4):
        n_items = 3000
        session = BatchSession(
            n_items, tiers(2), Guarantee(0.02, 0.95), seed=seed, strategy="audit"
        )
        certificate = drive(session, models(n_items, 0.05, 0.04, seed=seed)).certificate
        whole = [test for test in certificate.tests if test.items == n_items]
        for plan in [test for test in certificate.tests if test.items < n_items]:
            plans += 1
            pilot = max(test.draws for test in whole)
            # Its own draws, made afresh, from what the pilot had left.
            assert plan.items <= n_items - pilot
            assert plan.draws + pilot <= certificate.profiled
    assert plans


def test_scouted_items_say_nothing_of_the_order_of_draws(tiers) -> None:
    # Whatever candidates answer, and whatever is paid, the first draws stay the same.
    firsts = set()
    for answer, price in product(("yes", "no"), (0.5, 3.0)):
        session = BatchSession(500, tiers(2), Guarantee(0.1, 0.95), seed=5)
        waves = []
        for _ in range(3):
            calls = session.next_calls()
            waves.append(tuple(call.item for call in calls if call.tier == "big"))
            for call in calls:
                text = "yes" if call.tier == "c1" else answer
                session.record(
                    call, Outcome(text, price if call.tier == "big" else 0.01)
                )
        firsts.add(waves[2])
        assert not set(waves[0]) & set(waves[2]) or len(waves[2]) < 16
    assert len(firsts) == 1


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_failures_of_candidates_escalate_and_are_never_served(
    drive, tiers, share
) -> None:
    n_items = 600
    dice = np.random.default_rng(1).random(n_items)
    table = {
        "big": [Outcome("yes", 1.0)] * n_items,
        "c1": [Failure(BROKEN) if x < share else Outcome("yes", 0.01) for x in dice],
        "c2": [
            Failure(BROKEN) if x > 1 - share else Outcome("yes", 0.02) for x in dice
        ],
    }
    session = drive(BatchSession(n_items, tiers(2), Guarantee(0.1, 0.95)), table)
    assert all(served.answer == "yes" for served in session.answers)
    assert all(check.holds for check in verify(session.certificate))
    if share == 1.0:
        assert session.certificate.served["big"] == n_items
    else:
        assert session.certificate.served["big"] < 0.5 * n_items


def test_a_failing_reference_counts_as_an_error_of_everyone(drive, tiers) -> None:
    n_items = 600
    table = {
        "big": [Failure(BROKEN)] * n_items,
        "c1": [Outcome("yes", 0.01)] * n_items,
    }
    session = drive(BatchSession(n_items, tiers(1), Guarantee(0.05, 0.95)), table)
    certificate = session.certificate
    assert certificate.unanswered + certificate.served["c1"] == n_items
    assert certificate.served["c1"] <= certificate.max_errors
    assert (certificate.served["big"], certificate.valid) == (0, False)
    assert "none of 600 items has an answer" in certificate.claim


@pytest.mark.parametrize(
    ("refused", "bad"),
    [
        (0.8, 0.15),
        pytest.param(0.8, 0.49, marks=pytest.mark.slow),
        pytest.param(0.1, 0.052, marks=pytest.mark.slow),
    ],
)
def test_items_without_an_answer_leave_less_room_for_errors(
    drive, tiers, refused, bad
) -> None:
    # Reference and candidate refuse the same items, so that these escalate for nothing.
    n_items, served = 1000, 0

    def violated(seed: int) -> bool:
        nonlocal served
        rng = np.random.default_rng(seed)
        refusing = rng.permutation(n_items) < refused * n_items
        wrong = ~refusing & (rng.random(n_items) < bad)
        failure = Failure(BROKEN, 0.01)
        table = {
            "big": [failure if no else Outcome("yes", 1.0) for no in refusing],
            "c1": [
                failure if no else Outcome("no" if different else "yes", 0.01)
                for no, different in zip(refusing, wrong, strict=True)
            ],
        }
        promise = Guarantee(0.05, 0.95)
        session = BatchSession(n_items, tiers(1), promise, seed=seed, min_saving=0)
        certificate = drive(session, table).certificate
        assert certificate.answered == n_items - refusing.sum()
        assert certificate.max_errors == certificate.answered // 20
        assert all(check.holds for check in verify(certificate))
        served += certificate.served["c1"]
        differing = sum(one.answer == "no" for one in session.answers)
        return differing > certificate.max_errors

    assert not refuted(0.05, 40, map(violated, range(40)))
    assert served


def test_a_reference_that_fails_after_the_draws_leaves_nothing_to_claim(tiers) -> None:
    session = BatchSession(1000, tiers(1), Guarantee(0.1, 0.95))
    asked = 0
    while calls := session.next_calls():
        for call in calls:
            outcome = Outcome("yes", 1.0 if call.tier == "big" else 0.01)
            asked += call.tier == "big"
            down = call.tier == "big" and asked > 100
            refused = call.tier != "big" and call.item % 3 == 0
            session.record(call, Failure(BROKEN) if down or refused else outcome)
    certificate = session.certificate
    assert certificate.served["c1"] > 500
    assert certificate.unanswered > 200
    assert not certificate.valid
    assert "have no answer" in certificate.claim
    forged = certificate.model_copy(update={"valid": True})
    assert not all(check.holds for check in verify(forged))


@pytest.mark.parametrize("share", [0.05, 0.2])
@pytest.mark.parametrize("candidates", [1, 2])
def test_a_candidate_that_turns_bad_after_the_draws_is_found_out(
    tiers, share, candidates
) -> None:
    for seed in range(4):
        session = BatchSession(
            1000, tiers(candidates), Guarantee(share, 0.95), seed=seed
        )
        asked = Counter()
        while calls := session.next_calls():
            for call in calls:
                asked[call.tier] += 1
                bad = call.tier != "big" and asked[call.tier] > 300
                price = 1.0 if call.tier == "big" else 0.01
                session.record(call, Outcome("no" if bad else "yes", price))
        differing = sum(one.answer == "no" for one in session.answers)
        assert differing <= session.certificate.max_errors
        assert all(check.holds for check in verify(session.certificate))


@pytest.mark.parametrize("in_flight", [36, 64])
def test_a_candidate_that_turns_bad_in_a_small_batch_is_found_out(in_flight) -> None:
    broken, games = 0, 60
    for seed in range(games):
        number, until = count(), Random(seed).randrange(7, 70)
        session = BatchSession(
            70,
            [Tier("big", "reference", 1.0), Tier("small", "candidate", 0.01)],
            Guarantee(0.2, 0.9),
            max_in_flight=in_flight,
            seed=seed,
        )
        while calls := session.next_calls():
            for call in calls:
                bad = call.tier == "small" and next(number) >= until
                price = 1.0 if call.tier == "big" else 0.01
                session.record(call, Outcome("no" if bad else "yes", price))
        differing = sum(one.answer == "no" for one in session.answers)
        broken += differing > session.certificate.max_errors
    assert broken <= binom.isf(0.001, games, 0.1)


@pytest.mark.parametrize("n_items", [0, 1, 2, 17, 41])
@pytest.mark.parametrize("share", [0.001, 0.01, 0.5, 0.99])
def test_tiny_batches_and_extreme_allowances(
    drive, tiers, models, n_items, share
) -> None:
    session = BatchSession(n_items, tiers(2), Guarantee(share, 0.9))
    drive(session, models(n_items, 0.5, 0.5))
    assert len(session.answers) == n_items
    assert all(check.holds for check in verify(session.certificate))


def test_free_models_and_rules_that_are_no_keys(drive) -> None:
    tiers = [Tier("big", role="reference"), Tier("c1"), Tier("c2"), Tier("c3")]
    table = {
        "big": [Outcome(str(i), 0.0) for i in range(500)],
        "c1": [Outcome(f"about {i + 0.2}", 0.0) for i in range(500)],
        "c2": [Outcome(f"{i - 0.2}", 0.0) for i in range(500)],
        "c3": [Outcome(f"{i + 7}", 0.0) for i in range(500)],
    }
    session = BatchSession(
        500, tiers, Guarantee(0.1, 0.95), equivalence=Number(absolute=0.3)
    )
    drive(session, table)
    assert session.certificate.cost == 0
    wrong = sum(
        abs(float(served.answer.split()[-1]) - served.item) > 0.3
        for served in session.answers
    )
    assert wrong <= 50


@pytest.mark.parametrize("confidence", ["high", object()])
def test_a_confidence_that_is_no_number_is_refused(tiers, confidence) -> None:
    session = BatchSession(2000, tiers(1))
    call = next(call for call in session.next_calls() if call.tier == "c1")
    with pytest.raises(InvalidInputError, match="confidence"):
        session.record(call, Outcome("yes", 0.1, confidence=confidence))


@pytest.mark.parametrize("flight", [0, -1, 1.5, True])
def test_bad_max_in_flight_is_refused(tiers, flight) -> None:
    with pytest.raises(InvalidInputError, match="max_in_flight"):
        BatchSession(10, tiers(1), max_in_flight=flight)


# -- policies ----------------------------------------------------------------------


def applied(policy: Policy, *rows: list[str | None]):
    """Apply a policy to items, given each candidate's answers to them."""
    n_items = len(rows[0])
    names = [Tier("big", role="reference"), *(Tier(str(k)) for k in range(len(rows)))]
    batch = BatchRecord(n_items, names, Guarantee(), 0)
    batch.keyed = True
    for tier, row in enumerate(rows, 1):
        for item, answer in enumerate(row):
            if answer is not None:
                batch.status[tier, item] = ANSWERED
                batch.codes[tier, item] = ord(answer)
    return policy.apply(Answers.read(batch, np.arange(n_items), policy.tiers))


def test_policies_serve_the_largest_group() -> None:
    rows = (list("aaab"), list("abbc"), ["a", "b", "c", None])
    one = applied(Policy((1,)), *rows)
    assert one.server.tolist() == [1, 1, 1, 1]
    assert one.agreed.all()
    all_three = applied(Policy((1, 2, 3)), *rows)
    assert all_three.server.tolist() == [1, 2, 1, 1]
    assert all_three.agreed.tolist() == [True, False, False, False]
    cascade = applied(Policy((1, 2, 3), stops=True), *rows)
    assert cascade.agreed.tolist() == [True, True, False, False]
    assert cascade.asked[2].tolist() == [False, True, True, True]
    assert len(set(all_three.pattern.tolist())) == 4
    unanswered = applied(Policy((1, 2)), [None], [None])
    assert (unanswered.pattern[0], unanswered.server[0], unanswered.agreed[0]) == (
        -1,
        0,
        False,
    )


def test_the_family_holds_singles_unanimity_and_a_cascade() -> None:
    assert family([2]) == [Policy((2,))]
    assert family([2, 1]) == [Policy((2,)), Policy((1,)), Policy((2, 1))]
    assert family([1, 2, 3])[3:] == [Policy((1, 2, 3)), Policy((1, 2, 3), stops=True)]
    assert pairs([2, 1]) == []  # unanimity of two is in the family
    assert pairs([3, 1, 2]) == [Policy((3, 1)), Policy((3, 2)), Policy((1, 2))]


@pytest.mark.parametrize("seeds", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_a_pair_that_agrees_is_not_held_up_by_candidates_that_know_nothing(
    quick, seeds
) -> None:
    # Whatever is asked of three useless ones, two good ones agree on most items.
    good = [errors(4000, 0.08, seed) for seed in (1, 2)]
    useless = [errors(4000, 0.5, seed) for seed in (3, 4, 5)]
    costs = [1.0, 0.01, 0.01, 0.011, 0.012, 0.013]
    spent = mean(
        cost(quick, [*good, *useless], costs, 0.03, seed=s) for s in range(seeds)
    )
    alone = mean(cost(quick, good, costs[:3], 0.03, seed=s) for s in range(seeds))
    assert spent < alone + 0.12


def test_a_label_batch_and_its_certificate_as_a_file(drive, tiers, tmp_path) -> None:
    table = {
        "big": [Outcome("It is spam.", 1.0)] * 400,
        "c1": [Outcome("spam", 0.01)] * 380 + [Outcome("who knows", 0.01)] * 20,
    }
    session = BatchSession(
        400, tiers(1), Guarantee(0.1, 0.95), equivalence=Label(["spam", "ham"])
    )
    certificate = drive(session, table).certificate
    path = tmp_path / "certificate.json"
    path.write_text(certificate.model_dump_json())
    assert certificate.spend["c1"].failures > 0
    assert json.loads(path.read_text())["tests"][0]["policy"] == "c1"
