"""Helpers the engine's tests share: drivers of sessions and tables of outcomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pytest

from smart_engine import BatchSession, Failure, Guarantee, Outcome, Tier
from smart_engine.batch import ANSWERED, REFERENCE, Batch
from smart_engine.strategies import find_strategy

Table = dict[str, list[Outcome | Failure]]


@pytest.fixture(scope="session")
def tiers() -> Callable[[int], list[Tier]]:
    """Make a reference `big` and candidates `c1`, `c2`, …"""

    def make(candidates: int = 1) -> list[Tier]:
        names = [f"c{index}" for index in range(1, candidates + 1)]
        return [Tier("big", role="reference"), *map(Tier, names)]

    return make


@pytest.fixture(scope="session")
def drive() -> Callable[[BatchSession, Table], BatchSession]:
    """Drive a session to its end as the docstring of `BatchSession` does."""

    def run(session: BatchSession, table: Table) -> BatchSession:
        while calls := session.next_calls():
            for call in calls:
                session.record(call, table[call.tier][call.item])
        return session

    return run


@pytest.fixture(scope="session")
def models() -> Callable[..., Table]:
    """Make a table of outcomes: candidates that err in a given share of the items."""

    def make(
        n_items: int, *error_rates: float, costs: Sequence[float] = (), seed: int = 0
    ) -> Table:
        rng = np.random.default_rng(seed)
        costs = costs or (1.0, *(0.01 * 2**k for k in range(len(error_rates))))
        table: Table = {"big": [Outcome("yes", costs[0]) for _ in range(n_items)]}
        for index, rate in enumerate(error_rates, 1):
            answers = np.where(rng.random(n_items) < rate, "no", "yes").tolist()
            cost = costs[index]
            table[f"c{index}"] = [Outcome(answer, cost) for answer in answers]
        return table

    return make


class Result(NamedTuple):
    """What a strategy did on a population whose errors are known."""

    differing: int
    cost: float
    calls: list[int]
    route: np.ndarray


@pytest.fixture(scope="session")
def quick() -> Callable[..., Result]:
    """Run a strategy alone, outcomes written straight into its batch."""

    def run(
        wrong: Sequence[np.ndarray],
        costs: Sequence[float],
        guarantee: Guarantee,
        *,
        strategy: str,
        looks: str = "corrected",
        seed: int = 0,
    ) -> Result:
        tiers = [
            Tier("0", role="reference"),
            *(Tier(str(k + 1)) for k in range(len(wrong))),
        ]
        batch = Batch(len(wrong[0]), tiers, guarantee, seed)
        status = [np.frombuffer(part, np.uint8) for part in batch.status]
        deciding = find_strategy(strategy)(batch, looks)
        while True:
            try:
                wave = next(deciding)
            except StopIteration as stop:
                route = stop.value.route
                break
            for tier in wave.tiers:
                status[tier][wave.items] = ANSWERED
                np.frombuffer(batch.costs[tier])[wave.items] = costs[tier]
                if tier != REFERENCE:
                    found = wrong[tier - 1][wave.items]
                    np.frombuffer(batch.wrong[tier], np.uint8)[wave.items] = found
        route = np.where(status[REFERENCE] == ANSWERED, REFERENCE, route)
        for tier in range(len(tiers)):
            status[tier][route == tier] = ANSWERED
        calls = [int((part == ANSWERED).sum()) for part in status]
        differing = sum(int(w[route == t].sum()) for t, w in enumerate(wrong, 1))
        spent = sum(n * cost for n, cost in zip(calls, costs, strict=True))
        return Result(differing, spent, calls, route)

    return run
