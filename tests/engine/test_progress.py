"""Where a batch stands: never ahead of its books, and at the end equal to them."""

from __future__ import annotations

import io
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from math import comb

import pytest
from tqdm.auto import tqdm

from smart_engine import BatchSession, Failure, Guarantee, Outcome, Usage
from smart_engine.amounts import usd
from smart_engine.batch.progress import Progress, _most_hidden
from smart_engine.calls import Call
from smart_engine.equivalence import Exact
from smart_engine.errors import BudgetExceededError, MissingExtraError
from smart_engine.money.reservations import Reservations
from smart_engine.runtime.progress_bar import progress_bar
from smart_engine.serving.books import Books
from smart_engine.serving.config import ServingConfig
from smart_engine.serving.resume import ResumedSession
from smart_engine.serving.sessions import batch_budget, begin_session, wrapped

COSTS = {"big": 1.0, "c1": 0.1, "c2": 0.02}
STRATEGIES = ["reference", "audit", "exhaustive", "efficient", "mix"]


def outcome(call: Call) -> Outcome | Failure:
    """`c1` differs on 2 %, `c2` on a third; each fails now and then."""
    number = call.item * 7919 % 1000
    if number % 97 == 5:
        return Failure(RuntimeError("no answer"), COSTS[call.tier] / 2)
    bad = number < {"big": 0, "c1": 20, "c2": 333}[call.tier]
    return Outcome("no" if bad else "yes", COSTS[call.tier] * (1 + number / 1e4))


def steps(session) -> list[Progress]:
    """Drive a session; return where it stood after every record, and at the end."""
    seen = [session.progress()]
    while calls := session.next_calls():
        for call in calls:
            session.record(call, outcome(call))
            seen.append(session.progress())
    return [*seen, session.progress()]


def begun(tiers, strategy="audit", n_items=600, share=0.1) -> BatchSession:
    return BatchSession(n_items, tiers(2), Guarantee(share, 0.95), strategy=strategy)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_it_goes_forward_and_ends_where_the_certificate_does(tiers, strategy):
    session = begun(tiers, strategy)
    first, *later = seen = steps(session)
    assert first == ("learning", 600, 0, 0.0, None, 0, None, 60, 0.0, 0)
    # The audit asks all that it will serve before it decides; then nothing is left.
    at_once = strategy == "audit"
    for before, after in zip(seen, later, strict=False):
        assert before.settled <= after.settled <= 600
        assert before.spent <= after.spent
        assert before.calls <= after.calls
        assert before.draws <= after.draws
    assert any(step.phase == "serving" for step in seen[:-1]) != at_once
    last, certificate = seen[-1], session.certificate
    assert (last.phase, last.settled, last.items) == ("done", 600, 600)
    assert last.spent == pytest.approx(certificate.cost, abs=1e-9)
    assert last.calls == sum(each.calls for each in certificate.spend.values())
    assert last.saved == pytest.approx(certificate.saved, abs=1e-9)
    by_candidates = certificate.served["c1"] + certificate.served["c2"]
    assert (
        last.allowed == certificate.max_errors == (600 - certificate.unanswered) // 10
    )
    assert last.may_differ == (last.allowed if by_candidates else 0)


def test_what_may_differ_is_the_best_candidates_bound(tiers):
    session = begun(tiers, "exhaustive")
    while session.progress().draws < 30:
        for call in session.next_calls():
            session.record(call, Outcome("yes", COSTS[call.tier]))
    seen = session.progress()
    assert seen.phase == "learning"
    assert seen.may_differ == _most_hidden(600, seen.draws, 0, 0.05)


@pytest.mark.parametrize("errors", [0, 1, 4])
def test_the_bound_is_the_hypergeometric_one(errors):
    items, draws, level = 60, 12, 0.05

    def chance(hidden: int) -> float:
        marked = errors + hidden
        ways = (
            comb(marked, found) * comb(items - marked, draws - found)
            for found in range(errors + 1)
        )
        return sum(ways) / comb(items, draws)

    possible = [h for h in range(items - draws + 1) if chance(h) > level]
    assert _most_hidden(items, draws, errors, level) == max(possible)
    assert _most_hidden(items, items, errors, level) == 0


def test_where_a_budget_ends_nothing_is_said_of_differing_answers():
    names = ("big", "c1", "c2")
    terms = ServingConfig(names, Guarantee(0.1, 0.95), Exact(), budget_usd=20.0)
    worst_case = lambda call: 2 * COSTS[call.tier]  # noqa: E731
    books = Books(nullcontext, names)
    reservations = Reservations(
        batch_budget(terms, books), worst_case, books.new_lock()
    )
    begun = begin_session(terms, 600, Exact(), None)
    session = wrapped(begun, terms, reservations=reservations)
    last = steps(session)[-1]
    assert (last.phase, last.settled, last.may_differ) == ("done", 600, None)
    assert last.spent == pytest.approx(session.certificate.cost)
    assert any(
        isinstance(served.error, BudgetExceededError) for served in session.answers
    )


def test_a_resumed_batch_begins_where_the_first_ended(tiers):
    class Memory(dict):
        def load_outcomes(self):
            return dict(self)

        def save_outcome(self, call, outcome):
            self[call] = outcome

        def load_verdicts(self):
            return {}

    answers = Memory()
    last = steps(ResumedSession(begun(tiers), answers))[-1]
    again = ResumedSession(begun(tiers), answers)
    for call in again.next_calls():
        again.record(call, outcome(call))
    assert again.progress().draws > 0
    assert steps(again)[-1] == last


# -- the bar -------------------------------------------------------------------


def drive_shown(session, *, task=None, until=None) -> None:
    made = 0
    with progress_bar(session, task) as recorded:
        while calls := session.next_calls():
            for call in calls:
                if made == until:
                    raise KeyboardInterrupt
                session.record(call, outcome(call))
                recorded()
                made += 1


def last_shown(capsys) -> str:
    shown = capsys.readouterr().err
    assert shown.endswith("\n")
    return shown.splitlines()[-1].split("\r")[-1].rstrip()


@pytest.fixture(autouse=True)
def _wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


def test_the_bar_ends_with_what_the_certificate_says(tiers, capsys):
    session = begun(tiers)
    drive_shown(session, task="mails")
    line, certificate = last_shown(capsys), session.certificate
    assert line.startswith("mails, done: 100%|")
    assert "| 600/600 [" in line
    spent, saved = usd(certificate.cost), usd(certificate.saved)
    calls = sum(each.calls for each in certificate.spend.values())
    shown = f"{calls:,} calls, spent {spent} USD, saved {saved} USD, differ <= 59/59]"
    assert line.endswith(shown)


def test_the_bar_says_what_is_estimated(tiers, capsys):
    session = begun(tiers, "reference")
    with progress_bar(session, None) as recorded:
        while calls := session.next_calls():
            for call in calls:
                usage = Usage(9, 1, estimated=call.item < 150)
                session.record(call, Outcome("yes", 0.01, usage))
                recorded()
    shown = "600 calls, spent 6.00 USD (1.50 estimated), saved 0.00 USD"
    assert shown in last_shown(capsys)


@pytest.mark.parametrize("until", [0, 100])
def test_the_bar_closes_where_the_batch_is_broken_off(tiers, capsys, until):
    session = begun(tiers)
    with pytest.raises(KeyboardInterrupt):
        drive_shown(session, until=until)
    line, stands = last_shown(capsys), session.progress()
    assert line.startswith("trying candidates: ")
    assert f" {stands.settled}/600 [" in line
    assert f"{until} calls, spent {usd(stands.spent)} USD" in line
    assert "saved" not in line  # nothing is served yet
    assert not list(getattr(tqdm, "_instances", ()))


def test_a_terminal_that_goes_away_ends_no_batch(tiers, monkeypatch):
    class Gone(io.StringIO):
        def write(self, text):
            if session.progress().draws > 0:
                raise BrokenPipeError
            return super().write(text)

    session = begun(tiers)
    with monkeypatch.context() as patch:
        patch.setattr("smart_engine.runtime.progress_bar._EVERY", 0.0)
        patch.setattr(sys, "stderr", Gone())
        drive_shown(session)
    assert session.done
    with ThreadPoolExecutor(1) as pool:  # and no lock is left behind
        pool.submit(drive_shown, begun(tiers)).result(60)


def test_without_tqdm_it_says_what_to_install(tiers, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(MissingExtraError, match=r"smart-llm\[progress\]"):
        drive_shown(begun(tiers))
