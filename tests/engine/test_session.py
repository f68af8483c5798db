"""The contract of `BatchSession`: each item answered, each cent counted."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smart_engine import (
    BatchSession,
    Call,
    Certificate,
    Failure,
    Guarantee,
    InvalidInputError,
    Label,
    Outcome,
    ProtocolError,
    Served,
    Usage,
)

STRATEGIES = ["reference", "audit", "exhaustive", "efficient", "mix"]
LOOKS = ["corrected", "paper"]
BROKEN = RuntimeError("no answer")


def wandering_drive(session: BatchSession, table: dict, dice: random.Random) -> list:
    """Drive a session with calls in flight for long, recorded in random order."""
    issued, flying = [], []
    patience, most = dice.choice([0.05, 0.5, 0.95]), dice.choice([None, 1, 7])
    while True:
        if not flying or dice.random() > patience:
            fresh = list(session.next_block(most))
            assert most is None or len(fresh) <= most
            issued += fresh
            flying += fresh
            if not flying:
                return issued
        place = dice.randrange(len(flying))
        flying[place], flying[-1] = flying[-1], flying[place]
        call = flying.pop()
        session.record(call, table[call.tier][call.item])


def right(one: Served, table: dict) -> bool:
    """Whether an item got the reference's answer."""
    return one.answer == table["big"][one.item].answer


def outcomes(seed: int, n_items: int, n_candidates: int, failing: float) -> dict:
    """Make a random table: answers, costs, tokens and failures of every model."""
    dice = random.Random(seed)
    table = {}
    for tier in range(n_candidates + 1):
        error_rate = 0.0 if tier == 0 else dice.choice([0.0, 0.02, 0.1, 0.5])
        scale = 1.0 if tier == 0 else dice.choice([0.01, 0.1, 0.5, 1.1])
        column: list[Outcome | Failure] = []
        for _ in range(n_items):
            cost = scale * dice.uniform(0.5, 1.5)
            usage = Usage(dice.randrange(1000), dice.randrange(100))
            if dice.random() < failing:
                column.append(Failure(BROKEN, cost if dice.random() < 0.5 else 0.0))
            else:
                answer = "no" if dice.random() < error_rate else "yes"
                column.append(Outcome(answer, cost, usage))
        table["big" if tier == 0 else f"c{tier}"] = column
    return table


@given(
    n_items=st.one_of(st.integers(1, 12), st.integers(13, 400)),
    n_candidates=st.integers(1, 4),
    strategy=st.sampled_from(STRATEGIES),
    looks=st.sampled_from(LOOKS),
    share=st.sampled_from([0.05, 0.2, 0.5]),
    failing=st.sampled_from([0.0, 0.05, 0.4]),
    seed=st.integers(0, 10**6),
)
def test_any_order_of_recording_gives_the_same_answers_and_books(
    drive, tiers, n_items, n_candidates, strategy, looks, share, failing, seed
) -> None:
    table = outcomes(seed, n_items, n_candidates, failing)

    def start() -> BatchSession:
        return BatchSession(
            n_items,
            tiers(n_candidates),
            Guarantee(share, 0.9),
            strategy=strategy,
            looks=looks,
            seed=seed,
        )

    orderly, wandering = drive(start(), table), start()
    issued = wandering_drive(wandering, table, random.Random(seed))
    certificate = wandering.certificate
    assert orderly.done
    assert wandering.done
    assert wandering.next_calls() == []
    assert orderly.answers == wandering.answers
    assert orderly.certificate.id == certificate.id

    # Each item is answered once, no call is made twice, every cost is counted.
    assert [served.item for served in wandering.answers] == list(range(n_items))
    assert len(issued) == len(set(issued))
    paid = sum(table[call.tier][call.item].cost for call in issued)
    assert certificate.cost == pytest.approx(paid)
    assert sum(served.cost for served in wandering.answers) == pytest.approx(paid)
    calls = Counter(call.tier for call in issued)
    assert {m: s.calls for m, s in certificate.spend.items() if s.calls} == calls
    served = Counter(one.tier for one in wandering.answers if one.error is None)
    assert {m: n for m, n in certificate.served.items() if n} == served

    # What is handed out is what was recorded, in the role it says.
    roles = Counter()
    for one in wandering.answers:
        roles[one.role] += 1
        recorded = table[one.tier][one.item]
        if isinstance(recorded, Failure):
            assert one.tier == "big"
            assert one.error is BROKEN
            assert one.answer is None
        else:
            assert one.error is None
            assert one.answer == recorded.answer
        if one.role != "applied":
            assert one.tier == "big"
    assert roles["profiled"] == certificate.profiled
    assert roles["escalated"] == certificate.escalated
    unanswered = sum(one.error is not None for one in wandering.answers)
    assert unanswered == certificate.unanswered


def test_seeds_draw_different_items(drive, tiers, models) -> None:
    def profiled(seed: int) -> set[int]:
        session = BatchSession(500, tiers(1), seed=seed)
        answers = drive(session, models(500, 0.0)).answers
        return {one.item for one in answers if one.role == "profiled"}

    assert profiled(1) == profiled(1)
    assert profiled(1) != profiled(2)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_profiled_items_get_the_references_answer(
    drive, tiers, models, strategy
) -> None:
    table = models(800, 0.3)
    session = BatchSession(800, tiers(1), Guarantee(0.35), strategy=strategy)
    drive(session, table)
    profiled = [one for one in session.answers if one.role == "profiled"]
    assert (strategy == "reference") == (not profiled)
    assert all(one.tier == "big" and right(one, table) for one in profiled)


def test_certificate_states_promise_evidence_and_savings(drive, tiers, models) -> None:
    table = models(2000, 0.0, 0.6)
    session = BatchSession(2000, tiers(2), Guarantee(0.05, 0.95), strategy="exhaustive")
    certificate = drive(session, table).certificate
    good, bad = certificate.evidence
    assert (good.model, good.errors, good.verdict) == ("c1", 0, "admitted")
    assert good.mean_cost == pytest.approx(0.01)
    assert (bad.model, bad.verdict) == ("c2", "ruled out")
    assert bad.draws < good.draws == certificate.profiled
    assert certificate.max_errors == 100
    assert certificate.reference_only_cost == pytest.approx(2000)
    assert certificate.saved == pytest.approx(2000 - certificate.cost)
    assert certificate.served == {
        "big": certificate.profiled,
        "c1": 2000 - certificate.profiled,
        "c2": 0,
    }


def test_tokens_are_summed(drive, tiers) -> None:
    table = {"big": [Outcome(1, 1.0, Usage(10, 2))] * 500}
    table["c1"] = [Failure(BROKEN, 0.1, Usage(5, 0))] * 500
    spend = drive(BatchSession(500, tiers(1)), table).certificate.spend
    assert (spend["big"].input_tokens, spend["big"].output_tokens) == (5000, 1000)
    assert spend["c1"].input_tokens == 5 * spend["c1"].calls > 0


# -- when models fail ----------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
@pytest.mark.parametrize("looks", LOOKS)
def test_a_candidate_that_always_fails_never_serves(
    drive, tiers, models, strategy, looks
) -> None:
    table = models(300) | {"c1": [Failure(BROKEN, 0.01)] * 300}
    session = BatchSession(300, tiers(1), strategy=strategy, looks=looks)
    certificate = drive(session, table).certificate
    assert all(one.tier == "big" and right(one, table) for one in session.answers)
    failed = certificate.spend["c1"]
    assert failed.failures == failed.calls > 0
    assert failed.cost == pytest.approx(0.01 * failed.calls)
    assert certificate.spend["big"].calls == 300


@pytest.mark.parametrize("broken", [Failure(BROKEN, 0.01), Outcome("maybe?", 0.01)])
def test_applied_items_without_a_usable_answer_escalate(
    drive, tiers, models, broken
) -> None:
    n_items = 1000
    table = models(n_items, 0.0)
    table["c1"][::20] = [broken] * 50
    session = BatchSession(
        n_items, tiers(1), Guarantee(0.1), equivalence=Label(["yes", "no"])
    )
    certificate = drive(session, table).certificate
    by_role = {role: [] for role in ("profiled", "applied", "escalated")}
    for one in session.answers:
        by_role[one.role].append(one)
        assert right(one, table)
    profiled = {one.item for one in by_role["profiled"]}
    assert {one.item for one in by_role["escalated"]} == {
        item for item in range(0, n_items, 20) if item not in profiled
    }
    assert {one.tier for one in by_role["escalated"]} == {"big"}
    assert {one.tier for one in by_role["applied"]} == {"c1"}
    assert certificate.escalated == len(by_role["escalated"]) > 0
    assert all(one.cost == pytest.approx(1.01) for one in by_role["escalated"])
    assert certificate.evidence[0].errors == 0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_failing_reference_is_reported_and_the_others_are_served(
    drive, tiers, models, strategy
) -> None:
    def run() -> BatchSession:
        session = BatchSession(1000, tiers(1), Guarantee(0.05), strategy=strategy)
        return drive(session, table)

    table = models(1000, 0.0)
    broken = next(one.item for one in run().answers if one.tier == "big")
    table["big"][broken] = Failure(BROKEN, 0.3)
    session = run()
    failed = session.answers[broken]
    assert (failed.tier, failed.error, failed.answer) == ("big", BROKEN, None)
    assert failed.cost >= 0.3
    for one in session.answers:
        assert one.item == broken or (one.error is None and right(one, table))
    assert session.certificate.unanswered == 1


def test_where_the_reference_fails_every_candidate_counts_as_wrong(
    drive, tiers, models
) -> None:
    table = models(500, 0.0) | {"big": [Failure(BROKEN, 1.0)] * 500}
    session = BatchSession(500, tiers(1), Guarantee(0.05), strategy="exhaustive")
    evidence = drive(session, table).certificate.evidence[0]
    assert evidence.errors == evidence.draws
    assert evidence.verdict == "ruled out"


def test_an_equivalence_that_raises_never_loses_an_answer(drive, tiers, models) -> None:
    def quarrelsome(left: str, right: str) -> bool:
        raise ZeroDivisionError

    session, table = (
        BatchSession(200, tiers(1), equivalence=quarrelsome),
        models(200, 0.0),
    )
    drive(session, table)
    assert all(one.error is None and right(one, table) for one in session.answers)
    evidence = session.certificate.evidence[0]
    assert evidence.errors == evidence.draws > 0


def test_an_unreadable_reference_answer_is_still_handed_out(
    drive, tiers, models
) -> None:
    table = models(100, 0.0)
    table["big"] = [Outcome("hm", 1.0)] * 100
    session = BatchSession(100, tiers(1), equivalence=Label(["yes", "no"]))
    drive(session, table)
    assert {one.answer for one in session.answers if one.tier == "big"} == {"hm"}
    assert session.certificate.unanswered == 0


# -- edges ---------------------------------------------------------------------


def test_an_empty_batch_is_done_at_no_cost(tiers) -> None:
    session = BatchSession(0, tiers(2), strategy="reference")
    assert session.next_calls() == []
    assert session.done
    assert session.answers == []
    assert session.certificate.cost == 0
    assert session.certificate.reference_only_cost is None
    assert session.certificate.saved is None


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("looks", LOOKS)
@pytest.mark.parametrize("n_items", [1, 2, 11])
def test_tiny_batches_are_answered(
    drive, tiers, models, strategy, looks, n_items
) -> None:
    session = BatchSession(n_items, tiers(1), strategy=strategy, looks=looks)
    table = models(n_items, 1.0)
    drive(session, table)
    assert all(right(one, table) for one in session.answers)


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
@pytest.mark.parametrize(("n_items", "share"), [(40, 0.9), (100, 0.99), (10, 0.95)])
def test_with_almost_everything_allowed_a_wrong_candidate_stays_within_max_errors(
    drive, tiers, models, strategy, n_items, share
) -> None:
    guarantee = Guarantee(share, 0.95)
    session = BatchSession(n_items, tiers(1), guarantee, strategy=strategy)
    table = models(n_items, 1.0)
    drive(session, table)
    differing = sum(not right(one, table) for one in session.answers)
    assert differing <= guarantee.max_errors(n_items)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_free_reference_answers_everything(drive, tiers, models, strategy) -> None:
    session = BatchSession(500, tiers(1), strategy=strategy)
    certificate = drive(session, models(500, 0.0, costs=(0.0, 0.01))).certificate
    assert certificate.served == {"big": 500, "c1": 0}
    assert certificate.reference_only_cost == 0
    assert certificate.saved == pytest.approx(-certificate.cost)


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
@pytest.mark.parametrize("looks", LOOKS)
def test_measured_cost_decides_not_the_order_of_the_list(
    drive, tiers, models, strategy, looks
) -> None:
    table = models(2000, 0.0, 0.0, 0.0, costs=(1.0, 1.3, 0.2, 0.05))
    session = BatchSession(2000, tiers(3), strategy=strategy, looks=looks)
    certificate = drive(session, table).certificate
    assert certificate.served["c1"] == certificate.served["c2"] == 0
    assert certificate.served["c3"] > 1500
    assert certificate.evidence[0].verdict == "too dear"


def test_escalations_count_towards_a_candidates_cost(drive, tiers, models) -> None:
    table = models(1000, 0.0, costs=(1.0, 0.6))
    table["c1"][::2] = [Failure(BROKEN, 0.6)] * 500
    session = BatchSession(1000, tiers(1), Guarantee(0.2), strategy="exhaustive")
    evidence = drive(session, table).certificate.evidence[0]
    assert evidence.mean_cost == pytest.approx(1.1, abs=0.2)
    assert evidence.verdict == "too dear"


# -- misuse --------------------------------------------------------------------


def test_recording_what_is_not_in_flight_is_refused_and_changes_nothing(
    drive, tiers, models
) -> None:
    table = models(100, 0.0)
    untouched = drive(BatchSession(100, tiers(1)), table).certificate.id
    session = BatchSession(100, tiers(1))
    first, second, *rest = session.next_calls()
    session.record(first, table[first.tier][first.item])
    asked = {call.item for call in (first, second, *rest)}
    unasked = next(item for item in range(100) if item not in asked)
    for call in (first, Call(first.item, "nobody"), Call(unasked, "big")):
        with pytest.raises(ProtocolError, match="not in flight"):
            session.record(call, Outcome("no", 5.0))
    for cost in (-1e-9, float("nan"), float("inf")):
        for outcome in (Outcome("no", cost), Failure(BROKEN, cost)):
            with pytest.raises(InvalidInputError, match="cost="):
                session.record(second, outcome)
    for call in (second, *rest):
        session.record(call, table[call.tier][call.item])
    assert drive(session, table).certificate.id == untouched


@pytest.mark.parametrize("failing", [0.0, 0.05])
def test_without_keeping_answers_a_session_ends_the_same(drive, tiers, failing) -> None:
    table = outcomes(5, 600, 2, failing)
    keeping, sparing = (
        drive(BatchSession(600, tiers(2), seed=3, keep_answers=keep), table)
        for keep in (True, False)
    )
    assert keeping.certificate.id == sparing.certificate.id
    assert sparing.answers == [one._replace(answer=None) for one in keeping.answers]
    assert list(sparing.bought(0)) == []


def test_a_rule_that_compares_pairs_needs_the_answers(tiers) -> None:
    with pytest.raises(InvalidInputError, match="keep_answers=True"):
        BatchSession(10, tiers(1), equivalence=lambda a, b: a == b, keep_answers=False)


def test_a_session_that_ends_early_has_calls_not_handed_out(tiers) -> None:
    session = BatchSession(100, tiers(1))
    first = session.next_block(3)
    session.stop(first, BROKEN)
    assert session.done
    assert session.next_calls() == []
    assert {one.error for one in session.answers} == {BROKEN}
    assert session.certificate.cost == 0


def test_results_before_the_end_are_refused(tiers, models) -> None:
    session = BatchSession(100, tiers(1))
    table = models(100, 0.0)
    while True:
        for what in ("answers", "certificate"):
            with pytest.raises(ProtocolError, match=f"{what} of an unfinished session"):
                getattr(session, what)
        assert not session.done
        calls = session.next_calls()
        if session.done:
            break
        assert session.next_calls() == []  # all are in flight
        for call in calls[:-1]:
            session.record(call, table[call.tier][call.item])
        last = calls[-1]
        with pytest.raises(ProtocolError):
            _ = session.certificate
        session.record(last, table[last.tier][last.item])
    assert len(session.answers) == 100


def test_spend_and_bought_tell_what_an_unfinished_session_paid(tiers) -> None:
    session = BatchSession(2000, tiers(1))
    calls = session.next_calls()
    big = next(call for call in calls if call.tier == "big")
    session.record(big, Outcome("yes", 0.5))
    session.record(Call(big.item, "c1"), Failure(BROKEN, 0.25))
    assert session.spend["big"].cost == 0.5
    assert (session.spend["c1"].failures, session.spend["c1"].cost) == (1, 0.25)
    assert dict(session.bought(big.item)) == {"big": "yes"}


# -- the certificate -----------------------------------------------------------


def test_certificates_survive_json_and_keep_their_id(drive, tiers, models) -> None:
    certificate = drive(BatchSession(600, tiers(2)), models(600, 0.0, 0.1)).certificate
    again = Certificate.model_validate_json(certificate.model_dump_json())
    assert again == certificate
    assert again.id == certificate.id
    assert again.model_copy(update={"seed": 1}).id != certificate.id


def test_certificates_written_before_are_still_read(drive, tiers, models) -> None:
    certificate = drive(BatchSession(600, tiers(2)), models(600, 0.0, 0.1)).certificate
    assert certificate.tests
    before = certificate.model_dump_json().replace('"max_errors"', '"budget"')
    assert Certificate.model_validate_json(before) == certificate


def test_claims_say_whether_the_confidence_is_kept(drive, tiers, models) -> None:
    def claim(strategy: str, looks: str) -> str:
        session = BatchSession(
            400, tiers(1), Guarantee(0.05, 0.9), strategy=strategy, looks=looks
        )
        return drive(session, models(400, 0.0)).certificate.claim

    for sentence in (claim("mix", "corrected"), claim("reference", "paper")):
        assert sentence.startswith("With probability at least 0.9, at most 20 of 400")
        assert "'Exact()'" in sentence
    assert "not kept at the worst case" in claim("mix", "paper")
    assert "looks='paper'" in claim("mix", "paper")


def test_cached_answers_are_not_paid_for_but_planned_with(drive, tiers, models) -> None:
    table = models(600, 0.02)
    cached = {
        name: [o._replace(cached=True) for o in row] for name, row in table.items()
    }
    paid = drive(BatchSession(600, tiers(1)), table)
    free = drive(BatchSession(600, tiers(1)), cached)
    assert [a.tier for a in free.answers] == [a.tier for a in paid.answers]
    assert free.certificate.cost == sum(a.cost for a in free.answers) == 0
    assert free.certificate.reference_only_cost == pytest.approx(600)
    assert free.certificate.saved == pytest.approx(600)
