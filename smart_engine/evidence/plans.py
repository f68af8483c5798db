"""What audits, and plans that serve a part of the items, are expected to cost.

Costs are in calls of the reference of mean price. Where its price varies between items,
those go to it outright that are riskiest for their price: the promise counts errors,
the bill dollars.

Every cost is an array over draws from the posterior: its mean is the expected cost,
and how the arrays differ tells what knowing more would be worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from smart_engine.evidence.posterior import DRAWS
from smart_engine.evidence.tails import FloatArray, IntArray

__all__ = ["Cut", "best_cuts", "draws_needed", "least_calls", "portfolio"]

_NEXT_SHARE, _MOST_POLICIES = 0.4, 4
"""Of the policies that share a level, each gets this much of the one before; and how
many share it at most."""

_PARTS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
"""Shares of a leaf that may be served, if it is not small anyway."""

_SERVED = np.arange(1, 17) / 16
"""Shares of all items that a cut may serve where every rate is known."""

_TRACE = 1e-9
"""Keeps shares off 0 and 1."""


class Cut(NamedTuple):
    """Which leaves are served; the rest is taken outright by the reference.

    Attributes:
        order: The leaves, safest for their price first.
        leaves: How many of them are served whole.
        part: Share of the next one that is served, too.
        calls: Per draw, expected cost of reference calls: items taken, and audit draws.
        errors: Errors one expects to find.
        draws: Per draw, expected audit draws.
        price: Mean price of a reference call about what is served.
    """

    order: IntArray
    leaves: int
    part: float
    calls: FloatArray
    errors: float
    draws: FloatArray
    price: float

    @property
    def share_of_leaves(self) -> FloatArray:
        """Per leaf, the share of it that is served."""
        share = np.zeros(len(self.order))
        share[self.order[: self.leaves]] = 1.0
        share[self.order[self.leaves]] = self.part
        return share

    def served(self, leaf: IntArray, rng: np.random.Generator) -> IntArray:
        """Indices of the served items, given each item's leaf."""
        rank = np.empty(len(self.order), np.int64)
        rank[self.order] = np.arange(len(self.order))
        at = rank[leaf]
        partly = rng.permutation(np.flatnonzero(at == self.leaves))
        partly = partly[: round(self.part * len(partly))]
        whole = np.flatnonzero(at < self.leaves)
        return np.sort(np.concatenate([whole, partly]))


def draws_needed(
    items: ArrayLike,
    rate: ArrayLike,
    max_errors: ArrayLike,
    level: ArrayLike,
    drawn: ArrayLike = 0.0,
    errors: ArrayLike = 0.0,
) -> FloatArray:
    """Draws in all until an audit is expected to accept.

    Acceptance is taken to come when n draws with a share p of errors satisfy
    n·KL(p, t) ≥ ln(1/level), t being the least share at which too many stay undetected.

    Args:
        items: Numbers of items audited, any shape; the others broadcast with it.
        rate: Error rates of the items not drawn yet.
        max_errors: Errors that may stay undetected.
        level: Level of the audit.
        drawn: Draws made already.
        errors: Errors found in them.
    """
    given = (items, rate, max_errors, level, drawn, errors)
    population, p, allowed, share, low, known = np.broadcast_arrays(
        *(np.asarray(each, float) for each in given)
    )
    need, before = np.log(1 / share), low
    high = np.maximum(population - allowed, low)
    most = float((high - low).max(initial=1.0))
    for _ in range(int(np.log2(most) + 2) if most > 1 else 1):
        n = (low + high) / 2
        found = known + p * (n - before) + _TRACE
        hidden = allowed + 1 + found
        limit = np.minimum(hidden / (population + _TRACE), 1 - _TRACE)
        share = np.minimum(found / (n + _TRACE), 1 - _TRACE)
        evidence = share * np.log(share / limit)
        evidence += (1 - share) * np.log((1 - share) / (1 - limit))
        enough = (share < limit) & (n * evidence >= need)
        high, low = np.where(enough, n, high), np.where(enough, low, n)
    return np.asarray(high, float)


def best_cuts(
    sizes: FloatArray,
    rates: FloatArray,
    max_errors: int,
    level: float,
    keep: int = 1,
    prices: FloatArray | float = 1.0,
) -> list[Cut]:
    """Return the cuts whose reference calls cost least, best first.

    Args:
        sizes: Items per leaf, (leaves,) or (draws, leaves).
        rates: Error rates, (draws, leaves).
        max_errors: Errors that may stay undetected.
        level: Level of the audit.
        keep: How many to return.
        prices: Prices of the reference's calls, (leaves,).
    """
    order = np.argsort(rates.mean(axis=0) / prices, kind="stable")
    sizes = np.broadcast_to(sizes, rates.shape)[:, order]
    prices = np.broadcast_to(prices, rates.shape[1])[order]
    wrong, worth = sizes * rates[:, order], sizes * prices
    typical, total = sizes.mean(axis=0), worth.sum(axis=1)
    grid = [
        (leaf, part)
        for leaf in np.flatnonzero(typical > 0).tolist()
        for part in ((1.0,) if typical[leaf] < 0.05 * typical.sum() else _PARTS)
    ]
    if not grid:
        return []
    at = np.array([leaf for leaf, _ in grid])
    part = np.array([share for _, share in grid])

    def up_to(values: FloatArray, where: IntArray, share: FloatArray) -> FloatArray:
        before = np.cumsum(values, axis=-1) - values
        return np.asarray(before[..., where] + share * values[..., where], float)

    served = up_to(typical, at, part)
    errors = up_to(wrong.mean(axis=0), at, part)
    draws = draws_needed(served, errors / served, max_errors, level)
    price = up_to(worth.mean(axis=0), at, part) / served
    best = np.argsort((draws - served) * price, kind="stable")[:keep]
    where, share, price = at[best], part[best], price[best]
    served = np.maximum(up_to(sizes, where, share), 1e-9)
    rate = up_to(wrong, where, share) / served
    draws = draws_needed(served, rate, max_errors, level)
    calls = total[:, None] - up_to(worth, where, share) + draws * price
    found = np.median(draws * rate, axis=0)
    cuts = [
        Cut(
            order,
            int(where[k]),
            float(share[k]),
            calls[:, k],
            float(found[k]),
            draws[:, k],
            float(price[k]),
        )
        for k in range(len(best))
    ]
    return sorted(cuts, key=lambda cut: float(cut.calls.mean()))


def least_calls(
    sizes: FloatArray, rates: FloatArray, max_errors: int, level: float
) -> FloatArray:
    """Per draw, the reference calls of the cut one would make if its rates were known.

    Args: As of `best_cuts`. What is less than the best cut of all draws is what knowing
        more of the rates is worth.
    """
    order = np.argsort(rates, axis=1, kind="stable")
    sizes = np.take_along_axis(np.broadcast_to(sizes, rates.shape), order, axis=1)
    wrong = sizes * np.take_along_axis(rates, order, axis=1)
    edge = ((0, 0), (1, 0))
    upto, errors = (np.pad(np.cumsum(x, axis=1), edge) for x in (sizes, wrong))
    total = upto[:, -1:]
    served = total * _SERVED
    found = np.array(
        [np.interp(*row) for row in zip(served, upto, errors, strict=True)]
    )
    rate = found / np.maximum(served, _TRACE)
    draws = draws_needed(served, rate, max_errors, level)
    return np.asarray((total - served + draws).min(axis=1), float)


def portfolio(
    items: int,
    rates: Sequence[FloatArray],
    fixed: Sequence[FloatArray],
    max_errors: int,
    level: float,
) -> list[float]:
    """Divide a level over the policies that are worth testing on all items.

    Greedy: add the policy that most lowers the expected (log) cost of the cheapest
    policy to be accepted, as long as that makes up for the level it takes.

    Args:
        items: Number of items.
        rates: Per policy, draws of its error rate.
        fixed: Per policy, draws of its cost beside audit draws, in reference calls.
        max_errors: Errors that may stay undetected.
        level: The level to divide.

    Returns:
        Per policy its share; they sum to 1.
    """

    def cost(policy: int, share: float) -> FloatArray:
        draws = draws_needed(items, rates[policy], max_errors, level * share)
        return np.minimum(draws + fixed[policy], items)

    chosen: list[int] = []
    best, shares = np.inf, [0.0] * len(rates)
    for count in range(1, min(_MOST_POLICIES, len(rates)) + 1):
        weights = _NEXT_SHARE ** np.arange(count)
        weights /= weights.sum()
        now = np.full(DRAWS, float(items))
        for policy, weight in zip(chosen, weights[:-1], strict=True):
            now = np.minimum(now, cost(policy, weight))
        others = [policy for policy in range(len(rates)) if policy not in chosen]
        costs = [
            float(np.log(np.minimum(now, cost(policy, weights[-1])) + 1e-9).mean())
            for policy in others
        ]
        chosen.append(others[int(np.argmin(costs))])
        if min(costs) < best - 0.01:
            best, shares = min(costs), [0.0] * len(rates)
            for policy, weight in zip(chosen, weights, strict=True):
                shares[policy] = float(weight)
    return shares
