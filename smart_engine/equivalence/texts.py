"""Rules for texts: equal, equal but for form, or the same label."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from smart_engine.equivalence.answer_part import answer_part, text_of, unwrap
from smart_engine.equivalence.rule import KeyedRule, excerpt
from smart_engine.errors import InvalidInputError, UnparseableAnswerError

__all__ = ["Exact", "Label", "Normalized"]

_SPACES = re.compile(r"(?<=\S)[ \u00a0\u2000-\u200a\u202f\u205f\u3000]+")
"""What one space is the same as, but for indentation."""

_BRACKETS = re.compile(r"\[\[(.+)\]\]|\[(.+)\]|\((.+)\)|(\w)\)")
_RATING = re.compile(r"(\d+) ?(?:/|out of) ?(\d+)")


@dataclass(frozen=True, slots=True)
class Exact(KeyedRule):
    """Answers are the same when they are equal (`==`).

    Example:
        ```python
        assert not Exact().same("Spam", "spam")
        ```
    """

    def parse(self, answer: Any) -> Any:
        """Return the answer as it is."""
        return answer


@dataclass(frozen=True, slots=True)
class Normalized(KeyedRule):
    r"""Texts are the same but for case, spaces, Unicode composition and wrappers.

    A whole answer's paired quotes, bold, code fence, `\boxed{}` and last full stop go;
    all else stays, lines and indentation too: `"**Yes**."` is `"yes"`, but `5!` is not
    `5`, `x²` is not `x2`, `f()` is not `f`, and `./data` is not `/data`.

    Example:
        ```python
        rule = Normalized()
        assert rule.same(rule.parse("  Spam."), rule.parse("“spam”"))
        ```
    """

    def parse(self, answer: Any) -> str:
        """Return the normalized text."""
        text = unicodedata.normalize("NFC", unwrap(text_of(answer)))
        return _SPACES.sub(" ", unicodedata.normalize("NFC", text.lower()))


@dataclass(frozen=True, slots=True)
class Label(KeyedRule):
    """Answers are the same when they are the same one of a few labels.

    The answer is the label, in any case, or says in an explicit form which part is:
    "Answer: B", `{"label": "spam"}`, "(B)", "4/5" where labels go up to 5. A label
    within prose cannot be read, for what is said about it cannot: a candidate's item
    then escalates to the reference.

    Args:
        labels: The labels, in any case, each once.

    Raises:
        InvalidInputError: If fewer than two distinct labels are given.

    Example:
        ```python
        rule = Label(["spam", "ham"])
        assert rule.parse("Classification: **Spam**") == "spam"
        ```
    """

    labels: Sequence[str]

    def __post_init__(self) -> None:
        """Check the labels and normalize them."""
        normalize = Normalized().parse
        listed = isinstance(self.labels, Iterable) and not isinstance(self.labels, str)
        given = list(self.labels) if listed else []
        labels = tuple(normalize(label) for label in given)
        distinct = set(labels)
        if len(distinct) < 2 or len(distinct) < len(labels) or "" in distinct:
            hint = "give at least two distinct labels, such as ['spam', 'ham']"
            raise InvalidInputError("Label.labels", self.labels, hint)
        object.__setattr__(self, "labels", labels)

    @property
    def _settings(self) -> str:
        return repr(list(self.labels))

    def parse(self, answer: Any) -> str:
        """Return the label that the answer is."""
        text = text_of(answer)
        normalize = Normalized().parse
        if (whole := normalize(text)) in self.labels:
            return whole
        for form in self._forms(normalize(answer_part(text))):
            if form in self.labels:
                return form
        raise UnparseableAnswerError(f"no label in {excerpt(answer)}")

    def _forms(self, part: str) -> Iterator[str]:
        """Yield a part of an answer as labels may be written."""
        yield part
        yield part.removeprefix("option ").removeprefix("choice ")
        if part[-2:-1].isalpha():
            yield part.removesuffix("!")
        if brackets := _BRACKETS.fullmatch(part):
            yield brackets[brackets.lastindex or 0]
        rating = _RATING.fullmatch(part)
        scale = [int(label) for label in self.labels if label.isdecimal()]
        is_scale = 2 < len(scale) == len(self.labels)
        if rating and is_scale and int(rating[2]) == max(scale):
            yield rating[1]
