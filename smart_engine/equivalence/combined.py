"""Rules made of two: either may say that answers are the same, or both must."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from smart_engine.equivalence._base import EquivalenceLike, Rule, as_equivalence, shown
from smart_engine.errors import UnparseableAnswerError

__all__ = ["Both", "Either"]


@dataclass(frozen=True, slots=True)
class _Pair(Rule):
    """Two rules.

    Args:
        left: A rule or a function of two answers.
        right: The same.

    Raises:
        InvalidInputError: If one of them is neither.
    """

    left: EquivalenceLike
    right: EquivalenceLike

    def __post_init__(self) -> None:
        """Make rules of both."""
        operator = type(self).__name__
        for field in ("left", "right"):
            rule = as_equivalence(getattr(self, field), f"{operator}.{field}")
            object.__setattr__(self, field, rule)

    @property
    def _rules(self) -> tuple[Any, Any]:
        return self.left, self.right

    @property
    def reads_text(self) -> bool:
        """Whether both compare texts only."""
        return all(getattr(rule, "reads_text", False) for rule in self._rules)

    @property
    def waits(self) -> bool:
        """Whether one of them asks somebody else."""
        return any(getattr(rule, "waits", False) for rule in self._rules)

    @property
    def costs(self) -> bool:
        """Whether one of them spends money."""
        return any(getattr(rule, "costs", False) for rule in self._rules)


class Either(_Pair):
    """Answers are the same when either rule says so; what either reads is read.

    Write it `left | right`.

    Example:
        ```python
        rule = Label(["none", "unclear"]) | Number(absolute=0.01)
        assert agree(rule, "about 3.14", "3.141")
        assert agree(rule, "None.", "none")
        assert not agree(rule, "none", "0")
        ```
    """

    __slots__ = ()

    @property
    def name(self) -> str:
        """Both names."""
        return " | ".join(rule.name for rule in self._rules)

    def parse(self, answer: Any) -> tuple[tuple[Any, ...], ...]:
        """Return what each rule reads: nothing, or one reading."""
        readings = tuple(_reading(rule, answer) for rule in self._rules)
        if not any(readings):
            problem = f"neither {' nor '.join(rule.name for rule in self._rules)} reads"
            raise UnparseableAnswerError(f"{problem} {shown(answer)}")
        return readings

    def same(self, left: Any, right: Any) -> bool:
        """Whether one of the rules reads both and says that they are the same."""
        failed: Exception | None = None
        for rule, a, b in zip(self._rules, left, right, strict=True):
            try:
                if a and b and rule.same(*a, *b):
                    return True
            except Exception as error:  # noqa: BLE001 - the other may still say so
                failed = error
        if failed is not None:
            raise failed
        return False


class Both(_Pair):
    """Answers are the same when both rules say so; what both read is read.

    Write it `left & right`.

    Example:
        ```python
        rule = Number() & (lambda left, right: ("%" in left) == ("%" in right))
        assert agree(rule, "5 %", "5.0 %")
        assert not agree(rule, "5 %", "5")
        ```
    """

    __slots__ = ()

    @property
    def name(self) -> str:
        """Both names; what is read as one stands in brackets."""
        names = [
            f"({rule.name})" if isinstance(rule, Either) else rule.name
            for rule in self._rules
        ]
        return " & ".join(names)

    @property
    def keyed(self) -> bool:
        """Whether both are."""
        return all(getattr(rule, "keyed", False) for rule in self._rules)

    def parse(self, answer: Any) -> tuple[Any, ...]:
        """Return what each rule reads."""
        return tuple(rule.parse(answer) for rule in self._rules)

    def same(self, left: Any, right: Any) -> bool:
        """Whether both say that they are the same."""
        sides = zip(self._rules, left, right, strict=True)
        return all(rule.same(a, b) for rule, a, b in sides)


def _reading(rule: Any, answer: Any) -> tuple[Any, ...]:
    """Return what a rule reads, if it can."""
    try:
        return (rule.parse(answer),)
    except Exception:  # noqa: BLE001 - a user's rule may raise anything
        return ()
