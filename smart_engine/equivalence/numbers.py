"""The rule for numbers: the same within a tolerance."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

from smart_engine.equivalence.rule import Rule, excerpt
from smart_engine.errors import InvalidInputError, UnparseableAnswerError

__all__ = ["Number"]

_MINUS_SIGNS = str.maketrans("\u2212\u2013\ufe63\uff0d", "----")

_GROUPED = re.compile(
    r"(?<![\d.,])\d{1,3}([,'’_ \u00a0\u2009\u202f])\d{3}(?:\1\d{3})*(?!\d)"
)
"""One number whose digits are set apart in groups of three, as in 1,234,567."""

_NUMBER = re.compile(
    r"""
    (?P<sign> (?<![\w.]) [-+] )?  [$€£¥₹]?
    (?P<digits> (?: \d+ \.? \d* | \.\d+ ) (?: [eE] [-+]? \d+ )? )
    (?: [ ]? (?P<word> (?i: thousand | million | billion | trillion ) ) s? \b
      | (?P<letter> [kKMB] | bn ) \b )?
    """,
    re.VERBOSE,
)
_EXPONENTS = {"k": 3, "thousand": 3, "m": 6, "million": 6, "b": 9, "bn": 9}
_EXPONENTS |= {"billion": 9, "trillion": 12}

_PART_BEFORE = re.compile(
    r"""
    (?: [\d)}\]] (?: [ .,:'’_] | \s* (?: [*×·÷/\u2044^] | \*\* ) \s* ) [({]? [-+]?
      | \d | \^ [({]? [-+]? | √ | \\sqrt\{ | \}\{ ) $
    """,
    re.VERBOSE,
)
"""What precedes a number that is part of a longer one: 3,14, 1/2, 2 × 10^3."""

_PART_AFTER = re.compile(r"[²³¹\u2070-\u207f¼-¾⅐-⅞^π]|\*\*\d|\\pi\b")
"""What follows one: 10⁶, 5½, 2π."""


@dataclass(frozen=True, slots=True)
class Number(Rule):
    """Answers are the same when their numbers lie within a tolerance.

    The last number in the text counts, as in "… so the answer is 42". Groups of three
    digits, as in 1,234,567, and words such as million are understood. A number that is
    part of a longer one, as in 3,14, 1/2, 10:30 or 10^6, cannot be read. Units are not
    looked at: `5%` is `5`.

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
        """Return the last number in the answer; whole ones are exact."""
        number = _last_number(answer)
        with suppress(OverflowError):  # an integer beyond all floats
            if math.isfinite(number):
                return number
        raise UnparseableAnswerError(f"no finite number in {excerpt(answer)}")

    def same(self, left: Any, right: Any) -> bool:
        """Whether the numbers lie within the larger of both tolerances."""
        if self.keyed:
            return bool(left == right)
        allowed = max(self.absolute, self.relative * max(abs(left), abs(right)))
        return bool(abs(left - right) <= allowed)


def _last_number(answer: Any) -> float:
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        return answer
    single = isinstance(answer, str) or not isinstance(answer, bool | Collection)
    text = str(answer).translate(_MINUS_SIGNS) if single else ""
    text = _GROUPED.sub(lambda match: match[0].replace(match[1], ""), text)
    found = list(_NUMBER.finditer(text))
    if not found:
        raise UnparseableAnswerError(f"no number in {excerpt(answer)}")
    last = found[-1]
    before, after = text[max(0, last.start() - 9) : last.start()], text[last.end() :]
    if _PART_BEFORE.search(before) or _PART_AFTER.match(after):
        raise UnparseableAnswerError(f"no plain number at the end of {excerpt(answer)}")
    digits = last["digits"]
    exact = digits.isdecimal() and len(digits) < 400
    number = int(digits) if exact else float(digits)
    unit = (last["word"] or last["letter"] or "").lower()
    scale: int = 10 ** _EXPONENTS.get(unit, 0)
    return number * (-scale if last["sign"] == "-" else scale)
