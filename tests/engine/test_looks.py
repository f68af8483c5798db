"""Looks: the corrected ones keep their level exactly, the paper's are the paper's."""

from __future__ import annotations

from functools import cache
from itertools import combinations, product
from math import comb

import numpy as np
import pytest
from fuzzing import FEWER
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.stats import binomtest

from smart_engine import BatchSession, Guarantee, InvalidInputError, Tier
from smart_engine.evidence.tails import clopper_pearson_lower
from smart_engine.strategies import Tally
from smart_engine.strategies.looks import LOOKS, CorrectedLooks, PaperLooks

SHARES = [0.02, 0.05, 0.1, 0.2, 0.5, 0.9]
CONFIDENCES = [0.5, 0.8, 0.95]


LOG_FACTORIALS = np.r_[0.0, np.cumsum(np.log(np.arange(1, 2001)))]


def log_choose(n: int, k: np.ndarray) -> np.ndarray:
    """Return the logarithm of n over k."""
    return LOG_FACTORIALS[n] - LOG_FACTORIALS[k] - LOG_FACTORIALS[n - k]


@cache
def chances(population: int, marked: int, draws: int) -> np.ndarray:
    """P(k marked items among the draws), for k = 0 … draws."""
    k = np.arange(max(0, draws - population + marked), min(marked, draws) + 1)
    ways = log_choose(marked, k) + log_choose(population - marked, draws - k)
    table = np.zeros(draws + 1)
    table[k] = np.exp(ways - log_choose(population, np.array(draws)))
    return table


def risk_of_any_look(looks: CorrectedLooks, allowed: int, wrong: int) -> float:
    """Exact probability that any look admits while more than allowed stays hidden.

    Walks through the looks with the distribution of the errors found so far, for a
    candidate that is wrong on `wrong` items and items drawn without replacement.
    """
    n_items = int(looks.schedule[-1])
    found, drawn, risk = np.ones(1), 0, 0.0
    for size, acceptance in zip(looks.schedule.tolist(), looks.acceptance, strict=True):
        ahead = np.zeros(size + 1)
        for before in np.flatnonzero(found > 1e-15).tolist():
            new = chances(n_items - drawn, wrong - before, size - drawn)
            ahead[before : before + len(new)] += found[before] * new
        errors = np.arange(size + 1)
        misled = (errors <= acceptance) & (wrong - errors > allowed)
        risk += ahead[misled].sum()
        ahead[misled] = 0.0
        found, drawn = ahead, size
    return risk


@pytest.mark.parametrize("share", SHARES[:-1])
@pytest.mark.parametrize("n_candidates", [1, 3])
def test_corrected_looks_together_keep_their_level(
    share: float, n_candidates: int
) -> None:
    worst = 0.0
    for confidence, n_items in product(CONFIDENCES, [1, 9, 31, 33, 40, 64, 97, 150]):
        guarantee = Guarantee(share, confidence)
        looks = CorrectedLooks(guarantee, n_items, n_candidates)
        allowed = guarantee.max_errors(n_items)
        for wrong in range(allowed + 1, n_items + 1, 1 + n_items // 50):
            risk = risk_of_any_look(looks, allowed, wrong)
            assert risk <= guarantee.alpha / n_candidates + 1e-9
            worst = max(worst, risk)
    assert worst > 0  # it does admit wrongly now and then: something was tested


@pytest.mark.parametrize(
    ("n_items", "share"), [(400, 0.1), (1000, 0.05), (1000, 0.2), (2000, 0.02)]
)
def test_many_looks_keep_their_level_too(n_items: int, share: float) -> None:
    guarantee = Guarantee(share, 0.9)
    looks = CorrectedLooks(guarantee, n_items, 1)
    allowed = guarantee.max_errors(n_items)
    risks = [
        risk_of_any_look(looks, allowed, allowed + extra)
        for extra in (1, 2, 3, 5, 8, 13, 21, 34, 55)
    ]
    assert max(risks) <= guarantee.alpha + 1e-9
    assert max(risks) > looks.level / 2  # the worst case is among those tried


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("n_items", [12, pytest.param(25, marks=pytest.mark.slow), 34])
def test_the_part_a_mix_may_serve_keeps_the_level_of_its_look(
    share: float, n_items: int
) -> None:
    for confidence in CONFIDENCES:
        guarantee = Guarantee(share, confidence)
        looks = CorrectedLooks(guarantee, n_items, 1)
        allowed = guarantee.max_errors(n_items)
        reach = cache(looks._reach)
        for draws, wrong in product(range(1, n_items), range(allowed + 1, n_items + 1)):
            risk = 0.0
            for found, chance in enumerate(chances(n_items, wrong, draws).tolist()):
                if chance:
                    ahead = reach(draws, found) - draws
                    hidden = chances(n_items - draws, wrong - found, ahead)
                    risk += chance * hidden[allowed + 1 :].sum()
            assert risk <= looks.level + 1e-9


@pytest.mark.parametrize("n_items", [6, 9, 11])
@pytest.mark.parametrize("share", [0.2, 0.4, 0.6])
def test_the_same_by_listing_every_order(n_items: int, share: float) -> None:
    guarantee = Guarantee(share, 0.6)
    looks = CorrectedLooks(guarantee, n_items, 1)
    allowed = guarantee.max_errors(n_items)
    reach_of = cache(looks._reach)
    served = 0
    for draws, wrong in product(range(1, n_items), range(allowed + 1, n_items + 1)):
        bad = 0
        for places in combinations(range(n_items), wrong):
            reach = reach_of(draws, sum(place < draws for place in places))
            served += reach - draws
            bad += sum(draws <= place < reach for place in places) > allowed
        assert bad <= looks.level * comb(n_items, wrong) + 1e-9
    assert served > 0


@given(
    st.integers(1, 3000),
    st.sampled_from(SHARES),
    st.sampled_from(CONFIDENCES),
    st.sampled_from(["corrected", "paper"]),
)
def test_schedules_rise_to_the_last_item(n_items, share, confidence, name) -> None:
    looks = LOOKS[name](Guarantee(share, confidence), n_items, 2)
    assert looks.schedule[-1] == n_items
    assert np.all(np.diff(looks.schedule) > 0)
    for look in {0, len(looks.schedule) // 2, len(looks.schedule) - 1}:
        ahead = looks.horizons(look)
        assert np.all((ahead > look) & (ahead < len(looks.schedule)))
        assert len(ahead) > 0 or look == len(looks.schedule) - 1


def test_more_candidates_cost_level() -> None:
    one = CorrectedLooks(Guarantee(), 5000, 1)
    five = CorrectedLooks(Guarantee(), 5000, 5)
    assert five.level == pytest.approx(one.level / 5)
    assert np.all(five.acceptance <= one.acceptance)
    assert np.any(five.acceptance < one.acceptance)


def test_unknown_looks_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="corrected, paper"):
        BatchSession(9, [Tier("big", "reference"), Tier("small")], looks="often")


@pytest.mark.parametrize("share", [0.02, 0.05, 0.1, 0.2])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_paper_looks_are_two_sided_intervals(share: float, confidence: float) -> None:
    looks = PaperLooks(Guarantee(share, confidence), 605, 3)
    assert looks.schedule[:3].tolist() == [10, 20, 30]
    for look in (0, 3, 9, 20, 43, len(looks.schedule) - 1):
        n = int(looks.schedule[look])
        near = {looks.acceptance[look], looks.rejection[look]}
        for errors in {0, n} | {int(e) + k for e in near for k in (-1, 0, 1)}:
            if 0 <= errors <= n:
                test = binomtest(n - errors, n)
                interval = test.proportion_ci(confidence, method="exact")
                admitted = errors <= looks.acceptance[look]
                ruled_out = errors >= looks.rejection[look]
                assert admitted == (interval.low >= 1 - share)
                assert ruled_out == (interval.high < 1 - share)


def seen_by(draw, count: int) -> list[Tally]:
    """Draw evidence of some candidates, at most as dear as 1.2 times the reference."""
    seen = []
    for tier in range(1, count + 1):
        draws = draw(st.integers(1, 40)) * 10
        errors = draw(st.integers(0, draws // 3))
        seen.append(Tally(tier, draws, errors, draw(st.floats(0.001, 1.2))))
    return seen


def cost_of(split: dict[int, int], seen: list[Tally], remaining: int) -> float:
    """Cost of a split, the reference at 1 per item serving what is left over."""
    by_tier = {one.tier: one.cost for one in seen}
    rest = remaining - sum(split.values())
    return rest + sum(count * by_tier[tier] for tier, count in split.items())


@given(st.data(), st.sampled_from(["corrected", "paper"]), st.sampled_from(SHARES))
def test_mixes_stay_within_the_batch_and_below_the_reference(data, name, share) -> None:
    seen = seen_by(data.draw, data.draw(st.integers(1, 4)))
    profiled = max(one.draws for one in seen)
    n_items = profiled + data.draw(st.integers(0, 3000))
    looks = LOOKS[name](Guarantee(share), n_items, len(seen))
    split = looks.mix(seen, profiled, 1.0)
    remaining = n_items - profiled
    assert set(split) <= {one.tier for one in seen}
    assert all(isinstance(count, int) and count > 0 for count in split.values())
    assert sum(split.values()) <= remaining
    assert cost_of(split, seen, remaining) <= remaining * (1 + 1e-12)


def rates_at(one: Tally, exponents: np.ndarray, confidence: float) -> np.ndarray:
    """Error rates assumed of a candidate at confidence to the power of exponents."""
    errors = one.errors
    return 1 - clopper_pearson_lower(one.draws - errors, errors, confidence**exponents)


@FEWER
@given(st.data(), st.sampled_from([0.02, 0.05, 0.1, 0.2]), st.sampled_from([2, 3]))
def test_paper_mix_is_the_linear_programs_optimum(data, share, count) -> None:
    seen = seen_by(data.draw, count)
    profiled = max(one.draws for one in seen)
    n_items = profiled + data.draw(st.integers(1, 3000))
    remaining, allowed = n_items - profiled, share * n_items
    split = PaperLooks(Guarantee(share, 0.95), n_items, count).mix(seen, profiled, 1.0)

    # Brute force: every way to share out the confidence, a linear program for each.
    steps = 20 if count == 2 else 10
    prices = [1.0, *(one.cost for one in seen)]
    cheapest = float(remaining)
    for parts in product(range(steps + 1), repeat=count):
        if sum(parts) != steps:  # less than all of it would only waste confidence
            continue
        rates = [
            float(rates_at(one, np.array(part / steps), 0.95))
            for one, part in zip(seen, parts, strict=True)
        ]
        found = linprog(
            prices,
            A_ub=[[0.0, *rates]],
            b_ub=[allowed],
            A_eq=[[1.0] * (count + 1)],
            b_eq=[remaining],
        )
        cheapest = min(cheapest, found.fun)
    assert cost_of(split, seen, remaining) <= cheapest + max(prices) + 1e-6

    # And it keeps its own constraint, for some way to share out the confidence.
    chosen = [one for one in seen if one.tier in split]
    grid = np.linspace(0, 1, 21)
    if len(chosen) == 1:
        used = split[chosen[0].tier] * rates_at(chosen[0], grid[-1:], 0.95)
        assert used.min() <= allowed + 1e-6
    elif chosen:
        first, second = (
            split[one.tier] * rates_at(one, exponents, 0.95)
            for one, exponents in zip(chosen, (grid, 1 - grid), strict=True)
        )
        assert (first + second).min() <= allowed + 1e-6
    assert len(chosen) <= 2


def test_corrected_mix_takes_the_candidate_that_saves_most() -> None:
    looks = CorrectedLooks(Guarantee(0.05), 5000, 3)
    weak = Tally(1, 200, 16, 0.01)  # too many errors for all, few enough for some
    worse = Tally(2, 200, 40, 0.01)
    dear = Tally(3, 200, 0, 2.0)
    split = looks.mix([weak, worse, dear], 200, 1.0)
    assert set(split) == {1}
    assert 0 < split[1] < 4800
    assert looks.mix([dear], 200, 1.0) == {}


def test_nothing_seen_proves_nothing() -> None:
    nothing = [Tally(1, 0, 0, 0.01)]
    assert CorrectedLooks(Guarantee(0.05), 100, 1).mix(nothing, 0, 1.0) == {}
