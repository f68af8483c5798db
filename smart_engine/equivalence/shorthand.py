"""Rules as short texts, as options on a command line have them."""

from __future__ import annotations

from collections.abc import Callable

from smart_engine.equivalence.dates import Date
from smart_engine.equivalence.items import Items
from smart_engine.equivalence.numbers import Number
from smart_engine.equivalence.objects import Json
from smart_engine.equivalence.rule import Rule
from smart_engine.equivalence.texts import Exact, Label, Normalized
from smart_engine.errors import InvalidInputError, choose

__all__ = ["SHORTHANDS", "read_rule"]


def _number(tolerance: str) -> Number:
    try:
        return Number(absolute=float(tolerance))
    except ValueError as error:
        hint = "a tolerance is a number, zero or more, as in number:0.01"
        raise InvalidInputError("equivalence", f"number:{tolerance}", hint) from error


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


_RULES: dict[str, tuple[str, Callable[[], Rule] | None, Callable[[str], Rule] | None]]
_RULES = {
    "normalized": ("normalized", Normalized, None),
    "exact": ("exact", Exact, None),
    "label": ("label:spam,ham", None, lambda labels: Label(_list(labels))),
    "number": ("number or number:0.01 (tolerance)", Number, _number),
    "date": ("date or date:%m/%d/%Y", Date, lambda pattern: Date([pattern])),
    "items": ("items", Items, None),
    "json": (
        "json or json:id,time (to be left out)",
        Json,
        lambda ignored: Json(ignore=_list(ignored)),
    ),
}
"""Name → how to write it, the rule without settings, and the rule with settings."""

SHORTHANDS = {name: form for name, (form, _, _) in _RULES.items()}
"""Name of a rule → how to write it."""


def read_rule(text: str) -> Rule:
    """Return the rule of a text: its name, and after a colon its settings, if any.

    Raises:
        InvalidInputError: If it names no rule, or the settings cannot be used.

    Example:
        ```python
        assert read_rule("label:spam,ham") == Label(["spam", "ham"])
        assert read_rule("number:0.01") == Number(absolute=0.01)
        ```
    """
    name, colon, settings = text.partition(":")
    choose("equivalence", name, SHORTHANDS)
    form, plain, with_settings = _RULES[name]
    if plain is not None and not colon:
        return plain()
    if with_settings is None:
        raise InvalidInputError("equivalence", text, f"write it so: {form}")
    return with_settings(settings)
