"""Members that are not asked live: which can be asked in a lane, and how they are.

Such a member is a copy of the user's whose clients have transports of ours: they take
part in an exchange, or ask for flex. The user's own model stays as it is.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from inspect import iscoroutinefunction
from typing import Any, TypeVar, cast

from smart_engine.errors import InvalidInputError, choose
from smart_engine.money.pricing import Price
from smart_engine.runtime.clients import client_of, is_the_users, with_client
from smart_engine.runtime.lanes.anthropic_form import AnthropicBatches
from smart_engine.runtime.lanes.carrier import Carrier
from smart_engine.runtime.lanes.dispatcher import Dispatcher, Pace
from smart_engine.runtime.lanes.exchange import through_exchange
from smart_engine.runtime.lanes.flex import by_flex
from smart_engine.runtime.lanes.openai_form import OpenAIBatches
from smart_engine.serving.members import Member
from smart_engine.serving.submissions import MemorySubmissions, SubmissionStore
from smart_engine.warn import warn

__all__ = ["LANES", "Carry", "Lanes", "carried"]

M = TypeVar("M")

LANES = ("live", "batch", "flex", "auto")
"""How calls may be made."""

_AZURE = {"AzureOpenAI", "AsyncAzureOpenAI"}

PACE = Pace()
"""How often batches are looked at."""

Carry = Callable[[Member[Any], str], tuple[Member[Any], "Carrier | None"]]


@dataclass(frozen=True)
class Lanes:
    """How a smart object asks its members.

    Attributes:
        single: Those that single calls ask in another way than live, by name.
        in_batches: Those that batches ask in another way than live.
        carriers: Who carries the requests of those that are asked in batches.
        auto: Names of those that are asked so only where there are many requests.
    """

    single: Mapping[str, Member[Any]] = field(default_factory=dict)
    in_batches: Mapping[str, Member[Any]] = field(default_factory=dict)
    carriers: Mapping[str, Carrier] = field(default_factory=dict)
    auto: frozenset[str] = frozenset()

    @classmethod
    def read(
        cls,
        lane: str | Mapping[str, str],
        members: Mapping[str, Member[Any]],
        carry: Carry | None = None,
    ) -> Lanes:
        """Return how members are asked.

        Args:
            lane: A lane for all members, or by name for some.
            members: The members.
            carry: Returns a member as it is asked in a lane, and who carries its
                requests, if anybody does; `carried` if left out.

        Raises:
            InvalidInputError: If there is no such lane or member, or a member cannot be
                asked in its lane.
        """
        if isinstance(lane, str):
            lane = dict.fromkeys(members, _known(lane))
        single: dict[str, Member[Any]] = {}
        in_batches: dict[str, Member[Any]] = {}
        carriers: dict[str, Carrier] = {}
        for name, chosen in lane.items():
            if name not in members:
                hint = f"name members: {', '.join(members)}"
                raise InvalidInputError("lane", name, hint)
            if _known(chosen) == "live":
                continue
            in_batches[name], carrier = (carry or carried)(members[name], chosen)
            if carrier is None:
                single[name] = in_batches[name]
            else:
                carriers[name] = carrier
        auto = frozenset(name for name, chosen in lane.items() if chosen == "auto")
        return cls(single, in_batches, carriers, auto)

    def dispatcher(self, submissions: SubmissionStore | None) -> Dispatcher | None:
        """Return who carries the calls of a job; None if all are asked live.

        Args:
            submissions: What is remembered of its batches, if that is kept anywhere.
        """
        if not self.carriers:
            return None
        if submissions is None:
            submissions = MemorySubmissions(secrets.token_hex(12))
        return Dispatcher(self.carriers, self.auto, submissions, PACE)

    def price(self, name: str, *, batch: bool) -> Price | None:
        """Return what a member is expected to charge, where it is not asked live."""
        member = (self.in_batches if batch else self.single).get(name)
        return None if member is None else member.price.at("flex")


def _known(lane: object) -> str:
    if not isinstance(lane, str):
        hint = f"one of {', '.join(LANES)}, or one for each member: {{'big': 'batch'}}"
        raise InvalidInputError("lane", lane, hint)
    return choose("lane", lane, dict.fromkeys(LANES, lane))


def carried(member: Member[M], lane: str) -> tuple[Member[M], Carrier | None]:
    """Return a member as it is asked in a lane, and who carries its requests, if so.

    Raises:
        InvalidInputError: If it cannot be asked so.
    """
    own: Any = cast("Any", member.model).model_copy()
    carrier: Carrier | None = None
    copied = by_flex if lane == "flex" else through_exchange
    lane = lane if lane == "flex" else "batch"
    for values in (own.__dict__, own.__pydantic_private__ or {}):
        for name, value in list(values.items()):
            client = client_of(value)
            if client is None or not hasattr(client, "_client"):
                continue
            if why := _refusal(value, client, lane):
                raise _refused(member, lane, why)
            try:
                http = copied(client._client)  # noqa: SLF001
                values[name] = with_client(value, client.with_options(http_client=http))
            except Exception as error:
                why = f"its client takes no copies ({error})"
                raise _refused(member, lane, why) from error
            carrier = carrier or _carrier(client)
    if carrier is None or (lane == "flex" and not isinstance(carrier, OpenAIBatches)):
        raise _refused(member, lane, _unknown(own))
    if lane == "flex":
        _check_price(member, lane)
        return replace(member, model=own), None
    if getattr(own, "streaming", False):
        own.__dict__["streaming"] = False
    if getattr(own, "rate_limiter", None) is not None:
        own.__dict__["rate_limiter"] = None
    return replace(member, model=own, price=_check_price(member, lane)), carrier


def _refusal(value: Any, client: Any, lane: str) -> str | None:
    """Return why a model with such a client cannot be asked in a lane, if so."""
    if is_the_users(value, client) or is_the_users(client, client):
        return "a copy of its client may lose what was added"
    if lane == "batch" and _kinds(client) & _AZURE:
        kind = "deployments of a kind of their own, which answer no live calls"
        return f"Azure takes batches of {kind}"
    return None


def _unknown(model: Any) -> str:
    """Return why a model has no client that lanes can use."""
    parts = [*model.__dict__.values(), *(model.__pydantic_private__ or {}).values()]
    if any(type(part).__module__.startswith("google.genai") for part in parts):
        return "Gemini's batches and tiers have a form of their own, which no lane has"
    return "its client is not known to offer that"


def _kinds(client: Any) -> set[str]:
    """Return the names of a client's classes; their packages may not be installed."""
    return {kind.__name__ for kind in type(client).__mro__}


def _carrier(client: Any) -> Carrier | None:
    """Return who carries what is sent to a client's provider, by a synchronous one."""
    kinds = _kinds(client)
    if iscoroutinefunction(client.request) or kinds & _AZURE:
        return None
    if all(hasattr(client, part) for part in ("files", "batches", "chat")):
        return OpenAIBatches(client.with_options(max_retries=0))
    if "Anthropic" in kinds:  # others have its messages, but not its batches
        return AnthropicBatches(client.with_options(max_retries=0))
    return None


def _check_price(member: Member[Any], lane: str) -> Any:
    """Return a member's price in a lane; warn if it is not known to be lower."""
    price, name = member.price, member.name
    if price.by_token and lane not in price.tiers:
        form = "batch=Price(…)" if lane == "batch" else "tiers={'flex': Price(…)}"
        warn(
            f"no {lane} price of {name} is known: its calls are charged at the "
            f"standard price; add prices={{{name!r}: Price(…, {form})}}"
        )
    return price.at(lane)


def _refused(member: Member[Any], lane: str, why: str) -> InvalidInputError:
    hint = (
        f"{member.name} ({type(member.model).__name__}) cannot be asked by {lane}: "
        f"{why}; ask it live, by lane={{…}} with the names of the others"
    )
    return InvalidInputError("lane", lane, hint)
