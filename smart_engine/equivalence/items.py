"""The rule for lists: the same items, in any order or in the same one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, ClassVar

from smart_engine.equivalence.answer_part import located, text_of
from smart_engine.equivalence.objects import read_json
from smart_engine.equivalence.rule import EquivalenceLike, Rule, as_equivalence, excerpt
from smart_engine.equivalence.texts import Normalized
from smart_engine.errors import InvalidInputError, UnparseableAnswerError

__all__ = ["Items"]

_BULLET = re.compile(
    r"(?P<start>\s*(?:(?P<mark>[-*•])|(?P<number>\d+)[.)]))\s+(?P<item>\S.*)"
)
_INTRODUCTION = re.compile(
    r"here (?:are|is) (?:the|your) "
    r"(?!exc|omi|oth|rest|remain|miss|wrong|rejec|oppos)\w+:",
    re.IGNORECASE,
)
"""What may stand before bullets; other introductions may say what they are not."""

_AND = re.compile(r"\A(?:and|und|et|y) +", re.IGNORECASE)
_JOINED = re.compile(r"(?:^|.* )(?:and|or|nor|und|oder|et|ou|&) .*", re.IGNORECASE)
_BRACKETS = ("()", "[]", "{}", "“”", "«»")
_QUOTES = "\"'“‘«"


@dataclass(frozen=True, slots=True)
class Items(Rule):
    r"""Answers are the same when they list the same items, each as often.

    The answer may be a JSON array, a list or a set, lines (all with bullets, all
    numbered from 1, or none), or one line of items between semicolons, bars or commas,
    "and" before the last. What could be split in several ways cannot be read: `1,000`,
    `a, "b, c"`, "a, b and c", nested bullets. An item that `inner` cannot read makes
    the answer unreadable.

    Args:
        inner: When two items are the same.
        ordered: Whether the order matters.
        separator: What separates items in texts, if it is none of the above.

    Raises:
        InvalidInputError: If `inner` is no rule, or the separator is empty.

    Example:
        ```python
        rule = Items()
        assert agree(rule, "red, green", '["Green", "Red"]')
        assert agree(rule, "- red\n- green", "green; red")
        assert not agree(Items(ordered=True), "red, green", "green, red")
        ```
    """

    inner: EquivalenceLike = field(default_factory=Normalized)
    ordered: bool = False
    separator: str | None = None
    reads_text: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the settings."""
        object.__setattr__(self, "inner", as_equivalence(self.inner, "Items.inner"))
        if not isinstance(self.ordered, bool):
            raise InvalidInputError("Items.ordered", self.ordered, "give True or False")
        empty = not (isinstance(self.separator, str) and self.separator)
        if self.separator is not None and empty:
            hint = "a separator is a text such as '|'; leave it out for the usual ones"
            raise InvalidInputError("Items.separator", self.separator, hint)

    @property
    def _settings(self) -> str:
        parts = [self._rule.name]
        parts += ["ordered=True"] if self.ordered else []
        parts += [f"separator={self.separator!r}"] if self.separator else []
        return ", ".join(parts)

    @property
    def _rule(self) -> Any:
        return self.inner

    @property
    def _inner_rules(self) -> tuple[Any, ...]:
        return (self.inner,)

    @property
    def keyed(self) -> bool:
        """Whether the items' rule is."""
        return bool(getattr(self.inner, "keyed", False))

    def parse(self, answer: Any) -> Hashable:
        """Return what the items' rule reads: in order, or how often each."""
        items = self._items(answer)
        if getattr(self.inner, "reads_text", False) and any(map(_is_bool, items)):
            raise UnparseableAnswerError(f"true or false in {excerpt(answer)}")
        parsed = tuple(self._rule.parse(item) for item in items)
        if self.ordered or not self.keyed:
            return parsed
        try:
            return frozenset(Counter(parsed).items())
        except TypeError as error:
            problem = f"items that {self._rule.name} cannot tell apart in any order"
            raise UnparseableAnswerError(f"{problem}: {excerpt(answer)}") from error

    def same(self, left: Any, right: Any) -> bool:
        """Whether every item has its counterpart."""
        if left == right or self.keyed or len(left) != len(right):
            return bool(left == right)
        if self.ordered:
            sides = zip(left, right, strict=True)
            return all(self._rule.same(a, b) for a, b in sides)
        from scipy.optimize import linear_sum_assignment

        differ = [[not self._rule.same(a, b) for b in right] for a in left]
        rows, columns = linear_sum_assignment(differ)
        return not any(differ[a][b] for a, b in zip(rows, columns, strict=True))

    def _items(self, answer: Any) -> list[Any]:
        if isinstance(answer, list | tuple | AbstractSet):
            return list(answer)
        try:
            value = read_json(answer)
        except UnparseableAnswerError:
            value = None
        if isinstance(value, list | AbstractSet):
            return list(value)
        items = None
        if not isinstance(value, dict):
            text = text_of(answer)
            part = located(text)
            items = self._split(part)
            quoted = text.strip()[1:-1] == part and text.strip()[:1] in _QUOTES
            items = None if quoted and len(items or ()) > 1 else items
        if not items or not all(items):
            raise UnparseableAnswerError(f"no items in {excerpt(answer)}")
        return items

    def _split(self, text: str) -> list[str] | None:
        """Return the items of a text; none if it could be split in several ways."""
        if self.separator is not None:
            items = map(str.strip, text.split(self.separator))
            return [item for item in items if item]
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) > 2 and _INTRODUCTION.fullmatch(lines[0].strip()):
            return _bulleted(lines[1:])
        if any(map(_BULLET.fullmatch, lines)):
            return _bulleted(lines)
        if len(lines) > 1:
            whole = not re.search(r"[,;|]|:\n|\n\s", text)
            return lines if whole else None
        return _in_line(text.strip())


def _is_bool(item: object) -> bool:
    return isinstance(item, bool)


def _bulleted(lines: list[str]) -> list[str] | None:
    """Return the items of lines if all have the same bullet, or are numbered from 1."""
    found = [match for line in lines if (match := _BULLET.fullmatch(line))]
    numbers = [int(match["number"]) for match in found if match["number"]]
    alike = len({re.sub(r"\d+.", "1", match["start"]) for match in found}) == 1
    in_order = numbers in ([], list(range(1, len(found) + 1)))
    minus = len(found) == 1 and re.match(r"-\s+[\d.]", lines[0].strip())
    if len(found) < len(lines) or not (alike and in_order) or minus:
        return None
    return [match["item"].strip() for match in found]


def _in_line(text: str) -> list[str] | None:
    """Return the items of one line, all between the same separators."""
    marks = [mark for mark in ";|" if mark in text] or [","]
    spaced = ", " in text and re.search(r",\S", text)
    if len(marks) > 1 or (marks == [","] and (spaced or re.search(r"\d,\d", text))):
        return None
    items = [item.strip() for item in text.removesuffix(marks[0]).split(marks[0])]
    if len(items) > 1:
        items[-1] = _AND.sub("", items[-1], count=1)
    whole = all(map(_is_whole, items)) and not _JOINED.fullmatch(items[-1])
    return items if whole else None


def _is_whole(item: str) -> bool:
    """Whether no quotation or bracket goes on in the next item."""
    quoted = item.count('"') % 2 == 0 and item.startswith("'") <= item.endswith("'")
    return quoted and all(item.count(b[0]) == item.count(b[1]) for b in _BRACKETS)
