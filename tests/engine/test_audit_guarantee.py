"""Measured violation rates of the audit at the worst case.

Errors just above what may stay hidden, spread evenly or clustered where they mislead:
the same for all candidates, in one class of answers, or under the highest confidence.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
import pytest
from verdicts import refuted, surely_above

from smart_engine import Guarantee
from smart_engine.strategies import audit_state

ALPHA = 0.05


class Case(NamedTuple):
    """One population, made anew for every trial.

    Attributes:
        items: Number of items.
        share: Tolerated share of wrong answers, δ.
        candidates: Number of candidates.
        errors: How errors lie: "apart" (independently), "alike" (the same for all),
            "class" (in one class of answers), "sure" (where confidence is highest).
        extra: Errors of each candidate beyond the allowance, as a share of it.
    """

    items: int
    share: float
    candidates: int
    errors: str
    extra: float


def violated(quick, case: Case, seed: int) -> bool:
    """Whether more answers differ than promised."""
    rng = np.random.default_rng([seed, case.items, case.candidates])
    guarantee = Guarantee(case.share, 1 - ALPHA)
    allowed = guarantee.max_errors(case.items)
    count = min(case.items, allowed + 1 + int(case.extra * allowed))
    kinds = rng.integers(0, 3, case.items)
    confidence = None
    lean = np.zeros(case.items)
    if case.errors == "class":
        lean = 2.0 * (kinds == 0)
    if case.errors == "sure":
        confidence = rng.normal(size=case.items)
        lean = 1.5 * confidence

    def draw() -> np.ndarray:
        wrong = np.zeros(case.items, np.uint8)
        wrong[np.argsort(lean + rng.gumbel(size=case.items))[-count:]] = 1
        return wrong

    one = draw()
    table = [
        draw() if case.errors == "apart" and tier else one
        for tier in range(case.candidates)
    ]
    costs = [1.0, *(0.01 * 2**tier for tier in range(case.candidates))]
    done = quick(
        table,
        costs,
        guarantee,
        strategy="audit",
        seed=seed,
        confidence=confidence,
        kinds=kinds,
    )
    return bool(done.differing > allowed)


@pytest.mark.parametrize(
    "case",
    [
        Case(50, 0.2, 1, "apart", 0.1),
        pytest.param(Case(100, 0.1, 3, "alike", 0.1), marks=pytest.mark.slow),
        pytest.param(Case(300, 0.1, 2, "apart", 0.2), marks=pytest.mark.slow),
        pytest.param(Case(300, 0.05, 3, "alike", 0.2), marks=pytest.mark.guarantee),
        pytest.param(Case(300, 0.2, 3, "class", 0.2), marks=pytest.mark.guarantee),
        pytest.param(Case(200, 0.1, 1, "sure", 0.2), marks=pytest.mark.slow),
        pytest.param(Case(500, 0.1, 1, "sure", 0.2), marks=pytest.mark.slow),
    ],
)
def test_the_audit_keeps_the_promise(quick, case) -> None:
    trials = (violated(quick, case, seed) for seed in range(100))
    assert not refuted(ALPHA, 100, trials)


def test_a_broken_audit_is_found_out(quick, monkeypatch) -> None:
    honest = audit_state.Acceptance

    def careless(items, allowed, level, expected):
        return honest(items, allowed, min(0.9, 16 * level), expected)

    monkeypatch.setattr(audit_state, "Acceptance", careless)
    case = Case(300, 0.1, 1, "apart", 0.1)
    trials = (violated(quick, case, seed) for seed in range(150))
    assert refuted(ALPHA, 150, trials)


CASES = [
    *(
        Case(items, share, candidates, errors, 0.15)
        for (items, share), (candidates, errors) in product(
            [(50, 0.2), (200, 0.05), (1000, 0.1)],
            [(1, "apart"), (1, "sure"), (3, "apart"), (3, "alike"), (5, "class")],
        )
    ),
    # Far more errors than may hide: the part that is served decides.
    *(
        Case(1000, 0.1, candidates, errors, 3.0)
        for candidates, errors in [
            (1, "apart"),
            (1, "sure"),
            (3, "alike"),
            (4, "class"),
        ]
    ),
    Case(1000, 0.01, 2, "alike", 0.0),
    Case(1000, 0.02, 3, "alike", 0.5),
    Case(1000, 0.02, 5, "alike", 0.3),
    Case(5000, 0.05, 3, "alike", 0.1),
    Case(5000, 0.05, 1, "sure", 0.1),
    Case(5000, 0.01, 5, "class", 0.1),
    Case(20_000, 0.2, 4, "sure", 0.05),
    Case(50_000, 0.02, 1, "apart", 0.05),
    Case(50_000, 0.01, 3, "alike", 0.05),
]
TRIALS = 2000


RUNNER: list = []  # the fixture, handed to forked processes


def _count(case: Case, start: int) -> int:
    return sum(violated(RUNNER[0], case, seed) for seed in range(start, start + 100))


@pytest.mark.guarantee
@pytest.mark.timeout(0)
def test_violation_rates_of_the_audit_at_the_worst_case(quick) -> None:
    print("\n|      N |    δ | candidates | errors | beyond B | violated |")
    print("|-------:|-----:|-----------:|--------|---------:|---------:|")
    too_often = []
    RUNNER[:] = [quick]
    with ProcessPoolExecutor(mp_context=get_context("fork")) as pool:
        for case in CASES:
            counts = pool.map(partial(_count, case), range(0, TRIALS, 100))
            count = sum(counts)
            print(
                f"| {case.items:>6} | {case.share:.2f} | {case.candidates:>10} "
                f"| {case.errors:<6} | {case.extra:>7.0%} | {count / TRIALS:>8.2%} |",
                flush=True,
            )
            if surely_above(count, TRIALS, ALPHA):
                too_often.append(case)
    assert not too_often
