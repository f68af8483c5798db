"""A budget holds, calls in flight included, and what was bought is handed out."""

from __future__ import annotations

import threading
from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smart_engine import BatchSession, Exact, Guarantee, Outcome, ProtocolError, Tier
from smart_engine.calls import Call, Failure
from smart_engine.errors import BudgetExceededError, InvalidInputError
from smart_engine.serving.books import Books
from smart_engine.serving.item import SingleItem
from smart_engine.serving.purse import Purse
from smart_engine.serving.terms import Terms

MOST = {"big": 1.0, "small": 0.1, "tiny": 0.01}
NAMES = ("big", "small", "tiny")


def terms(budget: float | None, **settings: object) -> Terms:
    """Return terms over three models."""
    told = Terms(NAMES, Guarantee(0.1, 0.9), Exact(), budget_usd=budget, **settings)
    told.check()
    return told


def most(call: Call) -> float:
    """Return the most a call can cost."""
    return MOST[call.tier]


def run(session, seed=0, share=1.0, at_once=8, wrong=0.05):
    """Drive a session in random order; return what was in flight at most, in USD."""
    rng = np.random.default_rng(seed)
    flying: list[Call] = []
    while True:
        flying += session.next_calls()
        if not flying:
            return
        rng.shuffle(flying)
        for _ in range(min(len(flying), at_once)):
            call = Call(*flying.pop())
            cost = MOST[call.tier] * (share if share < 1 else rng.uniform(0.5, 1))
            if rng.random() < 0.05:
                session.record(call, Failure(ValueError("no"), cost))
                continue
            bad = call.tier != "big" and (call.item * 7919 % 1000) < 1000 * wrong
            session.record(call, Outcome("no" if bad else "yes", cost))


@settings(max_examples=60, deadline=None)
@given(
    budget=st.floats(0.005, 300),
    seed=st.integers(0, 99),
    strategy=st.sampled_from(["audit", "mix", "exhaustive", "reference"]),
    strict=st.booleans(),
)
def test_a_batch_never_spends_more_than_its_budget(budget, seed, strategy, strict):
    mode = "strict" if strict else "serve"
    told = terms(budget, strategy=strategy, mode=mode)
    session = told.session(200, Exact(), None, most)
    run(session, seed)
    certificate = session.certificate
    assert certificate.cost <= budget * (1 + 1e-9)
    assert session.done
    roles = [served.role for served in session.answers]
    assert len(roles) == 200
    assert roles.count("uncertified") == certificate.uncertified
    served = sum(certificate.served.values())
    assert (
        served
        + sum(
            a.tier == "big"
            and a.error is not None
            and a.answer is None
            and a.role == "uncertified"
            for a in session.answers
        )
        == 200
    )
    for answer in session.answers:
        if answer.role == "uncertified":
            assert not certificate.valid
            kind = isinstance(answer.error, BudgetExceededError)
            assert kind or (not strict and answer.answer in {"yes", "no"})


def test_a_budget_that_suffices_changes_nothing():
    free = terms(None).session(500, Exact(), "t")
    capped = terms(1000.0).session(500, Exact(), "t", most)
    run(free, at_once=1)
    run(capped, at_once=1)
    assert capped.certificate == free.certificate
    for left, right in zip(capped.answers, free.answers, strict=True):
        assert left._replace(error=None) == right._replace(error=None)
    assert capped.certificate.uncertified == 0


def test_what_was_bought_is_handed_out_and_marked():
    session = terms(20.0).session(400, Exact(), None, most)
    run(session)
    certificate = session.certificate
    assert certificate.cost > 18
    assert not certificate.valid
    assert "budget ended" in certificate.claim
    roles = {served.role for served in session.answers}
    assert "uncertified" in roles
    assert "profiled" in roles
    unanswered = [a for a in session.answers if a.error is not None]
    assert certificate.unanswered >= len(unanswered) > 0
    assert any(isinstance(a.error, BudgetExceededError) for a in unanswered)


def test_strict_hands_out_nothing_that_is_not_covered():
    session = terms(20.0, mode="strict").session(400, Exact(), None, most)
    run(session)
    for served in session.answers:
        if served.role == "uncertified":
            assert isinstance(served.error, BudgetExceededError)
            assert served.answer is None


def test_a_session_stops_only_with_nothing_else_in_flight():
    session = BatchSession(10, [Tier("big", role="reference"), Tier("small")])
    first, *others = session.next_calls()
    with pytest.raises(ProtocolError, match="calls are in flight"):
        session.stop(others, ValueError("enough"))
    session.record(first, Outcome("yes", 1.0))
    session.stop(others, ValueError("enough"))
    assert session.done
    assert session.next_calls() == []
    with pytest.raises(ProtocolError):
        session.stop([], ValueError("again"))
    assert sum(str(a.error) == "enough" for a in session.answers) == 9


@pytest.mark.parametrize("budget", [0, -1, float("nan"), float("inf"), "1", True])
def test_a_budget_is_a_number_of_dollars(budget):
    with pytest.raises(InvalidInputError, match="budget_usd"):
        terms(budget)


def test_strict_needs_a_budget():
    with pytest.raises(InvalidInputError, match="set budget_usd"):
        terms(None, mode="strict")


def one(told: Terms, books: Books, answer="yes", **how) -> tuple[object, dict]:
    """Answer one item; return the answer and what is told of it."""
    decider = told.decider(books, Exact(), "t", most=most, **how)
    item = SingleItem(decider, books, "big", "t")
    with item.admitted(shown=False):
        while calls := item.next_calls():
            for call in calls:
                item.record(call, Outcome(answer, MOST[call.tier]))
        return item.settle(), item.told


def test_a_stream_keeps_to_its_budget_and_serves_uncertified():
    told, books = terms(12.0), Books(nullcontext, NAMES)
    roles = []
    for _ in range(3000):
        try:
            roles.append(one(told, books)[1]["role"])
        except BudgetExceededError:
            roles.append("none")
    assert books.report().cost <= 12.0 * (1 + 1e-9)
    assert roles.index("uncertified") < roles.index("none")
    assert roles[-1] == "none"
    (state,) = books.report().streams
    assert state.answered == len([r for r in roles if r not in {"uncertified", "none"}])


def test_a_strict_stream_raises_instead_of_falling_back():
    told, books = terms(5.0, mode="strict"), Books(nullcontext, NAMES)
    for _ in range(4):
        one(told, books)
    with pytest.raises(BudgetExceededError, match="raise budget_usd"):  # noqa: PT012
        for _ in range(3000):
            one(told, books)
    assert books.report().cost <= 5.0 * (1 + 1e-9)


@pytest.mark.parametrize("how", [{"model": "big"}, {}])
def test_a_named_model_and_the_reference_alone_keep_to_it_too(how):
    told = terms(3.0, strategy="reference")
    books = Books(nullcontext, NAMES)
    for _ in range(3):
        one(told, books, **how)
    with pytest.raises(BudgetExceededError):
        one(told, books, **how)


def test_threads_share_a_purse():
    purse = Purse(100.0, threading.Lock())
    granted = []

    def work(number: int) -> None:
        rng = np.random.default_rng(number)
        for _ in range(2000):
            if purse.reserve(0.5):
                paid = float(rng.uniform(0, 0.5))
                granted.append(paid)
                purse.settle(0.5, paid)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 95 < sum(granted) <= 100.0
