"""Measured violation rates at the worst case: fixed errors at random positions."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
from verdicts import refuted, surely_above

from smart_engine import BatchSession, Failure, Guarantee, Outcome, Tier

STRATEGIES = ["exhaustive", "efficient", "mix"]
ALPHA = 0.05


def populations(n_items: int, wrong: int, candidates: int, seed: int) -> list:
    """Make candidates that are each wrong on the same number of random items."""
    rng = np.random.default_rng([seed, wrong, n_items])
    table = np.zeros((candidates, n_items), np.uint8)
    for row in table:
        row[rng.choice(n_items, wrong, replace=False)] = 1
    return list(table)


def violations(
    quick, guarantee, n_items, wrong, trials, *, start=0, **how
) -> Iterator[bool]:
    """Say of each trial whether more answers differ than are allowed."""
    candidates = how.pop("candidates", 1)
    costs = [1.0, *(0.01 * 2**k for k in range(candidates))]
    allowed = guarantee.max_errors(n_items)
    for seed in range(start, start + trials):
        table = populations(n_items, wrong, candidates, seed)
        yield quick(table, costs, guarantee, seed=seed, **how).differing > allowed


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("candidates", [1, 3])
@pytest.mark.parametrize(
    ("n_items", "share", "extra"),
    [
        (100, 0.1, 8),
        (300, 0.2, 10),
        *(
            pytest.param(1000, share, extra, marks=pytest.mark.slow)
            for share, extra in [(0.05, 3), (0.1, 4), (0.2, 32)]
        ),
    ],
)
def test_corrected_looks_keep_the_promise(
    quick, strategy, candidates, n_items, share, extra
) -> None:
    guarantee = Guarantee(share, 1 - ALPHA)
    wrong = guarantee.max_errors(n_items) + extra
    how = {"strategy": strategy, "candidates": candidates}
    trials = violations(quick, guarantee, n_items, wrong, 150, **how)
    assert not refuted(ALPHA, 150, trials)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("n_items", "share"), [(33, 0.2), (100, 0.1), (1000, 0.05)])
def test_a_candidate_that_is_always_wrong_gets_the_allowance_at_most(
    quick, strategy, n_items, share
) -> None:
    guarantee = Guarantee(share, 1 - ALPHA)
    always = [np.ones(n_items, np.uint8)]
    done = quick(always, [1.0, 0.01], guarantee, strategy=strategy)
    assert done.differing <= guarantee.max_errors(n_items)
    # Errors allowed without any evidence, a mix may hand to anyone.
    assert strategy != "mix" or done.differing > 0


@pytest.mark.parametrize("strategy", ["reference", "audit", *STRATEGIES])
@pytest.mark.parametrize("looks", ["corrected", "paper"])
def test_the_quick_driver_does_what_a_session_does(
    quick, drive, strategy, looks
) -> None:
    guarantee, costs = Guarantee(0.1, 0.9), [1.0, 0.01, 0.02]
    roles = ("reference", "candidate", "candidate")
    tiers = [Tier(str(k), role, costs[k]) for k, role in enumerate(roles)]
    for seed, wrong in enumerate((0, 35, 120)):
        table = populations(400, wrong, 2, seed)
        fast = quick(table, costs, guarantee, strategy=strategy, looks=looks, seed=seed)
        kinds = np.random.default_rng(99).integers(0, 2, 400)
        right = np.zeros_like(table[0])
        outcomes: dict[str, list[Outcome | Failure]] = {
            str(tier): [Outcome(kind, costs[tier]) for kind in (kinds ^ errs).tolist()]
            for tier, errs in enumerate((right, *table))
        }
        session = BatchSession(
            *(400, tiers, guarantee),
            strategy=strategy,
            looks=looks,
            seed=seed,
            min_saving=0,
        )
        drive(session, outcomes)
        truth = outcomes["0"]
        differing = sum(one.answer != truth[one.item].answer for one in session.answers)
        assert fast.differing == differing
        assert fast.cost == pytest.approx(session.certificate.cost)


# Items, δ, candidates: enough of each to see the worst, few enough to wait for.
CELLS = [
    (100, 0.1, 1),
    (100, 0.2, 1),
    (1000, 0.02, 1),
    (1000, 0.05, 1),
    (1000, 0.1, 1),
    (1000, 0.2, 1),
    (1000, 0.1, 3),
    (5000, 0.05, 1),
    (5000, 0.05, 3),
]
PILOT, TRIALS = 100, 2000


def grid(n_items: int, allowed: int) -> list[int]:
    """Numbers of errors just above what may stay hidden."""
    extras = {1, 2, 4, 8, 16, 32, 64, *(int(allowed * f) + 1 for f in (0.05, 0.2, 0.4))}
    return sorted(allowed + extra for extra in extras if allowed + extra < n_items)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(0)
def test_violation_rates_at_the_worst_case(quick) -> None:
    head = (
        "|     N |    δ | candidates | agreement | looks     | strategy   | violated |"
    )
    print(f"\n{head}\n|{'|'.join('-' * len(part) for part in head.split('|')[1:-1])}|")
    too_often: dict[str, list[str]] = {"corrected": [], "paper": []}
    for looks, (n_items, share, candidates) in product(too_often, CELLS):
        guarantee = Guarantee(share, 1 - ALPHA)
        allowed = guarantee.max_errors(n_items)
        for strategy in STRATEGIES:
            how = {"strategy": strategy, "looks": looks, "candidates": candidates}

            pilot = {
                wrong: sum(
                    violations(
                        quick, guarantee, n_items, wrong, PILOT, start=10**6, **how
                    )
                )
                for wrong in grid(n_items, allowed)
            }
            worst = max(pilot, key=pilot.__getitem__)
            count = sum(violations(quick, guarantee, n_items, worst, TRIALS, **how))
            line = (
                f"| {n_items:>5} | {share:.2f} | {candidates:>10} "
                f"| {1 - worst / n_items:>9.4f} | {looks:<9} | {strategy:<10} "
                f"| {count / TRIALS:>8.2%} |"
            )
            print(line, flush=True)
            if surely_above(count, TRIALS, ALPHA):
                too_often[looks].append(line)
    assert not too_often["corrected"]
    assert too_often["paper"]
