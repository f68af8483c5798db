"""The alarm of streams whose errors become more frequent."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from items import admitted

from smart_engine import Exact, Guarantee, Outcome
from smart_engine.serving.books import Books
from smart_engine.serving.config import ServingConfig
from smart_engine.serving.routing import single_item
from smart_engine.stream.drift import FALSE_ALARMS, DriftWatch


def alarms(rates, seed) -> list[int]:
    """Return the audits at which alarms come, where audit n errs at rates[n]."""
    rng = np.random.default_rng([seed, len(rates)])
    sums = (rng.random(len(rates)) < rates).cumsum()
    watch = DriftWatch()
    seen = (watch.see(n, int(found), "small") for n, found in enumerate(sums, 1))
    return [n for n, alarm in enumerate(seen, 1) if alarm is not None]


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.1, 0.5, 1.0])
def test_few_alarms_while_nothing_changes(rate):
    assert sum(len(alarms(np.full(800, rate), seed)) for seed in range(2)) <= 1


@pytest.mark.slow
@pytest.mark.guarantee
@pytest.mark.timeout(900)
@pytest.mark.parametrize("rate", [0.003, 0.02, 0.1, 0.4])
def test_false_alarms_are_as_rare_as_stated(rate):
    runs = [len(alarms(np.full(FALSE_ALARMS, rate), seed)) for seed in range(30)]
    print(f"{rate}: {np.mean(runs):.2f} false alarms in {FALSE_ALARMS:,} audits")
    # Poisson, mean at most 1: so many in 30 runs come with probability below 1e-4
    assert sum(runs) <= 52


@pytest.mark.parametrize(("before", "after"), [(0.01, 0.2), (0.05, 0.3)])
def test_an_alarm_comes_soon_after_a_change(before, after):
    rates = np.concatenate([np.full(400, before), np.full(80, after)])
    found = [alarms(rates, seed) for seed in range(6)]
    assert sum(any(n > 400 for n in each) for each in found) >= 5


def test_fewer_errors_or_another_policy_are_no_alarm():
    watch = DriftWatch()
    bad = [watch.see(n, n // 4, "small") for n in range(400)]
    good = [watch.see(400 + n, 100, "small") for n in range(400)]
    assert not any(bad + good)
    other = [watch.see(800 + n, 100 + n // 3, "tiny") for n in range(200)]
    assert not any(other)
    assert watch.see(5, 1, "tiny") is None  # of another stream: begins anew
    assert watch.see(2, 2, "tiny") is None


def stream(on_drift, items, wrong_from):
    """Serve a stream whose candidate errs on every second item from some item on."""
    books = Books(threading.Lock, ["big", "small"])
    config = ServingConfig(
        ("big", "small"),
        Guarantee(0.2, 0.9),
        Exact(),
        costs=(1.0, 0.01),
        on_drift=on_drift,
    )
    for item in range(items):
        one = single_item(config, books, Exact(), "mails", lambda _: 1.0)
        with admitted(one):
            while calls := one.next_calls():
                for call in calls:
                    wrong = call.tier == "small" and item >= wrong_from and item % 2
                    cost = 1.0 if call.tier == "big" else 0.01
                    one.record(call, Outcome("no" if wrong else "yes", cost))
            one.settle()


def test_a_stream_tells_of_a_drift_once():
    told = []
    stream(told.append, 1200, 800)
    assert len(told) == 1
    (drift,) = told
    assert (drift.task, drift.policy) == ("mails", "small")
    assert drift.errors_since * drift.audits_before > (
        drift.errors_before * drift.audits_since
    )
    assert "An alarm, no promise" in str(drift)
    calm = []
    stream(calm.append, 600, 600)
    assert calm == []


def test_what_the_users_function_raises_costs_no_answer():
    def broken(drift):
        raise RuntimeError("no pager")

    with pytest.warns(UserWarning, match="on_drift raised RuntimeError"):
        stream(broken, 1200, 800)
