"""When two answers mean the same: one rule a file, and what combines them."""

from __future__ import annotations

from smart_engine.equivalence.dates import Date
from smart_engine.equivalence.items import Items
from smart_engine.equivalence.judge import Judge
from smart_engine.equivalence.numbers import Number
from smart_engine.equivalence.objects import Json
from smart_engine.equivalence.rule import (
    Both,
    Either,
    Equivalence,
    EquivalenceLike,
    Judged,
    Rule,
    agree,
    as_equivalence,
)
from smart_engine.equivalence.similar import Similar
from smart_engine.equivalence.texts import Exact, Label, Normalized

__all__ = [
    "Both",
    "Date",
    "Either",
    "Equivalence",
    "EquivalenceLike",
    "Exact",
    "Items",
    "Json",
    "Judge",
    "Judged",
    "Label",
    "Normalized",
    "Number",
    "Rule",
    "Similar",
    "agree",
    "as_equivalence",
]
