"""A budget holds, calls in flight included, and what was bought is handed out."""

from __future__ import annotations

import threading
from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from items import admitted

from smart_engine import BatchSession, Exact, Guarantee, Outcome, ProtocolError, Tier
from smart_engine.calls import Call, Failure
from smart_engine.errors import BudgetExceededError, InvalidInputError
from smart_engine.money.budget import Budget
from smart_engine.money.pricing import Usage
from smart_engine.money.reservations import Reservations
from smart_engine.serving.books import Books
from smart_engine.serving.budgeted import BudgetedRouter
from smart_engine.serving.checks import check
from smart_engine.serving.config import ServingConfig
from smart_engine.serving.router import FixedRouter
from smart_engine.serving.routing import single_item
from smart_engine.serving.sessions import batch_budget, begin_session, wrapped

MOST = {"big": 1.0, "small": 0.1, "tiny": 0.01}
NAMES = ("big", "small", "tiny")
BUDGETS = st.floats(0.005, 300)
STRATEGIES = st.sampled_from(["audit", "mix", "exhaustive", "reference"])


def terms(budget: float | None, **settings: object) -> ServingConfig:
    """Return terms over three models."""
    settings = {"min_saving": 0.0, **settings}  # candidates are tried at once
    told = ServingConfig(
        NAMES, Guarantee(0.1, 0.9), Exact(), budget_usd=budget, **settings
    )
    check(told)
    return told


def most(call: Call) -> float:
    """Return the most a call can cost."""
    return MOST[call.tier]


def session_of(
    told, items, task=None, worst_case=most, scope=None, books=None, needed=True
):
    """Return a session within the budget of the terms, and what it reserves."""
    books = books or Books(threading.Lock, NAMES)
    reservations = Reservations(batch_budget(told, books), worst_case, books.new_lock())
    begun = begin_session(told, items, Exact(), task, scope=scope, books=books)
    calls = (Call(item, "big") for item in range(items)) if needed else None
    return wrapped(begun, told, reservations=reservations, needed=calls), reservations


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


@given(
    budget=BUDGETS,
    seed=st.integers(0, 99),
    strategy=STRATEGIES,
    strict=st.booleans(),
)
def test_a_batch_never_spends_more_than_its_budget(budget, seed, strategy, strict):
    mode = "strict" if strict else "serve"
    told = terms(budget, strategy=strategy, mode=mode)
    session, _ = session_of(told, 200)
    run(session, seed)
    certificate = session.certificate
    assert certificate.cost <= budget * (1 + 1e-9)
    assert session.done
    roles = [served.role for served in session.answers]
    assert len(roles) == 200
    assert roles.count("uncertified") == certificate.uncertified
    served = sum(certificate.served.values())
    unanswered = sum(one.error is not None for one in session.answers)
    assert certificate.unanswered == unanswered == 200 - served
    for answer in session.answers:
        if answer.role == "uncertified":
            assert not certificate.valid
            kind = isinstance(answer.error, BudgetExceededError)
            assert kind or (not strict and answer.answer in {"yes", "no"})


def test_a_budget_that_suffices_changes_nothing():
    free = begin_session(terms(None), 500, Exact(), "t")
    capped, _ = session_of(terms(1000.0), 500, "t")
    run(free, at_once=1)
    run(capped, at_once=1)
    assert capped.certificate == free.certificate
    for left, right in zip(capped.answers, free.answers, strict=True):
        assert left._replace(error=None) == right._replace(error=None)
    assert capped.certificate.uncertified == 0


def test_what_was_bought_is_handed_out_and_marked():
    session, _ = session_of(terms(20.0), 400)
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


@pytest.mark.parametrize("strategy", ["audit", "mix", "exhaustive", "reference"])
def test_what_pays_no_call_of_the_reference_buys_nothing(strategy):
    session, reservations = session_of(terms(0.9, strategy=strategy), 400)
    run(session)
    assert session.certificate.cost == 0
    assert reservations.budget.left == 0.9
    for served in session.answers:
        assert isinstance(served.error, BudgetExceededError)
        assert "budget_usd=0.9" in str(served.error)


def test_a_batch_that_pays_one_call_of_the_reference_begins():
    sizes = {"big": [5.0] * 399 + [0.8], "small": [0.1] * 400, "tiny": [0.01] * 400}
    session, _ = session_of(
        terms(0.9), 400, worst_case=lambda call: sizes[call.tier][call.item]
    )
    assert session.next_calls()


def test_a_job_under_a_promise_of_its_task_may_need_no_call_of_the_reference():
    session, _ = session_of(terms(0.9), 400, needed=False)
    assert {call.tier for call in session.next_calls()} == {"small", "tiny"}


def test_strict_hands_out_nothing_that_is_not_covered():
    session, _ = session_of(terms(20.0, mode="strict"), 400)
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


NO_BUDGETS = [0, -1, float("nan"), float("inf"), 10**400, "1", True]


@pytest.mark.parametrize("budget", NO_BUDGETS, ids=lambda budget: str(budget)[:9])
def test_a_budget_is_a_number_of_dollars(budget):
    with pytest.raises(InvalidInputError, match="budget_usd"):
        terms(budget)


def test_strict_needs_a_budget():
    with pytest.raises(InvalidInputError, match="set budget_usd"):
        terms(None, mode="strict")


def one(told: ServingConfig, books: Books, answer="yes", **how) -> tuple[object, dict]:
    """Answer one item; return the answer and what is told of it."""
    item = single_item(told, books, Exact(), "t", most, **how)
    with admitted(item):
        while calls := item.next_calls():
            for call in calls:
                item.record(call, Outcome(answer, MOST[call.tier]))
        return item.settle(), item.mark


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
    assert state.answered == sum(state.served.values()) == 3000 - roles.count("none")
    assert state.roles["uncertified"] == roles.count("uncertified")
    assert state.abandoned == roles.count("none")
    assert not state.valid
    assert "answers were handed out uncertified" in state.claim
    calls = sum(spend.calls for spend in state.spend.values())
    assert calls == len(books.ledger().entries)
    assert sum(spend.failures for spend in state.spend.values()) == 0


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


@pytest.mark.parametrize(
    ("failure", "taken"),
    [
        (Failure(TimeoutError(), unknown=1.0), 1.0),
        (Failure(GeneratorExit(), 0.4, Usage(1, 1)), 0.4),
        (Failure(ConnectionRefusedError("nobody")), 0.0),
    ],
    ids=str,
)
@pytest.mark.parametrize("batch", [False, True])
def test_what_nobody_told_the_cost_of_is_charged_at_its_most(failure, taken, batch):
    told = terms(10.0, strategy="reference")
    budget = Budget(10.0, nullcontext())
    if batch:
        reservations = Reservations(budget, most, nullcontext())
        begun = begin_session(told, 5, Exact(), None)
        asked = wrapped(begun, told, reservations=reservations)
        call, *others = asked.next_calls()
        for other in others:
            asked.record(other, Outcome("yes", 0.0))
    else:
        router = FixedRouter("big", "reference")
        reservations = Reservations(budget, most, nullcontext())
        asked = BudgetedRouter(router, reservations, "big", None)
        (call,) = asked.next_calls(asked.arrive(shown=False))
    asked.record(call, failure)
    assert budget.left == pytest.approx(10 - taken)


def test_threads_share_a_budget():
    budget = Budget(100.0, threading.Lock())
    granted = []

    def work(number: int) -> None:
        rng = np.random.default_rng(number)
        for _ in range(2000):
            if budget.reserve(0.5):
                paid = float(rng.uniform(0, 0.5))
                granted.append(paid)
                budget.settle(0.5, paid)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 95 < sum(granted) <= 100.0


# -- calls that make calls of their own ----------------------------------------


class Unfolding:
    """A call that makes up to four calls of its own, each as dear as it happens."""

    def __init__(self, call, session, reservations, rng):
        self.call, self._session = call, session
        self._allowance = reservations.allowance(call)
        self._steps = [
            (most, most * rng.uniform(0, 1))
            for most in MOST[call.tier] * rng.uniform(0.1, 1, rng.integers(1, 5))
        ]
        self._running: list[tuple[float, float]] = []
        self.paid = 0.0

    def go_on(self, rng) -> bool:
        """Begin or end one; record the call when it is over, and say so."""
        if self._running and (not self._steps or rng.random() < 0.6):
            most, paid = self._running.pop()
            self._allowance.end("big", most, paid)
            self.paid += paid
            return False
        if self._steps:
            most, paid = self._steps.pop()
            refused = self._allowance.begin(most)
            if refused is None:
                self._running.append((most, paid))
                return False
            self._steps = []
            if self._running:
                return self.go_on(rng)
            self._session.record(self.call, Failure(refused, self.paid))
            return True
        self._session.record(self.call, Outcome("yes", self.paid))
        return True


def unfold(session, reservations, rng, at_once) -> None:
    """Drive a session whose calls make calls of their own, side by side."""
    backlog: list[Call] = []
    flying: list[Unfolding] = []
    while True:
        backlog += session.next_calls()
        while backlog and len(flying) < at_once:
            flying.append(Unfolding(backlog.pop(), session, reservations, rng))
        if not flying:
            return
        one = flying[rng.integers(len(flying))]
        if one.go_on(rng):
            flying.remove(one)


@given(
    budget=BUDGETS,
    seed=st.integers(0, 10_000),
    strategy=STRATEGIES,
    strict=st.booleans(),
    at_once=st.sampled_from([1, 3, 32]),
)
def test_a_budget_holds_where_nobody_knows_what_a_call_will_cost(
    budget, seed, strategy, strict, at_once
):
    mode = "strict" if strict else "serve"
    told = terms(budget, strategy=strategy, mode=mode, max_concurrency=at_once)
    books = Books(threading.Lock, NAMES)
    scope = books.batch("big", "t")
    session, reservations = session_of(told, 100, "t", lambda _: None, scope, books)
    unfold(session, reservations, np.random.default_rng(seed), at_once)
    certificate = session.certificate
    assert session.done
    assert certificate.cost <= budget * (1 + 1e-9)
    assert books.report().cost == pytest.approx(certificate.cost)
    sums = {name: spend for name, spend in books.ledger().sums().items() if spend.calls}
    assert {n: (s.calls, s.failures) for n, s in sums.items()} == {
        n: (s.calls, s.failures) for n, s in certificate.spend.items() if s.calls
    }
    answers = session.answers
    errors = [a for a in answers if a.error is not None]
    assert all(isinstance(a.error, BudgetExceededError) for a in errors)
    assert len(errors) == certificate.unanswered
    uncertified = [a for a in answers if a.role == "uncertified"]
    assert len(uncertified) == certificate.uncertified
    assert not (strict and any(a.answer for a in uncertified))
    assert sum(certificate.served.values()) + len(errors) == len(answers)
    assert not (uncertified and certificate.valid)
    assert certificate.valid or uncertified


def test_the_first_call_of_its_kind_is_made_alone():
    told = terms(100.0, strategy="reference")
    session, reservations = session_of(told, 300, None, lambda _: None)
    (first,) = session.next_calls()
    assert session.next_calls() == []
    reservations.allowance(first).begin(0.5)
    session.record(first, Outcome("yes", 0.25))
    assert len(session.next_calls()) == 199  # .5 each of what is left


@pytest.mark.parametrize("mode", ["serve", "strict"])
@pytest.mark.parametrize(
    ("refused", "role"),
    [
        ({"small"}, "profiled"),
        ({"small", "tiny"}, "profiled"),
        ({"big"}, "uncertified"),
        ({"big", "small"}, None),
    ],
)
def test_an_item_whose_calls_cannot_be_finished(mode, refused, role):
    told, books = terms(2.5, mode=mode), Books(nullcontext, NAMES)
    item = single_item(told, books, Exact(), "t", lambda _: None)
    expected = role if mode == "serve" or role == "profiled" else None
    fails = pytest.raises(BudgetExceededError)
    with nullcontext() if expected else fails, admitted(item):
        while calls := item.next_calls():
            for call in calls:
                allowance = item.allowance(call.tier)
                assert allowance.begin(0.25) is None
                allowance.end(call.tier, 0.25, 0.2)
                error = allowance.begin(5.0 if call.tier in refused else 0.1)
                done = Outcome("yes", 0.3)
                item.record(call, done if error is None else Failure(error, 0.2))
        assert item.settle() == "yes"
    assert item.mark.get("role") == expected
    spend = {name: s for name, s in books.report().spend.items() if s.calls}
    assert set(spend) == set(NAMES)  # the first items are asked of all
    lost = len(refused)
    assert books.report().cost == pytest.approx(0.3 * (3 - lost) + 0.2 * lost)
    (state,) = books.report().streams
    assert state.cost == pytest.approx(books.report().cost)
