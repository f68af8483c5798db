"""Chains as tiers: what they are called, and which models they are made of."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from langchain_core.language_models import BaseLanguageModel
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.runnables import Runnable, RunnableBinding
from langchain_core.runnables.base import RunnableBindingBase, coerce_to_runnable

from langchain_smart.chains.meter import Bill, Meter, price_of
from langchain_smart.chat.bound_model import unwrapped
from langchain_smart.chat.cost import limit_of, settings_of
from langchain_smart.chat.members import read_model
from smart_engine.calls import Result
from smart_engine.errors import InvalidInputError
from smart_engine.money.pricing import Price
from smart_engine.money.reservations import Allowance
from smart_engine.runtime.settings import Settings
from smart_engine.serving.members import (
    Member,
    UnpricedError,
    addresses,
    find_member,
)

__all__ = ["ChainMember", "find_chains"]


@dataclass(frozen=True, slots=True)
class ChainMember:
    """A chain that may answer.

    Attributes:
        name: Its name in reports and certificates.
        chain: The chain itself.
        prices: Model name → price.
        fee: USD that a call costs beside its models; None if nobody said so.
        models: Texts that tell the models found in it, and their settings.
        limits: Model name → most tokens of an answer, of those found in it that have a
            limit.
        estimate: Whether usage that no model reports is estimated.
    """

    name: str
    chain: Runnable[Any, Any]
    prices: Mapping[str, Price]
    fee: float | None
    models: tuple[str, ...]
    limits: Mapping[str, int]
    estimate: bool

    def meter(self, allowance: Allowance | None) -> Meter:
        """Return what reads the cost of a call that is about to be made.

        Args:
            allowance: What the call may spend, if there is a budget.

        Raises:
            BudgetExceededError: If what it costs beside its models does not fit.
        """
        if allowance is not None and self.fee:
            refused = allowance.begin(self.fee)
            if refused is not None:
                raise refused
        how = {"estimate": self.estimate}
        return Meter(self.prices, self.fee or 0.0, self.limits, allowance, **how)

    def bill(self, meter: Meter, inside: Callable[[str, Result], None]) -> Bill:
        """Return what a call cost.

        Args:
            meter: Has read what its models reported.
            inside: Told of each of them, and what it brought.
        """
        bill = meter.bill()
        for name, brought in bill.calls:
            inside(name, brought)
        seen = bill.calls or self.models or bill.error
        if not seen and self.fee is None:
            hint = (
                "no model was seen in this call, so its cost is unknown: add prices="
                f"{{{self.name!r}: Price.free()}} if it costs nothing, or "
                "Price.per_call(usd)"
            )
            return bill._replace(error=UnpricedError(self.name, hint))
        return bill


def find_chains(
    reference: Any,
    candidates: Any,
    prices: Mapping[str, Price],
    *,
    capped: bool,
    estimate: bool,
) -> tuple[ChainMember, ...]:
    """Return the tiers, reference first.

    Args:
        reference: A chain, or its name and itself, as in `{"long prompt": chain}`.
        candidates: A list of chains, or a dict with a name for each.
        prices: Model name → price; tier name → price per call.
        capped: Whether there is a budget.
        estimate: Whether usage that no model reports is estimated.

    Raises:
        InvalidInputError: If there is no candidate, something is no chain, two have
            the same name, or a budget could not be kept.
        UnpricedError: If a model was found that has no price.
    """
    if isinstance(candidates, Mapping):
        listed = [{name: chain} for name, chain in candidates.items()]
    elif isinstance(candidates, Sequence) and not isinstance(candidates, str):
        listed = list(candidates)
    else:
        listed = []
    if not listed:
        hint = "give at least one cheaper chain: a list, or a dict with names"
        raise InvalidInputError("candidates", type(candidates).__name__, hint)
    tiers: list[ChainMember] = []
    for place, given in enumerate([reference, *listed]):
        field = "candidates" if place else "reference"
        name, chain = _named(field, given)
        if any(name == tier.name for tier in tiers):
            hint = (
                "two chains have this name: name them apart, as in candidates="
                '{"short prompt": chain} or chain.with_config(run_name="short prompt")'
            )
            raise InvalidInputError(field, name, hint)
        tiers.append(_tier(name, chain, prices, capped=capped, estimate=estimate))
    return tuple(tiers)


def _named(field: str, given: Any) -> tuple[str, Runnable[Any, Any]]:
    """Return a chain and its name."""
    name, chain = None, given
    if isinstance(given, Mapping) and len(given) == 1:
        ((name, chain),) = given.items()
    if not isinstance(chain, Runnable) and not callable(chain):
        hint = 'give a Runnable, or its name and itself: {"long prompt": chain}'
        raise InvalidInputError(field, type(chain).__name__, hint)
    runnable: Runnable[Any, Any] = coerce_to_runnable(chain)
    return str(name or _name_of(runnable)), runnable


def _name_of(chain: Runnable[Any, Any]) -> str:
    """Return what a chain calls itself."""
    if isinstance(chain, RunnableBindingBase):
        return str(chain.config.get("run_name") or _name_of(chain.bound))
    if isinstance(chain, BaseLanguageModel):
        return _names(chain, {})[-1]
    return chain.get_name()


def _tier(
    name: str,
    chain: Runnable[Any, Any],
    prices: Mapping[str, Price],
    *,
    capped: bool,
    estimate: bool,
) -> ChainMember:
    """Return a tier whose models all have a price."""
    found = list(_models(chain, set()))
    own_names: set[str] = set()
    listed: dict[str, Price] = {}
    limits: dict[str, int] = {}
    for model, arguments in found:
        if capped and isinstance(model, Settings):
            hint = (
                "a smart model within a chain spends by its own terms: give it a "
                "budget_usd of its own, and this one none"
            )
            raise InvalidInputError("budget_usd", model.get_name(), hint)
        names = _names(model, arguments)
        own_names.update(names)
        wanted, price = price_of(names, prices)
        if price is None and not isinstance(model, Settings):
            if not isinstance(model, BaseChatModel):
                raise UnpricedError(wanted)
            named = read_model(name, model)._replace(name=wanted, official=wanted)
            listed[wanted] = price = find_member(named, prices).price
        if price is not None:
            member = Member(wanted, model, price)
            if capped:
                member.output_limit(settings_of(member, arguments))
            limit = limit_of(member, arguments)
            if limit is not None:
                limits |= {name: max(limit, limits.get(name, 0)) for name in names}
    fee = None if name in own_names else prices.get(name)
    if fee is not None and (fee.input or fee.output):
        hint = (
            "a chain is charged by the call, Price.per_call(usd), and its models by "
            "their own names; if this is meant for a model, name the chain otherwise"
        )
        raise InvalidInputError("prices", name, hint)
    call = None if fee is None else fee.call
    told = tuple(_told(model, arguments) for model, arguments in found)
    prices = {**listed, **prices}
    return ChainMember(name, chain, prices, call, told, limits, estimate)


def _told(model: BaseLanguageModel[Any], arguments: Mapping[str, Any]) -> str:
    """Return a text that tells a model from others, and what is bound to it."""
    bound = json.dumps(arguments, sort_keys=True, default=lambda it: type(it).__name__)
    return repr((model._identifying_params, addresses(model), bound))  # noqa: SLF001


def _names(
    model: BaseLanguageModel[Any], arguments: Mapping[str, Any]
) -> tuple[str, ...]:
    """Return what a model may be called in prices: its own name, its provider's."""
    official = None
    if hasattr(model, "_get_ls_params"):
        official = model._get_ls_params(**arguments).get("ls_model_name")  # noqa: SLF001 - core's own
    return tuple(str(name) for name in (model.get_name(), official) if name)


def _models(
    part: Any, seen: set[int]
) -> Iterator[tuple[BaseLanguageModel[Any], dict[str, Any]]]:
    """Yield the models in a chain with what is bound to them, as far as it shows them.

    What a function makes for itself is seen only when it is called.
    """
    if isinstance(part, Mapping | list | tuple):
        for value in part.values() if isinstance(part, Mapping) else part:
            yield from _models(value, seen)
        return
    if not isinstance(part, Runnable) or id(part) in seen:
        return
    seen.add(id(part))
    inner, arguments = unwrapped(part)
    if isinstance(inner, BaseLanguageModel):
        yield inner, arguments
        return
    if isinstance(part, RunnableBinding):
        yield from _models(part.bound, seen)
        return
    yield from _models(list(vars(part).values()), seen)
    with suppress(Exception):  # a function whose source cannot be read
        yield from _models(getattr(part, "deps", ()), seen)
