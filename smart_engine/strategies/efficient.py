"""`efficient`: profile only as long as that is expected to pay."""

from __future__ import annotations

from collections.abc import Generator

from smart_engine.evidence.record import BatchRecord
from smart_engine.strategies._base import Decision, Wave
from smart_engine.strategies.planning import Planner
from smart_engine.strategies.profiling import profile

__all__ = ["efficient"]


def efficient(batch: BatchRecord, looks: str) -> Generator[Wave, None, Decision]:
    """Profile while it pays, then apply the cheapest admitted candidate.

    Source: Jo & Trummer 2024, profiling that weighs its cost against its savings.
    """
    result = yield from profile(
        batch, looks, lambda taken: Planner(taken, batch.n_items).goes_on
    )
    return result.decide(result.cheapest_admitted())
