"""The models behind a smart model: which they are, and what their answers cost."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import BaseModel

from smart_engine.amounts import usd
from smart_engine.calls import Failure, Outcome
from smart_engine.equivalence.identity import Identity, identity
from smart_engine.errors import (
    InvalidInputError,
    MissingExtraError,
    OversizedError,
    SmartError,
)
from smart_engine.money.limits import (
    Content,
    max_output_tokens,
    refuse_unbounded_settings,
    setting_texts,
    settings_of,
)
from smart_engine.money.price_list import UnlistedError, listed_price
from smart_engine.money.pricing import Price, Usage
from smart_engine.money.usage import first_of, service_tier
from smart_engine.warn import warn

__all__ = [
    "Member",
    "MissingUsageError",
    "Named",
    "UnpricedError",
    "address_of",
    "addresses",
    "asked_tier",
    "fields_of",
    "find_member",
    "find_members",
    "model_identity",
    "unlimited",
]

M = TypeVar("M")

_IRRELEVANT = re.compile(
    "key|secret|password|credential|token$|headers|client|timeout|retries|callback"
    "|rate_limiter|^cache$"
)
"""Names of fields that do not change what a model answers."""


class MissingUsageError(SmartError):
    """A model reported no usable token usage: what its answer cost is unknown."""


class UnpricedError(InvalidInputError):
    """A model has no price: what it costs is unknown, and never taken for nothing."""

    def __init__(
        self,
        name: str,
        hint: str | None = None,
        *,
        reason: str = "no price is known",
        way_out: str | None = None,
    ) -> None:
        way_out = way_out or f"prices={{{name!r}: Price(input=…, output=…)}}"
        hint = hint or (
            f"{reason}: add {way_out} in USD per million tokens, or Price.free() for a "
            "model that costs nothing"
        )
        super().__init__("prices", name, hint)
        self.reason = reason


class Named(NamedTuple):
    """A model as an adapter read it from what the user gave.

    Attributes:
        name: What it is called in reports, certificates and prices.
        model: The model itself.
        official: The provider's name of it, under which a price may be listed, too.
        provider: Who serves it, where its class tells.
        given: The string that named it, if one did; it may be priced under that, too.
        address: Where it is asked, if its client shows that.
        tier: The service tier that it asks for, unless that is the standard one.
        window: Most tokens that it takes, where known.
        arguments: What is bound to it: arguments of every call.
    """

    name: str
    model: Any
    official: str | None = None
    provider: str | None = None
    given: str | None = None
    address: str | None = None
    tier: str | None = None
    window: int | None = None
    arguments: Mapping[str, Any] = {}

    @property
    def names(self) -> list[str]:
        """Names that it may have in `prices`."""
        return [name for name in (self.name, self.official, self.given) if name]


@dataclass(frozen=True, slots=True)
class Member(Generic[M]):
    """One model behind a smart model.

    Attributes:
        name: Its name in reports, certificates and `prices`.
        model: The model itself, as its framework knows it.
        price: What it charges.
        retries: How often its client would make a failed request again.
        unseen: What turns that off, where only the user can: until then nobody sees it.
        window: Most tokens that a candidate takes, where known: it sits out the items
            that do not fit. The reference is asked about every item.
        arguments: Arguments of every call, unless the call has others.
    """

    name: str
    model: M = field(repr=False)  # may show a key
    price: Price
    retries: int = 0
    unseen: str | None = None
    window: int | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def check_fit(
        self,
        tokens: Callable[[], float],
        settings: Callable[[], Sequence[Mapping[str, Any]]],
    ) -> None:
        """Raise OversizedError if an item does not fit into a candidate's window.

        Args:
            tokens: Counts the tokens that are sent, roughly.
            settings: Returns where settings of the call stand, those that take
                precedence first, and the model's profile last: not what was requested,
                but what it could write.

        Example:
            ```python
            member = Member("small", "a model", Price.free(), window=1000)
            member.check_fit(lambda: 900, lambda: [{"max_tokens": 100}, {}])
            ```
        """
        if self.window is not None:
            needed = tokens() + (max_output_tokens(settings()[:-1]) or 0)
            if needed > self.window:
                raise OversizedError(self.name, math.ceil(needed), self.window)

    def settings(
        self, arguments: Mapping[str, Any], *inner: Any
    ) -> list[Mapping[str, Any]]:
        """Return the settings of a call by their source, the one that wins first.

        Args:
            arguments: What the call is made with.
            *inner: Another model within the model, if there is any.
        """
        return settings_of({**self.arguments, **arguments}, self.model, *inner)

    def outcome(
        self,
        answer: Any,
        usage: Usage | None,
        confidence: float | None = None,
        *,
        cached: bool = False,
        tier: str | None = None,
        estimate: Callable[[], Usage] | None = None,
    ) -> Outcome | Failure:
        """Return the result of a call, priced by the usage that the model reported.

        Args:
            answer: Whatever the model said.
            usage: Tokens that the answer used; None if the model did not report them.
            confidence: The model's own score of it, 0 to 1, where known.
            cached: It came from a cache: it was paid and counted when it was made.
            tier: The service tier that the reply reports; see `Price.tiers`.
            estimate: Returns what it may have used, where nothing was reported that can
                be priced; None where the user did not allow that: the call has failed.

        Example:
            ```python
            member = Member("big", "a model", Price(10, 30))
            result = member.outcome("yes", None, estimate=lambda: Usage(100, 1))
            assert result.usage == Usage(100, 1, estimated=True)
            assert result.estimated == result.cost
            ```
        """
        by_token = self.price.by_token
        problem = "none at all" if usage is None else usage.problem
        if problem is not None and not by_token:
            usage, problem = Usage(), None
        if usage is not None and problem is None and by_token and not cached:
            problem = None if usage.input_tokens else "no input tokens"
        if problem is not None and estimate is not None:
            usage, problem = replace(estimate(), estimated=True), None
        price: Price | None = self.price
        if tier is not None and by_token and not cached:
            price = self.price.at(tier)
        if usage is not None and problem is None and price is not None:
            cost, billed = price.cost(usage), Usage() if cached else usage
            return Outcome(answer, cost, billed, confidence, cached=cached)
        if price is None:
            error = MissingUsageError(
                f"{self.name} was served at the tier {tier!r}, whose price is unknown: "
                f"add {_tier_price(self.name, tier)}"
            )
        else:
            error = MissingUsageError(
                f"{self.name} reported no usage that can be priced ({problem}): its "
                "cost is unknown: turn usage reporting on (ChatOpenAI: "
                "stream_usage=True), allow estimate_usage=True, or give it "
                "Price.free() if it costs nothing"
            )
        warn(str(error))
        return Failure(error)

    def check_budget(
        self, budget_usd: float, settings: Sequence[Mapping[str, Any]]
    ) -> None:
        """Check that a budget can be kept; warn if it allows no single call.

        Args:
            budget_usd: The budget.
            settings: Where settings of a call stand, those that take precedence first.

        Raises:
            InvalidInputError: If nothing limits its answers, or its client repeats
                requests where nobody sees it.
        """
        if self.unseen and self.price.most(1, 1):
            hint = (
                f"the client of {self.name} ({type(self.model).__name__}) makes failed "
                "requests again by itself, and what those cost would be in no ledger: "
                f"give it {self.unseen}"
            )
            raise InvalidInputError("budget_usd", budget_usd, hint)
        limit = self.output_limit(settings)
        if (most := self.price.most(0, limit)) > budget_usd:
            length = (
                f"its answer may have {limit:,} tokens and " if limit else "it may "
            )
            warn(
                f"budget_usd={budget_usd:g} allows no call of {self.name}: {length}"
                f"cost {usd(most)} USD; set a lower max_tokens, or raise budget_usd"
            )

    def output_limit(self, settings: Sequence[Mapping[str, Any]]) -> int:
        """Return the most tokens that a call's answers can have, for a budget.

        Args:
            settings: Where settings of a call stand, those that take precedence first.

        Raises:
            InvalidInputError: If nothing limits them, or a setting has no bound.
        """
        if not self.price.by_token:
            return 0
        refuse_unbounded_settings(settings)
        limit = max_output_tokens(settings)
        if limit is None:
            raise InvalidInputError("max_tokens", None, unlimited(self.name))
        return limit

    def worst_case(
        self, content: Content, settings: Sequence[Mapping[str, Any]]
    ) -> float:
        """Return the most a call can cost, in USD.

        Args:
            content: What it sends; settings that are texts are added to it.
            settings: Where settings of the call stand, the strongest first.

        Raises:
            InvalidInputError: If nothing limits the answer, or more than text is sent.
        """
        if not self.price.by_token:
            return self.price.most(0, 0)
        content.refuse_unbounded()
        texts = [*content.texts, *setting_texts(settings)]
        tools = content.with_tools or any("tools" in place for place in settings)
        sent = replace(content, texts=texts, with_tools=tools).max_tokens
        return self.price.most(sent, self.output_limit(settings))


def unlimited(name: str) -> str:
    """Return why a budget cannot hold where nothing limits a model's answers."""
    return (
        "budget_usd can only be kept if an answer's length is limited, and nothing "
        f"limits {name}'s: set max_tokens"
    )


def _tier_price(name: str, tier: str | None) -> str:
    """Return what to write to give a model's service tier a price."""
    tiers = f"tiers={{{tier!r}: Price(…)}}"
    return f"prices={{{name!r}: Price(input=…, output=…, {tiers})}}"


def address_of(model: object) -> str | None:
    """Return where a model is asked: its client tells, else its own settings."""
    for name in ("root_client", "_client", "client"):
        with suppress(Exception):  # a client that cannot be made yet
            client = getattr(model, name, None)
            for each in (client, getattr(client, "_client", None)):
                if address := getattr(each, "base_url", None):
                    return str(address)
    return next(iter(addresses(model).values()), None)


def asked_tier(model: object, arguments: Mapping[str, Any]) -> str | None:
    """Return the service tier that a model's settings ask for, but the standard one.

    Arguments that are bound to it win.
    """
    names = ("extra_body", "additional_kwargs", "model_kwargs")
    settings = [getattr(model, name, None) or {} for name in names]
    bodies = [first_of(each, ("extra_body",)) for each in (arguments, *settings[1:])]
    return service_tier(arguments, bodies[0], model, *settings, *bodies[1:])


def addresses(model: object) -> dict[str, str]:
    """Return where a model is asked, by field, to distinguish models of one name.

    One name may mean another model at another place, such as behind a proxy.
    """
    places = {
        name: getattr(model, name, None)
        for name in getattr(type(model), "model_fields", {})
        if name.endswith(("base", "url", "endpoint"))
    }
    return {name: str(place) for name, place in places.items() if place is not None}


def fields_of(model: BaseModel) -> dict[str, Any]:
    """Return the fields of a model that may change its answers, nested ones too.

    Example:
        ```python
        from pydantic import BaseModel


        class Model(BaseModel):
            top_p: float = 1
            api_key: str = "secret"


        assert fields_of(Model()) == {"top_p": 1}
        ```
    """

    def read(value: Any) -> Any:
        inner = isinstance(value, BaseModel)
        return (type(value), fields_of(value)) if inner else value

    return {
        name: read(value)
        for name, value in model
        if name in type(model).model_fields and not _IRRELEVANT.search(name)
    }


def model_identity(model: BaseModel) -> Identity:
    """Return the identity of a model: another one where its answers may differ."""
    return identity((type(model), fields_of(model)))


def find_members(
    reference: Any,
    candidates: Sequence[Any],
    prices: Mapping[str, Price],
    read: Callable[[str, Any], Named],
) -> tuple[Member[Any], ...]:
    """Return the members, reference first, each with its price.

    The user's own prices come first. A model without one is looked up in the list of
    `genai-prices`, by its provider and the provider's name of it.

    Args:
        reference: A model, in any form that `read` knows.
        candidates: The same, at least one.
        prices: Model name → price.
        read: Told the field and what was given for it, returns the model.

    Raises:
        InvalidInputError: If there is no candidate, a model is named twice, or a price
            is for none of them while one of them has none.
        UnpricedError: If a price is missing.

    Example:
        ```python
        prices = {"big": Price(10, 30), "small": Price.free()}
        members = find_members("big", ["small"], prices, lambda _, it: Named(it, it))
        assert [member.name for member in members] == ["big", "small"]
        ```
    """
    listed = isinstance(candidates, Sequence) and not isinstance(candidates, str)
    if not listed or not candidates:
        hint = "name at least one cheaper model, in a list: candidates=[model]"
        raise InvalidInputError("candidates", candidates, hint)
    named = [read("reference", reference)]
    named += [read("candidates", candidate) for candidate in candidates]
    _check_keys(prices, named)
    members = [find_member(named[0], prices)]
    for candidate in named[1:]:
        member = replace(find_member(candidate, prices), window=candidate.window)
        if member.name == members[0].name:
            hint = "this is the reference; a candidate is another, cheaper model"
            raise InvalidInputError("candidates", member.name, hint)
        if any(member.name == other.name for other in members):
            hint = "named twice; set name= on one of them if their settings differ"
            raise InvalidInputError("candidates", member.name, hint)
        members.append(member)
        _warn_of_window(named[0], candidate)
    return tuple(members)


def _warn_of_window(reference: Named, candidate: Named) -> None:
    """Name a candidate that takes less than the reference, and the way out."""
    least, most = candidate.window, reference.window
    if least is not None and most is not None and least < most:
        warn(
            f"{candidate.name} takes {least:,} tokens, the reference {reference.name} "
            f"{most:,}: it is not asked about items that do not fit. If it takes more, "
            "say so where it is made (LangChain: profile={'max_input_tokens': …}; "
            "LlamaIndex: context_window=…)"
        )


def find_member(
    named: Named, prices: Mapping[str, Price], way_out: str | None = None
) -> Member[Any]:
    """Return a model with its price.

    Args:
        named: The model.
        prices: Model name → price; the list is asked about a model that is missing.
        way_out: What to write where no price is known.

    Raises:
        InvalidInputError: If no price is known.
    """
    price = next((prices[name] for name in named.names if name in prices), None)
    reason = "no price is known"
    if price is None and named.official and named.provider:
        try:
            price = listed_price(named.official, named.provider, named.address)
        except UnlistedError as error:
            reason += f", and {error}"
        except MissingExtraError as error:
            package = f"pip install 'smart-llm[{error.extra}]'"
            reason += f" without the list of the extra {error.extra!r} ({package})"
    tier = named.tier
    if price is not None and price.by_token and tier and tier not in price.tiers:
        reason = f"it asks for the service tier {tier!r}, whose price is unknown"
        way_out, price = way_out or _tier_price(named.name, tier), None
    if price is None:
        raise UnpricedError(named.name, reason=reason, way_out=way_out)
    return Member(named.name, named.model, price, arguments=named.arguments)


def _check_keys(prices: Mapping[str, Price], models: Sequence[Named]) -> None:
    """Raise if a price is for no model, while a model has none: it may be misspelt."""
    names = dict.fromkeys(name for model in models for name in model.names)
    without = [m.name for m in models if not any(name in prices for name in m.names)]
    for key in prices:
        if key not in names and without:
            near = get_close_matches(key, names, 1)
            known = f"did you mean {near[0]!r}?" if near else f"name {', '.join(names)}"
            hint = f"no model has this name, and {without[0]!r} has no price: {known}"
            raise InvalidInputError("prices", key, hint)
