"""Helpers the engine's tests share: drivers of sessions and tables of outcomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pytest

from smart_engine import BatchSession, Failure, Guarantee, Outcome, Tier
from smart_engine.evidence.record import ANSWERED, REFERENCE, BatchRecord
from smart_engine.strategies import STRATEGIES

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
        right = np.random.default_rng(99).integers(0, 2, n_items) == 1
        said = np.where(right, "yes", "no").tolist()
        table: Table = {"big": [Outcome(answer, costs[0]) for answer in said]}
        for index, rate in enumerate(error_rates, 1):
            answers = np.where(right ^ (rng.random(n_items) < rate), "yes", "no")
            cost = costs[index]
            table[f"c{index}"] = [Outcome(answer, cost) for answer in answers.tolist()]
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
        confidence: np.ndarray | None = None,
        kinds: np.ndarray | None = None,
        max_rounds: int | None = None,
    ) -> Result:
        tiers = [
            Tier("0", role="reference", cost=costs[0]),
            *(Tier(str(k), cost=usd) for k, usd in enumerate(costs[1:], 1)),
        ]
        batch = BatchRecord(
            len(wrong[0]), tiers, guarantee, seed, max_rounds=max_rounds
        )
        # The right answer is the item's kind, a wrong one the next kind.
        batch.keyed = True
        if kinds is None:
            kinds = np.random.default_rng(99).integers(0, 2, batch.n_items)
        size = max(2, int(kinds.max(initial=0)) + 1)
        for tier, errors in enumerate(wrong, 1):
            batch.codes[tier] = 1 + (kinds + errors) % size
        if confidence is not None:
            batch.scores = np.tile(confidence, (len(tiers), 1))
        status = batch.status
        deciding = STRATEGIES[strategy](batch, looks)
        while True:
            try:
                wave = next(deciding)
            except StopIteration as stop:
                route = stop.value.route
                break
            before = (status == ANSWERED).sum()
            for part in (wave, *wave.also):
                for tier in part.tiers:
                    status[tier, part.items] = ANSWERED
                    batch.costs[tier, part.items] = costs[tier]
            batch.rounds += bool((status == ANSWERED).sum() > before)
            known = status[REFERENCE] == ANSWERED
            for tier, errors in enumerate(wrong, 1):
                compared = known & (status[tier] == ANSWERED)
                batch.wrong[tier, compared] = errors[compared]
        route = np.where(status[REFERENCE] == ANSWERED, REFERENCE, route)
        for tier in range(len(tiers)):
            status[tier, route == tier] = ANSWERED
        calls = (status == ANSWERED).sum(axis=1).tolist()
        differing = sum(int(w[route == t].sum()) for t, w in enumerate(wrong, 1))
        spent = sum(n * cost for n, cost in zip(calls, costs, strict=True))
        return Result(differing, spent, calls, route)

    return run
