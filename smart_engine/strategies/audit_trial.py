"""How much may be spent on finding out whether candidates save anything.

A job must not become dearer by it: where a hopeless candidate would cost more, before
that shows, than a hundredth of what the best one could save or half a percent of the
job, or where even that is not enough, the reference answers alone. Not so where
`min_saving` is 0: then every candidate is tried from the first item on. No promise
rests on it: all it leads to is more answers of the reference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from smart_engine.evidence.acceptance import Acceptance
from smart_engine.evidence.record import BatchRecord
from smart_engine.evidence.tails import BoolArray

__all__ = ["TELLING", "affordable_calls", "promising", "promising_slices"]

_HARM = 0.01
"""What trying candidates in vain may cost, as a share of what could be saved, …"""

_MOST_HARM = 0.005
"""… and at most, as a share of what the reference alone costs."""

TELLING = 4
"""Calls that show whether a candidate is hopeless."""


def promising(batch: BatchRecord) -> list[int]:
    """Return the candidates that are worth asking, cheapest first."""
    chosen: list[int] = []
    if not batch.n_items:
        return chosen
    if not batch.min_saving:
        return list(batch.candidates)
    for tier in sorted(batch.candidates, key=lambda tier: batch.ratios[tier]):
        saved = _most_saved(batch, [tier])
        calls = affordable_calls(batch, [*chosen, tier])
        if saved > 0 and saved >= batch.min_saving and calls >= TELLING:
            chosen.append(tier)
    return chosen


def promising_slices(batch: BatchRecord, tiers: Sequence[int]) -> BoolArray:
    """Return per slice whether it is large enough for candidates to save anything."""
    least = min((batch.ratios[tier] for tier in tiers), default=1.0)
    return batch.slices.promising(batch.guarantee, 1 - least - batch.min_saving)


def affordable_calls(batch: BatchRecord, tiers: list[int]) -> float:
    """Return how often all of these may be asked in vain."""
    if not batch.min_saving:
        return math.inf
    together = sum(batch.ratios[tier] for tier in tiers)
    share = min(_HARM * _most_saved(batch, tiers), _MOST_HARM)
    return share * batch.n_items / max(together, 1e-9)


def _most_saved(batch: BatchRecord, tiers: list[int]) -> float:
    """Return the share of the job that the cheapest saves if it is always right.

    It is asked about every item, and the reference about the fewest that suffice.
    """
    allowed = batch.guarantee.max_errors(batch.n_items)
    level = batch.guarantee.alpha
    draws = Acceptance(batch.n_items, allowed, level, expected_errors=0).draws(0)
    return 1 - draws / batch.n_items - min(batch.ratios[tier] for tier in tiers)
