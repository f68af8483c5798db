"""Who answered in each slice of a batch, as a certificate records it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel

from smart_engine.evidence.slices import Slices
from smart_engine.evidence.tails import BoolArray, IntArray

__all__ = ["SliceCount", "count_slices"]


class SliceCount(BaseModel, frozen=True, extra="forbid"):
    """The answers of a slice.

    Attributes:
        name: The slice.
        items: Its items.
        unanswered: Those that have no answer.
        profiled: Those drawn and answered by the reference in order to learn.
        served: Model → items answered by it.
    """

    name: str
    items: int
    unanswered: int
    profiled: int
    served: dict[str, int]

    @property
    def answered(self) -> int:
        """Number of items that have an answer."""
        return self.items - self.unanswered


def count_slices(
    slices: Slices,
    models: Sequence[str],
    served: IntArray,
    answered: BoolArray,
    profiled: BoolArray,
) -> tuple[SliceCount, ...]:
    """Return who answered in each slice; nothing where a batch has none.

    Args:
        slices: The slices.
        models: Names of the models.
        served: Per item, the place among them of the one whose answer it got.
        answered: Per item, whether it got one.
        profiled: Per item, whether it was drawn.
    """
    if slices.names == (None,):
        return ()
    counts = []
    for name, items in zip(slices.names, slices.items(), strict=True):
        by = np.bincount(served[items][answered[items]], minlength=len(models))
        counts.append(
            SliceCount(
                name=str(name),
                items=len(items),
                unanswered=len(items) - int(by.sum()),
                profiled=int(profiled[items].sum()),
                served=dict(zip(models, by.tolist(), strict=True)),
            )
        )
    return tuple(counts)
