"""What is promised: shares and a confidence, and nothing about how."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from smart_engine.errors import InvalidInputError

__all__ = ["Guarantee", "as_guarantee", "as_share", "of_all_answers"]


@dataclass(frozen=True, slots=True, repr=False)
class Guarantee:
    """At most a share of the answers may differ from the reference's.

    With probability at least `confidence`, all of this holds: at most the share
    `max_disagreement` of the answers handed out is not equivalent to what the reference
    would have said; of the items that the reference would have given a label of
    `recall`, at least that share is handed out with it; and of the answers handed out
    with a label of `precision`, at least that share is what the reference would have
    said.

    The literature's symbols: SMART (Jo & Trummer 2024) writes δ for
    `max_disagreement` and γ for `confidence`; BARGAIN writes T for
    1 − `max_disagreement` and δ for 1 − `confidence`.

    Args:
        max_disagreement: Largest tolerated share of differing answers, in (0, 1); None
            where only labels matter.
        confidence: Probability with which all of it holds, in (0, 1).
        recall: Label → least recall, in (0, 1). Batches only.
        precision: Label → least precision, in (0, 1). Batches only.

    Attributes:
        labels: Labels about which something is promised.

    Raises:
        InvalidInputError: If a share lies outside (0, 1), or nothing is promised.

    Example:
        ```python
        guarantee = Guarantee(max_disagreement=0.05, confidence=0.95)
        assert guarantee.max_errors(1_000) == 50
        rare = Guarantee(None, recall={"fraud": 0.9}, precision={"fraud": 0.8})
        assert rare.labels == ("fraud",)
        ```
    """

    max_disagreement: float | None = 0.05
    confidence: float = 0.95
    recall: Mapping[str, float] = field(default_factory=dict, hash=False)
    precision: Mapping[str, float] = field(default_factory=dict, hash=False)
    labels: tuple[str, ...] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        """Check all shares."""
        for name in ("recall", "precision"):
            given = getattr(self, name)
            if not isinstance(given, Mapping):
                hint = "give label → share, such as {'fraud': 0.9}"
                raise InvalidInputError(name, given, hint)
            for label, share in given.items():
                if not isinstance(label, str):
                    hint = "labels are texts, such as 'fraud'"
                    raise InvalidInputError(name, label, hint)
                _check(f"{name}[{label!r}]", share, "0.9 means 90 %")
            object.__setattr__(self, name, dict(sorted(given.items())))
        labels = tuple(sorted({**self.recall, **self.precision}))
        object.__setattr__(self, "labels", labels)
        if self.max_disagreement is not None:
            way_out = "0.05 means 5 % of the answers"
            _check("max_disagreement", self.max_disagreement, way_out)
        elif not self.labels:
            hint = "nothing is promised: 0.05 means 5 %; or give recall= or precision="
            raise InvalidInputError("max_disagreement", None, hint)
        _check("confidence", self.confidence, "0.95 means 95 %")

    def __repr__(self) -> str:
        """Show what is promised."""
        shown = [
            f"max_disagreement={self.max_disagreement}",
            f"confidence={self.confidence}",
        ]
        shown += [f"recall={self.recall}"] if self.recall else []
        shown += [f"precision={self.precision}"] if self.precision else []
        return f"Guarantee({', '.join(shown)})"

    @property
    def alpha(self) -> float:
        """Probability with which the promise may fail: 1 − `confidence`."""
        return 1.0 - self.confidence

    @property
    def tolerance(self) -> float:
        """`max_disagreement`; 1 if it is None."""
        return 1.0 if self.max_disagreement is None else self.max_disagreement

    @property
    def share(self) -> Fraction:
        """`tolerance` as the exact decimal it is written as."""
        return as_share(self.tolerance)

    def max_errors(self, n_items: int) -> int:
        """Number of differing answers allowed among `n_items` answers."""
        # In floats 0.29 * 100 lies just below 29: take the share as it is written.
        return math.floor(self.share * n_items)


def as_share(given: float) -> Fraction:
    """Return a share as the exact decimal it is written as."""
    return Fraction(repr(float(given)))


def as_guarantee(given: Guarantee | None) -> Guarantee:
    """Return a guarantee, by default 5 % at 95 %, or raise InvalidInputError."""
    if given is None:
        return Guarantee()
    if isinstance(given, Guarantee):
        return given
    hint = "give Guarantee(max_disagreement=0.05, confidence=0.95)"
    raise InvalidInputError("guarantee", given, hint)


def of_all_answers(given: Guarantee | None, where: str) -> Guarantee:
    """Return a guarantee that promises nothing of single labels.

    Raises:
        InvalidInputError: If it does: what is still to come may have none of a label,
            or all of it, so that no audit bounds its recall before the end.
    """
    guarantee = as_guarantee(given)
    if guarantee.labels:
        hint = (
            f"recall and precision of a label are shares of all answers of a batch; in "
            f"{where}, whose end is unknown, one missed item may be all there are so "
            "far: hand all items in as one batch"
        )
        raise InvalidInputError("recall", list(guarantee.labels), hint)
    return guarantee


def _check(name: str, value: float, way_out: str) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and 0 < value < 1):
        hint = f"must be a number between 0 and 1, both excluded; {way_out}"
        raise InvalidInputError(name, value, hint)
