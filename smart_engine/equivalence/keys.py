"""Keys: what stands for an answer where the answer itself is not.

Answers that one rule reads alike have the same key, in every process and on every
machine, and others have another. So a rule whose `same` is `==` can compare answers
that are somewhere else.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields, is_dataclass
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from numbers import Rational, Real
from typing import Any, ClassVar

from pydantic import BaseModel
from typing_extensions import override

from smart_engine.equivalence.rule import Equivalence, Rule
from smart_engine.errors import InvalidInputError, UnparseableAnswerError

__all__ = ["ByKey", "key_of"]

_BYTES = 16
"""Ten million different answers share a key with probability 1.5e-25."""


def key_of(reading: Any) -> bytes:
    """Return the key of what a rule read in an answer: 16 bytes.

    Readings that are equal (`==`) have the same key: 1 that of 1.0, a set in any order.

    Raises:
        UnparseableAnswerError: If it holds nan, which equals nothing.
        TypeError: If it holds an object that is no plain data, set, date, enumeration,
            dataclass or pydantic model: nothing shows elsewhere what that equals. Nor
            an `OrderedDict`, which equals a dict in any order and no other in another.

    Example:
        ```python
        assert key_of(("text", 1)) == key_of(("text", 1.0)) != key_of(("text", "1"))
        assert len(key_of("yes")) == 16
        ```
    """
    text = _text(reading).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=_BYTES).digest()


def _text(value: Any) -> str:
    """Return a text that equal values share, and no others do."""
    if isinstance(value, OrderedDict):
        raise TypeError("an OrderedDict has no key: let it be a dict, or a list")
    for kind, text_of in _TEXT_BY_TYPE:
        if isinstance(value, kind):
            return text_of(value)
    named = f"{type(value).__module__}.{type(value).__qualname__}"
    if hasattr(value, "isoformat"):
        return f"{named} {_moment(value)}"
    if is_dataclass(value):
        compared = [getattr(value, f.name) for f in fields(value) if f.compare]
        return f"{named} {_text(compared)}"
    raise TypeError(f"a {named} has no key")


def _enumerated(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__} {value.name}"


def _model(value: Any) -> str:
    parts = [getattr(value, name) for name in type(value).model_fields]
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    return f"{kind} {_text([parts, value.model_extra])}"


def _number(value: Any) -> str:
    if not isinstance(value, Rational) and not math.isfinite(value):
        if math.isnan(value):
            raise UnparseableAnswerError("not a number, which equals nothing")
        return f"#{value}"
    return f"#{Fraction(value)}"


def _moment(value: Any) -> str:
    """Return a date or a time in ISO form; one that has a zone as in UTC."""
    offset = value.utcoffset() if hasattr(value, "utcoffset") else None
    if offset is None:
        return str(value.isoformat())
    return f"{(value - offset).replace(tzinfo=None).isoformat()}Z"


_TEXT_BY_TYPE: tuple[tuple[Any, Callable[[Any], str]], ...] = (
    (str, lambda text: f"'{len(text)}:{text}"),
    (type(None), lambda _: "none"),
    (Real | Decimal, _number),
    (bytes, lambda value: f"bytes {value.hex()}"),
    (tuple, lambda values: f"({','.join(map(_text, values))})"),
    (list, lambda values: f"[{','.join(map(_text, values))}]"),
    (AbstractSet, lambda values: f"set {sorted(map(_text, values))}"),
    (Mapping, lambda table: f"map {sorted(map(_text, table.items()))}"),
    (Enum, _enumerated),
    (BaseModel, _model),
)
"""How a value is written, by its type."""


@dataclass(frozen=True, slots=True)
class ByKey(Rule):
    """Compares answers by the keys of what a rule has read in them elsewhere.

    In the place of an answer stands its key, or why the rule could not read it.

    Args:
        rule: The rule, under whose name it goes.

    Attributes:
        hidden: True: what it compares is no answer that could be shown.

    Raises:
        InvalidInputError: If that rule compares answers in pairs.

    Example:
        ```python
        from smart_engine.equivalence import Normalized

        rule, yes = ByKey(Normalized()), key_of(Normalized().parse("Yes."))
        assert rule.name == "Normalized()"
        assert rule.same(rule.parse(yes), key_of("yes"))
        ```
    """

    rule: Equivalence
    hidden: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the rule."""
        if not getattr(self.rule, "keyed", False):
            hint = (
                "it compares answers in pairs, which here are in different places: "
                "choose a rule under which answers are equal or not, such as "
                "Normalized(), Label([...]), Number() without a tolerance, or Json(), "
                "or answer these items in memory, by batch()"
            )
            raise InvalidInputError("equivalence", self.rule.name, hint)

    @property
    @override
    def keyed(self) -> bool:
        return True

    @property
    @override
    def name(self) -> str:
        return self.rule.name

    @override
    def parse(self, answer: bytes | str) -> bytes:
        if isinstance(answer, bytes):
            return answer
        raise UnparseableAnswerError(answer)

    @override
    def same(self, left: bytes, right: bytes) -> bool:
        return left == right
