"""What one call of a chain cost: the real usage of every model called inside it.

A meter is a callback handler that travels with the call. Models are known by their
names, as in `prices`; what a cache answered costs nothing, and what a model reported
before it failed is booked. Where there is a budget, a model's run begins only once the
most it can cost is set aside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter, time
from typing import Any, NamedTuple
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from typing_extensions import override

from langchain_smart.bounds import most_of_run
from langchain_smart.members import confidence_of, usage_of
from smart_engine.calls import Brought, Failure, Outcome, Timing
from smart_engine.errors import BudgetExceededError, SmartError
from smart_engine.pricing import Price, Usage
from smart_engine.serving.clock import Clock
from smart_engine.serving.members import Member, UnpricedError
from smart_engine.serving.reserved import Allowance

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
    """

    names: tuple[str, ...]
    usage: Usage | None
    cached: bool = False
    told: float | None = None
    error: BaseException | None = None
    confidence: float | None = None
    timing: Timing | None = None


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
    calls: list[tuple[str, Brought]]
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
        limits: Model name → most tokens of an answer; needed where there is a budget.
        allowance: What the call may spend, if there is a budget.

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
    ) -> None:
        """Nothing was called yet."""
        self.streamed = False
        self.clock = Clock(time, perf_counter)
        self.raise_error = allowance is not None  # else core makes the call anyhow
        self._prices, self._fee = prices, fee
        self._limits, self._allowance = limits or {}, allowance
        self._begun: dict[UUID, tuple[tuple[str, ...], Clock, float]] = {}
        self._calls: list[tuple[ModelCall, str, Outcome | Failure]] = []
        self._refused: SmartError | None = None

    def bill(self) -> Bill:
        """Return what was read so far, priced."""
        paid = worth = self._fee
        usage, calls = Usage(), list[tuple[str, Brought]]()
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
        most = 0.0
        if self._allowance is not None:
            try:
                most = self._most(named, sent, told.get("invocation_params") or {})
                refused = self._allowance.begin(most)
                if refused is not None:
                    raise refused
            except SmartError as error:
                self._refused = error
                raise
        self._begun[run_id] = named, Clock(time, perf_counter), most

    def _most(
        self, names: tuple[str, ...], sent: Sequence[Any], params: Mapping[str, Any]
    ) -> float:
        """Return the most that a model's run can cost."""
        name, price = price_of(names, self._prices)
        if price is None:
            raise UnpricedError(name)
        limits = (self._limits.get(name) for name in names)
        limit = next((limit for limit in limits if limit is not None), None)
        return most_of_run(name, price, limit, sent, params)

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
        names, clock, most = self._begun.pop(run_id, ((), None, 0.0))
        timing = None if clock is None else clock.timing
        call = _reported(names, response)._replace(timing=timing, error=error)
        name, brought = _priced(call, self._prices)
        self._calls.append((call, name, brought))
        if self._allowance is not None:
            unknown = isinstance(brought, Failure)
            self._allowance.end(most, most if unknown else brought.paid)


def _reported(names: tuple[str, ...], response: LLMResult) -> ModelCall:
    """Return what a model's result reports."""
    for message in _messages(response):
        answered_by = message.response_metadata.get("model_name")
        names = (*names, str(answered_by)) if answered_by else names
        told = (message.response_metadata.get("smart") or {}).get("cost")
        sure, reported = confidence_of(message), message.usage_metadata
        if reported is not None:
            usage = usage_of(reported)
            cached = reported.get("total_cost") == 0  # how core marks a cached one
            return ModelCall(names, usage, cached, told, confidence=sure)
        return ModelCall(names, None, told=told, confidence=sure)
    counted = (response.llm_output or {}).get("token_usage") or {}
    if "prompt_tokens" in counted:  # a model of texts
        usage = Usage(counted["prompt_tokens"], counted.get("completion_tokens", 0))
        return ModelCall(names, usage)
    return ModelCall(names, None)


def _messages(response: LLMResult) -> list[AIMessage]:
    """Return the first message of each prompt, those with a usage first."""
    firsts = [line[0] for line in response.generations if line]
    found = [first.message for first in firsts if isinstance(first, ChatGeneration)]
    messages = [message for message in found if isinstance(message, AIMessage)]
    return sorted(messages, key=lambda message: message.usage_metadata is None)


def _priced(
    call: ModelCall, prices: Mapping[str, Price]
) -> tuple[str, Outcome | Failure]:
    """Return a model's name and what its run brought."""
    name, price = price_of(call.names, prices)
    if call.told is not None:
        usage = Usage() if call.cached else call.usage
        return name, Outcome(None, call.told, usage, cached=call.cached)
    if call.error is not None and call.usage is None:
        return name, Outcome(None, 0.0)
    if price is None:
        return name, Failure(UnpricedError(name), 0.0, call.usage)
    member = Member(name, None, price)
    return name, member.outcome(None, call.usage, cached=call.cached)


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
