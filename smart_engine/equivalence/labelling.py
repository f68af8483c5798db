"""Which label an answer is: what the rule reads in it, or what a function says.

Recall and precision are about labels, whatever else an answer contains. Labels are
compared as texts, so that `1` in recorded answers is the `"1"` that a user names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from smart_engine.equivalence.answer_part import text_of
from smart_engine.equivalence.kinds import ByKind
from smart_engine.equivalence.rule import Equivalence
from smart_engine.equivalence.texts import Label
from smart_engine.errors import InvalidInputError, UnparseableAnswerError
from smart_engine.guarantee import Guarantee
from smart_engine.warn import warn

__all__ = ["LabelOf", "Labelling"]

LabelOf = Callable[[Any], object]
"""A function from an answer to its label."""


class Labelling:
    """Labels by number, from 1 on in the order in which they come up.

    Args:
        rule: When two answers mean the same.
        label_of: Returns the label of an answer, of a reply's text or of its object; by
            default, that is what the rule reads in it.
        guarantee: What is promised; its labels come first.

    Attributes:
        names: The labels, by number less 1; those promised as the user names them.
        possible: The labels that the rule knows, if it lists them, named alike.
        by_rule: Whether answers that the rule calls the same have the same label. Of a
            function's labels that is not known.

    Raises:
        InvalidInputError: If labels are promised that neither the rule nor a function
            can read, or that the rule reads as one.

    Example:
        ```python
        from smart_engine import Guarantee, Label

        promise = Guarantee(None, recall={"Fraud": 0.9})
        labelling = Labelling(Label(["fraud", "fine"]), None, promise)
        assert labelling.number("Answer: **fraud**") == labelling.named("Fraud") == 1
        ```
    """

    def __init__(
        self, rule: Equivalence, label_of: LabelOf | None, guarantee: Guarantee
    ) -> None:
        reply = rule if isinstance(rule, ByKind) else None
        rule = rule if reply is None else reply.inner
        self._rule, self._reply, self._label_of = rule, reply, label_of
        self._numbers: dict[str, int] = {}
        self.names: list[str] = []
        self.possible: tuple[str, ...] = ()
        if label_of is None and isinstance(rule, Label):
            self.possible = tuple(sorted(rule.labels))
        if label_of is not None and not callable(label_of):
            hint = "give a function from an answer to its label"
            raise InvalidInputError("label_of", label_of, hint)
        keyed = bool(getattr(rule, "keyed", False))
        self.by_rule, self.reads = label_of is None, label_of is not None or keyed
        if not guarantee.labels:
            return
        if not self.reads:
            hint = (
                f"{rule.name} has no labels: compare by Label([...]), Normalized() or "
                "Exact(), or give label_of=, a function from an answer to its label"
            )
            raise InvalidInputError("recall", list(guarantee.labels), hint)
        if len({self.named(name) for name in guarantee.labels}) < len(guarantee.labels):
            hint = f"{rule.name} reads two of them as one: name each label once"
            raise InvalidInputError("recall", list(guarantee.labels), hint)
        promised = dict(zip(self.names, guarantee.labels, strict=True))
        self.names = [*guarantee.labels]
        self.possible = tuple(promised.get(name, name) for name in self.possible)

    def number(self, answer: Any) -> int:
        """Return the number of an answer's label.

        Raises:
            UnparseableAnswerError: If it has none; a rule or function of the user may
                raise anything else.
        """
        content = answer if self._reply is None else self._reply.content(answer)
        return self._number_of(content)

    def named(self, name: str) -> int:
        """Return the number of a label as the user names it.

        Raises:
            InvalidInputError: If the rule does not know it.
        """
        if self._label_of is not None:
            return self._number(name)
        try:
            return self._number_of(name)
        except Exception as error:
            hint = f"{self._rule.name} does not know this label: {error}"
            raise InvalidInputError("recall", name, hint) from error

    def _number_of(self, content: Any) -> int:
        if self._label_of is None:
            return self._number(self._rule.parse(content))
        try:
            label = self._label_of(content)
        except UnparseableAnswerError:
            raise
        except Exception as error:
            problem = f"label_of raised {type(error).__name__}: the answer has no label"
            warn(f"{problem}; a candidate's is not used")
            raise
        return self._number(label)

    def text_of(self, parsed: Any) -> str:
        """Return the label that a parsed answer is, as text."""
        return _text(parsed if self._reply is None else parsed[1])

    def _number(self, label: object) -> int:
        text = _text(label)
        if text not in self._numbers:
            self.names.append(text)
            self._numbers[text] = len(self.names)
        return self._numbers[text]


def _text(label: object) -> str:
    try:
        return text_of(label)
    except UnparseableAnswerError:
        return repr(label)
