"""The chat models behind a smart model: how they are given, identified and called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from langchain_core.language_models import ModelProfile
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.runnables import Runnable, RunnableBinding

from smart_engine.equivalence.identity import identity
from smart_engine.errors import InvalidInputError
from smart_engine.runtime.settings import refuse_smart
from smart_engine.serving.bindings import unbound
from smart_engine.serving.members import (
    Member,
    Named,
    address_of,
    addresses,
    asked_tier,
)

__all__ = [
    "BoundModel",
    "ChatMember",
    "identity_of",
    "load_model",
    "read_model",
    "shared_profile",
    "unwrapped",
]

ChatMember = Member[BaseChatModel]
"""A LangChain chat model behind a smart model."""


def identity_of(member: ChatMember) -> tuple[str, str]:
    """Return a member's name, and a text that identifies its model and settings."""
    model, bound = member.model, member.arguments
    parts = (model._identifying_params, addresses(model))  # noqa: SLF001
    return member.name, repr((*parts, identity(bound).mark) if bound else parts)


def shared_profile(members: Sequence[ChatMember]) -> ModelProfile | None:
    """Return what all members can do, and how much the reference takes and writes.

    Candidates sit out what does not fit into them. It is None where the reference has
    no profile.
    """
    profiles: list[Any] = [member.model.profile for member in members]
    own, *others = profiles
    if own is None:
        return None
    shared: dict[str, Any] = {}
    for key, value in own.items():
        if isinstance(value, int) and not isinstance(value, bool):
            shared[key] = value
        elif None not in others:
            values = [profile.get(key) for profile in others]
            if isinstance(value, bool):
                shared[key] = value and all(values)
            elif all(other == value for other in values):
                shared[key] = value
    return cast("ModelProfile", shared)


def read_model(field: str, given: Any) -> Named:
    """Return the model that the user gave for a field: itself, bound, or a string.

    Raises:
        InvalidInputError: If it is none of these, names no known model, is a smart
            model, or has more around it than configuration.
    """
    model = load_model(field, given) if isinstance(given, str) else given
    model, bound = unbound(field, model, BaseChatModel)
    refuse_smart(field, model)
    if not isinstance(model, BaseChatModel):
        hint = "give a LangChain chat model or a string such as 'openai:gpt-5-mini'"
        raise InvalidInputError(field, model, hint)
    params = model._get_ls_params(**bound)  # noqa: SLF001 - core's own
    official, provider = params.get("ls_model_name"), params.get("ls_provider")
    name = model.name or official or type(model).__name__
    string = given if isinstance(given, str) else None
    asked = (address_of(model), asked_tier(model, bound))
    window = (model.profile or {}).get("max_input_tokens")
    return Named(name, model, official, provider, string, *asked, window, bound)


def load_model(field: str, name: str, **settings: Any) -> BaseChatModel:
    """Return the model that a string for `init_chat_model` names.

    Raises:
        InvalidInputError: If it names no known model, or one that cannot be made.
    """
    try:
        from langchain.chat_models import init_chat_model
    except ModuleNotFoundError as error:
        hint = "naming a model by a string needs: pip install 'smart-llm[agents]'"
        raise InvalidInputError(field, name, hint) from error
    try:
        return cast("BaseChatModel", init_chat_model(name, **settings))
    except Exception as error:
        hint = f"init_chat_model could not make this model: {error}"
        raise InvalidInputError(field, name, hint) from error


@dataclass(frozen=True, slots=True)
class BoundModel:
    """A model and what it is called with.

    Attributes:
        model: The model to call: never a binding, whose empty config would bring the
            ambient callbacks back in.
        arguments: What it is called with beside the messages.
        parser: Turns its messages into the object that was asked for, if one was.
    """

    model: BaseChatModel
    arguments: dict[str, Any] = field(default_factory=dict)
    parser: Runnable[Any, Any] | None = None


def unwrapped(runnable: Runnable[Any, Any]) -> tuple[Any, dict[str, Any]]:
    """Return what bindings are around, and all arguments that they bind to it."""
    arguments: dict[str, Any] = {}
    while isinstance(runnable, RunnableBinding):
        arguments = {**runnable.kwargs, **arguments}
        runnable = runnable.bound
    return runnable, arguments
