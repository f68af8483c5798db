"""The bound on misses: exact over all coins, against the best possible adversary."""

from __future__ import annotations

import copy
import math
from functools import cache

import numpy as np
import pytest
from fuzzing import FEWER
from hypothesis import given
from hypothesis import strategies as st

from smart_engine import Guarantee
from smart_engine.stream.bound import MissBound, charges, log_mixture
from smart_engine.stream.rate import plan


def wealth(bound: MissBound, misses: int) -> float:
    """W at a number of misses."""
    return math.exp(float(log_mixture(bound.log_wealth, bound.slopes, misses)))


@FEWER
@given(st.lists(st.tuples(st.booleans(), st.floats(0.05, 1.0)), min_size=1, max_size=9))
def test_the_mixture_is_a_supermartingale_over_all_coins(steps) -> None:
    """Σ over all coins of probability × W is 1, or less where slopes have slid."""
    slid = False

    def expected(bound: MissBound, step: int, misses: int) -> float:
        nonlocal slid
        if step == len(steps):
            return wealth(bound, misses)
        error, rate = steps[step]
        bound = copy.copy(bound)
        if rate < 1:
            steepest = math.log((1 - 0.2 * rate) / (1 - rate))
            slid |= steepest < bound.slopes[0]
            bound.flatten(steepest)
        audited = copy.copy(bound)
        if error:
            audited.charge(charges(audited.slopes, rate))
        total = rate * expected(audited, step + 1, misses)
        if rate < 1:
            total += (1 - rate) * expected(bound, step + 1, misses + error)
        return total

    total = expected(MissBound(0.05), 0, 0)
    assert total <= 1 + 1e-9
    if not slid:
        assert total == pytest.approx(1)


def test_the_bound_is_the_last_number_of_misses_not_excluded() -> None:
    rng = np.random.default_rng(0)
    bound = MissBound(0.05)
    for rate in np.geomspace(0.9, 0.002, 60):
        bound.flatten(math.log((1 - 0.3 * rate) / (1 - rate)))
        if rng.random() < 0.5:
            bound.charge(charges(bound.slopes, rate))
        assert wealth(bound, bound.misses + 1) >= 20
        assert wealth(bound, bound.misses) < 20 * (1 + 1e-6)
        assert bound.excludes(bound.misses + 1)
        assert not bound.excludes(bound.misses)


def test_finds_and_flatter_slopes_never_lower_the_bound() -> None:
    bound, before = MissBound(0.1), 0
    for rate in (0.9, 0.5, 0.5, 0.2, 0.7, 0.05):
        bound.flatten(math.log((1 - 0.3 * rate) / (1 - rate)))
        assert bound.misses >= before
        more = charges(bound.slopes, rate)
        cases = bound.bounds(np.array([0 * more, more, 2 * more]))
        assert bound.bound() == bound.misses == cases[0]
        assert cases.tolist() == sorted(cases)
        bound.charge(more)
        before = bound.misses


class NeverLowered(MissBound):
    """A bound that keeps its slopes, however steep, and is ruined by a find there."""

    def flatten(self, steepest: float) -> None:
        self.misses = self.bound()


def charged(bound: MissBound, rate: float) -> np.ndarray:
    """What a find is charged, enormous where a slope is too steep."""
    keeps = np.maximum(1 - (1 - rate) * np.exp(bound.slopes), 1e-300)
    return -np.log(keeps / rate)


def chance_to_escape(
    kind: type[MissBound], phases: list[tuple[float, int]], alpha: float
) -> float:
    """P(ever more misses than the bound) under the adversary who plans best.

    Args:
        kind: The bound.
        phases: Audit rate and number of tosses of each phase, one after the other.
        alpha: Its level.
    """

    @cache
    def bound_after(finds: tuple[int, ...]) -> MissBound:
        """The bound in phase len(finds) − 1, with so many finds in each so far."""
        rate = phases[len(finds) - 1][0]
        if finds[-1]:
            bound = copy.copy(bound_after((*finds[:-1], finds[-1] - 1)))
            bound.charge(charged(bound, rate))
            return bound
        bound = kind(alpha) if len(finds) == 1 else copy.copy(bound_after(finds[:-1]))
        bound.flatten(math.log((1 - 0.2 * rate) / (1 - rate)))
        return bound

    most = sum(steps for _, steps in phases)

    @cache
    def value(step: int, finds: tuple[int, ...]) -> np.ndarray:
        """The adversary's best chance from here, per number of misses so far."""
        rate, steps = phases[len(finds) - 1]
        if step < steps:
            right = value(step + 1, finds)
            missed = np.append(right[1:], 1.0)
            caught = value(step + 1, (*finds[:-1], finds[-1] + 1))
            best = np.maximum((1 - rate) * missed + rate * caught, right)
        elif len(finds) < len(phases):
            best = value(0, (*finds, 0)).copy()
        else:
            best = np.zeros(most + 1)
        best[bound_after(finds).misses + 1 :] = 1.0
        return best

    return float(value(0, (0,))[0])


PHASES = [
    [(0.3, 60)],
    [(0.05, 110)],
    [(0.5, 12), (0.1, 50)],
    [(0.2, 40), (0.8, 20)],
    [(0.6, 6), (0.3, 8), (0.1, 25)],
]


@pytest.mark.parametrize("phases", PHASES, ids=str)
@pytest.mark.parametrize("alpha", [0.05, 0.3])
def test_no_adversary_escapes_the_bound_more_often_than_stated(phases, alpha) -> None:
    chance = chance_to_escape(MissBound, phases, alpha)
    assert alpha / 50 < chance <= alpha


def test_a_slope_that_is_too_steep_for_its_rate_is_found_out() -> None:
    assert chance_to_escape(NeverLowered, PHASES[2], 0.05) > 0.05


def chance_to_break(guarantee: Guarantee, items: int, errors: float) -> float:
    """P(ever more misses than δ·t) under the adversary who plans best.

    The adversary knows rates, finds and misses, not the next coin. Values are computed
    backwards over every history of finds, per number of misses.
    """
    allowed = [guarantee.max_errors(t + 1) for t in range(items)]

    def value(bound: MissBound, t: int) -> np.ndarray:
        if t == items:
            return np.zeros(items + 2)
        planned = plan(bound, allowed[t], errors)
        if planned is None:
            return value(bound, t + 1)
        bound = copy.copy(bound)
        bound.flatten(planned.steepest)
        right = value(bound, t + 1)
        if bound.misses > allowed[t]:
            return right
        missed = np.append(right[1:], 1.0)
        missed[allowed[t] :] = 1.0
        caught = copy.copy(bound)
        caught.charge(charges(caught.slopes, planned.rate))
        wrong = (1 - planned.rate) * missed + planned.rate * value(caught, t + 1)
        return np.maximum(right, wrong)

    return float(value(MissBound(guarantee.alpha), 0)[0])


@pytest.mark.parametrize(
    ("guarantee", "items"),
    [(Guarantee(0.5, 0.6), 12), (Guarantee(0.3, 0.8), 15), (Guarantee(0.1, 0.5), 22)],
)
@pytest.mark.parametrize("errors", [0.0, 9.0])
def test_no_adversary_breaks_the_promise_more_often_than_stated(
    guarantee, items, errors
) -> None:
    assert 0 < chance_to_break(guarantee, items, errors) <= guarantee.alpha


def test_rates_fall_as_more_misses_are_allowed_and_never_to_zero() -> None:
    bound = MissBound(0.05)
    rates = [plan(bound, allowed, 9.0).rate for allowed in (10, 100, 1000, 10**6)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0.001)
    assert plan(bound, 1, 9.0) is None
