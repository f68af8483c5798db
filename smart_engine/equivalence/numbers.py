"""The rule for numbers: the same within a tolerance, in the same unit."""

from __future__ import annotations

import math
import numbers
import re
import unicodedata
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, ClassVar, NamedTuple

from smart_engine.equivalence.answer_part import answer_part, equation_result, text_of
from smart_engine.equivalence.rule import Rule, excerpt
from smart_engine.errors import InvalidInputError, UnparseableAnswerError

__all__ = ["Number", "Quantity"]

_LONGEST = 400
"""Digits beyond this make no finite number, or none that needs them."""

_SIGNS = str.maketrans("\u2212\u2013\ufe63\u00d7\u00b7", "---**")
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_LATEX = (
    (r"\{,\}", ","),
    (r"\\[,!;: ]", " "),
    (r"\\([%$])", r"\1"),
    (r"\\(?:times|cdot)\b", "*"),
    (r"\^\{([^{}]*)\}", r"^\1"),
    (r"([⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+)", lambda match: f"^{match[1].translate(_SUPERSCRIPTS)}"),
    (r"\\[dt]?frac\{(\d+)\}\{(\d+)\}", r"\1/\2"),
)
"""Forms of the same notation: LaTeX and Unicode → plain text."""


def _whole(gap: str) -> str:
    return (
        rf"(?:[1-9]\d{{0,2}}(?P<{gap}>[,'’_ \u00a0\u2009\u202f])\d{{3}}"
        rf"(?:(?P={gap})\d{{3}})*|[1-9]\d?(?:,\d\d)+,\d{{3}}|0|[1-9]\d*)"
    )


_CURRENCY = "[$€£¥₹]"
_NUMBER = re.compile(
    rf"""
    (?P<sign> [-+] | (?i: minus | negative ) [ ] )?
    (?: (?P<currency> {_CURRENCY} ) [ ]? )? (?P<inner_sign> - )?
    (?: (?P<over> 0 | [1-9]\d* ) [ ]? [/\u2044] [ ]? (?P<under> [1-9]\d* )
      | 10 \^ (?P<power> -? \d{{1,3}} )
      | (?P<whole> {_whole("gap")} )? (?P<vulgar> [¼-¾⅐-⅞] )
      | (?P<decimal> {_whole("space")} (?: \. \d+ )? | \. \d+ )
        (?: [eE] (?P<e> [-+]? \d{{1,3}} )
          | [ ]? [*x] [ ]? 10 \^ (?P<ten> -? \d{{1,3}} ) )?
    )
    (?: [ ]? (?P<word> (?i: thousand | million | billion | trillion ) ) s? \b
      | (?P<letter> k | bn ) \b
      | (?(currency) [ ]? (?P<amount> [kKmMbB] | bn ) \b | (?!) ) )?
    (?: [ ]? (?P<unit> [%‰] | {_CURRENCY} | ° [CF]? | [^\W\d_]+ (?: / [^\W\d_]+ )? ) )?
    """,
    re.VERBOSE,
)
_EXPONENTS = {"": 0, "k": 3, "th": 3, "m": 6, "mi": 6, "b": 9, "bi": 9, "bn": 9}
_EXPONENTS |= {"tr": 12}
"""First letters of thousand, million, billion, trillion → zeros."""


class Quantity(NamedTuple):
    """What an answer to "how much?" says.

    Attributes:
        number: The exact number.
        unit: As it is written, `"kg"` or `"$"`; empty if there is none.
    """

    number: Fraction
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Number(Rule):
    r"""Answers are the same when they are the same number, within a tolerance.

    The answer is the number, or says in an explicit form which part is: "Answer: 42",
    "#### 42", `\boxed{42}`, "x = 42", "3 + 4 = 7". One of several numbers, a range, a
    bound and an approximation cannot be read. 1,234,567 and 1 234, 5 million, ½, 1/2,
    1.5e3 and 1.5 × 10³ are read; 3,14 and 10:30 are not. Units must be the same as they
    are written: `5%` is `5 %`, but not `5`, `$5` is not `€5`.

    Args:
        absolute: Largest absolute difference.
        relative: Largest difference as a share of the larger number's size.

    Raises:
        InvalidInputError: If a tolerance is negative.

    Example:
        ```python
        rule = Number(absolute=0.01)
        assert agree(rule, "The answer is 3.14.", "x = 3.142")
        assert not agree(rule, "3.14 m", "3.14 km")
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

    def parse(self, answer: Any) -> Quantity:
        """Return the number and its unit."""
        real = isinstance(answer, numbers.Real | Decimal)
        is_number = real and not isinstance(answer, bool)
        if not is_number and not isinstance(answer, str):
            raise UnparseableAnswerError(f"no number in {excerpt(answer)}")
        try:
            text = text_of(answer)
            if not is_number:
                text = equation_result(answer_part(text))
            read = _quantity(text)
            if math.isfinite(float(read.number)):
                return read
        except UnparseableAnswerError:
            raise
        except (ValueError, OverflowError):  # of thousands of digits
            pass
        raise UnparseableAnswerError(f"no finite number in {excerpt(answer)}")

    def same(self, left: Any, right: Any) -> bool:
        """Whether the units are equal and the numbers within the larger tolerance."""
        (one, unit), (other, other_unit) = left, right
        if self.keyed or unit != other_unit:
            return bool(left == right)
        share = _exact(self.relative) * max(abs(one), abs(other))
        return bool(abs(one - other) <= max(_exact(self.absolute), share))


def _exact(tolerance: float) -> Any:
    """Return a tolerance as it is written: 0.3, not the float below it."""
    return Fraction(str(tolerance)) if math.isfinite(tolerance) else tolerance


def _quantity(text: str) -> Quantity:
    text = " ".join(text.translate(_SIGNS).split())
    for form, plain in _LATEX:
        text = re.sub(form, plain, text)
    match = _NUMBER.fullmatch(text)
    if match is None or len(text) > _LONGEST:
        raise UnparseableAnswerError(f"no number that can be read in {excerpt(text)}")
    if match["over"]:
        number = Fraction(int(match["over"]), int(match["under"]))
    elif match["vulgar"]:
        part = Fraction(unicodedata.numeric(match["vulgar"])).limit_denominator(10)
        number = _plain(match["whole"] or "0") + part
    else:
        power = int(match["power"] or match["e"] or match["ten"] or 0)
        number = _plain(match["decimal"] or "1") * Fraction(10) ** power
    scale = match["word"] or match["letter"] or match["amount"] or ""
    number *= 10 ** _EXPONENTS[scale.lower()[:2]]
    signs = (match["sign"] or "+").strip() != "+", match["inner_sign"] is not None
    if all(signs) or (match["currency"] and match["unit"]):
        raise UnparseableAnswerError(f"no number that can be read in {excerpt(text)}")
    unit = match["currency"] or match["unit"] or ""
    unit = "%" if unit.lower() in {"percent", "pct"} else unit
    return Quantity(-number if any(signs) else number, unit)


def _plain(digits: str) -> Fraction:
    return Fraction(re.sub(r"[^\d.]", "", digits))
