"""The rule for lists: the same items, in any order or in the same one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, ClassVar

from smart_engine.equivalence.objects import read_json
from smart_engine.equivalence.rule import EquivalenceLike, Rule, as_equivalence, excerpt
from smart_engine.equivalence.texts import Normalized
from smart_engine.errors import InvalidInputError, UnparseableAnswerError

__all__ = ["Items"]

_BULLET = re.compile(r"\s*(?:[-*•]|\d+[.)])\s+")


@dataclass(frozen=True, slots=True)
class Items(Rule):
    r"""Answers are the same when they list the same items, each as often.

    The answer may be a JSON array, a list, lines (with bullets or numbers or without),
    or one line of items between semicolons or else commas. An item that
    `inner` cannot read makes the answer unreadable.

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
            raise InvalidInputError("Items.ordered", self.ordered, "True or False")
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
        parsed = tuple(self._rule.parse(item) for item in self._items(answer))
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
        text = str(answer)
        try:
            value = read_json(text)
        except UnparseableAnswerError:
            value = None
        if isinstance(value, list):
            return value
        items = [stripped for part in self._split(text) if (stripped := part.strip())]
        if not items:
            raise UnparseableAnswerError(f"no items in {excerpt(answer)}")
        return items

    def _split(self, text: str) -> list[str]:
        if self.separator is not None:
            return text.split(self.separator)
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) > 1 or (lines and _BULLET.match(lines[0])):
            return [_BULLET.sub("", line, count=1) for line in lines]
        return re.split(";" if ";" in text else ",", text)
