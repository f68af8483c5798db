"""`mix`: profile while it pays, then split the rest over several models."""

from __future__ import annotations

from collections.abc import Generator

from smart_engine.evidence.record import BatchRecord
from smart_engine.strategies._base import Decision, Wave
from smart_engine.strategies.planning import Planner
from smart_engine.strategies.profiling import profile

__all__ = ["mix"]


def mix(batch: BatchRecord, looks: str) -> Generator[Wave, None, Decision]:
    """Profile as `efficient` does, then apply the cheapest mix that is allowed.

    A candidate that may not serve all remaining items may still serve some.

    Source: Jo & Trummer 2024, combination of models.
    """
    result = yield from profile(
        batch, looks, lambda taken: Planner(taken, batch.n_items).goes_on
    )
    seen = list(result.seen.values())
    return result.decide(result.looks.mix(seen, result.draws, result.reference_cost))
