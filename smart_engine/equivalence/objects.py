"""The rule for JSON: the same value, or the same field by field."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import to_jsonable_python

from smart_engine.equivalence.rule import EquivalenceLike, Rule, as_equivalence, excerpt
from smart_engine.errors import InvalidInputError, UnparseableAnswerError

__all__ = ["Json", "read_json"]

_CODE_FENCE = re.compile(r"\A\s*```(?:json)?\s*\n|\n\s*```\s*\Z")

Parsed = str | tuple[str, tuple[tuple[Any, ...], ...]]
"""Canonical JSON; or that of the fields without a rule, and what each rule reads."""


@dataclass(frozen=True, slots=True)
class Json(Rule):
    """Answers are the same when they are the same JSON.

    Order does not matter within an object, and does within a list; `1` is `1.0`, but
    not `true` and not `"1"`. The answer may be JSON text, in a code fence or not, or a
    value: what JSON knows, a pydantic model, a dataclass, a date.

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
        assert agree(rule, '{"amount": "$9.99", "id": 7}', {"amount": 9.99})
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
    """Return the JSON value of an answer.

    Raises:
        UnparseableAnswerError: If it has none.
    """
    try:
        if isinstance(answer, str):
            text = _CODE_FENCE.sub("", answer)
            value = json.loads(text, object_pairs_hook=_object, parse_float=_finite)
        else:
            value = to_jsonable_python(answer)
        return _whole_as_int(value)
    except (ValueError, RecursionError) as error:
        raise UnparseableAnswerError(f"no JSON in {excerpt(answer)}") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; refuse repeated keys, which readers treat differently."""
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key stands twice")
    return value


def _finite(text: str) -> float:
    if math.isinf(number := float(text)):
        raise ValueError("a number too large to compare")
    return number


def _whole_as_int(value: Any) -> Any:
    """Return a JSON value in which whole numbers are integers."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_whole_as_int(part) for part in value]
    if isinstance(value, dict):
        return {key: _whole_as_int(part) for key, part in value.items()}
    return value


def _canonical(value: Any) -> str:
    """Return a JSON value as text in one fixed form."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"))
    except (ValueError, RecursionError) as error:  # an integer of many digits, depth
        raise UnparseableAnswerError("JSON too large to compare") from error
