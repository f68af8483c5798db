"""How often each label was handed out, how much of it nobody compared, and what of it.

From these counts, the draws of audits and the bounds of a certificate follows what may
have become of a label, whether or not anything was promised of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from smart_engine.batch.label_draws import Between, Confusion
from smart_engine.evidence.record import ANSWERED, REFERENCE, BatchRecord
from smart_engine.evidence.tails import BoolArray, IntArray
from smart_engine.strategies import Audited

__all__ = ["LabelBound", "LabelCount", "LabelInterval", "Labels"]

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
        return _precision(self.answers, self.false)

    @property
    def recall(self) -> float:
        """Least share of what should have the label that has it."""
        return _recall(self.answers, self.false, self.missed)


class LabelInterval(NamedTuple):
    """What the draws say about a label, with the confidence of the certificate.

    Attributes:
        label: The label.
        answers: Answers handed out with it.
        false: So many of them are not what the reference would have said.
        missed: So many others should have it.
    """

    label: str
    answers: int
    false: Between
    missed: Between

    @property
    def precision(self) -> tuple[float, float]:
        """Share of the answers with the label that are right, from and to."""
        return (
            _precision(self.answers, self.false.most),
            _precision(self.answers, self.false.least),
        )

    @property
    def recall(self) -> tuple[float, float]:
        """Share of what should have the label that has it, from and to."""
        return (
            _recall(self.answers, self.false.most, self.missed.most),
            _recall(self.answers, self.false.least, self.missed.least),
        )


def _precision(answers: int, false: int) -> float:
    return 1 - false / answers if answers else 1.0


def _recall(answers: int, false: int, missed: int) -> float:
    right = answers - false
    return right / (right + missed) if missed else 1.0


class Labels:
    """The labels of all answers of a batch, where they can be told apart.

    Nowhere where the rule compares keys of answers that are somewhere else. Nor where
    a function reads the labels: answers that the rule calls the same may then have
    different ones, of which bounds on differing answers say nothing.

    Args:
        batch: The batch.
        codes: Parsed answer → its number in the record.
    """

    def __init__(self, batch: BatchRecord, codes: Mapping[Any, int]) -> None:
        self._batch, labelling = batch, batch.labelling
        self._numbers: NDArray[np.int32] | None = None
        self._names: dict[int, str] = {}
        if not labelling.by_rule:
            return
        if batch.guarantee.labels:
            self._numbers = batch.labels
            self._names = dict(enumerate(labelling.names, 1))
        elif batch.keyed and not batch.hidden:
            self._numbers = batch.codes
            self._names = {n: labelling.text_of(parsed) for parsed, n in codes.items()}

    def counts(self, served: IntArray, answered: BoolArray) -> tuple[LabelCount, ...]:
        """Return how often each label was handed out; nothing if they are many.

        Args:
            served: Per item, the tier whose answer it got.
            answered: Per item, whether it got one.
        """
        if self._numbers is None:
            return ()
        items = np.flatnonzero(answered)
        tiers = served[items]
        numbers, unseen = self._numbers[tiers, items], tiers != REFERENCE
        found, uses = np.unique(numbers[numbers > 0], return_counts=True)
        if not 0 < len(found) <= _MOST or uses.sum() < _USES * len(found):
            return ()
        counts = [
            LabelCount(
                label=self._names[number],
                answers=count,
                unseen=int(((numbers == number) & unseen).sum()),
            )
            for number, count in zip(found.tolist(), uses.tolist(), strict=True)
        ]
        given = {count.label for count in counts}
        counts += [
            LabelCount(label=name, answers=0, unseen=0)
            for name in self._batch.labelling.possible
            if name not in given
        ]
        return tuple(sorted(counts, key=lambda count: count.label))

    def confusions(
        self, audits: Sequence[Audited], route: NDArray[Any]
    ) -> tuple[Confusion, ...]:
        """Return what audits have compared.

        Args:
            audits: Those that decided what is served.
            route: Per item, the tier that serves it if the reference does not.
        """
        found = (self._confusion(each, route) for each in audits)
        return tuple(each for each in found if each is not None)

    def _confusion(self, audited: Audited, route: NDArray[Any]) -> Confusion | None:
        batch, numbers, names = self._batch, self._numbers, self._names
        if numbers is None:
            return None
        drawn, test = audited.items, audited.test
        rest = audited.rest
        given = numbers[audited.server, drawn]
        kinds = np.unique(
            np.concatenate(
                [
                    given[audited.server != REFERENCE],
                    numbers[route[rest], rest][route[rest] != REFERENCE],
                ]
            )
        )
        known = batch.status[REFERENCE, drawn] == ANSWERED
        true = np.where(known, numbers[REFERENCE, drawn], 0)
        pairs, counts = np.unique(np.stack([given, true]), axis=1, return_counts=True)
        cells = [
            (names.get(said), names.get(is_), count)
            for said, is_, count in zip(*pairs.tolist(), counts.tolist(), strict=True)
        ]
        return Confusion(
            in_slice=audited.in_slice,
            items=len(drawn) if test is None else test.acceptance.items,
            draws=len(drawn),
            level=0.0 if test is None else test.acceptance.level,
            kinds=tuple(sorted(names[n] for n in kinds.tolist() if n)),
            cells=tuple(sorted(cells, key=lambda cell: (cell[0] or "", cell[1] or ""))),
        )
