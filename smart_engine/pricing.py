"""What a call costs: dollars from the tokens it really used, never a guess."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from smart_engine.errors import InvalidInputError

__all__ = ["Price", "Usage"]

_PER_MILLION = 1e-6


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call, as the provider reported them.

    Args:
        input_tokens: Tokens of the prompt.
        output_tokens: Tokens of the answer, hidden reasoning included.

    Example:
        ```python
        assert Usage(120, 3).total_tokens == 123
        ```
    """

    input_tokens: float = 0
    output_tokens: float = 0

    @property
    def total_tokens(self) -> float:
        """Input and output tokens together."""
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class Price:
    """List price of a model in USD per million tokens.

    Args:
        input: USD per million input tokens.
        output: USD per million output tokens.
        call: USD per call, beside its tokens.

    Raises:
        InvalidInputError: If a price is negative, infinite or not a number.

    Example:
        ```python
        price = Price(input=0.15, output=0.60)
        assert round(price.cost(Usage(1_000_000, 500_000)), 9) == 0.45
        ```
    """

    input: float
    output: float
    call: float = 0.0

    def __post_init__(self) -> None:
        """Check all prices."""
        for field in ("input", "output", "call"):
            value = getattr(self, field)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (number and math.isfinite(value) and value >= 0):
                hint = (
                    "a price in USD per million tokens, or per call, is zero or more; "
                    "write Price.free() for a model that costs nothing"
                )
                raise InvalidInputError(f"Price.{field}", value, hint)

    @classmethod
    def free(cls) -> Self:
        """The price of a model that costs nothing, such as a local one."""
        return cls(0.0, 0.0)

    @classmethod
    def per_call(cls, usd: float) -> Self:
        """The price of what charges by the call, such as a search or a reranker."""
        return cls(0.0, 0.0, usd)

    def cost(self, usage: Usage) -> float:
        """Cost in USD of one call with that usage."""
        spent = usage.input_tokens * self.input + usage.output_tokens * self.output
        return spent * _PER_MILLION + self.call
