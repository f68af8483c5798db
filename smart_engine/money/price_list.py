"""List prices of known models, from the data inside the package `genai-prices`.

Nothing is fetched. A price that is not certain is an error, never zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from smart_engine.errors import MissingExtraError, SmartError
from smart_engine.money.pricing import Price

__all__ = ["UnlistedError", "listed_price", "why_unlisted"]

_PRICE_NAMES = {
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cache_read",
    "cache_write_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h",
    "input_audio_mtok": "input_audio",
    "output_audio_mtok": "output_audio",
    "output_reasoning_mtok": "reasoning",
}
"""Name of a price in the list → in `Price`."""

_IGNORED = {"cache_audio_read_mtok", "web_searches_kcount", "storage_searches_kcount"}
"""Cached audio is billed as audio; tools are billed beside the tokens."""

_OPENAI = "https://api.openai.com/"


class UnlistedError(SmartError, LookupError):
    """The list has no usable price for a model."""


def why_unlisted(address: object, tiers: Iterable[object]) -> str | None:
    """Return why a client of OpenAI's classes may not pay OpenAI's list price, if so.

    Other providers are asked through these classes, too, at prices of their own; some
    service tiers differ in price.

    Example:
        ```python
        assert why_unlisted(None, [None, "auto"]) is None
        assert "127.0.0.1" in why_unlisted("http://127.0.0.1/v1", [])
        assert "'flex'" in why_unlisted(None, ["flex"])
        ```
    """
    if not str(address or _OPENAI).startswith(_OPENAI):
        host = str(address).partition("//")[2].split("/")[0].rpartition("@")[2]
        return f"its base URL leads to {host}, where OpenAI's list prices may not hold"
    tier = next((t for t in tiers if t not in {None, "auto", "default"}), None)
    return None if tier is None else f"the service tier {tier!r} has prices of its own"


def listed_price(model: str, provider: str) -> Price:
    """Return what a provider charges today for a model; its name may end with a date.

    Raises:
        UnlistedError: If the list has no such price, or one that changes with the time
            of day, counts something else than tokens, or is zero.
        MissingExtraError: If the package is not installed.
    """
    try:
        from genai_prices import Usage, calc_price
        from genai_prices.types import TieredPrices, TimeOfDateConstraint
    except ModuleNotFoundError as error:
        raise MissingExtraError("prices", "looking up a list price") from error
    try:
        found = calc_price(Usage(), model, provider_id=provider)
    except LookupError as error:
        problem = f"the price list has no {model!r} of {provider!r}"
        raise UnlistedError(problem) from error
    except ValueError as error:
        problem = f"the price list has {model!r} with a price that is none"
        raise UnlistedError(problem) from error
    listed = {key: v for key, v in vars(found.model_price).items() if v is not None}
    whole = found.model.prices
    times = [part.constraint for part in whole] if isinstance(whole, list) else []
    if any(isinstance(time, TimeOfDateConstraint) for time in times):
        raise UnlistedError(f"the price of {model!r} changes with the time of day")
    if others := sorted(listed.keys() - _PRICE_NAMES.keys() - _IGNORED):
        raise UnlistedError(f"{model!r} is also billed by {', '.join(others)}")

    def prices_above(tokens: int) -> dict[str, Any]:
        """Return the prices of a call of just more than so many tokens."""
        prices = {}
        for key, name in _PRICE_NAMES.items():
            price = listed.get(key)
            if isinstance(price, TieredPrices):
                tiers = [t.price for t in price.tiers if t.start <= tokens]
                price = [price.base, *tiers][-1]
            prices[name] = float(price) if isinstance(price, Decimal) else None
        return prices

    tiered = [price for price in listed.values() if isinstance(price, TieredPrices)]
    starts = {tier.start for price in tiered for tier in price.tiers}
    rates = {start: prices_above(start) for start in (0, *starts)}
    if not all(rate["input"] and rate["output"] for rate in rates.values()):
        problem = f"the price list has {model!r} without a price for all tokens"
        raise UnlistedError(problem)
    first = rates.pop(0)
    return Price(**first, above={start: Price(**r) for start, r in rates.items()})
