"""The acceptance numbers against exact enumeration, and the traps they must avoid."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smart_engine import Guarantee, InvalidInputError
from smart_engine.evidence.acceptance import (
    Acceptance,
    Allowance,
    SequentialTest,
    risen,
)
from smart_engine.evidence.tails import hypergeometric_cdf

ALPHA = 0.05


def wrongly_accepted(
    design: Acceptance, marked: int, *, allowed: int | Callable[[int], int]
) -> float:
    """Probability, over all orders of drawing, of more than `allowed` hidden errors.

    How many are may depend on how many were detected.

    Dynamic programming over (draws, errors found); stops at the first look that
    accepts.
    """
    items = design.items
    most = allowed if callable(allowed) else lambda _: allowed
    at = {0: 1.0}
    wrong = 0.0
    for draws in range(items + 1):
        going_on: dict[int, float] = {}
        for found, chance in at.items():
            if draws >= design.draws(found):
                wrong += chance * (marked - found > most(found))
            else:
                going_on[found] = chance
        at = {}
        for found, chance in going_on.items():
            hit = (marked - found) / (items - draws) if draws < items else 0.0
            if hit > 0:
                at[found + 1] = at.get(found + 1, 0.0) + chance * hit
            if hit < 1:
                at[found] = at.get(found, 0.0) + chance * (1 - hit)
    return wrong


def worst_case(items: int, level: float, expected: float) -> float:
    """Largest probability of accepting wrongly, over all allowances and populations."""
    designs = [Acceptance(items, b, level, expected) for b in range(items)]
    return max(
        wrongly_accepted(design, marked, allowed=design.max_errors)
        for design in designs
        for marked in range(items + 1)
    )


@pytest.mark.parametrize("items", [1, 2, 3, 5, 8, 13, 20, 27, 33, 40])
@pytest.mark.parametrize("expected", [0.0, 0.3, 1.0, 5.0])
def test_no_population_is_accepted_wrongly_more_often_than_the_level(
    items: int, expected: float
) -> None:
    worst = worst_case(items, ALPHA, expected)
    assert worst <= ALPHA
    if items >= 20 and expected <= 1:
        assert worst > 0.8 * ALPHA  # and next to nothing of the level is lost


@pytest.mark.slow
@pytest.mark.parametrize("level", [0.01, 0.05, 0.2])
def test_no_population_of_up_to_40_items_breaks_the_level(level: float) -> None:
    for expected in (0.3, 2.0):
        worst = [worst_case(items, level, expected) for items in range(1, 41)]
        print(f"\nlevel {level}, expected {expected}: worst {max(worst):.6f}", end="")
        assert max(worst) <= level


def test_enumeration_agrees_with_all_orders_of_drawing() -> None:
    design = Acceptance(8, 2, 0.4, 1.0)
    for marked in range(9):
        population = [1] * marked + [0] * (8 - marked)
        bad = orders = 0
        for order in set(permutations(population)):
            found = draws = 0
            while draws < design.draws(found):
                found += order[draws]
                draws += 1
            bad += marked - found > 2
            orders += 1
        assert wrongly_accepted(design, marked, allowed=2) == pytest.approx(
            bad / orders
        )


Rise = tuple[float, int, float]
"""By how much an allowance rises for each error, and for each beyond which number."""


def worst_with_rise(items: int, rise: Rise, credited: Rise) -> float:
    """Largest probability of accepting with more undetected than `credited` allows."""
    return max(
        wrongly_accepted(
            design, marked, allowed=lambda found, b=b: b + risen(found, *credited)
        )
        for b in range(0, items, 2)
        for design in [Acceptance(items, b, ALPHA, 1.0, *rise)]
        for marked in range(items + 1)
    )


@pytest.mark.parametrize(
    "rise",
    [
        *((gain, 0, 0.0) for gain in (0.12, 0.5, 1.0, 3.0)),
        (0.0, 0, 1.0),
        (0.12, 1, 1.0),
        (0.5, 2, 0.4),
    ],
)
@pytest.mark.parametrize("items", [5, 13, 24])
def test_an_allowance_may_rise_with_the_errors_detected(items: int, rise: Rise) -> None:
    assert worst_with_rise(items, rise, rise) <= ALPHA


@pytest.mark.parametrize("rise", [(1.0, 0, 0.0), (0.0, 1, 1.0)])
def test_trap_an_allowance_that_has_risen_does_not_prove_the_first_one(
    rise: Rise,
) -> None:
    assert worst_with_rise(24, rise, (0.0, 0, 0.0)) > 2 * ALPHA


@pytest.mark.parametrize("rise", [(1 / 19, 0, 0.0), (1 / 9, 0, 0.0), (0.1, 100, 0.7)])
def test_a_rising_allowance_keeps_the_level_beyond_the_exact_looks(rise: Rise) -> None:
    design = Acceptance(1200, 60, ALPHA, 20.0, *rise)
    rates = [
        wrongly_accepted(
            design, design.allowed(found) + 1 + found, allowed=design.allowed
        )
        for found in (0, 1, 20, 100, 127, 140, 160, 200)
    ]
    assert 0.8 * ALPHA < max(rates) <= ALPHA


@pytest.mark.parametrize(
    ("items", "allowed"), [(300, 6), (300, 60), (2000, 100), (2000, 20)]
)
def test_larger_populations_keep_the_level_and_use_it(items: int, allowed: int) -> None:
    design = Acceptance(items, allowed, ALPHA, 2.0)
    rates = [
        wrongly_accepted(design, marked, allowed=allowed)
        for marked in (allowed + 1 + k for k in (0, 1, 2, 4, 8, 16, 32, 64, 127, 200))
        if marked <= items
    ]
    assert max(rates) <= ALPHA
    assert max(rates) > 0.9 * ALPHA


# -- items that get no answer ------------------------------------------------------


def broken(
    items: int, wrong: int, failing: int, guarantee: Guarantee, *, fixed: bool
) -> float:
    """Probability, over all orders, that more answers differ than the share δ of all.

    Errors come in any order of kinds: wrong answers, and items that the reference will
    fail on. A failing item that stays undrawn is handed out wrong, or stays unanswered,
    whichever is worse. `fixed`: the allowance stays what it was at the start.
    """
    marked = wrong + failing

    def breaks(found: int, failed: int) -> bool:
        hidden, unasked = marked - found, failing - failed
        return any(
            hidden - lost > guarantee.max_errors(items - failed - lost)
            for lost in range(unasked + 1)
        )

    @cache
    def size(kinds: tuple[bool, ...]) -> int:
        """Draws that suffice after errors of these kinds; True is a failure."""
        allowance = None if fixed else Allowance(guarantee, items)
        design = Acceptance(items, guarantee.max_errors(items), guarantee.alpha, 0.5)
        test = SequentialTest("one", design, allowance)
        for number, kind in enumerate(kinds, 1):
            design.draws(number - 1)
            test.extend(number, [number], {number} if kind else ())
        return test.target

    total, orders = 0.0, list(combinations(range(marked), failing))
    for failures in orders:
        kinds = tuple(place in failures for place in range(marked))
        at = {0: 1.0}
        for draws in range(items + 1):
            going_on: dict[int, float] = {}
            for found, chance in at.items():
                if draws >= size(kinds[:found]):
                    total += chance * breaks(found, sum(kinds[:found]))
                    continue
                hit = (marked - found) / (items - draws) if draws < items else 0.0
                for more, share in ((1, hit), (0, 1 - hit)):
                    before = going_on.get(found + more, 0.0)
                    going_on[found + more] = before + chance * share
            at = {found: chance for found, chance in going_on.items() if chance}
    return total / len(orders)


@pytest.mark.parametrize(
    ("items", "share"),
    [
        (7, 0.3),
        pytest.param(8, 0.45, marks=pytest.mark.slow),
        pytest.param(10, 0.6, marks=pytest.mark.guarantee),
    ],
)
@pytest.mark.parametrize("fixed", [False, True])
def test_errors_stay_a_share_of_the_answers_where_the_reference_fails(
    items: int, share: float, fixed: bool
) -> None:
    guarantee = Guarantee(share, 0.7)
    worst = max(
        broken(items, wrong, failing, guarantee, fixed=fixed)
        for wrong in range(items + 1)
        for failing in range(items + 1 - wrong)
    )
    # An allowance of a share of all items, answered or not, is exceeded too often.
    assert (worst <= guarantee.alpha) != fixed
    if not fixed:
        assert worst > 0.4 * guarantee.alpha


@given(st.data(), st.integers(100, 3000), st.sampled_from([0.05, 0.3]))
def test_sizes_rise_while_the_allowance_falls(data, items, share) -> None:
    guarantee = Guarantee(share, 0.95)
    allowance = Allowance(guarantee, items)
    design = Acceptance(items, allowance.after(0), 0.05, 40.0)
    test = SequentialTest("one", design, allowance)
    targets = [test.target]
    kinds = data.draw(st.lists(st.booleans(), max_size=200))
    for number, failed in enumerate(kinds[: items - 1], 1):
        test.extend(number, [number], {number} if failed else ())
        targets.append(test.target)
    assert targets == sorted(targets)
    assert targets[-1] <= items - allowance.after(len(test.failures))


# -- traps: each has a wrong version that breaks the level ------------------------


class Wrong:
    """A design over 200 items of which 10 may stay wrong, made wrongly."""

    items = 200

    def __init__(self) -> None:
        self._sizes = [self.size(found) for found in range(40)]

    def draws(self, found: int) -> int:
        return self._sizes[min(found, 39)]


class LooksAgain(Wrong):
    """The classic fixed-sample test, looked at as if each look were the only one."""

    def size(self, found: int) -> int:
        levels = (
            size
            for size in range(1, 191)
            if hypergeometric_cdf(found, 200, 11 + found, size) <= ALPHA
        )
        return next(levels, 190)


class OneTooMany(Wrong):
    """B + 1 errors may hide, not B: the null hypothesis starts one too late."""

    def __init__(self) -> None:
        self._design = Acceptance(200, 11, ALPHA, 1.0)
        super().__init__()

    def size(self, found: int) -> int:
        return self._design.draws(found)


class ForgetsErrors(Wrong):
    """Errors found are repaired, so they are taken to be no evidence."""

    def size(self, found: int) -> int:
        return Acceptance(200, 10, ALPHA, 1.0).draws(0)


@pytest.mark.parametrize("wrong", [LooksAgain, OneTooMany, ForgetsErrors])
def test_wrong_designs_are_found_out(wrong: type[Wrong]) -> None:
    design = wrong()
    worst = max(
        wrongly_accepted(design, marked, allowed=10) for marked in range(11, 60)
    )
    assert worst > 1.05 * ALPHA


@pytest.mark.parametrize("split", [True, False])
def test_policies_that_share_draws_must_share_the_level(split: bool) -> None:
    # Three policies on the same draws, each with one error more than may hide: whoever
    # is accepted first serves. At the full level each, one is accepted too often.
    policies, trials = 3, 1500
    level = ALPHA / policies if split else ALPHA
    design = Acceptance(200, 10, level, 0.0)
    rng = np.random.default_rng(8)
    wrongly = 0
    for _ in range(trials):
        for _ in range(policies):
            test = SequentialTest("one", design)
            test.observe(rng.permutation(np.arange(200) < 11))
            found = sum(number <= (test.accepted or 200) for number in test.errors)
            if 11 - found > 10:
                wrongly += 1
                break
    margin = 3 * (ALPHA * (1 - ALPHA) / trials) ** 0.5
    assert (wrongly / trials <= ALPHA + margin) == split


def test_a_wave_is_read_in_the_order_of_its_draws() -> None:
    design = Acceptance(1000, 50, ALPHA, 0.0)
    enough = design.draws(0)
    wrong = np.zeros(enough + 20, bool)
    wrong[enough + 3] = True  # in flight when the evidence was complete already
    test = SequentialTest("small", design)
    test.observe(wrong)
    assert test.accepted == enough
    assert test.errors == [enough + 4]
    # One place earlier than the look, and nothing is accepted yet.
    wrong[enough - 1] = True
    early = SequentialTest("small", design)
    early.observe(wrong[:enough])
    assert early.accepted is None


@given(
    st.integers(1, 400),
    st.floats(0, 0.5),
    st.floats(0.001, 0.5),
    st.floats(0, 20),
    st.data(),
)
def test_sizes_rise_with_errors_up_to_where_nothing_is_to_prove(
    items, share, level, expected, data
) -> None:
    allowed = int(share * items)
    design = Acceptance(items, allowed, level, expected)
    sizes = [design.draws(errors) for errors in range(data.draw(st.integers(1, 40)))]
    assert sizes == sorted(sizes)
    assert all(0 <= size <= items - allowed for size in sizes)
    wrong = np.array(data.draw(st.lists(st.booleans(), max_size=items)), bool)
    whole, pieces = SequentialTest("a", design), SequentialTest("a", design)
    whole.observe(wrong)
    cut = data.draw(st.integers(0, len(wrong)))
    pieces.observe(wrong[:cut])
    pieces.observe(wrong[cut:])
    assert (whole.accepted, whole.errors) == (pieces.accepted, pieces.errors)


def test_looks_beyond_128_errors_keep_the_level() -> None:
    rng = np.random.default_rng(3)
    items, allowed, marked = 3000, 600, 760
    design = Acceptance(items, allowed, 0.2, 200.0)
    assert design.draws(140) < items - allowed
    bad, trials = 0, 400
    population = np.arange(items) < marked
    for _ in range(trials):
        test = SequentialTest("small", design)
        test.observe(rng.permutation(population)[: items - allowed])
        accepted = test.accepted or items
        found = sum(number <= accepted for number in test.errors)
        bad += marked - found > allowed
    assert 0 < bad <= 0.2 * trials + 3 * (0.16 * trials) ** 0.5


def chance_of_accepting_wrongly(design: Acceptance, marked: int) -> float:
    """Probability, over all orders of drawing so many errors, that too many stay."""
    items, found = design.items, np.arange(marked + 1)
    sizes = np.array([design.draws(errors) for errors in found.tolist()])
    chance, wrong = np.zeros(marked + 1), 0.0
    chance[0] = 1.0
    for draws in range(items + 1):
        stops = sizes <= draws
        wrong += chance[stops & (marked - found > design.max_errors)].sum()
        chance[stops] = 0.0
        hit = np.clip((marked - found) / max(items - draws, 1), 0.0, 1.0)
        chance = chance * (1 - hit) + np.roll(chance * hit, 1)
    return float(wrong)


@pytest.mark.parametrize(
    ("items", "most", "beyond"), [(300, 60, 140), (900, 240, 150), (900, 240, 400)]
)
def test_audits_of_more_than_128_errors_keep_the_level_exactly(
    items: int, most: int, beyond: int
) -> None:
    design = Acceptance(items, most, ALPHA, 20.0)
    for errors in (beyond - 20, beyond, beyond + 5):
        assert chance_of_accepting_wrongly(design, most + 1 + errors) <= ALPHA
    assert chance_of_accepting_wrongly(design, most + 60) > 0.02


def test_a_million_items_take_a_moment() -> None:
    design = Acceptance(10**6, 50_000, 0.01, 4.0)
    sizes = [design.draws(errors) for errors in range(0, 1000, 50)]
    assert sizes == sorted(sizes)
    # Around 5 % of the draws, and a little more, have to be free of excess errors.
    assert 50 / 0.05 < sizes[1] < 3 * 50 / 0.05


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("items", (-1, 0, 0.05, 1.0)),
        ("max_errors", (10, -1, 0.05, 1.0)),
        ("level", (10, 1, 0.0, 1.0)),
        ("level", (10, 1, 1.0, 1.0)),
        ("expected_errors", (10, 1, 0.05, -1.0)),
    ],
)
def test_bad_designs_are_refused(field: str, arguments: tuple) -> None:
    with pytest.raises(InvalidInputError, match=field):
        Acceptance(*arguments)
