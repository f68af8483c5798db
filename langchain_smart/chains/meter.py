"""What one call of a chain cost: the real usage of every model called inside it.

A meter is a callback handler that travels with the call. Models are known by their
names, as in `prices`; what a cache answered costs nothing, and what a model reported
before it failed is booked. Where there is a budget, a model's run begins only once the
most it can cost is set aside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from typing_extensions import override

from langchain_smart.chat.cost import (
    confidence_of,
    counted,
    limit_of_run,
    sent_by_run,
    worst_case_of_run,
)
from smart_engine.calls import Failure, Outcome, Result, Timing
from smart_engine.errors import BudgetExceededError, SmartError
from smart_engine.money.pricing import Price, Usage
from smart_engine.money.reservations import Allowance
from smart_engine.money.usage import from_cache, reported_usage
from smart_engine.runtime.asker import Clock
from smart_engine.serving.members import Member, UnpricedError

__all__ = ["Bill", "Meter", "price_of"]


class ModelCall(NamedTuple):
    """One model's run inside a chain.

    Attributes:
        names: What the model may be called in `prices`, most specific first.
        usage: What it reported; None if nothing.
        cached: Its answer came from a cache.
        told: USD that a smart model says its answer cost; it keeps its own prices.
        error: Why it brought no answer, if so.
        confidence: The model's own score of its answer, where known.
        timing: When it ran.
        said: Its answer, as far as it came.
    """

    names: tuple[str, ...]
    usage: Usage | None
    cached: bool = False
    told: float | None = None
    error: BaseException | None = None
    confidence: float | None = None
    timing: Timing | None = None
    said: AIMessage | None = None


class Begun(NamedTuple):
    """A model's run that has begun.

    Attributes:
        names: What the model may be called in `prices`.
        sent: What was sent.
        limit: Most tokens that it can say, if there is a limit.
        most: USD set aside for it.
        clock: When it began.
    """

    names: tuple[str, ...]
    sent: Sequence[Any]
    limit: int | None
    most: float
    clock: Clock


_GRAVER = (UnpricedError, BudgetExceededError)
"""Errors that tell more than whatever a chain makes of them."""


class Bill(NamedTuple):
    """What one call of a chain cost.

    Attributes:
        paid: USD paid.
        worth: USD that it would have cost without a cache.
        usage: Tokens paid for.
        cached: Caches answered all of it.
        calls: Its models, in the order in which they ended, and what each brought.
        error: Why not all of it could be priced, or made, if so.
        confidence: The last model's own score of its answer, where known.
    """

    paid: float
    worth: float
    usage: Usage
    cached: bool
    calls: list[tuple[str, Result]]
    error: BaseException | None = None
    confidence: float | None = None

    def outcome(self, answer: Any) -> Outcome | Failure:
        """Return what a call brought that ended with an answer."""
        if self.error is not None:
            return self.failure(self.error)
        cost = self.worth if self.cached else self.paid
        return Outcome(answer, cost, self.usage, self.confidence, cached=self.cached)

    def failure(self, error: BaseException) -> Failure:
        """Return what a call brought that ended with an error.

        A missing price, or the budget's end, is the graver one.
        """
        graver = isinstance(self.error, _GRAVER)
        told = self.error if self.error is not None and graver else error
        return Failure(told, self.paid, self.usage)


class Meter(BaseCallbackHandler):
    """Reads what models report while one call of a chain runs.

    Args:
        prices: Model name → price.
        fee: USD that the call costs beside its models.
        limits: Model name → most tokens of an answer, of those that have a limit.
        allowance: What the call may spend, if there is a budget.
        estimate: Whether usage that no model reports is estimated.

    Attributes:
        streamed: Whether a model has streamed any of its answer.
        clock: When the call began.
    """

    run_inline = True

    def __init__(
        self,
        prices: Mapping[str, Price],
        fee: float = 0.0,
        limits: Mapping[str, int] | None = None,
        allowance: Allowance | None = None,
        *,
        estimate: bool = False,
    ) -> None:
        """Nothing was called yet."""
        self.streamed = False
        self.clock = Clock()
        self.raise_error = allowance is not None  # else core makes the call anyhow
        self._prices, self._fee = prices, fee
        self._limits, self._allowance = limits or {}, allowance
        self._estimate = estimate
        self._begun: dict[UUID, Begun] = {}
        self._calls: list[tuple[ModelCall, str, Outcome | Failure]] = []
        self._refused: SmartError | None = None

    def bill(self) -> Bill:
        """Return what was read so far, priced."""
        paid = worth = self._fee
        usage, calls = Usage(), list[tuple[str, Result]]()
        error: BaseException | None = None
        for call, name, brought in self._calls:
            if isinstance(brought, Failure):
                error = error or (None if call.error else brought.error)
            else:
                worth += brought.cost
            used = brought.usage or Usage()
            paid += brought.paid
            usage = Usage(
                usage.input_tokens + used.input_tokens,
                usage.output_tokens + used.output_tokens,
                estimated=usage.estimated or used.estimated,
            )
            if call.error is not None:
                failure = Failure(call.error, brought.paid, brought.usage, call.timing)
                calls.append((name, failure))
            else:
                calls.append((name, brought._replace(timing=call.timing)))
        every = bool(self._calls) and all(call.cached for call, *_ in self._calls)
        cached = every and not self._fee
        sure = self._calls[-1][0].confidence if self._calls else None
        error = self._refused or error
        return Bill(paid, worth, usage, cached, calls, error, sure)

    # -- what models report ----------------------------------------------------

    @override
    def on_chat_model_start(
        self, serialized: dict[str, Any], messages: Any, *, run_id: UUID, **kwargs: Any
    ) -> None:
        self._begin(serialized, run_id, kwargs, messages[0])

    @override
    def on_llm_start(
        self, serialized: dict[str, Any], prompts: Any, *, run_id: UUID, **kwargs: Any
    ) -> None:
        self._begin(serialized, run_id, kwargs, prompts)

    def _begin(
        self,
        serialized: dict[str, Any] | None,
        run_id: UUID,
        told: dict[str, Any],
        sent: Sequence[Any],
    ) -> None:
        """Keep what a model is called, when it began, and what is set aside for it.

        Raises:
            BudgetExceededError: If the most it can cost does not fit.
            UnpricedError: If nobody knows what it can cost at most.
        """
        official = (told.get("metadata") or {}).get("ls_model_name")
        names = ((serialized or {}).get("name"), official)
        named = tuple(str(name) for name in names if name)
        params = told.get("invocation_params") or {}
        sent = [*sent, *sent_by_run(params)]
        own = (self._limits[name] for name in named if name in self._limits)
        limit = limit_of_run(params, next(own, None))
        most = 0.0
        try:
            if self._allowance is not None:
                most = self._set_aside(self._allowance, named, sent, limit)
        except SmartError as error:
            self._refused = error
            raise
        clock = Clock()
        self._begun[run_id] = Begun(named, sent, limit, most, clock)

    def _set_aside(
        self,
        allowance: Allowance,
        names: tuple[str, ...],
        sent: Sequence[Any],
        limit: int | None,
    ) -> float:
        """Return the most that a model's run can cost, once that is set aside."""
        name, price = price_of(names, self._prices)
        if price is None:
            raise UnpricedError(name)
        most = worst_case_of_run(name, price, sent, limit)
        refused = allowance.begin(most)
        if refused is not None:
            raise refused
        return most

    @override
    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        self.streamed = True

    @override
    def on_stream_event(self, event: Any, **kwargs: Any) -> None:
        self.streamed = True

    @override
    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        self._end(response, run_id)

    @override
    def on_llm_error(
        self, error: BaseException, *, run_id: UUID, **kwargs: Any
    ) -> None:
        response = kwargs.get("response") or LLMResult(generations=[])
        self._end(response, run_id, error)

    def _end(
        self, response: LLMResult, run_id: UUID, error: BaseException | None = None
    ) -> None:
        """Keep what a run that has ended brought, and what it cost."""
        begun = self._begun.pop(run_id, None)
        call = _reported(() if begun is None else begun.names, response)
        call = call._replace(error=error)
        estimate = None
        if begun is not None:
            call = call._replace(timing=begun.clock.timing)
            if self._estimate:
                estimate = partial(counted, begun.sent, call.said, begun.limit)
        name, brought = _priced(call, self._prices, estimate)
        self._calls.append((call, name, brought))
        if self._allowance is not None and begun is not None:
            unknown = isinstance(brought, Failure)
            self._allowance.end(begun.most, begun.most if unknown else brought.paid)


def _reported(names: tuple[str, ...], response: LLMResult) -> ModelCall:
    """Return what a model's result reports."""
    for message in _messages(response):
        answered_by = message.response_metadata.get("model_name")
        smart = message.response_metadata.get("smart") or {}
        reported = message.usage_metadata
        usage = None if reported is None else reported_usage(reported)
        if usage is not None and smart.get("estimated"):
            usage = replace(usage, estimated=True)
        return ModelCall(
            (*names, str(answered_by)) if answered_by else names,
            usage,
            from_cache(reported),
            told=smart.get("cost"),
            confidence=confidence_of(message),
            said=message,
        )
    texts = [line[0].text for line in response.generations if line]
    said = AIMessage("".join(texts)) if texts else None
    told = (response.llm_output or {}).get("token_usage") or {}
    if "prompt_tokens" in told:  # a model of texts
        usage = Usage(told["prompt_tokens"], told.get("completion_tokens", 0))
        return ModelCall(names, usage, said=said)
    return ModelCall(names, None, said=said)


def _messages(response: LLMResult) -> list[AIMessage]:
    """Return the first message of each prompt, those with a usage first."""
    firsts = [line[0] for line in response.generations if line]
    found = [first.message for first in firsts if isinstance(first, ChatGeneration)]
    messages = [message for message in found if isinstance(message, AIMessage)]
    return sorted(messages, key=lambda message: message.usage_metadata is None)


def _priced(
    call: ModelCall,
    prices: Mapping[str, Price],
    estimate: Callable[[], Usage] | None = None,
) -> tuple[str, Outcome | Failure]:
    """Return a model's name and what its run brought.

    Args:
        call: The run.
        prices: Model name → price.
        estimate: Returns what it may have used, if that is allowed.
    """
    name, price = price_of(call.names, prices)
    if call.told is not None:
        usage = Usage() if call.cached else call.usage
        return name, Outcome(None, call.told, usage, cached=call.cached)
    began = call.said is not None and estimate is not None
    if call.error is not None and call.usage is None and not began:
        return name, Outcome(None, 0.0)
    if price is None:
        return name, Failure(UnpricedError(name), 0.0, call.usage)
    member = Member(name, None, price)
    brought = member.outcome(None, call.usage, cached=call.cached, estimate=estimate)
    return name, brought


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
