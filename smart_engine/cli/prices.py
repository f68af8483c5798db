"""Prices as an option gives them: `gpt-5=1.25,10`, or `llama=free`."""

from __future__ import annotations

from collections.abc import Sequence

from smart_engine.errors import InvalidInputError
from smart_engine.money.pricing import Price

__all__ = ["HOW", "read_prices"]

HOW = "MODEL=INPUT,OUTPUT in USD per million tokens, or MODEL=free"


def read_prices(given: Sequence[str]) -> dict[str, Price]:
    """Return the prices by model.

    Raises:
        InvalidInputError: If one cannot be read.
    """
    return dict(map(_read, given))


def _read(text: str) -> tuple[str, Price]:
    name, _, told = text.rpartition("=")
    if name and told == "free":
        return name, Price.free()
    try:
        sent, said = map(float, told.split(","))
    except ValueError as error:
        raise InvalidInputError("price", text, f"write {HOW}") from error
    return name, Price(sent, said)
