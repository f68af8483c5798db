"""What is promised: ⟨max_disagreement, confidence⟩, and nothing about how."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from smart_engine.errors import InvalidInputError

__all__ = ["Guarantee", "as_guarantee"]


@dataclass(frozen=True, slots=True)
class Guarantee:
    """At most a share of the answers may differ from the reference's.

    With probability at least `confidence`, at most the share `max_disagreement` of
    the answers handed out is not equivalent to what the reference would have said.

    The literature's symbols: SMART (Jo & Trummer 2024) writes δ for
    `max_disagreement` and γ for `confidence`; BARGAIN writes T for
    1 − `max_disagreement` and δ for 1 − `confidence`.

    Args:
        max_disagreement: Largest tolerated share of differing answers, in (0, 1).
        confidence: Probability with which that holds, in (0, 1).

    Raises:
        InvalidInputError: If either lies outside (0, 1).

    Example:
        ```python
        guarantee = Guarantee(max_disagreement=0.05, confidence=0.95)
        assert guarantee.max_errors(1_000) == 50
        ```
    """

    max_disagreement: float = 0.05
    confidence: float = 0.95

    def __post_init__(self) -> None:
        """Check both shares."""
        for field, way_out in (
            ("max_disagreement", "0.05 means 5 % of the answers"),
            ("confidence", "0.95 means 95 %"),
        ):
            value = getattr(self, field)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (number and 0 < value < 1):
                hint = f"must be a number between 0 and 1, both excluded; {way_out}"
                raise InvalidInputError(field, value, hint)

    @property
    def alpha(self) -> float:
        """Probability with which the promise may fail: 1 − `confidence`."""
        return 1.0 - self.confidence

    @property
    def share(self) -> Fraction:
        """`max_disagreement` as the exact decimal it is written as."""
        return Fraction(repr(float(self.max_disagreement)))

    def max_errors(self, n_items: int) -> int:
        """Number of differing answers allowed among `n_items` answers."""
        # In floats 0.29 * 100 lies just below 29: take the share as it is written.
        return math.floor(self.share * n_items)


def as_guarantee(given: Guarantee | None) -> Guarantee:
    """Return a guarantee, by default 5 % at 95 %, or raise InvalidInputError."""
    if given is None:
        return Guarantee()
    if isinstance(given, Guarantee):
        return given
    hint = "give Guarantee(max_disagreement=0.05, confidence=0.95)"
    raise InvalidInputError("guarantee", given, hint)
