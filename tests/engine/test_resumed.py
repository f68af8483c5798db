"""A session given the outcomes of an earlier one ends as that one would have."""

from __future__ import annotations

import numpy as np
import pytest

from smart_engine import BatchSession, Guarantee, Outcome, Tier
from smart_engine.calls import Failure
from smart_engine.errors import StoreError, UnkeptAnswerError
from smart_engine.money.ledger import LedgerEntries, LedgerScope
from smart_engine.serving.resume import ResumedSession

TIERS = [Tier("big", role="reference"), Tier("small"), Tier("tiny")]
COST = {"big": 1.0, "small": 0.1, "tiny": 0.01}


class Memory(dict):
    """A store of answers that outlives sessions, not the test."""

    def load_outcomes(self):
        return dict(self)

    def save_outcome(self, call, outcome):
        assert call not in self
        self[call] = outcome

    def load_verdicts(self):
        return dict(self.verdicts)

    def save_verdict(self, key, verdict):
        assert key not in self.verdicts
        self.verdicts[key] = verdict

    @property
    def verdicts(self):
        return self.__dict__.setdefault("_verdicts", {})


def fresh(
    seed: int, items: int = 120, scope: LedgerScope | None = None
) -> BatchSession:
    """Return a session of the job."""
    strategy = ("audit", "mix", "efficient", "exhaustive")[seed % 4]
    return BatchSession(
        items,
        TIERS,
        Guarantee(0.1, 0.9),
        strategy=strategy,
        seed=seed,
        max_in_flight=4,
        scope=scope,
    )


def outcome(call, seed: int):
    """Return what a call brings, which depends on the call alone."""
    luck = (call.item * 7919 + len(call.tier) * 104729 + seed) % 100
    if luck == 99:
        return Failure(ValueError("never"))
    wrong = call.tier != "big" and luck < 5 * len(call.tier)
    return Outcome("wrong" if wrong else "right", COST[call.tier])


def drive(session, rng, bought, cut: int | None, seed: int) -> bool:
    """Drive a session with up to 4 calls at once; stop after `cut` outcomes."""
    waiting: list = []
    recorded = 0
    while True:
        waiting += session.next_calls()
        if not waiting:
            return True
        if recorded == cut:
            return False
        call = waiting.pop(int(rng.integers(min(4, len(waiting)))))
        brought = outcome(call, seed)
        bought.append(call)
        session.record(call, brought)
        recorded += 1


@pytest.mark.parametrize(
    "jobs",
    [range(50), pytest.param(range(50, 1150), marks=pytest.mark.slow)],
    ids=len,
)
def test_jobs_that_are_cut_off_twice_buy_nothing_twice(jobs):
    for seed in jobs:
        rng = np.random.default_rng(seed)
        whole, bought_at_once = fresh(seed, 60), []
        assert drive(whole, rng, bought_at_once, None, seed)
        answers, bought = Memory(), []
        for cut in (int(rng.integers(1, 30)), int(rng.integers(0, 30)), None):
            journal, kept = LedgerEntries(), sum(answers[call].paid for call in answers)
            scope = LedgerScope(journal, "big", "task")
            session = ResumedSession(fresh(seed, 60, scope), answers)
            ended = drive(session, rng, bought, cut, seed)
        assert ended
        assert session.certificate == whole.certificate
        answered = [c for c in bought if isinstance(outcome(c, seed), Outcome)]
        assert len(answered) == len(set(answered))
        assert set(bought) == set(bought_at_once)
        sums = journal.ledger().sums("outcome")
        assert sums["restored"].cost == pytest.approx(kept)
        total = sum(spend.cost for spend in session.spend.values())
        assert sum(spend.cost for spend in sums.values()) == pytest.approx(total)


def test_a_store_that_fails_costs_no_answer():
    class Broken(Memory):
        def save_outcome(self, call, outcome):
            raise StoreError("disk full")

    session = ResumedSession(fresh(1), Broken())
    with pytest.warns(UserWarning, match="disk full") as told:
        assert drive(session, np.random.default_rng(0), [], None, 1)
    assert len(told) == 1
    assert len(session.answers) == 120


def test_an_answer_that_cannot_be_written_costs_no_other():
    class Choosy(Memory):
        def save_outcome(self, call, outcome):
            if call.item % 9 == 0:
                raise UnkeptAnswerError("no text")
            super().save_outcome(call, outcome)

    session, answers, bought = fresh(1), Choosy(), []
    resumed = ResumedSession(session, answers)
    with pytest.warns(UserWarning, match="will buy some answers again") as told:
        assert drive(resumed, np.random.default_rng(0), bought, None, 1)
    assert len(told) == 1
    answered = {call for call in bought if isinstance(outcome(call, 1), Outcome)}
    assert set(answers) == {call for call in answered if call.item % 9}
