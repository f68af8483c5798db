"""The LLMs behind a smart one: how they are given, named and distinguished."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from llama_index.core.base.llms.types import (
    ChatResponse,
    CompletionResponse,
    LLMMetadata,
)
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms import LLM
from llama_index.core.llms.structured_llm import StructuredLLM
from pydantic import BaseModel

from smart_engine.equivalence.identity import identity
from smart_engine.errors import InvalidInputError
from smart_engine.runtime.clients import once
from smart_engine.runtime.connections import by_loop
from smart_engine.runtime.lanes import members as lanes
from smart_engine.runtime.lanes.carrier import Carrier
from smart_engine.runtime.settings import refuse_smart
from smart_engine.serving.bindings import unbound
from smart_engine.serving.members import (
    Member,
    Named,
    address_of,
    addresses,
    asked_tier,
    fields_of,
)

__all__ = [
    "LLMMember",
    "Response",
    "asked_once",
    "carried",
    "identity_of",
    "read_model",
    "shared_metadata",
]

LLMMember = Member[LLM]
"""A LlamaIndex LLM behind a smart one."""

Response = ChatResponse | CompletionResponse


def read_model(field: str, given: Any) -> Named:
    """Return the LLM that the user gave for a field, without callbacks.

    It shares its client and settings with the model that was given.

    Args:
        field: Where it was given.
        given: A LlamaIndex LLM, or a LangChain chat model, with arguments bound or not.

    Raises:
        InvalidInputError: If it is neither, or a structured LLM, whose objects would be
            compared by how they are written out, or a smart model.
    """
    bound: dict[str, Any] = {}
    if "langchain_core" in sys.modules and not isinstance(given, LLM):
        from langchain_core.language_models.chat_models import BaseChatModel

        given, bound = unbound(field, given, BaseChatModel)
        if isinstance(given, BaseChatModel):
            from llama_index_smart.langchain_llm import LangChainLLM

            given = LangChainLLM(model=given)
    refuse_smart(field, given)
    refuse_smart(field, getattr(given, "model", None))  # within a `LangChainLLM`
    if isinstance(given, StructuredLLM):
        hint = (
            f"an LLM of {given.output_cls.__name__} objects tells only their text: "
            "give the LLM itself, and ask smart.as_structured_llm(…) for the objects"
        )
        raise InvalidInputError(field, "StructuredLLM", hint)
    if not isinstance(given, LLM):
        hint = "give a LlamaIndex LLM, such as OpenAI(model=…), or a LangChain model"
        raise InvalidInputError(field, given, hint)
    nobody = CallbackManager()
    nobody.handlers = []  # without any it has those of `Settings`
    silent = given.model_copy(update={"callback_manager": nobody})
    name = given.metadata.model_name
    if not name or name == "unknown":
        name = getattr(given, "model", None) or given.class_name()
    inner = getattr(given, "model", None)
    asked = inner if hasattr(inner, "_get_ls_params") else given  # LangChain's own
    address, tier = address_of(asked), asked_tier(asked, bound)
    provider = _provider(asked)
    window: int | None = given.metadata.context_window
    if asked is not given:  # where LangChain knows nothing, that is a mere default
        window = (getattr(asked, "profile", None) or {}).get("max_input_tokens")
    found = (None, address, tier, window, bound)
    return Named(str(name), silent, str(name), provider, *found)


def _provider(model: Any) -> str | None:
    """Return who serves a model, where its class tells."""
    if hasattr(model, "_get_ls_params"):
        return str(model._get_ls_params().get("ls_provider"))  # noqa: SLF001 - core's own
    package, kind, *rest = [*type(model).__module__.split("."), "", ""]
    return rest[0] if (package, kind) == ("llama_index", "llms") else None


def asked_once(member: LLMMember) -> LLMMember:
    """Return a member that holds a copy of its model, whose client repeats nothing."""
    model: Any = member.model
    if isinstance(getattr(model, "model", None), BaseModel):  # LangChain's
        own: LLMMember = once(replace(member, model=model.model))
        return replace(own, model=model.model_copy(update={"model": own.model}))
    own = once(member)
    model = own.model
    made_later = getattr(model, "_aclient", ...) is None
    if made_later and model.reuse_client and model._async_http_client is None:  # noqa: SLF001
        model._async_http_client = _shared_http()  # noqa: SLF001
    return own


def carried(member: LLMMember, lane: str) -> tuple[LLMMember, Carrier | None]:
    """Return a member as it is asked in a lane, and who carries its requests, if so.

    Raises:
        InvalidInputError: If it cannot be asked so.
    """
    model: Any = member.model
    if isinstance(getattr(model, "model", None), BaseModel):  # LangChain's
        inner, carrier = lanes.carried(replace(member, model=model.model), lane)
        own = model.model_copy(update={"model": inner.model})
        return replace(inner, model=own), carrier
    if hasattr(model, "_get_client"):  # OpenAI's make theirs when they are called
        model = model.model_copy()
        model._client, model._aclient = model._get_client(), model._get_aclient()  # noqa: SLF001
        model.__dict__["reuse_client"] = True
    return lanes.carried(replace(member, model=model), lane)


@cache
def _shared_http() -> Any:
    """Return what OpenAI's models use that would make one each when they are called."""
    from openai import DefaultAsyncHttpxClient

    return by_loop(DefaultAsyncHttpxClient())


def identity_of(member: LLMMember) -> tuple[str, str]:
    """Return a member's name, and a text that tells its model and settings apart.

    Whose key it is asked with, how often and how long, makes no difference.
    """
    model, bound = member.model, member.arguments
    params = getattr(getattr(model, "model", None), "_identifying_params", None)
    if params is not None:  # LangChain's own
        parts = (params, addresses(model.model))  # type: ignore[attr-defined]
        return member.name, repr((*parts, identity(bound).mark) if bound else parts)
    fields = identity(fields_of(model)).mark
    return member.name, repr((model.class_name(), model.metadata, fields))


def shared_metadata(members: Sequence[LLMMember]) -> LLMMetadata:
    """Return what all members can do, and how much the reference takes and writes.

    Candidates sit out what does not fit into them.
    """
    tables = [member.model.metadata for member in members]
    calls_functions = (table.is_function_calling_model for table in tables)
    return LLMMetadata(
        context_window=tables[0].context_window,
        num_output=tables[0].num_output,
        is_chat_model=all(table.is_chat_model for table in tables),
        is_function_calling_model=all(calls_functions),
        model_name="smart",
        system_role=tables[0].system_role,
    )
