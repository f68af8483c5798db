"""What a smart model is: its members, what it promises, what it tells of itself."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Annotated, Any

from langchain_core.language_models import LangSmithParams, ModelProfile
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import BaseMessage, SystemMessage
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.outputs import ChatGeneration, Generation
from pydantic import ConfigDict, Field, PrivateAttr, SkipValidation
from typing_extensions import override

from langchain_smart.bounds import output_limit
from langchain_smart.estimates import estimated
from langchain_smart.members import (
    ChatMember,
    Estimate,
    read_model,
    shared_profile,
)
from langchain_smart.promise import Promise
from langchain_smart.requests import SCHEMA, Request
from langchain_smart.runs import RUN
from langchain_smart.tools import Tools
from smart_engine.serving.members import addresses, find_members
from smart_engine.serving.profile import Persistence
from smart_engine.store.store import Store

__all__ = ["SmartSettings"]


class SmartSettings(Promise, BaseChatModel):
    """The fields of a smart model, checked before anything is spent.

    See `SmartChatModel` for what they mean.
    """

    model_config = ConfigDict(extra="forbid")

    reference: Annotated[BaseChatModel | str, SkipValidation] = Field(frozen=True)
    candidates: Annotated[Sequence[BaseChatModel | str], SkipValidation] = Field(
        frozen=True
    )
    temperature: float | None = None
    max_tokens: int | None = None
    timeout: float | None = None
    stop: list[str] | None = None
    max_retries: Annotated[int, Field(ge=0)] | None = None
    streaming: bool = False

    _members: tuple[ChatMember, ...] = PrivateAttr()

    @override
    def model_post_init(self, context: Any, /) -> None:
        """Check everything before anything is spent."""
        self._members = find_members(
            self.reference, self.candidates, self.prices, read_model
        )
        reference, *candidates = (member.model for member in self._members)
        prices = {member.name: member.price for member in self._members}
        self.__dict__.update(
            reference=reference,
            candidates=candidates,
            prices={**self.prices, **prices},
        )
        self._open()

    @override
    def _check_bounds(self) -> None:
        if self.budget_usd is not None:
            for member in self._members:
                output_limit(member, self._defaults)

    @property
    @override
    def _names(self) -> tuple[str, ...]:
        return tuple(member.name for member in self._members)

    def _models_told(self) -> Iterator[tuple[str, str]]:
        """Yield each member's name, and a text that tells its settings."""
        for member in self._members:
            model = member.model
            told = (model._identifying_params, addresses(model))  # noqa: SLF001
            yield member.name, repr(told)

    def _keeping(
        self, messages: Sequence[BaseMessage], request: Request
    ) -> Persistence | None:
        """Return how the stream of a request is kept, if there is a store."""
        if not isinstance(self.store, Store):
            return None

        def prompt() -> str:
            systems = [m.content for m in messages if isinstance(m, SystemMessage)]
            return repr((systems, request.tools, request.schema, self._defaults))

        return Persistence(self.store, self._models_told, prompt)

    def _estimate(
        self, messages: Sequence[BaseMessage], request: Request
    ) -> Estimate | None:
        """Return what estimates the usage of a call, if that is allowed."""
        return partial(estimated, messages, request) if self.estimate_usage else None

    def _request(self, stop: list[str] | None, kwargs: dict[str, Any]) -> Request:
        """Return what a call's keyword arguments ask for."""
        return Request.read(stop, kwargs, self._defaults)

    @property
    def _defaults(self) -> dict[str, Any]:
        """What the fields set for calls that set nothing else."""
        names = ("temperature", "max_tokens", "timeout", "stop", "max_retries")
        given = {name: getattr(self, name) for name in names}
        return {name: value for name, value in given.items() if value not in (None, [])}

    # -- what LangChain asks of a chat model -----------------------------------

    @property
    @override
    def _llm_type(self) -> str:
        return "smart"

    @property
    @override
    def _identifying_params(self) -> dict[str, Any]:
        return {
            "models": [
                {"name": member.name, **member.model._identifying_params}  # noqa: SLF001
                for member in self._members
            ],
            "max_disagreement": self.max_disagreement,
            "confidence": self.confidence,
            "strategy": self.strategy,
            "looks": self.looks,
            "equivalence": self._rule.name,
            "seed": self.seed,
            **({} if self.task is None else {"task": self.task}),
            **self._defaults,
        }

    @override
    def _get_invocation_params(
        self, stop: list[str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        params = super()._get_invocation_params(stop=stop, **kwargs)
        params.pop(RUN, None)
        tools, schema = params.get("tools"), params.pop(SCHEMA, None)
        if isinstance(tools, Tools):
            params.update({**tools.options, "tools": list(tools)})
        if schema is not None:
            params["response_format"] = schema.told
        return params

    @override
    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        kwargs.pop(RUN, None)  # whoever watches, the answer is the same
        return super()._get_llm_string(stop=stop, **kwargs)

    @override
    def _convert_cached_generations(
        self, cache_val: list[Generation]
    ) -> list[ChatGeneration]:
        generations = super()._convert_cached_generations(cache_val)
        for generation in generations:
            message = generation.message
            told = message.response_metadata.get("smart")
            if told is not None:  # what is in the cache was paid for before
                smart = {k: v for k, v in told.items() if k != "estimated"}
                smart["cost"] = 0.0
                metadata = {**message.response_metadata, "smart": smart}
                update = {"response_metadata": metadata}
                generation.message = message.model_copy(update=update)
        return generations

    @override
    def _get_ls_params(
        self, stop: list[str] | None = None, **kwargs: Any
    ) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop or self.stop, **kwargs)
        params["ls_provider"] = "smart"
        params.setdefault("ls_model_name", self.get_name())
        return params

    @override
    def _resolve_model_profile(self) -> ModelProfile | None:
        return shared_profile(self._members)

    @override
    def get_token_ids(self, text: str) -> list[int]:
        return self._members[0].model.get_token_ids(text)

    @override
    def get_num_tokens(self, text: str) -> int:
        """Count tokens as the reference does, or roughly where that fails offline."""
        try:
            return self._members[0].model.get_num_tokens(text)
        except Exception:  # noqa: BLE001 - such as a tokenizer that cannot be fetched
            return math.ceil(len(text) / 4)

    @override
    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[Any] | None = None
    ) -> int:
        """Count tokens as the reference does, or roughly where that fails offline."""
        model = self._members[0].model
        try:
            return model.get_num_tokens_from_messages(messages, tools)
        except Exception:  # noqa: BLE001 - such as a tokenizer that cannot be fetched
            return count_tokens_approximately(messages)
