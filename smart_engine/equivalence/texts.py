"""Rules for texts: equal, equal but for form, or naming the same label."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from smart_engine.equivalence.rule import KeyedRule, excerpt
from smart_engine.errors import InvalidInputError, UnparseableAnswerError

__all__ = ["Exact", "Label", "Normalized"]

_MARKS = " .,;:!?\"'`*_()[]{}…«»“”‘’"
"""What may stand around an answer without changing it; so may a pair of `<` and `>`."""

_SUPERSCRIPTS = re.compile("[²³¹\u2070-\u207f]+")
"""NFKC would put them on the line: 10⁶ is not 106."""

_FOUND = "\0"
"""What a label that was found is replaced by."""

_CLAUSE = re.compile(r"[.,;:!?—–]")
_NEGATION = re.compile(r"(?<!\w)(?:not?|never|neither|nor|without|cannot|\w+n['’]t)\b")
"""What turns a label that follows in the same clause into its opposite."""


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
    """Texts are the same but for case, Unicode form, white space and outer marks.

    Sentence marks, quotes and brackets at both ends go, all else stays: `"Yes."` is
    `"yes"`, but `"-5"` and `".5"` are not `"5"`, `"<5"` is not `">5"`, and `"C++"` is
    not `"C"`. What is nothing but marks stays as it is.

    Example:
        ```python
        rule = Normalized()
        assert rule.same(rule.parse("  Spam!"), rule.parse("spam"))
        ```
    """

    def parse(self, answer: Any) -> str:
        """Return the normalized text."""
        marked = _SUPERSCRIPTS.sub(r"^\g<0>", str(answer))
        text = " ".join(unicodedata.normalize("NFKC", marked).casefold().split())
        bare = _strip_marks(text)
        while bare.startswith("<") and bare.endswith(">") and _strip_marks(bare[1:-1]):
            bare = _strip_marks(bare[1:-1])
        return bare or text


def _strip_marks(text: str) -> str:
    """Return a text without outer marks; a point before a digit is none."""
    bare = text.lstrip(_MARKS)
    if bare[:1].isdigit() and text.removesuffix(bare).endswith("."):
        bare = f".{bare}"
    return bare.rstrip(_MARKS)


@dataclass(frozen=True, slots=True)
class Label(KeyedRule):
    """Answers are the same when they name the same one of a few labels.

    The answer may be the label itself or a sentence in which exactly one of the
    labels appears as a word, and is not negated in English: "not spam" is no "spam".
    Anything else cannot be read: a candidate's item then escalates to the reference.

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
        """Return the one label the answer names."""
        text = Normalized().parse(answer)
        if text in self.labels:
            return text
        # Longest first, each match removed: "not spam" must not also count as "spam".
        found = []
        for label in sorted(self.labels, key=len, reverse=True):
            text, matches = re.subn(_whole_word(label), _FOUND, text)
            if matches:
                found.append(label)
        problem = f"several labels ({', '.join(found)})" if found else "no label"
        if len(found) == 1:
            if not _negated(text):
                return found[0]
            problem = "a negated label"
        raise UnparseableAnswerError(f"{problem} in {excerpt(answer)}")


def _whole_word(label: str) -> str:
    """Return a pattern for a label as a word: not within a compound or a number."""
    before, after = r"(?<![\w-])(?<!\w\+)(?<!\d[.,/:])", r"(?![\w+-])(?![.,/:]\d)"
    return before + re.escape(label) + after


def _negated(text: str) -> bool:
    """Whether a label that was found follows a negation in the same clause."""
    return any(
        (negation := _NEGATION.search(clause)) and _FOUND in clause[negation.end() :]
        for clause in _CLAUSE.split(text)
    )
