"""Rules written in a word or two, as options on a command line are."""

from __future__ import annotations

from collections.abc import Callable

from smart_engine.equivalence._base import Equivalence
from smart_engine.equivalence.dates import Date
from smart_engine.equivalence.items import Items
from smart_engine.equivalence.numbers import Number
from smart_engine.equivalence.objects import Json
from smart_engine.equivalence.texts import Exact, Label, Normalized
from smart_engine.errors import InvalidInputError, choose

__all__ = ["SHORTHANDS", "read_rule"]

SHORTHANDS = {
    "normalized": "normalized",
    "exact": "exact",
    "label": "label:spam,ham",
    "number": "number or number:0.01 (tolerance)",
    "date": "date or date:%m/%d/%Y",
    "items": "items",
    "json": "json or json:id,time (to be left out)",
}
"""Name of a rule → how it is written."""


def read_rule(text: str) -> Equivalence:
    """Return the rule that a text names.

    Args:
        text: The rule's name, and after a colon what it is told.

    Raises:
        InvalidInputError: If it names no rule, or tells it what it cannot use.

    Example:
        ```python
        assert read_rule("label:spam,ham") == Label(["spam", "ham"])
        assert read_rule("number:0.01") == Number(absolute=0.01)
        ```
    """
    name, colon, told = text.partition(":")
    choose("equivalence", name, SHORTHANDS)
    if colon and name not in _TOLD:
        hint = f"write it so: {SHORTHANDS[name]}"
        raise InvalidInputError("equivalence", text, hint)
    if colon or name == "label":
        return _TOLD[name](told)
    return _PLAIN[name]()


def _number(tolerance: str) -> Number:
    """Return the rule for numbers."""
    try:
        return Number(absolute=float(tolerance))
    except ValueError as error:
        hint = "a tolerance is a number, zero or more, as in number:0.01"
        raise InvalidInputError("equivalence", f"number:{tolerance}", hint) from error


def _listed(told: str) -> list[str]:
    """Return what a text lists between commas."""
    return [part.strip() for part in told.split(",")]


_PLAIN: dict[str, Callable[[], Equivalence]] = {
    "normalized": Normalized,
    "exact": Exact,
    "number": Number,
    "date": Date,
    "items": Items,
    "json": Json,
}

_TOLD: dict[str, Callable[[str], Equivalence]] = {
    "label": lambda told: Label(_listed(told)),
    "number": _number,
    "date": lambda told: Date(formats=[told]),
    "json": lambda told: Json(ignore=_listed(told)),
}
