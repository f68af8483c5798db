"""The models behind a smart model: which they are and what their messages cost."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from langchain_core.language_models import ModelProfile
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage

from smart_engine.calls import Failure, Outcome
from smart_engine.errors import InvalidInputError, SmartError
from smart_engine.pricing import Price, Usage

__all__ = ["Member", "MissingUsageError", "find_members", "shared_profile"]


class MissingUsageError(SmartError):
    """A model reported no usable token usage: what its answer cost is unknown."""


@dataclass(frozen=True, slots=True)
class Member:
    """One model behind a smart model.

    Attributes:
        name: Its name in reports, certificates and `prices`.
        model: The chat model itself.
        price: What it charges.
    """

    name: str
    model: BaseChatModel
    price: Price

    def outcome(self, message: AIMessage) -> Outcome | Failure:
        """What a message brought, priced by the usage it reports.

        A reply from LangChain's cache is paid and counted once, when it is made.
        """
        reported = message.usage_metadata
        if reported is not None:
            cached = reported.get("total_cost") == 0  # how core marks such a reply
            usage = Usage(reported["input_tokens"], reported["output_tokens"])
            if min(usage.input_tokens, usage.output_tokens) >= 0:
                cost = self.price.cost(usage)
                billed = Usage() if cached else usage
                sure = _confidence(message)
                return Outcome(message, cost, billed, sure, cached=cached)
        elif self.price == Price.free():
            return Outcome(message, 0.0, Usage(), _confidence(message))
        error = MissingUsageError(
            f"{self.name} reported no usage_metadata that can be priced ({reported}), "
            "so its cost is unknown: turn usage reporting on (ChatOpenAI: "
            "stream_usage=True), or give it Price.free() if it costs nothing"
        )
        warnings.warn(str(error), stacklevel=2)
        return Failure(error)


def _confidence(message: AIMessage) -> float | None:
    """Return a model's own score of its answer, 0 to 1, if its message carries one.

    `response_metadata["confidence"]` wins. Otherwise it is the geometric mean of the
    probabilities of the answer's tokens: unlike their product it does not sink with
    the answer's length, so that scores of long and short answers can be compared; on
    an answer of one token, such as a label, both are the same.
    """
    metadata = message.response_metadata
    stated = metadata.get("confidence")
    if isinstance(stated, int | float) and not isinstance(stated, bool):
        return float(stated)
    try:
        logs = [float(token["logprob"]) for token in metadata["logprobs"]["content"]]
        return math.exp(min(0.0, sum(logs) / len(logs)))
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None  # none asked for, or none of the form that OpenAI has set


def shared_profile(members: Sequence[Member]) -> ModelProfile | None:
    """Return what all members can do, None where that is unknown of one of them."""
    profiles = [member.model.profile for member in members]
    if any(profile is None for profile in profiles):
        return None
    tables: list[dict[str, Any]] = [dict(profile or {}) for profile in profiles]
    shared = {}
    for key, value in tables[0].items():
        values = [table.get(key) for table in tables]
        if isinstance(value, bool):
            shared[key] = all(values)
        elif isinstance(value, int) and all(isinstance(v, int) for v in values):
            shared[key] = min(v for v in values if v is not None)
        elif all(other == value for other in values):
            shared[key] = value
    return cast("ModelProfile", shared)


def find_members(
    reference: BaseChatModel | str,
    candidates: Sequence[BaseChatModel | str],
    prices: Mapping[str, Price],
) -> tuple[Member, ...]:
    """Return the members, reference first, each with its price.

    Args:
        reference: A chat model, or a string for `init_chat_model`.
        candidates: The same, at least one.
        prices: Model name → price.

    Raises:
        InvalidInputError: If there is no candidate, a model is named twice, a string
            names no known model, or a price is missing.
    """
    listed = isinstance(candidates, Sequence) and not isinstance(candidates, str)
    if not listed or not candidates:
        shown = candidates if isinstance(candidates, str | Sequence) else ...
        hint = "name at least one cheaper model, in a list"
        raise InvalidInputError("candidates", shown, hint)
    members = [_member("reference", reference, prices)]
    for candidate in candidates:
        member = _member("candidates", candidate, prices)
        if member.name == members[0].name:
            hint = "this is the reference; a candidate is another, cheaper model"
            raise InvalidInputError("candidates", member.name, hint)
        if any(member.name == other.name for other in members):
            hint = "named twice; set name= on one of them if their settings differ"
            raise InvalidInputError("candidates", member.name, hint)
        members.append(member)
    return tuple(members)


def _member(field: str, given: Any, prices: Mapping[str, Price]) -> Member:
    """Return one member with its price."""
    model = _load(field, given) if isinstance(given, str) else given
    if not isinstance(model, BaseChatModel):
        hint = "give a LangChain chat model or a string such as 'openai:gpt-5-mini'"
        raise InvalidInputError(field, type(model).__name__, hint)
    official = model._get_ls_params().get("ls_model_name")  # noqa: SLF001 - core's own
    name = model.name or official or type(model).__name__
    price = prices.get(name, prices.get(official or name))
    if price is None:
        hint = (
            f"no price is known: add prices={{{name!r}: Price(input=…, output=…)}} in "
            "USD per million tokens, or Price.free() for a model that costs nothing"
        )
        raise InvalidInputError("prices", name, hint)
    return Member(name, model, price)


def _load(field: str, name: str) -> BaseChatModel:
    """Return the model that a string names."""
    try:
        from langchain.chat_models import init_chat_model
    except ModuleNotFoundError as error:
        hint = "naming a model by a string needs: pip install langchain"
        raise InvalidInputError(field, name, hint) from error
    try:
        return init_chat_model(name)
    except Exception as error:
        hint = f"init_chat_model could not make this model: {error}"
        raise InvalidInputError(field, name, hint) from error
