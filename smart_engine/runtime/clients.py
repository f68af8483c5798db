"""Copies of models through which members are asked: what is billed is seen.

A provider's client repeats what failed, and what failed may have been billed: nobody
sees that. So members are asked through copies whose clients repeat nothing, and
attempts are made where each is reserved, booked and shown. The copies report their
usage in streams, too. The user's own model stays as it is. Clients are known by what
they offer, such as `with_options`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from inspect import isfunction
from typing import Any, NamedTuple, TypeVar, cast

from smart_engine.runtime.connections import by_loop
from smart_engine.serving.members import Member

__all__ = [
    "Once",
    "asked_once",
    "client_of",
    "is_the_users",
    "once",
    "reporting",
    "with_client",
]

M = TypeVar("M")
T = TypeVar("T")

_READ_AT_CALLS = {
    "langchain_fireworks.": 0,
    "langchain_google_genai.": 1,
    "langchain_google_vertexai.": 1,
    "langchain_mistralai.": 1,
    "llama_index.llms.bedrock_converse.": 1,
    "llama_index.llms.google_genai.": 0,
    "llama_index.llms.mistralai.": 0,
    "llama_index.llms.openai.": 0,
}
"""Packages whose models read `max_retries` at each call → its value for one request."""


class Once(NamedTuple):
    """A model, or a part of one, that makes each request once.

    Attributes:
        value: What the user gave, or a copy of it.
        retries: How often what the user gave makes a failed request again; None if it
            is no client.
        unseen: Whether `value` still does that: nothing turns it off from outside.
        way_out: What the user writes to turn it off.
    """

    value: Any
    retries: int | None = None
    unseen: bool = False
    way_out: str = "max_retries=0"


def reporting(model: T) -> T:
    """Return a model that reports its usage in streams, unless its user chose.

    LangChain's classes leave it open where they do not know the endpoint. As a setting,
    unlike an argument of the call, it reaches streams that take it and nothing else.
    """
    copied: Any = model
    if getattr(model, "stream_usage", ...) is not None:
        return model
    return cast("T", copied.model_copy(update={"stream_usage": True}))


def asked_once(model: Any) -> Once:
    """Return a copy of a model whose client makes each request once.

    The copy shares all else with the model, connections for synchronous calls included.

    Args:
        model: A model of LangChain or LlamaIndex.
    """
    model = reporting(model)
    own, found = model.model_copy(), list[Once]()
    for kind in type(model).__mro__:
        for name, part in vars(kind).items():
            if isinstance(part, cached_property) and name.endswith("client"):
                getattr(own, name)  # makes the client, which is replaced below
    changed = False
    for values in (own.__dict__, own.__pydantic_private__ or {}):
        for name, value in list(values.items()):
            part = _part(value)
            changed |= part.value is not value
            values[name] = part.value
            if part.retries is not None:
                found.append(part)
    chosen, off = getattr(model, "max_retries", None) or 0, _off(type(model))
    if off is not None:
        changed |= chosen != off
        own.__dict__["max_retries"] = off
        found.append(Once(own, chosen - off, way_out=f"max_retries={off}"))
    elif chosen and not found:
        found.append(Once(own, chosen, unseen=True))
    stuck = [part for part in found if part.unseen]
    retries = max([0, *(part.retries or 0 for part in found)])
    way_out = (stuck or found or [Once(own)])[-1].way_out
    if stuck:  # all of it repeats: attempts of ours would come on top
        return Once(model, retries, unseen=True, way_out=way_out)
    return Once(own if changed else model, retries, way_out=way_out)


def once(member: Member[M]) -> Member[M]:
    """Return a member that holds such a copy of its model."""
    found = asked_once(member.model)
    if found.unseen:
        return replace(member, model=found.value, unseen=found.way_out)
    return replace(member, model=found.value, retries=found.retries or 0)


def _off(kind: type[Any]) -> int | None:
    """Return the `max_retries` for one request, if models of a class read it."""
    modules = [f"{each.__module__}." for each in kind.__mro__]
    for package, off in _READ_AT_CALLS.items():
        if any(module.startswith(package) for module in modules):
            return off
    return None


def _part(value: Any) -> Once:
    """Return a client, or a part of one, that makes each request once."""
    client = client_of(value)
    if client is not None:
        if is_the_users(value, client) or is_the_users(client, client):
            return Once(value, client.max_retries, unseen=client.max_retries > 0)
        http = getattr(client, "_client", None)
        own = {} if by_loop(http) is http else {"http_client": by_loop(http)}
        try:
            copy = with_client(value, client.with_options(max_retries=0, **own))
        except Exception:  # noqa: BLE001 - a subclass of the user's may take no copies
            return Once(value, client.max_retries, unseen=client.max_retries > 0)
        return Once(copy, client.max_retries)
    settings = getattr(getattr(value, "meta", None), "config", None)
    attempts = getattr(settings, "retries", None)  # of botocore, which takes no copies
    if isinstance(attempts, dict) and "mode" in attempts:
        retries = attempts.get("total_max_attempts", 5) - 1
        way_out = "a client with Config(retries={'total_max_attempts': 1})"
        return Once(value, retries, retries > 0, way_out)
    return Once(by_loop(value))


def is_the_users(part: Any, client: Any) -> bool:
    """Whether a copy of a client, or of a part of one, may lose what the user added.

    That is a class of the user's, or a function over a method, as tracers put it there.
    """
    kind = type(part)
    sdk = next((each for each in kind.__mro__ if "with_options" in vars(each)), kind)
    if kind.__module__.partition(".")[0] != sdk.__module__.partition(".")[0]:
        return True
    own = vars(part).items()
    return any(isfunction(getattr(kind, name, None)) for name, _ in own) or any(
        is_the_users(inner, client)
        for _, inner in own
        if inner is not client and getattr(inner, "_client", None) is client
    )


def client_of(value: Any) -> Any:
    """Return the client that a value is, or is a part of; None if it is neither."""
    client: Any = value if _repeats(value) else getattr(value, "_client", None)
    return client if _repeats(client) else None


def with_client(value: Any, client: Any) -> Any:
    """Return a client, or the same part of it as a value is of another client."""
    return client if _repeats(value) else type(value)(client)  # `chat.completions`


def _repeats(value: Any) -> bool:
    """Whether a value is a client as the SDKs of OpenAI, Anthropic and Groq have it."""
    retries = getattr(value, "max_retries", None)
    return isinstance(retries, int) and callable(getattr(value, "with_options", None))
