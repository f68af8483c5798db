"""The SMART paper's strategies: profile the candidates, then apply what that allows.

Source: Jo & Trummer 2024. `reference` is the paper's yardstick.
"""

from __future__ import annotations

from collections.abc import Generator

import numpy as np

from smart_engine.evidence.record import REFERENCE, BatchRecord
from smart_engine.strategies._base import Decision, Wave
from smart_engine.strategies.profiling import profile

__all__ = ["efficient", "exhaustive", "mix", "reference"]


def reference(batch: BatchRecord, looks: str) -> Generator[Wave, None, Decision]:
    """Ask the reference alone, which promises nothing that needs evidence."""
    del looks
    yield from ()
    return Decision(route=np.full(batch.n_items, REFERENCE, np.int16))


def exhaustive(batch: BatchRecord, looks: str) -> Generator[Wave, None, Decision]:
    """Profile at any cost, then apply the cheapest admitted candidate."""
    profiled = yield from profile(batch, looks, while_it_pays=False)
    return profiled.decide(profiled.cheapest_admitted())


def efficient(batch: BatchRecord, looks: str) -> Generator[Wave, None, Decision]:
    """Profile while it pays, then apply the cheapest admitted candidate."""
    profiled = yield from profile(batch, looks, while_it_pays=True)
    return profiled.decide(profiled.cheapest_admitted())


def mix(batch: BatchRecord, looks: str) -> Generator[Wave, None, Decision]:
    """Profile while it pays, then apply the cheapest mix that is allowed.

    A candidate that may not serve all remaining items may still serve some.
    """
    profiled = yield from profile(batch, looks, while_it_pays=True)
    tallies = list(profiled.tallies.values())
    split = profiled.looks.mix(tallies, profiled.draws, profiled.reference_cost)
    return profiled.decide(split)
