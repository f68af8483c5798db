"""What a call costs: dollars from the tokens it really used, never a guess.

Only where the user allows it, usage that was not reported is estimated, and marked. A
call is priced by itself: many calls of few tokens are not one call of many.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field, fields
from numbers import Real
from typing import Self

from smart_engine.errors import InvalidInputError

__all__ = ["STANDARD_TIERS", "TOKEN_KINDS", "Price", "Usage"]

STANDARD_TIERS = frozenset({"auto", "default", "standard", "on_demand"})
"""Names of the service tier that a price is for, where it names no other."""

_CHEAPER_TIERS = frozenset({"flex", "batch"})
"""Service tiers that cost no more than the standard one."""

_PER_MILLION = 1e-6
_MAX_TOKENS = 2**53
"""Beyond this, floats cannot tell integers apart: no call has as many tokens."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call, as the provider reported them, or estimated.

    Args:
        input_tokens: Tokens of the prompt, all kinds together.
        output_tokens: Tokens of the answer, hidden reasoning included.
        cache_read: Input tokens read from the provider's cache.
        cache_write: Input tokens written to it.
        cache_write_1h: Input tokens written to it for an hour.
        input_audio: Input tokens of audio.
        output_audio: Output tokens of audio.
        reasoning: Output tokens of hidden reasoning.
        estimated: The provider reported none: these were estimated from the texts.

    Example:
        ```python
        assert Usage(120, 3).total_tokens == 123
        assert Usage(120, 3, cache_read=121).problem == "121 of 120 tokens are cached"
        ```
    """

    input_tokens: float = 0
    output_tokens: float = 0
    cache_read: float = 0
    cache_write: float = 0
    cache_write_1h: float = 0
    input_audio: float = 0
    output_audio: float = 0
    reasoning: float = 0
    estimated: bool = False

    @property
    def total_tokens(self) -> float:
        """Input and output tokens together."""
        return self.input_tokens + self.output_tokens

    @property
    def problem(self) -> str | None:
        """Why it cannot be priced, or None."""
        for kind in TOKEN_KINDS:
            count = getattr(self, kind)
            number = isinstance(count, int | float | Real)  # int and float are fast
            if not (number and 0 <= count <= _MAX_TOKENS) or isinstance(count, bool):
                return f"{kind} is {count!r}"
        cached = self.cache_read + self.cache_write + self.cache_write_1h
        special = self.output_audio + self.reasoning
        for part, whole, name in (
            (cached, self.input_tokens, "cached"),
            (self.input_audio, self.input_tokens, "input audio"),
            (special, self.output_tokens, "audio or reasoning"),
        ):
            if part > whole:
                return f"{part} of {whole} tokens are {name}"
        return None


@dataclass(frozen=True, slots=True)
class Price:
    """List price of a model in USD per million tokens.

    A price that is left out is as `input` or `output`, where nothing else is said.

    Args:
        input: Price of input tokens.
        output: Price of output tokens.
        cache_read: Of input tokens read from the provider's cache.
        cache_write: Of input tokens written to it.
        cache_write_1h: Of those written to it for an hour; else as `cache_write`.
        input_audio: Of input tokens of audio.
        output_audio: Of output tokens of audio.
        reasoning: Of output tokens of hidden reasoning.
        above: Number of input tokens → the price of a whole call that has more of
            them, in place of this one.
        tiers: Service tier, such as `flex` or `priority` → the price of a call whose
            reply reports it, in place of this one, which is for the standard tier.
        call: USD per call, beside its tokens.
        batch: The price of a call in one of the provider's batches: short for
            `tiers={"batch": …}`.

    Attributes:
        by_token: Whether a call's cost depends on its tokens.

    Raises:
        InvalidInputError: If a price is negative, infinite or not a number.

    Example:
        ```python
        price = Price(input=0.15, output=0.60, cache_read=0.075)
        assert price.by_token and not Price.per_call(0.002).by_token
        assert round(price.cost(Usage(1_000_000, 500_000)), 9) == 0.45
        assert round(price.cost(Usage(1_000_000, cache_read=400_000)), 9) == 0.12
        long = Price(3, 15, above={200_000: Price(6, 22.5)})
        assert round(long.cost(Usage(200_000)), 9) == 0.6
        assert round(long.cost(Usage(200_001)), 9) == 1.200006
        assert Price(3, 15, batch=Price(1.5, 7.5)).at("batch") == Price(1.5, 7.5)
        ```
    """

    input: float
    output: float
    cache_read: float | None = None
    cache_write: float | None = None
    cache_write_1h: float | None = None
    input_audio: float | None = None
    output_audio: float | None = None
    reasoning: float | None = None
    above: Mapping[int, Price] = field(default_factory=dict, hash=False)
    call: float = 0.0
    tiers: Mapping[str, Price] = field(default_factory=dict, hash=False)
    batch: InitVar[Price | None] = None
    by_token: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self, batch: Price | None) -> None:
        """Check all prices."""
        for name in ("input", "output", "call", *_OPTIONAL):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            left_out = value is None and name in _OPTIONAL
            if not (left_out or (number and 0 <= value <= sys.float_info.max)):
                hint = (
                    "a price in USD per million tokens, or per call, is zero or more; "
                    "write Price.free() for a model that costs nothing"
                )
                raise InvalidInputError(f"Price.{name}", value, hint)
        above = dict(self.above) if isinstance(self.above, Mapping) else {0: None}
        for start, price in above.items():
            whole = isinstance(start, int) and not isinstance(start, bool) and start > 0
            nested = isinstance(price, Price) and (price.above or price.tiers)
            if not (whole and isinstance(price, Price) and not nested):
                hint = "give a price per number of tokens: {200_000: Price(6, 22.5)}"
                raise InvalidInputError("Price.above", self.above, hint)
        object.__setattr__(self, "above", dict(sorted(above.items())))
        tiers = dict(self.tiers) if isinstance(self.tiers, Mapping) else {"": None}
        if batch is not None:
            tiers["batch"] = batch
        for tier, price in tiers.items():
            named = isinstance(tier, str) and tier and tier not in STANDARD_TIERS
            if not (named and isinstance(price, Price) and not price.tiers):
                hint = 'give a price per service tier: {"flex": Price(0.6, 5)}'
                raise InvalidInputError("Price.tiers", self.tiers, hint)
        object.__setattr__(self, "tiers", tiers)
        rates = [self.input, self.output, *(getattr(self, name) for name in _OPTIONAL)]
        others = any(price.by_token for price in tiers.values())
        object.__setattr__(self, "by_token", bool(any(rates) or self.above or others))

    @classmethod
    def free(cls) -> Self:
        """The price of a model that costs nothing, such as a local one."""
        return cls(0.0, 0.0)

    @classmethod
    def per_call(cls, usd: float) -> Self:
        """The price of a service that charges by the call, such as a reranker."""
        return cls(0.0, 0.0, call=usd)

    def at(self, tier: str | None) -> Price | None:
        """Return the price at a service tier, as a reply reports it; None if unknown.

        `flex` and `batch` are nowhere dearer than the standard: where they have no
        price of their own, they are charged as the standard.

        Example:
            ```python
            price = Price(2, 8, tiers={"flex": Price(1, 4)})
            assert price.at(None) == price.at("default") == price.at("batch") == price
            assert price.at("flex") == Price(1, 4)
            assert price.at("priority") is None
            ```
        """
        if tier is None or tier in self.tiers:
            return self if tier is None else self.tiers[tier]
        return self if tier in STANDARD_TIERS | _CHEAPER_TIERS else None

    def cost(self, usage: Usage) -> float:
        """Cost in USD of one call with that usage; never of several calls' sum.

        Its tier is the one that this price is for; see `at`.
        """
        price = self._reached(usage.input_tokens)[-1]
        return price._flat_cost(usage) * _PER_MILLION + price.call  # noqa: SLF001 - of the same class

    def most(self, input_tokens: float, output_tokens: float) -> float:
        """Worst-case cost in USD of a call of at most so many tokens of any kind.

        It may be served at any of the tiers that have a price.

        Example:
            ```python
            price = Price(3, 15, cache_write=3.75, above={200_000: Price(6, 22.5)})
            assert round(price.most(100_000, 1000), 9) == 0.39
            assert round(price.most(300_000, 0), 9) == 1.8
            ```
        """
        costs = [tier.most(input_tokens, output_tokens) for tier in self.tiers.values()]
        for price in self._reached(input_tokens):
            read = [price.cache_read, price.cache_write, price.cache_write_1h]
            inputs = [price.input, price.input_audio, *read]
            outputs = [price.output, price.output_audio, price.reasoning]
            sent = input_tokens * max(rate for rate in inputs if rate is not None)
            answer = output_tokens * max(rate for rate in outputs if rate is not None)
            costs.append((sent + answer) * _PER_MILLION + price.call)
        return max(costs)

    def _reached(self, input_tokens: float) -> list[Price]:
        """Return this price and those above that so many tokens reach, in order."""
        above = self.above.items()
        return [self, *(price for start, price in above if input_tokens > start)]

    def _flat_cost(self, usage: Usage) -> float:
        """Return the cost of a call's tokens at this price alone, in millionths of USD.

        Audio from the cache is billed as audio: reports do not tell it apart.
        """
        written, for_an_hour = usage.cache_write, usage.cache_write_1h
        fresh = usage.input_tokens - written - for_an_hour
        audio = min(usage.input_audio, fresh)
        read = min(usage.cache_read, fresh - audio)
        cache_write = _or(self.cache_write, self.input)
        return (
            (fresh - audio - read) * self.input
            + read * _or(self.cache_read, self.input)
            + written * cache_write
            + for_an_hour * _or(self.cache_write_1h, cache_write)
            + audio * _or(self.input_audio, self.input)
            + (usage.output_tokens - usage.output_audio - usage.reasoning) * self.output
            + usage.output_audio * _or(self.output_audio, self.output)
            + usage.reasoning * _or(self.reasoning, self.output)
        )


TOKEN_KINDS = tuple(kind.name for kind in fields(Usage) if kind.name != "estimated")
"""What a usage counts."""

_OPTIONAL = TOKEN_KINDS[2:]
"""Kinds of tokens whose price may be left out."""


def _or(price: float | None, otherwise: float) -> float:
    return otherwise if price is None else price
