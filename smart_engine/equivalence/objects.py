"""The rule for JSON: the same value, or the same field by field."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, is_dataclass
from dataclasses import fields as fields_of
from decimal import Decimal
from enum import Enum
from typing import Any, Self

import numpy as np
from pydantic import BaseModel, RootModel
from pydantic_core import to_jsonable_python

from smart_engine.equivalence.answer_part import located
from smart_engine.equivalence.rule import (
    EquivalenceLike,
    Rule,
    as_equivalence,
    excerpt,
)
from smart_engine.errors import InvalidInputError, UnparseableAnswerError

__all__ = ["Json", "read_json"]

_LARGEST_EXPONENT = 308

Parsed = str | tuple[str, tuple[tuple[Any, ...], ...]]
"""Canonical JSON; or that of the fields without a rule, and what each rule reads."""


@dataclass(frozen=True, slots=True)
class Json(Rule):
    """Answers are the same when they are the same JSON, or the same value.

    Order does not matter within an object, and does within a list; `1` is `1.0`, but
    not `true` and not `"1"`; a number is compared digit by digit. The answer may be
    JSON text, in a code fence or not, or a value: what JSON knows, a pydantic model or
    a dataclass, a `Decimal`, a date, bytes, a set, a numpy array. Objects are compared
    by what their fields hold, never by how they are written out: secrets and excluded
    fields count, and names are those of the fields, not of aliases.

    Args:
        fields: Field → rule for its value, for answers that are objects; a nested
            `Json` goes deeper. Fields not named here must be the same JSON. A field
            that is missing, or null, is the same only as one that is so, too.
        ignore: Fields that do not matter.

    Raises:
        InvalidInputError: If a field's rule is none, or is ignored at the same time.

    Example:
        ```python
        rule = Json(fields={"amount": Number(absolute=0.01)}, ignore=["id"])
        assert agree(rule, '{"amount": "9.991", "id": 7}', {"amount": 9.99})
        assert Json().parse('{"b": 2, "a": 1.0}') == Json().parse({"a": 1, "b": 2})
        ```
    """

    fields: Mapping[str, EquivalenceLike] = field(default_factory=dict, hash=False)
    ignore: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Check the fields and make rules of functions."""
        fields: Any = self.fields
        named = isinstance(fields, Mapping) and all(isinstance(n, str) for n in fields)
        if not named:
            hint = "give a rule per field, such as {'amount': Number(absolute=0.01)}"
            raise InvalidInputError("Json.fields", self.fields, hint)
        listed = isinstance(self.ignore, Sequence) and not isinstance(self.ignore, str)
        if not listed or not all(isinstance(name, str) for name in self.ignore):
            hint = "list names of fields, such as ['id']"
            raise InvalidInputError("Json.ignore", self.ignore, hint)
        if both := sorted(set(self.ignore) & set(self.fields)):
            hint = f"also in fields: {', '.join(both)}; name a field in one of them"
            raise InvalidInputError("Json.ignore", self.ignore, hint)
        rules = {
            name: as_equivalence(rule, f"Json.fields[{name!r}]")
            for name, rule in sorted(self.fields.items())
        }
        object.__setattr__(self, "fields", rules)
        object.__setattr__(self, "ignore", tuple(sorted(set(self.ignore))))

    @property
    def _settings(self) -> str:
        named = zip(self.fields, self._inner_rules, strict=True)
        rules = ", ".join(f"{name!r}: {rule.name}" for name, rule in named)
        parts = [f"fields={{{rules}}}"] if rules else []
        parts += [f"ignore={list(self.ignore)!r}"] if self.ignore else []
        return ", ".join(parts)

    @property
    def keyed(self) -> bool:
        """Whether the rules of all fields are."""
        return all(getattr(rule, "keyed", False) for rule in self._inner_rules)

    @property
    def _inner_rules(self) -> tuple[Any, ...]:
        return tuple(self.fields.values())

    def parse(self, answer: Any) -> Parsed:
        """Return the answer in one fixed form."""
        value = read_json(answer)
        if not self.fields and not self.ignore:
            return _canonical(value)
        if not isinstance(value, dict):
            raise UnparseableAnswerError(f"no JSON object in {excerpt(answer)}")
        named = zip(self.fields, self._inner_rules, strict=True)
        parsed = tuple(_parse_field(rule, value, name) for name, rule in named)
        rest = value.keys() - self.fields.keys() - set(self.ignore)
        return _canonical({name: value[name] for name in rest}), parsed

    def same(self, left: Parsed, right: Parsed) -> bool:
        """Whether both are the same JSON, and every field is by its rule."""
        if isinstance(left, str) or isinstance(right, str):
            return left == right
        sides = zip(self._inner_rules, left[1], right[1], strict=True)
        return left[0] == right[0] and all(
            rule.same(a[0], b[0]) if len(a) == len(b) == 1 else a == b
            for rule, a, b in sides
        )


def _parse_field(rule: Any, value: dict[str, Any], name: str) -> tuple[Any, ...]:
    """Return what the rule reads: one value; two for null, none for a missing field."""
    if name not in value:
        return ()
    return (None, None) if value[name] is None else (rule.parse(value[name]),)


def read_json(answer: Any) -> Any:
    """Return the value of an answer: what JSON knows, `Decimal`, bytes and sets.

    Raises:
        UnparseableAnswerError: If it has none.
    """
    try:
        if not isinstance(answer, str):
            return _plain(answer)
        try:
            return _load(answer)
        except ValueError:
            return _load(located(answer))
    except (ValueError, RecursionError) as error:
        raise UnparseableAnswerError(f"no JSON in {excerpt(answer)}") from error


def _load(text: str) -> Any:
    return json.loads(
        text,
        object_pairs_hook=_object,
        parse_float=_WrittenFloat,
        parse_constant=_finite,
    )


class _WrittenFloat(float):
    """A float that remembers its digits: 9007199254740993.0 is not …992.0."""

    def __new__(cls, text: str) -> Self:
        number = super().__new__(cls, _finite(text))
        number.text = text
        return number

    def __repr__(self) -> str:
        return self.text

    __slots__ = ("text",)
    __str__ = __repr__
    text: str


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; refuse repeated keys, which readers treat differently."""
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key stands twice")
    return value


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError("a number too large to compare")
    return number


def _plain(value: Any) -> Any:
    """Return a value with models, dataclasses and the like as what they hold.

    What a model hides, rounds or renames when it is written out is read as it is.
    """
    while isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, str | int | float | Decimal | bytes):
        return value
    for kind, inner in _INNER_BY_TYPE:
        if isinstance(value, kind):
            return inner(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields_of(value)}
    if hasattr(value, "__fields__"):  # a model of pydantic 1
        return {name: _plain(part) for name, part in value}
    if hasattr(value, "get_secret_value"):
        return _plain(value.get_secret_value())
    text = to_jsonable_python(value)
    if not isinstance(text, str):
        raise ValueError(f"a {type(value).__name__} cannot be compared")  # noqa: TRY004
    return text


def _fields_of_model(model: BaseModel) -> dict[str, Any]:
    names = [*type(model).model_fields, *(model.model_extra or {})]
    return {name: _plain(getattr(model, name)) for name in names}


_INNER_BY_TYPE: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (np.ndarray | np.generic, lambda array: _plain(array.tolist())),
    (Mapping, lambda table: {key: _plain(part) for key, part in table.items()}),
    (RootModel, lambda model: _plain(model.root)),
    (BaseModel, _fields_of_model),
    (list | tuple, lambda values: [_plain(part) for part in values]),
    (AbstractSet, frozenset),
    (bytearray, bytes),
)
"""What an object holds, by its type; a set's parts are read when it is compared."""


def _canonical(value: Any) -> str:
    """Return a value as text in one fixed form, JSON where JSON has one."""
    try:
        return _text(value)
    except (ValueError, RecursionError) as error:  # an integer of many digits, depth
        raise UnparseableAnswerError("no JSON that can be compared") from error


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool | str):
        return json.dumps(value)
    if isinstance(value, int | float | Decimal):
        return _number_text(value)
    if isinstance(value, bytes):
        return f"bytes {value.hex()}"
    if isinstance(value, dict):
        fields = sorted((_text(_plain(key)), _text(p)) for key, p in value.items())
        return f"{{{','.join(f'{key}:{part}' for key, part in fields)}}}"
    if isinstance(value, list):
        return f"[{','.join(map(_text, value))}]"
    return f"set [{','.join(sorted(_text(_plain(part)) for part in value))}]"


def _number_text(number: Any) -> str:
    """Return a number's digits: the same text for the same value."""
    exact = Decimal(str(number))
    if not exact.is_finite() or abs(exact.adjusted()) > _LARGEST_EXPONENT:
        raise ValueError("a number too large to compare")
    text = format(exact, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return text if exact else "0"
