"""The rule for replies of several kinds: texts, objects and tool calls."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from smart_engine.equivalence.objects import Json
from smart_engine.equivalence.rule import Equivalence

__all__ = ["ByKind", "calls_in_any_order"]


@dataclass(frozen=True, slots=True)
class ByKind(ABC):
    """Applies an equivalence to replies; an adapter's subclass reads and names them.

    Texts are compared by the equivalence. Objects are compared by their values if the
    equivalence reads texts only, and are handed to the equivalence otherwise. Tool
    calls are compared by name and arguments. Replies of two kinds differ.

    Args:
        inner: The user's equivalence.
    """

    inner: Equivalence

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of what is compared."""

    @abstractmethod
    def read(self, answer: Any) -> tuple[str, Any]:
        """Return the kind of a reply, and what it holds.

        That is `"text"` and a text, `"objects"` and a list of them, or `"tool calls"`
        and calls as `calls_in_any_order` takes them.

        Raises:
            UnparseableAnswerError: If it cannot be read: its item then escalates.
        """

    @property
    def of_objects(self) -> Equivalence:
        """How objects are compared."""
        return Json() if getattr(self.inner, "reads_text", False) else self.inner

    @property
    def keyed(self) -> bool:
        """Whether equal readings mean equal answers."""
        rules = (self.inner, self.of_objects)
        return all(bool(getattr(rule, "keyed", False)) for rule in rules)

    @property
    def waits(self) -> bool:
        """Whether comparing may wait for an answer from elsewhere."""
        return bool(getattr(self.inner, "waits", False))

    def parse(self, answer: Any) -> tuple[str, Any]:
        """Return which kind of answer it is, and what is compared."""
        kind, content = self.read(answer)
        if kind == "objects":
            return kind, tuple(map(self.of_objects.parse, content))
        parse = calls_in_any_order if kind == "tool calls" else self.inner.parse
        return kind, parse(content)

    def same(self, left: tuple[str, Any], right: tuple[str, Any]) -> bool:
        """Whether both are of one kind and mean the same."""
        kind = left[0]
        if kind != right[0]:
            return False
        if kind == "objects":
            same = map(self.of_objects.same, left[1], right[1])
            return len(left[1]) == len(right[1]) and all(same)
        if kind == "tool calls":
            return bool(left[1] == right[1])
        return self.inner.same(left[1], right[1])


def calls_in_any_order(calls: Iterable[Any]) -> str:
    """Return parallel tool calls in one fixed form, in which their order is no matter.

    Args:
        calls: The calls, such as `{"name": "search", "args": {"q": "x"}}`.

    Raises:
        UnparseableAnswerError: If a call cannot be compared.

    Example:
        ```python
        first, second = {"name": "a", "args": {}}, {"name": "b", "args": {"n": 1}}
        either = calls_in_any_order([first, second])
        assert either == calls_in_any_order([second, first])
        assert either != calls_in_any_order([first, second, second])
        ```
    """
    return ",".join(sorted(str(Json().parse(call)) for call in calls))
