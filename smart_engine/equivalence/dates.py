"""The rule for dates: the same day, or the same moment, however it is written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any

from smart_engine.equivalence.rule import KeyedRule, excerpt
from smart_engine.errors import InvalidInputError, UnparseableAnswerError

__all__ = ["Date"]

_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec"
_MONTH = (
    r"(?P<name>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|"
    r"aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
)
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th|\.)?"
_YEAR = r"(?P<year>\d{4})"
_CLOCK = (
    r"[t ]\d{2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?"
    r"(?: ?(?:z|utc|gmt)\b| ?[+-]\d{2}:?\d{2})?"
)
_ISO = re.compile(
    rf"(?<!\d)\d{{4}}-\d{{2}}-\d{{2}}(?:{_CLOCK})?(?![\w:])", re.IGNORECASE
)
_OTHER_FORMATS = [
    re.compile(rf"(?<![\w.]){form}(?!\w)", re.IGNORECASE)
    for form in (
        rf"{_DAY} (?:of )?{_MONTH},? {_YEAR}",
        rf"{_MONTH} {_DAY},? {_YEAR}",
        rf"{_YEAR}/(?P<month>\d{{1,2}})/(?P<day>\d{{1,2}})",
        rf"(?P<day>\d{{1,2}})\.(?P<month>\d{{1,2}})\.{_YEAR}",
    )
]
_FOUND_DAY, _FOUND_MOMENT = "\0", "\1"
"""What a date that was found is replaced by: without a time, and with one."""

_OTHER_TIME = re.compile(
    rf"\d:\d\d|\d ?(?i:[ap]\.?m)\b"
    rf"|{_FOUND_MOMENT}(?: ?\(?(?:(?i:[ap]\.?m)|[A-Z]{{2,5}})\b| ?[+-]\d)"
)
"""A time, or a part of one, beside what was found."""

_ANY_DAY = datetime(2001, 11, 23, tzinfo=UTC)
"""A day on which formats are tried."""


@dataclass(frozen=True, slots=True)
class Date(KeyedRule):
    """Answers are the same when they name the same day, or the same moment.

    Read are ISO 8601, `31 January 2024`, `Jan 31st, 2024`, `2024/01/31` and
    `31.01.2024`, also within a sentence that names one date only. `01/02/2024` is
    January to some and February to others: it is read only by a format of yours.
    A time with an offset is taken to UTC; midnight without one is the day. Times are
    read in ISO form only: "31 January 2024, 5 pm" cannot be read.

    Args:
        formats: Further formats of whole answers, as `strptime` writes them, tried
            first, in this order.

    Raises:
        InvalidInputError: If a format does not give day, month and year.

    Example:
        ```python
        rule = Date(formats=["%m/%d/%Y"])
        assert rule.same(rule.parse("due Jan 31st, 2024."), rule.parse("1/31/2024"))
        assert rule.parse("2024-01-31T01:00+02:00") == "2024-01-30T23:00:00+00:00"
        ```
    """

    formats: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Check the formats."""
        formats: object = self.formats
        listed = isinstance(formats, Sequence) and not isinstance(formats, str)
        if not listed or not all(map(_gives_a_day, self.formats)):
            hint = "list formats with day, month and year, such as ['%d/%m/%Y']"
            raise InvalidInputError("Date.formats", self.formats, hint)
        object.__setattr__(self, "formats", tuple(self.formats))

    @property
    def _settings(self) -> str:
        return f"formats={list(self.formats)!r}" if self.formats else ""

    def parse(self, answer: Any) -> str:
        """Return the day or the moment in ISO form."""
        text = " ".join(str(answer).split())
        is_date = isinstance(answer, date)
        for pattern in () if is_date else self.formats:
            for stamp in (text, text.strip(".,;!?\"'`*()[] ")):
                try:
                    return _iso(datetime.strptime(stamp, pattern))  # noqa: DTZ007 - as it is written
                except (ValueError, OverflowError):
                    continue
        try:
            dates, rest = ([answer], "") if is_date else _find_dates(text)
            found = sorted({_iso(moment) for moment in dates})
        except (ValueError, OverflowError) as error:
            raise UnparseableAnswerError(f"no such date: {excerpt(answer)}") from error
        problem = "several dates" if found else "no date that can be read"
        if found and _OTHER_TIME.search(rest):
            problem = "a time that cannot be read"
        elif len(found) == 1:
            return found[0]
        raise UnparseableAnswerError(f"{problem} in {excerpt(answer)}")


def _gives_a_day(pattern: object) -> bool:
    """Whether a day that is written in this format can be read back."""
    try:
        again = datetime.strptime(_ANY_DAY.strftime(pattern), pattern)  # type: ignore[arg-type]  # noqa: DTZ007
    except (TypeError, ValueError, re.error):
        return False
    return again.date() == _ANY_DAY.date()


def _find_dates(text: str) -> tuple[list[date], str]:
    """Return every date in a text, and the text with the dates replaced."""
    found: list[date] = []

    def moment(match: re.Match[str]) -> str:
        stamp = re.sub(r" ?(?:UTC|GMT)$", "Z", match[0].upper())
        stamp = re.sub(r"(?<=\d) (?=[Z+-])", "", stamp)
        found.append(datetime.fromisoformat(stamp))
        return _FOUND_MOMENT if ":" in stamp else _FOUND_DAY

    def day(match: re.Match[str]) -> str:
        parts = match.groupdict()
        name = parts.get("name")
        month = _MONTHS.index(name[:3].lower()) // 4 + 1 if name else parts["month"]
        found.append(date(int(parts["year"]), int(month), int(parts["day"])))
        return _FOUND_DAY

    rest = _ISO.sub(moment, text)
    for pattern in _OTHER_FORMATS:
        rest = pattern.sub(day, rest)
    return found, rest


def _iso(moment: date) -> str:
    """Return a day or a moment in one fixed form."""
    if not isinstance(moment, datetime):
        return moment.isoformat()
    if moment.tzinfo is not None:
        return moment.astimezone(UTC).isoformat()
    return (moment.date() if moment.time() == time.min else moment).isoformat()
