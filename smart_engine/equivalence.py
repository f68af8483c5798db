"""When two answers mean the same.

An equivalence has two steps: `parse` turns an answer into what is compared, and
refuses an answer it cannot read; `same` compares two parsed answers. A plain
function of two answers is accepted wherever an equivalence is.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from pydantic_core import to_jsonable_python

from smart_engine.errors import InvalidInputError, UnparseableAnswerError

__all__ = [
    "Equivalence",
    "EquivalenceLike",
    "Exact",
    "Json",
    "Judged",
    "Label",
    "Normalized",
    "Number",
    "agree",
    "as_equivalence",
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


_MARKS = " .,;:!?\"'`*_()[]{}<>…«»“”‘’"
"""What may stand around an answer without changing it."""

EquivalenceLike = Equivalence | Callable[[Any, Any], bool]


@dataclass(frozen=True, slots=True)
class Exact:
    """Answers are the same when they are equal (`==`).

    Example:
        ```python
        assert not Exact().same("Spam", "spam")
        ```
    """

    name: str = "exact"
    keyed: ClassVar[bool] = True

    def parse(self, answer: Any) -> Any:
        """Return the answer as it is."""
        return answer

    def same(self, left: Any, right: Any) -> bool:
        """Whether both are equal."""
        return bool(left == right)


@dataclass(frozen=True, slots=True)
class Normalized:
    """Texts are the same but for case, Unicode form, white space and outer marks.

    Sentence marks, quotes and brackets at both ends go, all else stays: `"Yes."` is
    `"yes"`, but `"-5"` is not `"5"` and `"C++"` is not `"C"`.

    Example:
        ```python
        rule = Normalized()
        assert rule.same(rule.parse("  Spam!"), rule.parse("spam"))
        ```
    """

    name: str = "normalized text"
    keyed: ClassVar[bool] = True

    def parse(self, answer: Any) -> str:
        """Return the text folded."""
        text = unicodedata.normalize("NFKC", str(answer)).casefold()
        return " ".join(text.split()).strip(_MARKS)

    def same(self, left: Any, right: Any) -> bool:
        """Whether both folded texts are equal."""
        return bool(left == right)


@dataclass(frozen=True, slots=True)
class Label:
    """Answers are the same when they name the same one of a few labels.

    The answer may be the label itself or a sentence in which exactly one of the
    labels appears as a word. Anything else cannot be read: a candidate's item
    then escalates to the reference.

    Args:
        labels: The labels, in any case, each once.

    Raises:
        InvalidInputError: If fewer than two distinct labels are given.

    Example:
        ```python
        rule = Label(["spam", "ham"])
        assert rule.parse("This is **Spam**.") == "spam"
        ```
    """

    labels: Sequence[str]
    keyed: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the labels and keep them folded."""
        fold = Normalized().parse
        listed = isinstance(self.labels, Iterable) and not isinstance(self.labels, str)
        given = list(self.labels) if listed else []
        folded = tuple(fold(label) for label in given)
        if len(set(folded)) < 2 or len(set(folded)) < len(folded) or "" in folded:
            hint = "give at least two distinct labels, such as ['spam', 'ham']"
            raise InvalidInputError("Label.labels", self.labels, hint)
        object.__setattr__(self, "labels", folded)

    @property
    def name(self) -> str:
        """Name with the labels."""
        return f"label of {', '.join(self.labels)}"

    def parse(self, answer: Any) -> str:
        """Return the one label the answer names."""
        text = Normalized().parse(answer)
        if text in self.labels:
            return text
        # Longest first, each hit removed: "not spam" must not also count as "spam".
        found = []
        for label in sorted(self.labels, key=len, reverse=True):
            text, hits = re.subn(rf"(?<!\w){re.escape(label)}(?!\w)", " ", text)
            if hits:
                found.append(label)
        if len(found) == 1:
            return found[0]
        problem = "no label" if not found else f"several labels ({', '.join(found)})"
        raise UnparseableAnswerError(f"{problem} in {str(answer)[:80]!r}")

    def same(self, left: Any, right: Any) -> bool:
        """Whether both name the same label."""
        return bool(left == right)


@dataclass(frozen=True, slots=True)
class Number:
    """Answers are the same when their numbers lie within a tolerance.

    The last number in the text counts, as in "… so the answer is 42".

    Args:
        absolute: Largest absolute difference.
        relative: Largest difference as a share of the larger number's size.

    Raises:
        InvalidInputError: If a tolerance is negative.

    Example:
        ```python
        rule = Number(absolute=0.01)
        assert rule.same(rule.parse("about 3.14"), rule.parse("pi = 3.142"))
        ```
    """

    absolute: float = 0.0
    relative: float = 0.0

    def __post_init__(self) -> None:
        """Check the tolerances."""
        for field in ("absolute", "relative"):
            value = getattr(self, field)
            if not (isinstance(value, int | float) and value >= 0):
                hint = "a tolerance is a number, zero or more"
                raise InvalidInputError(f"Number.{field}", value, hint)

    @property
    def name(self) -> str:
        """Name with the tolerances."""
        return f"number within {self.absolute:g} or {self.relative:g} of its size"

    def parse(self, answer: Any) -> float:
        """Return the last number in the answer."""
        if isinstance(answer, int | float):
            return float(answer)
        # "1,234.5" is one number: commas between groups of three digits go.
        text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", str(answer).replace("−", "-"))
        found = re.findall(
            r"(?:(?<![\w.])[-+])?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", text
        )
        if not found:
            raise UnparseableAnswerError(f"no number in {str(answer)[:80]!r}")
        return float(found[-1])

    def same(self, left: Any, right: Any) -> bool:
        """Whether the numbers lie within the larger of both tolerances."""
        allowed = max(self.absolute, self.relative * max(abs(left), abs(right)))
        return bool(abs(left - right) <= allowed)


@dataclass(frozen=True, slots=True)
class Json:
    """Answers are the same when they are the same JSON.

    Order does not matter within an object, and does within a list; `1` is `1.0`, but
    not `true` and not `"1"`. The answer may be JSON text, in a code fence or not, or a
    value: what JSON knows, a pydantic model, a dataclass, a date.

    Example:
        ```python
        rule = Json()
        assert rule.same(rule.parse('{"a": 1, "b": 2}'), rule.parse({"b": 2.0, "a": 1}))
        ```
    """

    name: str = "same JSON"
    keyed: ClassVar[bool] = True

    def parse(self, answer: Any) -> str:
        """Return the answer as JSON text in one fixed form."""
        try:
            value = (
                json.loads(_FENCE.sub("", answer))
                if isinstance(answer, str)
                else (to_jsonable_python(answer))
            )
        except ValueError as error:
            raise UnparseableAnswerError(f"no JSON in {str(answer)[:80]!r}") from error
        return json.dumps(_one_form(value), sort_keys=True, separators=(",", ":"))

    def same(self, left: Any, right: Any) -> bool:
        """Whether both are the same text."""
        return bool(left == right)


_FENCE = re.compile(r"\A\s*```(?:json)?\s*\n|\n\s*```\s*\Z")
"""What opens and what closes a code fence around JSON."""


def _one_form(value: Any) -> Any:
    """Return a JSON value in which whole numbers are integers."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_one_form(part) for part in value]
    if isinstance(value, dict):
        return {key: _one_form(part) for key, part in value.items()}
    return value


@dataclass(frozen=True, slots=True)
class Judged:
    """A plain function of two answers decides.

    Args:
        judge: Called with two answers; true if they mean the same.

    Example:
        ```python
        rule = Judged(lambda left, right: left[:1] == right[:1])
        assert rule.same("yes", "yep")
        ```
    """

    judge: Callable[[Any, Any], bool]

    @property
    def name(self) -> str:
        """Qualified name of the function."""
        label = getattr(self.judge, "__qualname__", type(self.judge).__qualname__)
        return f"function {label}"

    def parse(self, answer: Any) -> Any:
        """Return the answer as it is."""
        return answer

    def same(self, left: Any, right: Any) -> bool:
        """Ask the function."""
        return bool(self.judge(left, right))


def as_equivalence(given: EquivalenceLike) -> Equivalence:
    """Return an equivalence; a plain function becomes one.

    Raises:
        InvalidInputError: If it is neither an equivalence nor callable.
    """
    if isinstance(given, Equivalence):
        return given
    if callable(given):
        return Judged(given)
    hint = (
        "use Normalized(), Exact(), Label([...]), Number(...), Json(), or a function "
        "of two answers that returns whether they mean the same"
    )
    raise InvalidInputError("equivalence", given, hint)


def agree(rule: Equivalence, left: Any, right: Any) -> bool:
    """Whether two answers mean the same; what cannot be read or compared does not."""
    try:
        return rule.same(rule.parse(left), rule.parse(right))
    except Exception:  # noqa: BLE001 - a user's rule may raise anything
        return False
