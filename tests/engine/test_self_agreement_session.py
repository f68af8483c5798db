"""The reference asked twice: what is counted, what it costs, and what is refused."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from smart_engine import Failure, Guarantee, Judge, Number, Outcome, SmartError
from smart_engine.batch.self_agreement import (
    NoisyReferenceError,
    SelfAgreement,
    SelfAgreementSession,
    drawn_twice,
)
from smart_engine.equivalence import Exact
from smart_engine.errors import ProtocolError
from smart_engine.serving.books import Books
from smart_engine.serving.config import ServingConfig
from smart_engine.serving.routing import single_item
from smart_engine.serving.sessions import begin_session, job_key

N = 40


def measured(items: int, differ: int, **settings) -> SelfAgreement:
    told = {"task": "t", "reference": "big", "equivalence": "Exact()"}
    told |= {"confidence": 0.95, "cost": 0.0, **settings}
    return SelfAgreement(items=items, disagreements=differ, **told)


def asked(says, rule=Exact()) -> SelfAgreementSession:
    """Ask twice about each item; `says` gives the outcome of item and turn."""
    session = SelfAgreementSession(N, "big", rule)
    calls = session.next_calls()
    assert [call.item for call in calls] == list(range(2 * N))
    assert {call.tier for call in calls} == {"big"}
    for call in reversed(calls):
        assert not session.done
        session.record(call, says(call.item % N, call.item // N))
    assert session.done
    assert session.next_calls() == []
    return session


def test_answers_are_compared_by_the_rule_and_all_is_booked():
    session = asked(lambda i, turn: Outcome(f"{i + turn * (i < 3) / 9}", 0.5))
    noise = session.result("sums", 0.9)
    assert (noise.items, noise.disagreements, noise.rate) == (40, 3, 0.075)
    assert (noise.task, noise.reference, noise.equivalence) == (
        "sums",
        "big",
        "Exact()",
    )
    assert noise.cost == session.spend["big"].cost == 40.0
    assert session.spend["big"].calls == 80
    assert "differs from itself on 3 of 40 items (0.075;" in str(noise)
    rule = Number(absolute=1)
    near = asked(lambda i, turn: Outcome(f"{i + turn}", 0.5), rule)
    assert near.result("sums", 0.9).disagreements == 0


def test_a_judge_is_booked_too():
    rule = Judge(lambda _: Outcome("same", 0.25), "owl")
    session = asked(lambda i, turn: Outcome(f"{i}, {turn}", 0.5), rule)
    assert session.spend["judge: owl"].calls == 2 * N
    assert session.result("t", 0.9).cost == 2 * N * 0.75


def test_what_is_no_second_answer_is_left_out_and_told():
    def says(item: int, turn: int) -> Outcome | Failure:
        if item < 4:
            return Outcome("yes", 1.0, cached=turn == 1)
        if item < 7:
            return Failure(TimeoutError(), 0.25) if turn else Outcome("yes", 1.0)
        return Outcome("yes" if item % 2 else f"{turn}", 1.0)

    session = asked(says)
    noise = session.result("t", 0.9)
    assert (noise.items, noise.cached, noise.failed) == (33, 4, 3)
    assert noise.disagreements == 16
    assert noise.cost == pytest.approx(80 - 4 - 3 * 0.75)
    assert "4 left out: answered by a cache; 3 left out" in str(noise)
    assert isinstance(session.answer_or_error(N + 5), TimeoutError)
    assert session.answer_or_error(5) == "yes"


@pytest.mark.parametrize(
    ("second", "told"),
    [(Outcome("yes", 1.0, cached=True), "40 were"), (Failure(OSError("?")), "40 fail")],
)
def test_nothing_to_compare_is_an_error_that_says_why(second, told):
    session = asked(lambda _, turn: second if turn else Outcome("yes", 1.0))
    with pytest.raises(SmartError, match=told) as error:
        session.result("t", 0.9)
    assert ("cache=False" in str(error.value)) == isinstance(second, Outcome)
    assert (error.value.__cause__ is not None) == isinstance(second, Failure)


def test_each_call_is_recorded_once():
    session = SelfAgreementSession(1, "big", Exact())
    first, second = session.next_calls()
    session.record(first, Outcome("yes", 0.0))
    with pytest.raises(ProtocolError):
        session.record(first, Outcome("yes", 0.0))
    assert isinstance(session.answer_or_error(second.item), ProtocolError)


@pytest.mark.parametrize("differ", [0, 1, 7, 99, 100])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.999])
def test_the_interval_is_clopper_and_pearsons(differ, confidence):
    noise = measured(100, differ, confidence=confidence)
    exact = binomtest(differ, 100).proportion_ci(confidence, "exact")
    assert noise.interval == pytest.approx((exact.low, exact.high), abs=1e-12)


@pytest.mark.filterwarnings("error")
def test_only_what_the_measurement_rules_out_is_refused():
    noise = measured(100, 20)
    lower, _ = noise.interval
    for fine in (0.2, 0.19, lower):
        noise.refuse(fine)
    with pytest.raises(NoisyReferenceError) as error:
        noise.refuse(lower / 2 - 1e-9)
    assert error.value.field == "max_disagreement"
    for told in ("20 of 100", "at least 0.2", "accept_noise=True", "0.127", "0.0633"):
        assert told in str(error.value)
    measured(100, 0).refuse(0.0001)


@pytest.mark.parametrize("allowed", [0.5, 0.75, 0.999])
def test_between_half_of_the_noise_and_all_of_it_there_is_a_warning(allowed):
    noise = measured(100, 20)
    lower, _ = noise.interval
    with pytest.warns(UserWarning, match=r"may be out of reach.* 0.0633, .*0.127 or"):
        noise.refuse(allowed * lower + 1e-9)


@settings(deadline=None)
@given(st.lists(st.integers(1, 1000), min_size=1, max_size=6))
def test_the_most_frequent_answer_differs_on_half_of_the_noise_or_more(weights):
    # The reference differs from itself on 18 %, the constant candidate on 10 %.
    assert 1 - 0.9 >= (1 - 0.9**2 - 0.1**2) / 2 - 1e-12
    shares = [weight / sum(weights) for weight in weights]
    noise = 1 - sum(share**2 for share in shares)
    assert noise / 2 - 1e-12 <= 1 - max(shares) <= noise + 1e-12


@pytest.mark.filterwarnings("ignore:max_disagreement")
def test_what_a_constant_candidate_reaches_is_not_refused():
    noise = measured(1000, 180)
    noise.refuse(0.13)
    with pytest.raises(NoisyReferenceError):
        noise.refuse(0.07)


def test_a_noisy_reference_is_refused_for_its_task_and_rule_and_nothing_else():
    books = Books(nullcontext, ["big", "small", "giant"])
    books.enter_noise(measured(100, 20))
    said = {"models": ("big", "small"), "rule": Exact()}
    strict, loose = Guarantee(0.05, 0.95), Guarantee(0.2, 0.95)

    def refused(task: str = "t", rule=Exact(), **settings) -> set[str]:
        terms = ServingConfig(**{"guarantee": strict, **said, **settings})
        found = set()
        for way in ("batch", "stream"):
            try:
                if way == "batch":
                    begin_session(terms, 9, rule, task, books=books)
                else:
                    single_item(terms, books, rule, task, lambda _: None)
            except NoisyReferenceError:
                found.add(way)
        return found

    assert refused() == {"batch", "stream"}
    assert refused(accept_noise=True) == set()
    assert refused(guarantee=loose) == set()
    assert refused("another task") == set()
    assert refused(rule=Number()) == set()
    assert refused(models=("giant", "small")) == set()
    assert refused(strategy="reference") == set()
    assert "stream" not in refused(mode="shadow")
    assert "differs from itself on 20 of 100" in str(books.report())
    books.enter_noise(measured(100, 2))  # measured again: that counts
    assert refused() == set()
    assert len(books.report().noise) == 1


def test_forcing_it_does_not_make_another_job_of_a_batch():
    terms = ServingConfig(("big", "small"), Guarantee(), Exact())
    forced = ServingConfig(("big", "small"), Guarantee(), Exact(), accept_noise=True)
    assert job_key(terms, Exact(), "t", ["x"]) == job_key(forced, Exact(), "t", ["x"])


def drawn_once(items, seed):
    drawn = drawn_twice("items", items, 50, seed)
    half = len(drawn) // 2
    assert drawn[:half] == drawn[half:]
    return drawn[:half]


def test_items_are_drawn_at_random_and_by_the_seed():
    items = list(range(1000))
    drawn = drawn_once(items, 3)
    assert len(set(drawn)) == 50
    assert drawn == drawn_once(items, 3) != drawn_once(items, 4)
    assert min(drawn) < 200 < 800 < max(drawn)
    assert drawn_once(items[:9], 3) == items[:9]
