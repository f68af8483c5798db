"""List prices of known models, from the data inside the package `genai-prices`.

Nothing is fetched. A price that is not certain is an error, never zero.
"""

from __future__ import annotations

import re
from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import Any

from smart_engine.errors import MissingExtraError, SmartError
from smart_engine.money.pricing import STANDARD_TIERS, Price

__all__ = ["UnlistedError", "listed_price"]

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

_TIER_KINDS = {"service_tier", "processing", "speed"}
"""What the list calls that which replies report as a service tier."""

_IDS = {
    "google_genai": "google",
    "mistralai": "mistral",
    "amazon_bedrock": "aws",
    "bedrock": "aws",
    "bedrock_converse": "aws",
    "xai": "x-ai",
    "openai_like": "openai",
}
"""Name that a framework gives to a provider → in the list, where they differ."""

_LOCAL = re.compile(r"(https?://)?(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?(/|$)")
"""Addresses of this machine."""


class UnlistedError(SmartError, LookupError):
    """The list has no usable price for a model."""


def listed_price(model: str, provider: str, address: str | None = None) -> Price:
    """Return what a provider charges today for a model; its name may end with a date.

    Ollama on this machine charges nothing, but for the models that it serves from its
    cloud.

    Args:
        model: The provider's name of it.
        provider: The provider, by its name in the list, LangChain or LlamaIndex.
        address: Where the model is asked, if its client shows that. Other providers
            are asked through a provider's classes, too, at prices of their own.

    Raises:
        UnlistedError: If the list has no such price, or one that changes with the time
            of day, counts something else than tokens, or is zero; or if the address
            is not the provider's.
        MissingExtraError: If the package is not installed.
    """
    if provider == "ollama":
        if address and _LOCAL.match(address) and not model.endswith("cloud"):
            return Price.free()
        problem = f"only a model that Ollama runs on this machine, not {model!r}"
        raise UnlistedError(f"{problem} at {_host(address)}, is free")
    try:
        from genai_prices import Usage, calc_price
        from genai_prices.data_snapshot import get_snapshot
        from genai_prices.types import TimeOfDateConstraint
    except ModuleNotFoundError as error:
        raise MissingExtraError("prices", "looking up a list price") from error
    key = _IDS.get(provider, provider)
    served_by = next((one for one in get_snapshot().providers if one.id == key), None)
    if served_by is None:
        raise UnlistedError(f"the price list has no {model!r} of {provider!r}")
    if address is not None and not _leads_to(served_by.api_pattern, address):
        problem = f"its base URL leads to {_host(address)}"
        raise UnlistedError(
            f"{problem}, where {served_by.name}'s list prices may not hold"
        )
    ask = partial(calc_price, Usage(), model.removeprefix("models/"), provider_id=key)
    try:
        found = ask().model
        variants = {
            tier: (kind, variant)
            for variant in found.price_variants or ()
            for kind, tier in variant.when.items()
            if kind in _TIER_KINDS and len(variant.when) == 1
        }
        standard = ask().model_price
        others = {
            tier: ask(price_context={kind: tier}).model_price
            for tier, (kind, _) in variants.items()
            if tier not in STANDARD_TIERS
        }
    except LookupError as error:
        problem = f"the price list has no {model!r} of {provider!r}"
        raise UnlistedError(problem) from error
    except ValueError as error:
        problem = f"the price list has {model!r} with a price that is none"
        raise UnlistedError(problem) from error
    timed: list[Any] = [variant for _, variant in variants.values()]
    timed += found.prices if isinstance(found.prices, list) else []
    if any(isinstance(part.constraint, TimeOfDateConstraint) for part in timed):
        raise UnlistedError(f"the price of {model!r} changes with the time of day")
    tiers = {tier: _price(model, prices) for tier, prices in others.items()}
    return replace(_price(model, standard), tiers=tiers)


def _price(model: str, prices: Any) -> Price:
    """Return prices of a model in the list, as of one service tier, as our own."""
    from genai_prices.types import TieredPrices

    listed = {key: price for key, price in vars(prices).items() if price is not None}
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


def _leads_to(pattern: str, address: str) -> bool:
    """Whether an address is one of a provider's, whose pattern tells how they begin."""
    begins = re.match(pattern, address)
    if begins is None:
        return False
    return begins[0].endswith("/") or address[begins.end() :][:1] in {"", "/"}


def _host(address: str | None) -> str:
    """Return the host of an address, without the user and password before it."""
    host = (address or "").split("//", 1)[-1].split("/")[0].rpartition("@")[2]
    return host or "an unknown address"
