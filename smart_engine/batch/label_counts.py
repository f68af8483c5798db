"""How often each label was handed out, and how much of it nobody compared.

From these counts and the bounds of a certificate follows what may have become of a
label, whether or not anything was promised of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel

from smart_engine.evidence.record import REFERENCE, BatchRecord
from smart_engine.evidence.tails import BoolArray, IntArray

__all__ = ["LabelBound", "LabelCount", "count_labels"]

_MOST, _USES = 32, 5
"""Labels that are told apart at most, and answers that each must have on average."""


class LabelCount(BaseModel, frozen=True, extra="forbid"):
    """A label among the answers of a batch.

    Attributes:
        label: The label.
        answers: Answers handed out with it.
        unseen: Those of them that were not compared with the reference's.
    """

    label: str
    answers: int
    unseen: int


class LabelBound(NamedTuple):
    """What follows for a label, with the confidence of the certificate.

    Attributes:
        label: The label.
        answers: Answers handed out with it.
        false: At most so many of them are not what the reference would have said.
        missed: At most so many others should have it.
    """

    label: str
    answers: int
    false: int
    missed: int

    @property
    def precision(self) -> float:
        """Least share of the answers with the label that are right."""
        return 1 - self.false / self.answers if self.answers else 1.0

    @property
    def recall(self) -> float:
        """Least share of what should have the label that has it."""
        right = self.answers - self.false
        return right / (right + self.missed) if self.missed else 1.0


def count_labels(
    batch: BatchRecord,
    served: IntArray,
    answered: BoolArray,
    codes: Mapping[Any, int],
) -> tuple[LabelCount, ...]:
    """Return how often each label was handed out; nothing where answers have none.

    Nor where the rule compares keys of answers that are somewhere else.
    Nor where a function reads the labels: answers that the rule calls the same may then
    have different ones, of which bounds on differing answers say nothing.

    Args:
        batch: The batch.
        served: Per item, the tier whose answer it got.
        answered: Per item, whether it got one.
        codes: Parsed answer → its number in the record.
    """
    items, labelling = np.flatnonzero(answered), batch.labelling
    tiers = served[items]
    if not labelling.by_rule:
        return ()
    if batch.guarantee.labels:
        numbers = batch.labels[tiers, items]
        names = dict(enumerate(labelling.names, 1))
    elif batch.keyed and not batch.hidden:
        numbers = batch.codes[tiers, items]
        names = {code: labelling.text_of(parsed) for parsed, code in codes.items()}
    else:
        return ()
    found, uses = np.unique(numbers[numbers > 0], return_counts=True)
    if not 0 < len(found) <= _MOST or uses.sum() < _USES * len(found):
        return ()
    unseen = tiers != REFERENCE
    counts = [
        LabelCount(
            label=names[number],
            answers=count,
            unseen=int(((numbers == number) & unseen).sum()),
        )
        for number, count in zip(found.tolist(), uses.tolist(), strict=True)
    ]
    return tuple(sorted(counts, key=lambda count: count.label))
