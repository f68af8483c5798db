"""The models that can answer: one reference and its candidates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from smart_engine.errors import InvalidInputError

__all__ = ["MIN_SAVING", "Tier", "check_tiers", "expected_ratios"]

MIN_SAVING = 0.05
"""Least share of a job that must be saved, where nothing else is said."""

_UNKNOWN = 0.1
"""Expected cost of a candidate of which nothing is known, in calls of the reference."""

TierRole = Literal["reference", "candidate"]


@dataclass(frozen=True, slots=True)
class Tier:
    """One model that can answer items.

    Args:
        name: Unique name of the model; calls, ledger and certificate use it.
        role: `"reference"` for the model whose answers define "right",
            `"candidate"` for a cheaper one that may stand in for it.
        cost: What one of its calls is expected to cost, in USD; None if unknown. Only
            its ratio to the reference's counts, and only until calls were paid for.

    Example:
        ```python
        tiers = [Tier("gpt-big", role="reference"), Tier("gpt-small")]
        ```
    """

    name: str
    role: TierRole = "candidate"
    cost: float | None = None


def expected_ratios(tiers: Sequence[Tier]) -> list[float]:
    """Return what a call of each is expected to cost, in calls of the first of them."""
    unit, *costs = (tier.cost for tier in tiers)
    known = [None if unit is None or cost is None else (cost, unit) for cost in costs]
    return [1.0, *(_UNKNOWN if pair is None else _ratio(*pair) for pair in known)]


def _ratio(cost: float, unit: float) -> float:
    return cost / unit if unit else math.inf  # nothing saves where nothing is paid


def check_tiers(tiers: Sequence[Tier]) -> tuple[Tier, ...]:
    """Return the tiers with the reference first, candidates in the given order.

    Args:
        tiers: Exactly one reference and at least one candidate, in any order.

    Raises:
        InvalidInputError: If a name repeats, or a reference or candidate is missing.
    """
    for tier in tiers:
        if not isinstance(tier, Tier) or tier.role not in get_args(TierRole):
            hint = "each is a Tier(name), with role='reference' for one of them"
            raise InvalidInputError("tiers", tier, hint)
    names = [tier.name for tier in tiers]
    for name in names:
        if names.count(name) > 1:
            hint = (
                "two tiers share this name; the reference cannot be a candidate too, "
                "and each candidate is listed once"
            )
            raise InvalidInputError("tiers", name, hint)
    references = [tier for tier in tiers if tier.role == "reference"]
    candidates = [tier for tier in tiers if tier.role == "candidate"]
    if len(references) != 1:
        hint = "exactly one tier must have role='reference'"
        raise InvalidInputError("tiers", names, hint)
    if not candidates:
        hint = "name at least one cheaper model as a candidate"
        raise InvalidInputError("candidates", [], hint)
    return (*references, *candidates)
