"""How an amount of money is written, wherever a person reads it."""

from __future__ import annotations

from math import floor, log10

__all__ = ["usd"]

_LEAST = 5e-10
"""Smaller amounts are rounding errors: no token costs so little."""


def usd(amount: float) -> str:
    """Return an amount of USD: to the cent, below a dollar to three digits.

    Example:
        ```python
        assert (usd(1234.5), usd(0.5), usd(0.04213)) == ("1,234.50", "0.50", "0.0421")
        assert (usd(0.0000012), usd(-3), usd(1e-17)) == ("0.0000012", "-3.00", "0.00")
        ```
    """
    if abs(amount) < _LEAST:
        return "0.00"
    digits = max(2, 2 - floor(log10(abs(amount))))
    text = f"{amount:,.{digits}f}"
    return text[:-digits] + text[-digits:].rstrip("0").ljust(2, "0")
