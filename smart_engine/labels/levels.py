"""How the level is divided over audits, and how many errors each may leave.

Everything is tried: each label's audits with every share of the level and several
bounds, then every division of the level over labels and the agreement of all answers.
Slices that are audited have equal parts of the level of that agreement.
Nothing here touches a promise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from smart_engine.evidence.tails import FloatArray
from smart_engine.labels.costs import SCENARIOS
from smart_engine.labels.promise import missed_per_right, most_missed
from smart_engine.labels.strata import Stratum

__all__ = [
    "UNITS",
    "Agreement",
    "Division",
    "LabelPlan",
    "Strata",
    "divide",
    "least_share",
]

UNITS = 20
"""Parts into which the level is divided."""

_LEVELS, _SLICE_LEVELS = 4, 6
"""Levels at which costs of labels and of slices are computed; between them they are
interpolated."""

_FALSE_SHARES = (1.0, 0.75, 0.5, 0.3, 0.15)
"""False answers left, as shares of those that a promised precision allows."""

_FALSE_OF_RIGHT = (0.3, 0.15, 0.08, 0.04, 0.02)
"""The same, as shares of the answers, where only a label's recall is promised."""

_PASSES = 2
"""How often an allowance and the audit on whose results it depends are computed."""


Strata = tuple[Stratum, Stratum, float | None, float | None]
"""A label: items that would be handed out as it, all others, and the least recall and
precision promised, if any."""


Agreement = tuple[Stratum, int]
"""Items whose answers may differ, all or those of a slice, and how many may."""


class LabelPlan(NamedTuple):
    """How a label's audits are designed, by what is known.

    Attributes:
        false: Answers that may stay false.
        missed: Items that may stay missed.
        false_units: Parts of the level for the audit of false answers; with none of
            them, the reference answers all claimed items.
        missed_units: Parts of the level for the audit of missed items.
    """

    false: int
    missed: int
    false_units: int
    missed_units: int


def least_share(recall: float, positives: int, alpha: float) -> float:
    """Share of the items not claimed to be audited for a recall, without any signal.

    Args:
        recall: Least recall.
        positives: Answers that are rightly the label.
        alpha: Level of the audit.

    Example:
        ```python
        assert round(least_share(0.95, 100, 0.05), 2) == 0.39
        assert round(least_share(0.8, 100, 0.05), 2) == 0.11
        ```
    """
    share = 1 - alpha ** (1 / (1 + most_missed(recall, positives)))
    return float(share)


class Division(NamedTuple):
    """The cheapest way to divide a level.

    Attributes:
        plans: Per label, how it is audited.
        slices: Per slice, the parts of the level of its agreement.
        calls: Reference calls that all audits are expected to need.
    """

    plans: list[LabelPlan]
    slices: list[float]
    calls: float


def divide(
    labels: Sequence[Strata],
    agreements: Sequence[Agreement],
    alpha: float,
    quantiles: Sequence[float] = SCENARIOS,
) -> Division:
    """Return the cheapest plan of every label, and the agreements' parts of the level.

    Args:
        labels: The labels' strata.
        agreements: All items, or each slice's, if their agreement is promised, too.
        alpha: The level to divide.
        quantiles: How many errors there may be, as of `Stratum.costs`.
    """
    options = [_options(strata, alpha, quantiles) for strata in labels]
    tables = [cost for cost, _ in options]
    if agreements:
        cost, shares = _slices(agreements, alpha, quantiles)
        tables.append(cost)
    spent, total = [], np.zeros(UNITS + 1)
    for table in tables:
        sums = np.full((UNITS + 1, UNITS + 1), np.inf)
        for units in range(UNITS + 1):
            sums[units:, units] = total[: UNITS + 1 - units] + table[units]
        spent.append(sums.argmin(axis=1))
        total = sums.min(axis=1)
    left, parts = UNITS, []
    for choice in reversed(spent):
        parts.append(int(choice[left]))
        left -= parts[-1]
    parts.reverse()
    plans = [chosen[units] for (_, chosen), units in zip(options, parts, strict=False)]
    slices = shares[parts[-1]] if agreements else []
    return Division(plans, slices, float(total[UNITS]))


def _slices(
    agreements: Sequence[Agreement], alpha: float, quantiles: Sequence[float]
) -> tuple[FloatArray, list[list[float]]]:
    """Per number of parts of the level, the least cost, and each slice's parts.

    A slice that is no cheaper to audit than to ask about whole has none.
    """
    whole = np.array([len(each.unknown()) for each, _ in agreements], float)
    least = alpha / UNITS / max(len(whole), 1)
    levels = np.geomspace(least, alpha, _SLICE_LEVELS)
    by_level = np.array(
        [
            _least_calls(stratum, allowed, levels, quantiles)
            for stratum, allowed in agreements
        ]
    )
    cost, scale = np.full(UNITS + 1, whole.sum()), np.log(levels)
    shares = [[0.0] * len(whole) for _ in range(UNITS + 1)]
    for units in range(1, UNITS + 1):
        audited = whole > 0
        while count := int(audited.sum()):
            level = np.log(alpha * units / UNITS / count)
            calls = np.array([np.interp(level, scale, each) for each in by_level])
            cheaper = audited & (calls < whole)
            if cheaper.sum() == count:
                cost[units] = np.where(audited, calls, whole).sum()
                shares[units] = np.where(audited, units / count, 0.0).tolist()
                break
            audited = cheaper
    return cost, shares


def _options(
    strata: Strata, alpha: float, quantiles: Sequence[float]
) -> tuple[FloatArray, list[LabelPlan]]:
    """Per number of parts of the level, the least cost of a label and its plan."""
    claimed, others, recall, precision = strata
    levels = alpha * np.arange(1, UNITS + 1) / UNITS
    gain = 0.0 if recall is None else missed_per_right(recall)
    right, found = _right(claimed), float(others.wrong.sum())
    left = others.per_band(~others.known) @ others.rates()
    outside = float(left) if recall is not None else 0.0
    best = np.full(UNITS + 1, np.inf)
    plans = [LabelPlan(0, 0, 0, 0)] * (UNITS + 1)
    for share in _shares(recall, precision):
        false, stay = 0, 0.0
        calls = np.full(UNITS + 1, float(len(claimed.unknown())))
        if share:
            for _ in range(_PASSES):
                false = int(share * (right + found + outside + stay))
                audit = _expected(claimed, false, levels, quantiles)
                stay = audit.undetected
            calls[0], calls[1:] = np.inf, audit.calls
        hidden, rest = 0, np.zeros(UNITS + 1)
        if recall is not None:
            for _ in range(_PASSES):
                certain = right + found + outside - (false - stay)
                hidden = max(0, int(gain * certain))
                audit = _expected(others, hidden, levels, quantiles, gain)
                outside = audit.outside
            rest[0], rest[1:] = float(len(others.unknown())), audit.calls
        for units in range(UNITS + 1):
            sums = calls[: units + 1] + rest[units::-1]
            first = int(sums.argmin())
            if sums[first] < best[units]:
                best[units] = sums[first]
                plans[units] = LabelPlan(false, hidden, first, units - first)
    return best, plans


def _shares(recall: float | None, precision: float | None) -> list[float]:
    """Bounds of false answers to try, as shares of the answers handed out."""
    if precision is None:
        return [0.0, *_FALSE_OF_RIGHT]
    shares = _FALSE_SHARES if recall is not None else (1.0,)
    return [0.0, *((1 - precision) * share for share in shares)]


class _Expected(NamedTuple):
    """An audit of the best part of a stratum.

    Attributes:
        calls: Per level, reference calls.
        undetected: Errors that stay in the part.
        outside: Errors that are not in it.
    """

    calls: FloatArray
    undetected: float
    outside: float


def _expected(
    stratum: Stratum,
    allowed: int,
    levels: FloatArray,
    quantiles: Sequence[float],
    gain: float = 0.0,
) -> _Expected:
    """Return what an audit is expected to need; read off at a few levels."""
    few = np.geomspace(levels[0], levels[-1], _LEVELS)
    costs = stratum.costs(float(allowed), few[:, None], gain, quantiles)
    ends = costs.calls.argmin(axis=-1)
    calls = costs.calls.min(axis=-1)
    return _Expected(
        np.interp(np.log(levels), np.log(few), calls),
        float(costs.undetected[np.arange(len(few)), ends].mean()),
        float(costs.outside[ends].mean()),
    )


def _least_calls(
    stratum: Stratum, allowed: int, levels: FloatArray, quantiles: Sequence[float]
) -> FloatArray:
    """Per level, the calls of an audit if the best part of its bands is audited."""
    costs = stratum.costs(float(allowed), levels[:, None], quantiles=quantiles)
    return np.asarray(costs.calls.min(axis=-1), float)


def _right(claimed: Stratum) -> float:
    """Expected number of right answers among those claimed."""
    left = claimed.per_band(~claimed.known)
    known = claimed.known.sum() - claimed.wrong.sum()
    return max(1.0, float(known + left @ (1 - claimed.rates())))
