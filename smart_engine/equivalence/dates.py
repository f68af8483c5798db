"""The rule for dates: the same day, or the same moment, however it is written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any

from smart_engine.equivalence.answer_part import answer_part, text_of
from smart_engine.equivalence.rule import KeyedRule, excerpt
from smart_engine.errors import InvalidInputError, UnparseableAnswerError

__all__ = ["Date"]

_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec"
_WEEKDAYS = "mon tue wed thu fri sat sun"
_MONTH = (
    r"(?P<name>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|"
    r"aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
)
_WEEKDAY = r"(?:mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:day)?"
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th|\.)?"
_YEAR = r"(?P<year>\d{4})"
_CLOCK = (
    r"(?:(?P<gap>t|,? (?:at )?)(?P<time>\d\d:\d\d(?P<seconds>:\d\d(?:[.,]\d{1,6})?)?)"
    r" ?(?P<zone>z|utc|gmt|[+-]\d\d:?\d\d)?)?"
)
_FORMS = [
    re.compile(
        rf"(?:(?P<before>{_WEEKDAY})\.?,? )?{form}"
        rf"(?:,? \(?(?P<after>{_WEEKDAY})\)?)?{_CLOCK}"
    )
    for form in (
        rf"{_YEAR}(?P<mark>[-/.])(?P<month>\d{{1,2}})(?P=mark)(?P<day>\d{{1,2}})",
        rf"{_YEAR}(?P<month>\d\d)(?P<day>\d\d)",
        rf"{_YEAR}年(?P<month>\d{{1,2}})月(?P<day>\d{{1,2}})日",
        rf"(?P<day>\d{{1,2}})(?P<mark>[-/.])(?P<month>\d{{1,2}})(?P=mark){_YEAR}",
        rf"(?:the )?{_DAY}[ /-]?(?:of )?{_MONTH},?[ /-]{_YEAR}",
        rf"{_MONTH}[ /-]{_DAY},?[ /-]{_YEAR}",
    )
]
_DAY_OR_MONTH_FIRST = _FORMS[3]

_ANY_DAY = datetime(2001, 11, 23, tzinfo=UTC)
"""A day on which formats are tried."""


@dataclass(frozen=True, slots=True)
class Date(KeyedRule):
    """Answers are the same when they are the same day, or the same moment.

    Read are ISO 8601, `20240131`, `31 January 2024`, `Wed, Jan 31st, 2024`,
    `2024/01/31`, `31.01.2024` and `2024年1月31日`, alone or in an explicit form such as
    "Date: …"; not a date within prose, a range, or one with the wrong weekday. In
    `04/05/2024` and `04.05.2024` the day comes first to some and the month to others:
    they are read only by a format of yours. A time, `10:00` or `10:00:30.5`, may
    follow; with an offset it is taken to UTC; midnight without one is the day.

    Args:
        formats: Further formats of whole answers, as `strptime` writes them, tried
            first, in this order.

    Raises:
        InvalidInputError: If a format does not give day, month and year.

    Example:
        ```python
        rule = Date(formats=["%m/%d/%Y"])
        assert rule.same(rule.parse("Date: Jan 31st, 2024"), rule.parse("1/31/2024"))
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
        try:
            if isinstance(answer, date):
                return _iso(answer)
            part = " ".join(answer_part(text_of(answer)).split())
            for pattern in self.formats:
                for stamp in (str(answer).strip(), part):
                    try:
                        return _iso(datetime.strptime(stamp, pattern))  # noqa: DTZ007 - as it is written
                    except (ValueError, OverflowError):
                        continue
            found = {_iso(moment) for moment in _readings(part.lower())}
        except UnparseableAnswerError:
            raise
        except (ValueError, OverflowError) as error:
            raise UnparseableAnswerError(f"no such date: {excerpt(answer)}") from error
        if len(found) == 1:
            return found.pop()
        problem = "day or month first" if found else "no date that can be read"
        raise UnparseableAnswerError(f"{problem} in {excerpt(answer)}")


def _gives_a_day(pattern: object) -> bool:
    """Whether a day that is written in this format can be read back."""
    try:
        again = datetime.strptime(_ANY_DAY.strftime(pattern), pattern)  # type: ignore[arg-type]  # noqa: DTZ007
    except (TypeError, ValueError, re.error):
        return False
    names_zone = "%Z" in str(pattern)  # strptime reads the name and drops it
    return again.date() == _ANY_DAY.date() and not names_zone


def _readings(text: str) -> list[date]:
    """Return the date that a text is: none, or two where day or month may be first.

    Raises:
        ValueError: If there is no such day or time.
    """
    for form in _FORMS:
        if match := form.fullmatch(text):
            break
    else:
        return []
    parts = match.groupdict()
    year, name, day = int(parts["year"]), parts.get("name"), int(parts["day"])
    month = _MONTHS.index(name[:3]) // 4 + 1 if name else int(parts["month"])
    if form is _DAY_OR_MONTH_FIRST and day <= 12 and month <= 12:
        days = [date(year, month, day), date(year, day, month)]
    elif form is _DAY_OR_MONTH_FIRST and month > 12:
        days = [date(year, day, month)]
    else:
        days = [date(year, month, day)]
    for weekday in filter(None, (parts["before"], parts["after"])):
        days = [d for d in days if _WEEKDAYS.index(weekday[:3]) // 4 == d.weekday()]
    if not parts["time"]:
        return days
    zone = re.sub("utc|gmt|z", "Z", parts["zone"] or "")
    if zone.startswith("-") and parts["gap"] != "t" and not parts["seconds"]:
        return []  # 10:00-11:00 may be a range
    clock = time.fromisoformat(parts["time"].replace(",", ".") + zone)
    return [datetime.combine(d, clock) for d in days]


def _iso(moment: date) -> str:
    """Return a day or a moment in one fixed form."""
    if not isinstance(moment, datetime):
        return moment.isoformat()
    if moment.tzinfo is not None:
        return moment.astimezone(UTC).isoformat()
    return (moment.date() if moment.time() == time.min else moment).isoformat()
