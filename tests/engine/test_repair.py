"""Ending an audit by repairs: exact on small populations, whoever chooses when."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.special import betaln
from scipy.stats import hypergeom

from smart_engine import BatchSession, Guarantee, Tier, verify
from smart_engine.evidence.acceptance import Acceptance, Allowance, SequentialTest
from smart_engine.evidence.repair import expected_repairs, repairs


def audit(items: int, allowed: int, level: float, draws=0, errors=0) -> SequentialTest:
    """An audit with room for repairs, after such draws."""
    design = Acceptance(items, allowed, 0.01)
    test = SequentialTest("small", design, repair_level=level)
    test.draws, test.errors = draws, list(range(1, errors + 1))
    return test


def broken_at_worst(items: int, allowed: int, wrong: int, further) -> float:
    """Most that can be reached by choosing when to end, by what draws have shown."""
    worst = np.zeros(items + 2)
    for draws in range(items, -1, -1):
        now = np.zeros(items + 2)
        for errors in range(max(0, draws - (items - wrong)), min(draws, wrong) + 1):
            left, hidden = items - draws, wrong - errors
            more = further[draws, errors]
            ended = hypergeom.cdf(hidden - allowed - 1, left, hidden, more)
            if not left:
                ended = float(hidden > allowed)
            share = hidden / left if left else 0.0
            drawn = share * worst[errors + 1] + (1 - share) * worst[errors]
            now[errors] = max(ended, drawn if left else 0.0)
        worst = now
    return float(worst[0])


@pytest.mark.parametrize("level", [0.05, 0.2])
def test_no_choice_of_the_end_breaks_the_promise_oftener(level: float) -> None:
    too_few = []
    for items, allowed in [(9, 1), (14, 3), (20, 4), (20, 9), (26, 7)]:
        places = [
            (draws, errors)
            for draws, errors in product(range(items + 1), repeat=2)
            if errors <= draws
        ]
        enough, hasty = (
            {place: repairs(audit(items, allowed, room, *place)) for place in places}
            for room in (level, min(0.99, 6 * level))
        )
        for wrong in range(allowed, items + 1):
            # One error less is left than may be, for a reference that fails.
            ends = items, allowed - 1, wrong
            assert broken_at_worst(*ends, enough) <= level
            too_few.append(broken_at_worst(*ends, hasty) > level)
    assert any(too_few)


def test_repairs_are_fewer_the_better_the_draws_look() -> None:
    by_errors = [repairs(audit(1000, 100, 0.005, 100, c)) for c in (0, 2, 5, 10, 20)]
    assert by_errors == sorted(by_errors)
    assert by_errors[0] == 0
    assert by_errors[-1] < 900
    none = SequentialTest("small", Acceptance(1000, 100, 0.05))
    assert repairs(none) == 900


def test_hardly_more_is_repaired_than_must_be() -> None:
    """Two percent less would not do, where each number of errors is checked alone."""
    items, allowed, level, draws, errors = 3000, 600, 0.002, 150, 21
    left, hidden = items - draws, np.arange(allowed, items - draws + 1)
    good = 2 * items / (allowed + 1)
    mixed = betaln(1 + errors, good + draws - errors) - betaln(1, good)
    seen = hypergeom.logpmf(errors, items, hidden + errors, draws)
    ratio = np.exp(mixed - seen - betaln(errors + 1, draws - errors + 1)) / (draws + 1)
    fewer = int(0.98 * repairs(audit(items, allowed, level, draws, errors)))
    falls_short = hypergeom.cdf(hidden - allowed, left, hidden, fewer)
    assert (falls_short > level * ratio).any()


def test_repairs_can_be_foreseen() -> None:
    for draws, errors in [(100, 5), (100, 10), (200, 15), (40, 2)]:
        test = audit(2000, 200, 0.002, draws, errors)
        expected = float(expected_repairs(test, draws, errors))
        assert abs(expected - repairs(test)) < 200


def test_failures_in_the_last_wave_are_provided_for_or_said() -> None:
    guarantee = Guarantee(0.05, 0.95)
    test = SequentialTest(
        "small", Acceptance(1000, 50, 0.05), Allowance(guarantee, 1000)
    )
    test.repaired = 100
    assert test.covers(1000)
    assert test.covers(980)
    assert not test.covers(979)


def ended_by_repairs(models) -> BatchSession:
    """A session that ends by repairs."""
    tiers = [Tier("big", "reference", 1.0), Tier("c1", cost=1e-4)]
    share = Guarantee(0.2, 0.95)
    for seed in range(30):
        table = models(1000, 0.12, seed=seed, costs=(1.0, 1e-4))
        session = BatchSession(1000, tiers, share, seed=seed, max_rounds=2)
        while calls := session.next_calls():
            for call in calls:
                session.record(call, table[call.tier][call.item])
        if any(test.repaired for test in session.certificate.tests):
            return session
    raise AssertionError("no session ended by repairs")


def test_a_certificate_by_repairs_is_checked(models) -> None:
    session = ended_by_repairs(models)
    certificate = session.certificate
    assert all(check.holds for check in verify(certificate))
    assert certificate.served["c1"]
    (test,) = [test for test in certificate.tests if test.repaired]
    for wrong in ({"repaired": test.repaired - 1}, {"repair_level": 0.06}):
        others = [each for each in certificate.tests if each is not test]
        forged = certificate.model_copy(
            update={"tests": (*others, test.model_copy(update=wrong))}
        )
        assert not all(check.holds for check in verify(forged))
