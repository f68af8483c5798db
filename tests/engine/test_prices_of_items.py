"""Where the reference's price varies between items: what heeding that saves."""

from __future__ import annotations

from statistics import mean

import numpy as np
import pytest
from verdicts import refuted

from smart_engine import BatchSession, Guarantee, Outcome, Tier, verify
from smart_engine.evidence.plans import best_cuts
from smart_engine.evidence.prices import Prices, mean_price

SHARE, RATIO = 0.05, 0.04


def run(
    drive, wrong: np.ndarray, price: np.ndarray, seed: int, *, told: bool = True
) -> tuple[BatchSession, float]:
    """Run a batch; return it, and its cost as a share of the reference's alone.

    Args:
        drive: Drives a session.
        wrong: Per item, whether the candidate's answer differs.
        price: Per item, what the reference costs.
        seed: Seed of the session.
        told: Whether the candidate's cost tells the reference's.
    """
    small = RATIO * (price if told else np.full(len(price), price.mean()))
    table = {
        "big": [Outcome(2 * item, cost) for item, cost in enumerate(price.tolist())],
        "c1": [
            Outcome(2 * item + int(bad), cost)
            for item, (bad, cost) in enumerate(
                zip(wrong.tolist(), small.tolist(), strict=True)
            )
        ],
    }
    models = [Tier("big", role="reference", cost=1.0), Tier("c1", cost=RATIO)]
    guarantee = Guarantee(SHARE, 0.95)
    session = BatchSession(len(wrong), models, guarantee, seed=seed, max_in_flight=16)
    drive(session, table)
    return session, session.certificate.cost / price.sum()


def prices(n_items: int, spread: float, seed: int) -> np.ndarray:
    """Log-normal prices whose mean is about 1."""
    rng = np.random.default_rng([seed, n_items])
    return np.exp(spread * rng.standard_normal(n_items) - spread**2 / 2)


def test_items_are_taken_outright_where_they_cost_little(drive) -> None:
    def spent(*, told: bool) -> float:
        costs = []
        for seed in range(4):
            wrong = np.random.default_rng(seed).random(1000) < 0.15
            session, cost = run(drive, wrong, prices(1000, 1.2, seed), seed, told=told)
            assert all(check.holds for check in verify(session.certificate))
            costs.append(cost)
        return mean(costs)

    assert spent(told=True) < 0.85 * spent(told=False)


def test_prices_that_hardly_vary_change_no_decision(drive) -> None:
    wrong = np.random.default_rng(1).random(1000) < 0.08
    price = prices(1000, 0.3, 1)
    asked = []
    for told in (True, False):
        session, _ = run(drive, wrong, price, 1, told=told)
        asked.append([answer.role for answer in session.answers])
    assert asked[0] == asked[1]


@pytest.mark.parametrize(
    "seeds", [8, pytest.param(600, marks=[pytest.mark.slow, pytest.mark.guarantee])]
)
@pytest.mark.parametrize("lean", [0.0, 1.0, -1.0])
def test_promise_is_kept_wherever_in_prices_errors_are(drive, seeds, lean) -> None:
    # Of half more errors than may stay, in any items, in dear ones, or in cheap ones.
    n_items = 200
    allowed = Guarantee(SHARE, 0.95).max_errors(n_items)

    def broken(seed: int) -> bool:
        price = prices(n_items, 1.2, seed)
        odds = price**lean / (price**lean).sum()
        rng = np.random.default_rng(seed)
        wrong = np.zeros(n_items, bool)
        wrong[rng.choice(n_items, 3 * allowed // 2, replace=False, p=odds)] = True
        session, _ = run(drive, wrong, price, seed)
        given = [served.answer for served in session.answers]
        return sum(given[item] != 2 * item for item in range(n_items)) > allowed

    assert not refuted(0.05, seeds, map(broken, range(seeds)))


def test_a_cut_serves_what_is_safe_for_its_price() -> None:
    # Two leaves as often wrong, of which one costs a tenth.
    sizes, rates = np.array([500.0, 500.0]), np.full((48, 2), 0.1)
    blind = best_cuts(sizes, rates, 50, 0.05)[0]
    aware = best_cuts(sizes, rates, 50, 0.05, prices=np.array([0.2, 1.8]))[0]
    assert aware.order.tolist() == [1, 0]
    assert aware.calls.mean() < 0.8 * blind.calls.mean()


def test_a_price_that_nothing_tells_is_the_same_everywhere() -> None:
    rng = np.random.default_rng(3)
    small, big = np.exp(rng.standard_normal((2, 200)))
    assert len(Prices.fit(small, big).mean) == 1
    assert len(Prices.fit(np.zeros(200), big).mean) == 1
    told = Prices.fit(small, small)
    assert told.bands(np.array([0.0, 1e-9, 1e9])).tolist()[1:] == [0, 7]
    assert abs(told.mean[told.bands(np.zeros(1))[0]] - 1) < 0.5


@pytest.mark.parametrize("seed", range(2))
def test_what_the_reference_alone_would_cost_is_told_though_cheap_items_go_to_it(
    drive, seed
) -> None:
    price = prices(1000, 1.2, seed)
    wrong = np.random.default_rng(seed).random(1000) < 0.1
    session, _ = run(drive, wrong, price, seed)
    certificate = session.certificate
    assert certificate.served["c1"] > 100
    assert certificate.reference_only_cost == pytest.approx(price.sum(), rel=0.01)
    assert session.progress().saved == pytest.approx(certificate.saved)


def test_a_mean_price_follows_a_line_as_far_as_there_is_one() -> None:
    rng = np.random.default_rng(0)
    small = rng.lognormal(size=2000)
    big = 20 + 30 * small + rng.normal(size=2000)
    sample, rest = slice(0, 100), slice(100, None)
    assert mean_price(small[sample], big[sample], small[rest]) == pytest.approx(
        big[rest].mean(), rel=0.02
    )
    shuffled = rng.permutation(big)
    assert mean_price(small[sample], shuffled[sample], small[rest]) == pytest.approx(
        shuffled[sample].mean(), rel=0.02
    )
    assert mean_price(small[:2], big[:2], small[rest]) == big[:2].mean()
    assert mean_price(small[sample], big[sample], small[:0]) == big[sample].mean()
