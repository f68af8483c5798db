"""The rule for numbers: the same within a tolerance."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, ClassVar

from smart_engine.equivalence._base import Rule, shown
from smart_engine.errors import InvalidInputError, UnparseableAnswerError

__all__ = ["Number"]


@dataclass(frozen=True, slots=True)
class Number(Rule):
    """Answers are the same when their numbers lie within a tolerance.

    The last number in the text counts, as in "… so the answer is 42".

    Args:
        absolute: Largest absolute difference.
        relative: Largest difference as a share of the larger number's size.

    Raises:
        InvalidInputError: If a tolerance is negative.

    Example:
        ```python
        rule = Number(absolute=0.01)
        assert rule.same(rule.parse("about 3.14"), rule.parse("pi = 3.142"))
        ```
    """

    absolute: float = 0.0
    relative: float = 0.0
    reads_text: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the tolerances."""
        for field in ("absolute", "relative"):
            value = getattr(self, field)
            if not (isinstance(value, int | float) and value >= 0):
                hint = "a tolerance is a number, zero or more"
                raise InvalidInputError(f"Number.{field}", value, hint)

    @property
    def _settings(self) -> str:
        given = {"absolute": self.absolute, "relative": self.relative}
        return ", ".join(f"{key}={value!r}" for key, value in given.items() if value)

    @property
    def keyed(self) -> bool:
        """Whether only equal numbers are the same."""
        return not (self.absolute or self.relative)

    def parse(self, answer: Any) -> float:
        """Return the last number in the answer."""
        try:
            number = float(self._last(answer))
        except OverflowError:  # an integer beyond all floats
            number = math.inf
        if math.isinf(number):
            raise UnparseableAnswerError(f"too large a number in {shown(answer)}")
        return number

    def same(self, left: Any, right: Any) -> bool:
        """Whether the numbers lie within the larger of both tolerances."""
        allowed = max(self.absolute, self.relative * max(abs(left), abs(right)))
        return bool(abs(left - right) <= allowed)

    def _last(self, answer: Any) -> int | float | str:
        """Return the last number in the answer as it is written."""
        if isinstance(answer, int | float):
            return answer
        # "1,234.5" is one number: commas between groups of three digits go.
        text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", str(answer).replace("−", "-"))
        found = re.findall(
            r"(?:(?<![\w.])[-+])?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", text
        )
        if not found:
            raise UnparseableAnswerError(f"no number in {shown(answer)}")
        return str(found[-1])
