"""The chains behind a smart chain: their names, their models and what these charge."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from typing import Any

from langchain_core.language_models import BaseLanguageModel
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.runnables import (
    Runnable,
    RunnableBinding,
    RunnableWithFallbacks,
)
from langchain_core.runnables.base import RunnableBindingBase, coerce_to_runnable
from langchain_core.runnables.retry import RunnableRetry

from langchain_smart.chat.members import read_model, unwrapped
from smart_engine.errors import InvalidInputError
from smart_engine.money.limits import max_output_tokens, settings_of
from smart_engine.money.pricing import Price
from smart_engine.runtime.clients import asked_once, reporting
from smart_engine.runtime.settings import Settings
from smart_engine.runtime.signals import LOGPROBS, completes_chats, reports_logprobs
from smart_engine.serving.members import (
    Member,
    UnpricedError,
    addresses,
    asked_tier,
    find_member,
)

__all__ = ["ChainMember", "find_chains", "price_of"]


@dataclass(frozen=True, slots=True)
class ChainMember:
    """A chain that may answer.

    Attributes:
        name: Its name in reports and certificates.
        chain: The chain itself.
        prices: Model name → price.
        fee: USD that a call costs beside its models; None if that is unknown.
        models: Texts that identify the models found in it, with their settings.
        limits: Model name → most tokens of an answer, where there is a limit.
        estimate: Whether usage that no model reports is estimated.
        by_key: The chat models found in it, by LangChain's keys for a cache.
        scored: The same chain whose model is asked for logprobs, too; None if it has
            not exactly one, or one that can be asked, or hides what a server refuses.
    """

    name: str
    chain: Runnable[Any, Any]
    prices: Mapping[str, Price]
    fee: float | None
    models: tuple[str, ...]
    limits: Mapping[str, int]
    estimate: bool
    by_key: Mapping[str, BaseChatModel]
    scored: Runnable[Any, Any] | None


def find_chains(
    reference: Any,
    candidates: Any,
    prices: Mapping[str, Price],
    *,
    budget_usd: float | None,
    estimate: bool,
) -> dict[str, ChainMember]:
    """Return the chains by name, reference first.

    Args:
        reference: A chain, or its name and itself, as in `{"long prompt": chain}`.
        candidates: A list of chains, or a dict with a name for each.
        prices: Model name → price; chain name → price per call.
        budget_usd: The budget, if there is one: the cost of calls must have a bound.
        estimate: Whether usage that no model reports is estimated.

    Raises:
        InvalidInputError: If there is no candidate, something is no chain, two have
            the same name, or a cost has no bound.
        UnpricedError: If a model was found that has no price.
    """
    listed = candidates
    if isinstance(candidates, Mapping):
        listed = [{name: chain} for name, chain in candidates.items()]
    if not isinstance(listed, Sequence) or isinstance(listed, str) or not listed:
        hint = "give at least one cheaper chain: a list, or a dict with names"
        raise InvalidInputError("candidates", candidates, hint)
    found: dict[str, ChainMember] = {}
    for place, given in enumerate([reference, *listed]):
        field = "candidates" if place else "reference"
        name, chain = _named(field, given)
        if name in found:
            hint = (
                "two chains have this name: name them apart, as in candidates="
                '{"short prompt": chain} or chain.with_config(run_name="short prompt")'
            )
            raise InvalidInputError(field, name, hint)
        found[name] = _member(
            name, chain, prices, budget_usd=budget_usd, estimate=estimate
        )
    return found


def _named(field: str, given: Any) -> tuple[str, Runnable[Any, Any]]:
    name, chain = None, given
    if isinstance(given, Mapping) and len(given) == 1:
        ((name, chain),) = given.items()
    if not isinstance(chain, Runnable) and not callable(chain):
        hint = 'give a Runnable, or its name and itself: {"long prompt": chain}'
        raise InvalidInputError(field, chain, hint)
    runnable: Runnable[Any, Any] = coerce_to_runnable(chain)
    return str(name or _name_of(runnable)), runnable


def _name_of(chain: Runnable[Any, Any]) -> str:
    if isinstance(chain, RunnableBindingBase):
        return str(chain.config.get("run_name") or _name_of(chain.bound))
    if isinstance(chain, BaseLanguageModel):
        return _names(chain, {})[-1]
    return chain.get_name()


def _member(
    name: str,
    chain: Runnable[Any, Any],
    prices: Mapping[str, Price],
    *,
    budget_usd: float | None,
    estimate: bool,
) -> ChainMember:
    """Return a chain whose models all have a price, and report their usage."""
    chain = _changed(chain, reporting, {})
    identities: list[str] = []
    own_names: set[str] = set()
    listed: dict[str, Price] = {}
    limits: dict[str, int] = {}
    for model, arguments in _models(chain, set()):
        if budget_usd is not None and isinstance(model, Settings):
            hint = "give the smart model in this chain a budget_usd of its own instead"
            raise InvalidInputError("budget_usd", model.get_name(), hint)
        identities.append(_identity(model, arguments))
        names = _names(model, arguments)
        own_names.update(names)
        wanted, price = price_of(names, prices)
        if price is None and not isinstance(model, Settings):
            if not isinstance(model, BaseChatModel):
                raise UnpricedError(wanted)
            named = read_model(name, model)._replace(name=wanted, official=wanted)
            named = named._replace(tier=asked_tier(model, arguments))
            listed[wanted] = price = find_member(named, prices).price
        if price is not None:
            settings = settings_of(arguments, model)
            if budget_usd is not None:
                unseen = _unseen_retries(model)
                member = Member(wanted, model, price, unseen=unseen)
                member.check_budget(budget_usd, settings)
            if (limit := max_output_tokens(settings)) is not None:
                limits |= {name: max(limit, limits.get(name, 0)) for name in names}
    fee = None if name in own_names else prices.get(name)
    if fee is not None and (fee.input or fee.output):
        hint = (
            "a chain is charged by the call, Price.per_call(usd), and its models by "
            "their own names; if this is meant for a model, name the chain otherwise"
        )
        raise InvalidInputError("prices", name, hint)
    call = None if fee is None else fee.call
    known = {**listed, **prices}
    found = tuple(identities)
    scored = None if call else _scored(chain)
    by_key = _cache_keys(chain) | _cache_keys(scored)
    own = (known, call, found, limits, estimate, by_key, scored)
    return ChainMember(name, chain, *own)


def _cache_keys(chain: Runnable[Any, Any] | None) -> dict[str, BaseChatModel]:
    """Return the chat models in a chain by LangChain's keys for a cache."""
    keys: dict[str, BaseChatModel] = {}
    for model, arguments in _models(chain, set()):
        if isinstance(model, BaseChatModel) and not isinstance(model, Settings):
            with suppress(Exception):  # without a key there is no cache either
                keys[model._get_llm_string(**arguments)] = model  # noqa: SLF001
    return keys


def _unseen_retries(model: BaseLanguageModel[Any]) -> str | None:
    """Return what to do instead of a client's own retries, which nobody sees."""
    found = asked_once(model)
    if not found.retries:
        return None
    return f"{found.way_out}, and .with_retry(), whose attempts are runs of their own"


def _identity(model: BaseLanguageModel[Any], arguments: Mapping[str, Any]) -> str:
    """Return a text that identifies a model and what is bound to it."""
    bound = json.dumps(arguments, sort_keys=True, default=lambda it: type(it).__name__)
    return repr((model._identifying_params, addresses(model), bound))  # noqa: SLF001


def price_of(
    names: Sequence[str], prices: Mapping[str, Price]
) -> tuple[str, Price | None]:
    """Return the name under which a model has a price, and that price.

    Where there is none, the name is the one to give it a price by.
    """
    for name in names:
        if name in prices:
            return name, prices[name]
    return (*names, "a model without a name")[1 if len(names) > 1 else 0], None


def _names(
    model: BaseLanguageModel[Any], arguments: Mapping[str, Any]
) -> tuple[str, ...]:
    """Return the names that a model may have in prices: its own, its provider's."""
    official = None
    if hasattr(model, "_get_ls_params"):
        official = model._get_ls_params(**arguments).get("ls_model_name")  # noqa: SLF001 - core's own
    return tuple(str(name) for name in (model.get_name(), official) if name)


def _changed(
    part: Any, change: Callable[[Any], Any], known: dict[int, Any], *closed: type[Any]
) -> Any:
    """Return a part of a chain with changed models.

    What a function makes or holds stays as it is.

    Args:
        part: The part: it is copied only where something in it changes.
        change: Returns what takes the place of a model.
        known: Id of a part → what was returned for it.
        *closed: Classes of parts that stay as they are.
    """
    if id(part) in known or not isinstance(part, Runnable | dict | list | tuple):
        return known.get(id(part), part)
    known[id(part)] = part
    if isinstance(part, closed):
        return part
    if isinstance(part, BaseLanguageModel):
        known[id(part)] = change(part)
    elif isinstance(part, list | tuple):
        parts = [_changed(each, change, known, *closed) for each in part]
        if any(map(operator.is_not, parts, part)):
            known[id(part)] = type(part)(parts)
    else:
        fields = part if isinstance(part, dict) else vars(part)
        found = {
            name: _changed(each, change, known, *closed)
            for name, each in fields.items()
        }
        if any(found[name] is not fields[name] for name in found):
            known[id(part)] = copied = copy(part)
            (copied if isinstance(copied, dict) else vars(copied)).update(found)
    return known[id(part)]


def _scored(chain: Runnable[Any, Any]) -> Runnable[Any, Any] | None:
    """Return a chain whose only model is asked for logprobs, too, if that can be.

    It is made again where a server refuses them. So that this costs nothing, nothing
    else is paid in it, and nothing in it makes something else of the refusal.
    """
    found = [*_models(chain, set())]
    if len(found) != 1 or not reports_logprobs(*found[0]):
        return None
    if not completes_chats(*found[0]):
        return None
    asked = found[0][0].model_copy(update={LOGPROBS: True})
    hiding = RunnableWithFallbacks, RunnableRetry
    scored: Runnable[Any, Any] = _changed(chain, lambda _: asked, {}, *hiding)
    return None if scored is chain else scored


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
    elif isinstance(part, RunnableBinding):
        yield from _models(part.bound, seen)
    else:
        yield from _models(list(vars(part).values()), seen)
        with suppress(Exception):  # a function whose source cannot be read
            yield from _models(getattr(part, "deps", ()), seen)
