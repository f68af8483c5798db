"""The bound on errors: exact over all draws, against the best possible adversary."""

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
from smart_engine.stream.bound import ErrorBound, charges, log_mixture
from smart_engine.stream.rate import plan


def wealth(bound: ErrorBound, undetected: int) -> float:
    """W at a number of undetected errors."""
    return math.exp(float(log_mixture(bound.log_wealth, bound.slopes, undetected)))


def excluded(bound: ErrorBound, undetected: int) -> bool:
    reached = float(log_mixture(bound.log_wealth, bound.slopes, undetected))
    return reached >= bound.threshold + 1e-9


@FEWER
@given(st.lists(st.tuples(st.booleans(), st.floats(0.05, 1.0)), min_size=1, max_size=9))
def test_the_mixture_is_a_supermartingale_over_all_draws(steps) -> None:
    """Σ over all draws of probability × W is 1, or less where slopes have fallen."""
    fallen = False

    def expected(bound: ErrorBound, step: int, undetected: int) -> float:
        nonlocal fallen
        if step == len(steps):
            return wealth(bound, undetected)
        error, rate = steps[step]
        bound = copy.copy(bound)
        if rate < 1:
            steepest = math.log((1 - 0.2 * rate) / (1 - rate))
            fallen |= steepest < bound.slopes[0]
            bound.flatten(steepest)
        audited = copy.copy(bound)
        if error:
            audited.charge(charges(audited.slopes, rate))
        total = rate * expected(audited, step + 1, undetected)
        if rate < 1:
            total += (1 - rate) * expected(bound, step + 1, undetected + error)
        return total

    total = expected(ErrorBound(0.05), 0, 0)
    assert total <= 1 + 1e-9
    if not fallen:
        assert total == pytest.approx(1)


def test_the_bound_is_the_largest_number_not_excluded() -> None:
    rng = np.random.default_rng(0)
    bound = ErrorBound(0.05)
    for rate in np.geomspace(0.9, 0.002, 60):
        bound.flatten(math.log((1 - 0.3 * rate) / (1 - rate)))
        if rng.random() < 0.5:
            bound.charge(charges(bound.slopes, rate))
        assert wealth(bound, bound.undetected + 1) >= 20
        assert wealth(bound, bound.undetected) < 20 * (1 + 1e-6)
        assert excluded(bound, bound.undetected + 1)
        assert not excluded(bound, bound.undetected)


def test_charges_and_flatter_slopes_never_lower_the_bound() -> None:
    bound, before = ErrorBound(0.1), 0
    for rate in (0.9, 0.5, 0.5, 0.2, 0.7, 0.05):
        bound.flatten(math.log((1 - 0.3 * rate) / (1 - rate)))
        assert bound.undetected >= before
        more = charges(bound.slopes, rate)
        cases = bound.bounds(np.array([0 * more, more, 2 * more]))
        assert bound.bound() == bound.undetected == cases[0]
        assert cases.tolist() == sorted(cases)
        bound.charge(more)
        before = bound.undetected


class NeverLowered(ErrorBound):
    """A bound that keeps its slopes, however steep; a detected error ruins it."""

    def flatten(self, steepest: float) -> None:
        self.undetected = self.bound()


def charged(bound: ErrorBound, rate: float) -> np.ndarray:
    """Charge of a detected error, enormous where a slope is too steep."""
    keeps = np.maximum(1 - (1 - rate) * np.exp(bound.slopes), 1e-300)
    return -np.log(keeps / rate)


def chance_to_escape(
    kind: type[ErrorBound], phases: list[tuple[float, int]], alpha: float
) -> float:
    """P(ever more undetected errors than the bound) under the best adversary.

    Args:
        kind: The bound.
        phases: Audit rate and number of draws of each phase, one after the other.
        alpha: Its level.
    """

    @cache
    def bound_after(detected: tuple[int, ...]) -> ErrorBound:
        """The bound in phase len(detected) − 1, after so many detected in each."""
        rate = phases[len(detected) - 1][0]
        if detected[-1]:
            bound = copy.copy(bound_after((*detected[:-1], detected[-1] - 1)))
            bound.charge(charged(bound, rate))
            return bound
        bound = (
            kind(alpha) if len(detected) == 1 else copy.copy(bound_after(detected[:-1]))
        )
        bound.flatten(math.log((1 - 0.2 * rate) / (1 - rate)))
        return bound

    most = sum(steps for _, steps in phases)

    @cache
    def value(step: int, detected: tuple[int, ...]) -> np.ndarray:
        """The adversary's best chance from here, per number of undetected errors."""
        rate, steps = phases[len(detected) - 1]
        if step < steps:
            right = value(step + 1, detected)
            missed = np.append(right[1:], 1.0)
            caught = value(step + 1, (*detected[:-1], detected[-1] + 1))
            best = np.maximum((1 - rate) * missed + rate * caught, right)
        elif len(detected) < len(phases):
            best = value(0, (*detected, 0)).copy()
        else:
            best = np.zeros(most + 1)
        best[bound_after(detected).undetected + 1 :] = 1.0
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
    chance = chance_to_escape(ErrorBound, phases, alpha)
    assert alpha / 50 < chance <= alpha


def test_a_slope_that_is_too_steep_for_its_rate_is_caught() -> None:
    assert chance_to_escape(NeverLowered, PHASES[2], 0.05) > 0.05


def chance_to_break(guarantee: Guarantee, items: int, errors: float) -> float:
    """P(ever more undetected errors than δ·t) under the adversary who plans best.

    The adversary knows rates and all errors, not the next draw. Values are computed
    backwards over every history of detected errors, per number of undetected ones.
    """
    allowed = [guarantee.max_errors(t + 1) for t in range(items)]

    def value(bound: ErrorBound, t: int) -> np.ndarray:
        if t == items:
            return np.zeros(items + 2)
        planned = plan(bound, allowed[t], errors)
        if planned is None:
            return value(bound, t + 1)
        bound = copy.copy(bound)
        bound.flatten(planned.steepest)
        right = value(bound, t + 1)
        if bound.undetected > allowed[t]:
            return right
        missed = np.append(right[1:], 1.0)
        missed[allowed[t] :] = 1.0
        caught = copy.copy(bound)
        caught.charge(charges(caught.slopes, planned.rate))
        wrong = (1 - planned.rate) * missed + planned.rate * value(caught, t + 1)
        return np.maximum(right, wrong)

    return float(value(ErrorBound(guarantee.alpha), 0)[0])


@pytest.mark.parametrize(
    ("guarantee", "items"),
    [(Guarantee(0.5, 0.6), 12), (Guarantee(0.3, 0.8), 15), (Guarantee(0.1, 0.5), 22)],
)
@pytest.mark.parametrize("errors", [0.0, 9.0])
def test_no_adversary_breaks_the_promise_more_often_than_stated(
    guarantee, items, errors
) -> None:
    assert 0 < chance_to_break(guarantee, items, errors) <= guarantee.alpha


def test_rates_fall_as_more_errors_are_allowed_and_never_to_zero() -> None:
    bound = ErrorBound(0.05)
    rates = [plan(bound, allowed, 9.0).rate for allowed in (10, 100, 1000, 10**6)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0.001)
    assert plan(bound, 1, 9.0) is None
