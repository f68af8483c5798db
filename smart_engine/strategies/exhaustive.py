"""`exhaustive`: profile until the cheapest candidate that qualifies is known."""

from __future__ import annotations

from collections.abc import Generator

from smart_engine.evidence.record import BatchRecord
from smart_engine.strategies._base import Decision, Wave
from smart_engine.strategies.looks import Looks
from smart_engine.strategies.profiling import GoesOn, profile

__all__ = ["exhaustive"]


def exhaustive(batch: BatchRecord, looks: str) -> Generator[Wave, None, Decision]:
    """Profile whatever it costs, then apply the cheapest admitted candidate.

    Source: Jo & Trummer 2024, profiling of all models.
    """
    result = yield from profile(batch, looks, _always)
    return result.decide(result.cheapest_admitted())


def _always(looks: Looks) -> GoesOn:
    """Never stop for cost."""
    del looks
    return lambda _look, _undecided, _reference_cost, _cost_now: True
