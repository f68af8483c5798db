"""Members whose calls are carried in batches: which can be, and how they are asked.

Such a member is a copy of the user's whose clients take part in an exchange; it has the
price of a batch. The user's own model, and single calls, stay as they are.
"""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from inspect import iscoroutinefunction
from typing import Any, TypeVar, cast

from smart_engine.errors import InvalidInputError, choose
from smart_engine.runtime.clients import client_of, is_the_users, with_client
from smart_engine.runtime.lanes.carrier import Carrier
from smart_engine.runtime.lanes.courier import Courier, Pace
from smart_engine.runtime.lanes.exchange import through_exchange
from smart_engine.runtime.lanes.openai_form import OpenAIBatches
from smart_engine.serving.members import Member
from smart_engine.serving.submissions import MemorySubmissions, SubmissionStore

__all__ = ["LANES", "Carry", "Lanes", "by_batch"]

M = TypeVar("M")

LANES = ("live", "batch")
"""How the calls of a batch may be made."""

PACE = Pace()
"""How often batches are looked at."""

Carry = Callable[[Member[Any]], tuple[Member[Any], Carrier]]


@dataclass(frozen=True)
class Lanes:
    """How a smart object's batches ask its members.

    Attributes:
        members: The members that are not asked live, by name.
        carriers: Who carries their requests.
    """

    members: Mapping[str, Member[Any]] = field(default_factory=dict)
    carriers: Mapping[str, Carrier] = field(default_factory=dict)

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
            carry: Returns a member as batches ask it, and who carries its requests;
                `by_batch` if left out.

        Raises:
            InvalidInputError: If there is no such lane or member, or a member cannot be
                asked in its lane.
        """
        if isinstance(lane, str):
            lane = dict.fromkeys(members, _known(lane))
        carried: dict[str, Member[Any]] = {}
        carriers: dict[str, Carrier] = {}
        for name, chosen in lane.items():
            if name not in members:
                hint = f"name members: {', '.join(members)}"
                raise InvalidInputError("lane", name, hint)
            if _known(chosen) == "batch":
                carried[name], carriers[name] = (carry or by_batch)(members[name])
        return cls(carried, carriers)

    def courier(self, submissions: SubmissionStore | None) -> Courier | None:
        """Return who carries the calls of a job; None if all are asked live.

        Args:
            submissions: What is remembered of its batches, if that is kept anywhere.
        """
        if not self.carriers:
            return None
        if submissions is None:
            submissions = MemorySubmissions(secrets.token_hex(12))
        return Courier(self.carriers, submissions, PACE)


def _known(lane: object) -> str:
    if not isinstance(lane, str):
        hint = f"one of {', '.join(LANES)}, or one for each member: {{'big': 'batch'}}"
        raise InvalidInputError("lane", lane, hint)
    return choose("lane", lane, dict.fromkeys(LANES, lane))


def by_batch(member: Member[M]) -> tuple[Member[M], Carrier]:
    """Return a member whose requests can be carried, and who carries them.

    Raises:
        InvalidInputError: If they cannot be.
    """
    own: Any = cast("Any", member.model).model_copy()
    carrier: Carrier | None = None
    for values in (own.__dict__, own.__pydantic_private__ or {}):
        for name, value in list(values.items()):
            client = client_of(value)
            if client is None or not hasattr(client, "_client"):
                continue
            if is_the_users(value, client) or is_the_users(client, client):
                raise _refused(member, "a copy of its client may lose what was added")
            try:
                http = through_exchange(client._client)  # noqa: SLF001
                values[name] = with_client(value, client.with_options(http_client=http))
            except Exception as error:
                why = f"its client takes no copies ({error})"
                raise _refused(member, why) from error
            carrier = carrier or _carrier(client)
    if carrier is None:
        raise _refused(member, "its client has no /v1/files and /v1/batches")
    if getattr(own, "streaming", False):
        own.__dict__["streaming"] = False
    if getattr(own, "rate_limiter", None) is not None:
        own.__dict__["rate_limiter"] = None
    return replace(member, model=own, price=_price(member)), carrier


def _carrier(client: Any) -> Carrier | None:
    """Return who carries what is sent to a client's provider, by a synchronous one."""
    kinds = {kind.__name__ for kind in type(client).__mro__}
    parts = ("files", "batches", "chat")
    known = all(hasattr(client, part) for part in parts) and "AzureOpenAI" not in kinds
    if not known or iscoroutinefunction(client.request):
        return None
    return OpenAIBatches(client.with_options(max_retries=0))


def _price(member: Member[Any]) -> Any:
    price = member.price
    if price.by_token and "batch" not in price.tiers:
        warnings.warn(
            f"no batch price of {member.name} is known: its batches are charged at the "
            f"standard price; add prices={{{member.name!r}: Price(…, batch=Price(…))}}",
            stacklevel=2,
        )
    return price.at("batch")


def _refused(member: Member[Any], why: str) -> InvalidInputError:
    hint = (
        f"{member.name} ({type(member.model).__name__}) cannot be asked in batches: "
        f"{why}; ask it live, by lane={{…}} with the names of the others"
    )
    return InvalidInputError("lane", "batch", hint)
