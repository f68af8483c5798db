"""The rule for whole replies, which are texts, objects or tool calls."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from smart_engine.equivalence.objects import Json
from smart_engine.equivalence.rule import Equivalence
from smart_engine.errors import UnparseableAnswerError

__all__ = ["ByKind", "calls_in_any_order", "refuse_incomplete", "reported_ending"]

_ENDINGS = ("finish_reason", "stop_reason", "stopReason", "done_reason", "status")
"""Where providers report why an answer ended."""

_WHOLE = {
    *("stop", "end_turn", "stop_sequence", "eos", "eos_token", "complete", "completed"),
    *("tool_calls", "tool_call", "tool_use", "function_call"),
    *("success", "1", "none", ""),
}
"""Reasons of whole answers; whatever else a provider says, the answer is not whole."""

_JSON = Json()


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

        That is `"text"` and a text, or `"tool calls"` and calls as `calls_in_any_order`
        takes them; whatever else the kind is, `"objects"` say, a list of objects.

        Raises:
            UnparseableAnswerError: If it cannot be read: its item then escalates.
        """

    @property
    def of_objects(self) -> Equivalence:
        """How objects are compared."""
        by_value = getattr(self.inner, "reads_text", False)
        return self.by_value if by_value else self.inner

    @property
    def by_value(self) -> Equivalence:
        """How objects are compared where the equivalence reads texts only."""
        return _JSON

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
        if kind == "text":
            return kind, self.inner.parse(content)
        if kind == "tool calls":
            return kind, calls_in_any_order(content)
        return kind, tuple(map(self.of_objects.parse, content))

    def content(self, answer: Any) -> Any:
        """Return the text of a reply, or the one object that it is.

        Raises:
            UnparseableAnswerError: If it is neither.
        """
        kind, content = self.read(answer)
        if kind == "text":
            return content
        if kind == "tool calls" or len(content) != 1:
            raise UnparseableAnswerError(f"{kind} have no label")
        return content[0]

    def same(self, left: tuple[str, Any], right: tuple[str, Any]) -> bool:
        """Whether both are of one kind and mean the same."""
        kind = left[0]
        if kind != right[0]:
            return False
        if kind == "text":
            return self.inner.same(left[1], right[1])
        if kind == "tool calls":
            return bool(left[1] == right[1])
        same = map(self.of_objects.same, left[1], right[1])
        return len(left[1]) == len(right[1]) and all(same)


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
    return ",".join(sorted(str(_JSON.parse(call)) for call in calls))


def reported_ending(*reports: Any) -> str | None:
    """Return why an answer ended, None where no provider reports it.

    Args:
        *reports: Mappings or objects in which it may be reported.

    Example:
        ```python
        assert reported_ending(None, {"finish_reason": "MAX_TOKENS"}) == "max_tokens"
        ```
    """
    for report in reports:
        for name in _ENDINGS:
            mapping = isinstance(report, Mapping)
            reason = report.get(name) if mapping else getattr(report, name, None)
            reason = getattr(reason, "name", reason)  # of an enumeration
            if isinstance(reason, str | int) and not isinstance(reason, bool):
                return str(reason).lower().rpartition(".")[2]
    return None


def refuse_incomplete(*reports: Any) -> None:
    """Raise if an answer is not whole; see `reported_ending`.

    Raises:
        UnparseableAnswerError: It names the reason.
    """
    ending = reported_ending(*reports)
    if ending is not None and ending not in _WHOLE:
        raise UnparseableAnswerError(f"the answer is not whole: {ending}")
