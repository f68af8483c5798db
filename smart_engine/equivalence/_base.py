"""What an equivalence is, and how a plain function becomes one.

An equivalence has two steps: `parse` turns an answer into what is compared, and
refuses an answer it cannot read; `same` compares two parsed answers. A plain
function of two answers is accepted wherever an equivalence is.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from smart_engine.errors import InvalidInputError, UnparseableAnswerError

if TYPE_CHECKING:
    from smart_engine.equivalence.combined import Both, Either

__all__ = [
    "Equivalence",
    "EquivalenceLike",
    "Judged",
    "Rule",
    "agree",
    "as_equivalence",
    "called",
    "shown",
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
    answers are read and compared; when it comes to judge otherwise, raise `version`.

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
        assert agree(rule, "yes, 3.14", "no, 3.141")
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
        """Whether `same` asks somebody else, such as a model: others need not wait."""
        return False

    @property
    def costs(self) -> bool:
        """Whether `same` spends money, which no budget can foresee."""
        return False

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

    @abstractmethod
    def parse(self, answer: Any) -> Any:
        """Return what is compared, or raise if the answer cannot be read."""

    @abstractmethod
    def same(self, left: Any, right: Any) -> bool:
        """Whether two parsed answers mean the same."""

    def __or__(self, other: EquivalenceLike) -> Either:
        """Return the rule by which either of both may say that answers are the same."""
        from smart_engine.equivalence.combined import Either

        return Either(self, other)

    def __ror__(self, other: EquivalenceLike) -> Either:
        """Return the same for `function | rule`."""
        from smart_engine.equivalence.combined import Either

        return Either(other, self)

    def __and__(self, other: EquivalenceLike) -> Both:
        """Return the rule by which both must say that answers are the same."""
        from smart_engine.equivalence.combined import Both

        return Both(self, other)

    def __rand__(self, other: EquivalenceLike) -> Both:
        """Return the same for `function & rule`."""
        from smart_engine.equivalence.combined import Both

        return Both(other, self)


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
        return f"function {called(self.judge)}"

    def parse(self, answer: Any) -> Any:
        """Return the answer as it is."""
        return answer

    def same(self, left: Any, right: Any) -> bool:
        """Ask the function."""
        return bool(self.judge(left, right))


def called(function: object) -> str:
    """Return the qualified name of a function, or of the type of what is called."""
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def shown(answer: object) -> str:
    """Return an answer as errors show it: in one line, and not too long."""
    return repr(str(answer)[:80])


def as_equivalence(given: EquivalenceLike, field: str = "equivalence") -> Equivalence:
    """Return an equivalence; a plain function becomes one.

    Args:
        given: An equivalence, or a function of two answers.
        field: Where it was given, for the error.

    Raises:
        InvalidInputError: If it is neither.
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
        "Json(...), Similar(...), several of them with | or &, or a function of two "
        "answers that returns whether they mean the same"
    )
    raise InvalidInputError(field, given, hint)


def agree(rule: Equivalence, left: Any, right: Any) -> bool:
    """Whether two answers mean the same; what cannot be read or compared does not.

    A rule that fails for another reason than an answer it cannot read is warned of: all
    it fails on counts as different, which is safe and dear.
    """
    try:
        return rule.same(rule.parse(left), rule.parse(right))
    except UnparseableAnswerError:
        return False
    except Exception as error:  # noqa: BLE001 - a user's rule may raise anything
        kind = type(error).__name__
        problem = f"{rule.name} raised {kind}: the answers count as different"
        warnings.warn(problem, stacklevel=2)
        return False
