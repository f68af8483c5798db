"""What an equivalence is, how two combine, and how a plain function becomes one.

An equivalence has two steps: `parse` turns an answer into what is compared, and
refuses an answer it cannot read; `same` compares two parsed answers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

from smart_engine.errors import InvalidInputError, UnparseableAnswerError
from smart_engine.warn import warn

__all__ = [
    "Both",
    "Either",
    "Equivalence",
    "EquivalenceLike",
    "Judged",
    "KeyedRule",
    "Rule",
    "agree",
    "agree_as_read",
    "as_equivalence",
    "excerpt",
    "function_name",
]


@runtime_checkable
class Equivalence(Protocol):
    """When two answers mean the same.

    An equivalence whose `same` is `==` may say so by an attribute `keyed = True`: then
    answers fall into classes, which audits use as a signal.
    """

    @property
    def name(self) -> str:
        """How certificates call this equivalence, its settings included."""
        ...

    def parse(self, answer: Any) -> Any:
        """Return what is compared.

        Raises:
            UnparseableAnswerError: If the answer cannot be read.
        """
        ...

    def same(self, left: Any, right: Any) -> bool:
        """Whether two parsed answers mean the same."""
        ...


EquivalenceLike = Equivalence | Callable[[Any, Any], bool]


class Rule(ABC):
    """An equivalence that has a name and combines with others by `|` and `&`.

    `a | b`: the same if either says so; it reads what either can read. `a & b`: the
    same if both say so; it reads what both can read. A subclass of your own says how
    answers are read and compared; when its verdicts change, raise `version`.

    Attributes:
        version: From 2 on it is part of the name, so that certificates tell versions
            apart.

    Example:
        ```python
        class FirstWord(Rule):
            keyed = True

            def parse(self, answer):
                return answer.split()[0]

            def same(self, left, right):
                return left == right


        rule = FirstWord() | Number(absolute=0.01)
        assert rule.name == "FirstWord() | Number(absolute=0.01)"
        assert agree(rule, "yes, 3.14", "yes, 3.15")
        assert agree(rule, "3.14", "3.141")
        ```
    """

    __slots__ = ()

    version: ClassVar[int] = 1

    @property
    def reads_text(self) -> bool:
        """Whether it compares texts only.

        Objects of structured output are then compared as JSON instead.
        """
        return False

    @property
    def waits(self) -> bool:
        """Whether `same` waits for somebody else, such as a model."""
        return any(getattr(rule, "waits", False) for rule in self._inner_rules)

    @property
    def costs(self) -> bool:
        """Whether `same` spends money, which no budget can foresee."""
        return any(getattr(rule, "costs", False) for rule in self._inner_rules)

    @property
    def keyed(self) -> bool:
        """Whether `same` is `==`, so that answers fall into classes."""
        return False

    @property
    def name(self) -> str:
        """How certificates call this rule: as it is written in code."""
        version = "" if self.version == 1 else f" v{self.version}"
        return f"{type(self).__name__}({self._settings}){version}"

    @property
    def _settings(self) -> str:
        """What stands between the brackets of the name."""
        return ""

    @property
    def _inner_rules(self) -> tuple[Any, ...]:
        """Rules that this one is made of."""
        return ()

    @abstractmethod
    def parse(self, answer: Any) -> Any:
        """Return what is compared, or raise if the answer cannot be read."""

    @abstractmethod
    def same(self, left: Any, right: Any) -> bool:
        """Whether two parsed answers mean the same."""

    def __or__(self, other: EquivalenceLike) -> Either:
        """Return `self | other`."""
        return Either(self, other)

    def __ror__(self, other: EquivalenceLike) -> Either:
        """Return `function | self`."""
        return Either(other, self)

    def __and__(self, other: EquivalenceLike) -> Both:
        """Return `self & other`."""
        return Both(self, other)

    def __rand__(self, other: EquivalenceLike) -> Both:
        """Return `function & self`."""
        return Both(other, self)


class KeyedRule(Rule):
    """A rule for texts that are the same when they parse to equal values."""

    __slots__ = ()

    keyed: ClassVar[bool] = True
    reads_text: ClassVar[bool] = True

    def same(self, left: Any, right: Any) -> bool:
        """Whether both are equal."""
        return bool(left == right)


@dataclass(frozen=True, slots=True)
class Judged(Rule):
    """A plain function of two answers decides.

    Args:
        judge: Called with two answers; true if they mean the same.

    Raises:
        InvalidInputError: If it cannot be called.

    Example:
        ```python
        rule = Judged(lambda left, right: left[:1] == right[:1])
        assert rule.same("yes", "yep")
        ```
    """

    judge: Callable[[Any, Any], bool] = field(repr=False)  # may show a key

    def __post_init__(self) -> None:
        """Check the function."""
        if not callable(self.judge):
            hint = "give a function of two answers"
            raise InvalidInputError("Judged.judge", self.judge, hint)

    @property
    def name(self) -> str:
        """Qualified name of the function."""
        return f"function {function_name(self.judge)}"

    def parse(self, answer: Any) -> Any:
        """Return the answer as it is."""
        return answer

    def same(self, left: Any, right: Any) -> bool:
        """Ask the function."""
        return bool(self.judge(left, right))


@dataclass(frozen=True, slots=True)
class _Pair(Rule):
    """Two rules, each given as a rule or as a function of two answers."""

    left: EquivalenceLike
    right: EquivalenceLike

    def __post_init__(self) -> None:
        """Make rules of both."""
        for side in ("left", "right"):
            place = f"{type(self).__name__}.{side}"
            object.__setattr__(self, side, as_equivalence(getattr(self, side), place))

    @property
    def _inner_rules(self) -> tuple[Any, Any]:
        return self.left, self.right

    @property
    def reads_text(self) -> bool:
        """Whether both compare texts only."""
        return all(getattr(rule, "reads_text", False) for rule in self._inner_rules)


class Either(_Pair):
    """Answers are the same when either rule says so; what either reads is read.

    Write it `left | right`.

    Example:
        ```python
        rule = Label(["none", "unclear"]) | Number(absolute=0.01)
        assert agree(rule, "3.14", "3.141")
        assert agree(rule, "None.", "none")
        assert not agree(rule, "none", "0")
        ```
    """

    __slots__ = ()

    @property
    def name(self) -> str:
        """Both names."""
        return " | ".join(rule.name for rule in self._inner_rules)

    def parse(self, answer: Any) -> tuple[tuple[Any, ...], ...]:
        """Return what each rule reads: nothing, or one parsed answer."""
        parsed = tuple(_parse_if_readable(rule, answer) for rule in self._inner_rules)
        if not any(parsed):
            names = " nor ".join(rule.name for rule in self._inner_rules)
            raise UnparseableAnswerError(f"neither {names} reads {excerpt(answer)}")
        return parsed

    def same(self, left: Any, right: Any) -> bool:
        """Whether one of the rules reads both and says that they are the same."""
        failed: Exception | None = None
        for rule, a, b in zip(self._inner_rules, left, right, strict=True):
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
        rule = Number(absolute=0.1) & (lambda left, right: left[0] == right[0])
        assert agree(rule, "5.01", "5.0")
        assert not agree(rule, "5.01", "4.99")
        ```
    """

    __slots__ = ()

    @property
    def name(self) -> str:
        """Both names; `a | b` stands in brackets."""
        return " & ".join(
            f"({rule.name})" if isinstance(rule, Either) else rule.name
            for rule in self._inner_rules
        )

    @property
    def keyed(self) -> bool:
        """Whether both are."""
        return all(getattr(rule, "keyed", False) for rule in self._inner_rules)

    def parse(self, answer: Any) -> tuple[Any, ...]:
        """Return what each rule reads."""
        return tuple(rule.parse(answer) for rule in self._inner_rules)

    def same(self, left: Any, right: Any) -> bool:
        """Whether both say that they are the same."""
        sides = zip(self._inner_rules, left, right, strict=True)
        return all(rule.same(a, b) for rule, a, b in sides)


def _parse_if_readable(rule: Any, answer: Any) -> tuple[Any, ...]:
    try:
        return (rule.parse(answer),)
    except Exception:  # noqa: BLE001 - a user's rule may raise anything
        return ()


def function_name(function: object) -> str:
    """Return the qualified name of a function, or of the type of a callable object."""
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def excerpt(answer: object) -> str:
    """Return the start of an answer, on one line, for errors."""
    return repr(str(answer)[:80])


def as_equivalence(given: EquivalenceLike, field: str = "equivalence") -> Equivalence:
    """Return an equivalence; a function of two answers becomes one.

    Raises:
        InvalidInputError: If it is neither; names the field.
    """
    kind: object = given
    if isinstance(kind, type) and isinstance(kind, Equivalence):
        hint = f"this is the class: write {kind.__name__}(…)"
        raise InvalidInputError(field, given, hint)
    if isinstance(given, Equivalence):
        return given
    if callable(given):
        return Judged(given)
    hint = (
        "use Normalized(), Exact(), Label([...]), Number(...), Date(), Items(...), "
        "Json(...), Similar(...), ChatJudge(...), several of them with | or &, or a "
        "function of two answers that returns whether they mean the same"
    )
    raise InvalidInputError(field, given, hint)


def agree(rule: Equivalence, left: Any, right: Any) -> bool:
    """Whether two answers mean the same; what cannot be read or compared does not.

    A rule that fails otherwise than on an unreadable answer causes a warning: all it
    fails on counts as different, which is safe but expensive.
    """
    return agree_as_read(rule, lambda: (rule.parse(left), rule.parse(right)))


def agree_as_read(rule: Equivalence, read: Callable[[], tuple[Any, Any]]) -> bool:
    """Whether two answers mean the same, as `agree` does; `read` parses them."""
    try:
        return rule.same(*read())
    except UnparseableAnswerError:
        return False
    except Exception as error:  # noqa: BLE001 - a user's rule may raise anything
        kind = type(error).__name__
        problem = f"{rule.name} raised {kind}: the answers count as different"
        warn(problem)
        return False
