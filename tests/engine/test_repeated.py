"""Sessions whose items repeat: a model is asked once, every item counts."""

from __future__ import annotations

from collections import Counter, deque
from contextlib import nullcontext

import numpy as np
import pytest
from test_resumed import Memory
from verdicts import refuted

from smart_engine import BatchSession, Guarantee, Outcome, Tier
from smart_engine.calls import Failure
from smart_engine.errors import BudgetExceededError
from smart_engine.money.budget import Budget
from smart_engine.money.ledger import LedgerEntries, LedgerScope
from smart_engine.money.reservations import Reservations
from smart_engine.serving.budgeted import BudgetedSession
from smart_engine.serving.repeated import RepeatedSession, first_places
from smart_engine.serving.resume import ResumedSession

TIERS = [Tier("big", role="reference"), Tier("small")]
COST = {"big": 1.0, "small": 0.01}


def session_of(firsts, *, guarantee=None, **how) -> RepeatedSession:
    """Return a session over items of which some ask the same."""
    batch = BatchSession(len(firsts), TIERS, guarantee, firsts=firsts, **how)
    return RepeatedSession(batch, firsts)


def drive(session, answer, at_once: int = 8, rng=None) -> list:
    """Run a session to its end, several calls at once; return the calls made."""
    flying, made = deque(), []
    while True:
        flying.extend(session.next_calls())
        if not flying:
            return made
        if rng is not None:
            flying.rotate(int(rng.integers(min(at_once, len(flying)))))
        call = flying.popleft()
        made.append(call)
        session.record(call, answer(call))


def truth(firsts, wrong=()):
    """Return what models answer: candidates err on some requests."""

    def answer(call):
        request = firsts[call.item]
        errs = call.tier == "small" and request in wrong
        return Outcome("no" if errs else f"yes {request % 3}", COST[call.tier])

    return answer


FIRSTS = first_places([number % 40 for number in range(400)])


def test_a_request_is_made_once_and_answers_all_its_items():
    session = session_of(FIRSTS)
    made = drive(session, truth(FIRSTS))
    requests = Counter((FIRSTS[item], tier) for item, tier in made)
    assert set(requests.values()) == {1}
    assert session.done
    served = session.answers
    assert [one.answer for one in served] == [f"yes {first % 3}" for first in FIRSTS]
    assert sum(one.cost for one in served) == pytest.approx(session.certificate.cost)
    assert session.certificate.answered == 400


@pytest.mark.parametrize("strategy", ["audit", "mix", "exhaustive"])
def test_a_batch_takes_its_course_as_if_every_item_were_asked(strategy):
    how = {"strategy": strategy, "seed": 3, "guarantee": Guarantee(0.1, 0.9)}
    answer = truth(FIRSTS, wrong={7})
    shared, whole = session_of(FIRSTS, **how), BatchSession(400, TIERS, **how)
    drive(shared, answer)
    drive(whole, answer)
    one, other = shared.certificate, whole.certificate
    for name in ("tests", "evidence", "profiled", "served", "valid", "claim"):
        assert getattr(one, name) == getattr(other, name)
    assert one.cost < 0.6 * other.cost


def test_the_order_of_results_changes_no_certificate():
    seen = set()
    for seed in range(5):
        session = session_of(FIRSTS, seed=1)
        drive(session, truth(FIRSTS, wrong={3}), rng=np.random.default_rng(seed))
        seen.add(session.certificate.id)
    assert len(seen) == 1


def test_saving_is_measured_against_a_reference_that_is_asked_once_too():
    alone = session_of(FIRSTS, strategy="reference")
    drive(alone, truth(FIRSTS))
    assert alone.certificate.cost == alone.certificate.reference_only_cost == 40
    session = session_of(FIRSTS)
    drive(session, truth(FIRSTS))
    assert session.certificate.reference_only_cost == pytest.approx(40)
    assert session.progress().saved == pytest.approx(session.certificate.saved)


def test_the_ledger_has_a_row_for_every_item_and_what_was_paid():
    entries = LedgerEntries()
    session = session_of(FIRSTS, scope=LedgerScope(entries, "big", "task"))
    made = drive(session, truth(FIRSTS))
    sums = entries.ledger().sums("outcome")
    assert sums["answered"].calls == len(made)
    assert sums["cached"].cost == 0
    paid = sum(COST[call.tier] for call in made)
    assert sums["answered"].cost == pytest.approx(paid)
    assert session.certificate.cost == pytest.approx(paid)


def test_what_failed_before_an_answer_is_paid_once():
    reset = Failure(ConnectionResetError(), unknown=0.5)
    session = session_of([0] * 100)
    drive(session, lambda call: Outcome("yes", COST[call.tier], earlier=(reset,)))
    assert session.certificate.unknown == 2 * 0.5
    assert session.certificate.cost == pytest.approx(2 * 0.5 + sum(COST.values()))


def test_an_answer_that_is_changed_changes_no_other():
    firsts = [0] * 100
    session = session_of(firsts)
    drive(session, lambda call: Outcome({"cost": [1]}, COST[call.tier]))
    first, *others = (served.answer for served in session.answers)
    first["cost"].append(2)
    assert all(other == {"cost": [1]} for other in others)


def test_an_answer_that_cannot_be_copied_is_shared():
    session = session_of([0] * 100)
    answer = (piece for piece in "yes")
    drive(session, lambda call: Outcome(answer, COST[call.tier]))
    assert {served.answer for served in session.answers} == {answer}


def test_a_failure_is_not_shared():
    failed = []

    def answer(call):
        if call.tier == "small" and not failed:
            failed.append(call)
            return Failure(ConnectionError("reset"))
        return Outcome("yes", COST[call.tier])

    session = session_of([0] * 200)
    made = drive(session, answer)
    assert [call for call in made if call.tier == "small"][:1] == failed
    assert sum(call.tier == "small" for call in made) == 2
    assert sum(call.tier == "big" for call in made) == 1
    assert session.certificate.spend["small"].failures == 1
    assert session.certificate.unanswered == 0


def test_a_model_that_always_fails_is_asked_more_and_more_at_once():
    session = session_of([0] * 256, strategy="reference")
    rounds = []
    while calls := session.next_calls():
        rounds.append(len(calls))
        for call in calls:
            session.record(call, Failure(TimeoutError("slow")))
    assert sum(rounds) == 256
    assert rounds[0] == 1
    assert len(rounds) < 15
    assert session.done
    assert session.certificate.unanswered == 256


# -- with a budget, and from a store --------------------------------------------------


def budgeted(firsts, usd: float, *, strict: bool = False) -> BudgetedSession:
    budget = Budget(usd, nullcontext())
    reservations = Reservations(budget, lambda call: COST[call.tier], nullcontext())
    return BudgetedSession(session_of(firsts), reservations, strict=strict)


def test_shared_answers_need_no_budget():
    session = budgeted([0] * 500, 1.01)
    drive(session, truth([0] * 500))
    assert session.certificate.valid
    assert session.certificate.uncertified == 0


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("usd", [0.005, 0.5, 1.5, 4.2, 20.0])
def test_a_budget_may_end_while_items_wait(usd, strict):
    session = budgeted(FIRSTS, usd, strict=strict)
    drive(session, truth(FIRSTS))
    assert session.done
    assert session.certificate.cost <= usd
    assert session.certificate.uncertified > 0
    for served in session.answers:
        if served.error is not None:
            assert isinstance(served.error, BudgetExceededError)


@pytest.mark.parametrize("cut", [1, 5, 20, 45])
def test_a_job_that_goes_on_pays_once_for_a_request(cut):
    """Also where the first item with a request failed, and another one was asked."""
    stored, bought, lost = Memory(), Counter(), set()
    answer = truth(FIRSTS, wrong={5})

    def once_down(call):
        request = (FIRSTS[call.item], call.tier)
        if request[0] % 4 == 0 and request not in lost:
            lost.add(request)
            return Failure(ConnectionError("reset"))
        bought[request] += 1
        return answer(call)

    session = ResumedSession(session_of(FIRSTS, seed=2), stored, FIRSTS)
    flying = deque(session.next_calls())
    for _ in range(cut):
        call = flying.popleft()
        session.record(call, once_down(call))
        flying.extend(session.next_calls())
    session = ResumedSession(session_of(FIRSTS, seed=2), stored, FIRSTS)
    drive(session, once_down)
    assert session.done
    assert set(bought.values()) == {1}
    paid = sum(COST[tier] * times for (_, tier), times in bought.items())
    assert session.certificate.cost == pytest.approx(paid)


# -- the guarantee --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "games", "groups"),
    [
        ("audit", 30, 3),
        ("mix", 100, 1),
        pytest.param("mix", 100, 3, marks=pytest.mark.slow),
        pytest.param("audit", 1000, 1, marks=pytest.mark.slow),
        pytest.param("audit", 1000, 3, marks=pytest.mark.slow),
    ],
)
def test_errors_in_a_few_requests_break_the_guarantee_no_more_often(
    strategy, games, groups
):
    """One error more than is allowed, and all of them in the same few requests."""
    items, guarantee = 120, Guarantee(0.1, 0.95)
    wrong = guarantee.max_errors(items) + 1

    def lost():
        for seed in range(games):
            rng = np.random.default_rng([seed, groups])
            requests = np.arange(items) + groups
            requests[rng.choice(items, wrong, False)] = np.arange(wrong) % groups
            firsts = first_places(requests.tolist())
            errs = {firsts[item] for item in np.flatnonzero(requests < groups)}
            session = session_of(
                firsts, guarantee=guarantee, strategy=strategy, seed=seed
            )
            drive(session, truth(firsts, errs))
            differing = sum(served.answer == "no" for served in session.answers)
            yield differing > guarantee.max_errors(items)

    assert not refuted(0.05, games, lost())
