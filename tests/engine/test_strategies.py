"""What the strategies spend, on populations whose errors are known."""

from __future__ import annotations

from itertools import product
from statistics import mean

import numpy as np
import pytest

from smart_engine import Guarantee

LOOKS = ["corrected", "paper"]
COSTS = [1.0, 0.02, 0.1]
SETTINGS = list(
    product([500, 3000], [0.02, 0.1], [(0.0, 0.0), (0.08, 0.0), (0.3, 0.05)])
)


def candidates(n_items: int, rates: tuple[float, ...], seed: int) -> list[np.ndarray]:
    """Make candidates that are wrong on an exact share of the items."""
    rng = np.random.default_rng(seed)
    return [
        rng.permutation(np.arange(n_items) < round(rate * n_items)).astype(np.uint8)
        for rate in rates
    ]


def spend(quick, strategy, looks, n_items, share, rates, trials=12) -> float:
    """Mean cost as a share of what the reference alone costs."""
    return mean(
        quick(
            candidates(n_items, rates, seed),
            COSTS[: len(rates) + 1],
            Guarantee(share, 0.95),
            strategy=strategy,
            looks=looks,
            seed=seed,
        ).cost
        / n_items
        for seed in range(trials)
    )


@pytest.mark.parametrize("n_items", [1, 10, 777])
def test_reference_costs_exactly_one_call_an_item(quick, n_items) -> None:
    wrong = candidates(n_items, (0.0, 0.0), 0)
    done = quick(wrong, COSTS, Guarantee(), strategy="reference")
    assert done.calls == [n_items, 0, 0]
    assert done.differing == 0


@pytest.mark.parametrize("looks", LOOKS)
@pytest.mark.parametrize(
    ("rates", "right"), [((0.0, 0.0), 1), ((0.3, 0.005), 2), ((0.3, 0.3), 0)]
)
def test_exhaustive_takes_the_cheapest_that_qualifies(
    quick, looks, rates, right
) -> None:
    for seed in range(10):
        done = quick(
            candidates(3000, rates, seed),
            COSTS,
            Guarantee(0.05, 0.95),
            strategy="exhaustive",
            looks=looks,
            seed=seed,
        )
        assert set(np.unique(done.route).tolist()) <= {0, right}
        if right:
            assert (done.route == right).sum() > 1500


@pytest.mark.parametrize("looks", LOOKS)
def test_candidates_dearer_than_an_admitted_one_are_profiled_no_further(
    quick, looks
) -> None:
    # The dearer one is good too, but hopeless to beat the cheap one.
    done = quick(
        candidates(3000, (0.0, 0.04), 0),
        COSTS,
        Guarantee(0.05, 0.95),
        strategy="exhaustive",
        looks=looks,
    )
    assert done.calls[0] == done.calls[2] < 400


@pytest.mark.parametrize("looks", LOOKS)
@pytest.mark.parametrize(("n_items", "share", "rates"), SETTINGS)
def test_efficient_is_about_as_cheap_as_the_better_of_all_or_nothing(
    quick, looks, n_items, share, rates
) -> None:
    at = (looks, n_items, share, rates)
    efficient = spend(quick, "efficient", *at)
    exhaustive = spend(quick, "exhaustive", *at)
    assert efficient <= 1.05
    # The paper's first look comes after ten items: in small batches it gives up early.
    if looks == "corrected" or n_items >= 3000:
        assert efficient <= exhaustive + 0.05


@pytest.mark.parametrize("looks", LOOKS)
@pytest.mark.parametrize(("n_items", "share", "rates"), SETTINGS)
def test_mixing_never_costs_more_than_efficient(
    quick, looks, n_items, share, rates
) -> None:
    at = (looks, n_items, share, rates)
    assert spend(quick, "mix", *at) <= spend(quick, "efficient", *at) + 1e-9


@pytest.mark.parametrize("looks", LOOKS)
def test_mixing_saves_where_no_candidate_may_serve_all(quick, looks) -> None:
    at = (looks, 3000, 0.1, (0.2,))
    assert spend(quick, "efficient", *at) > 1
    assert spend(quick, "mix", *at) < 0.8


@pytest.mark.parametrize("looks", LOOKS)
@pytest.mark.parametrize("strategy", ["exhaustive", "efficient"])
def test_useless_candidates_cost_a_handful_of_calls(quick, looks, strategy) -> None:
    for seed in range(20):
        done = quick(
            candidates(3000, (0.9, 0.8), seed),
            COSTS,
            Guarantee(0.05, 0.95),
            strategy=strategy,
            looks=looks,
            seed=seed,
        )
        assert max(done.calls[1:]) <= 64
        assert done.differing == 0


@pytest.mark.parametrize("looks", LOOKS)
def test_profiling_is_not_begun_in_earnest_where_it_cannot_pay(quick, looks) -> None:
    # A flawless candidate saves next to nothing: stop after the first look.
    done = quick(
        candidates(400, (0.0,), 0),
        [1.0, 0.99],
        Guarantee(0.01, 0.99),
        strategy="efficient",
        looks=looks,
    )
    assert done.calls[1] <= 32
    assert done.calls[0] == 400
