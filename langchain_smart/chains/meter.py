"""What one call of a chain cost: the usage of every model that is called inside it.

A meter is a callback handler that travels with the call. It knows models by their
names, as in `prices`. Replies from a cache cost nothing; what a model reported before
it failed is paid for, and a run that told nothing is charged at its most. Within a
budget a model's run begins only once its worst-case cost is reserved.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from typing_extensions import override

from langchain_smart.chains.tiers import ChainMember, price_of
from langchain_smart.chat.cost import (
    counted,
    outcome,
    worst_case_of_run,
)
from langchain_smart.logprobs import confidence_of
from smart_engine.calls import Failure, Outcome, Result
from smart_engine.errors import BudgetExceededError, SmartError
from smart_engine.money.limits import max_output_tokens
from smart_engine.money.pricing import Usage
from smart_engine.money.reservations import Allowance
from smart_engine.money.spending import cost_until
from smart_engine.money.usage import from_cache, reported_usage
from smart_engine.runtime.failure import is_untold
from smart_engine.runtime.requester import Clock
from smart_engine.serving.members import Member, UnpricedError

__all__ = ["Meter"]

_ROOT_CAUSES = (UnpricedError, BudgetExceededError)
"""Errors that explain a failed call better than those of its chain."""

_EXTRAS = ("tools", "functions", "response_format", "tool_choice", "extra_body")
"""Parameters of a run that are sent with its messages, as providers call them."""

_SEARCHES = ("extra_body", "web_search_options", "search_parameters", "plugins")
"""Those that may have no bound, however short the messages and the answer are."""


class Meter(BaseCallbackHandler):
    """Reads what models report while one call of a chain runs.

    Args:
        chain: The chain.
        allowance: What the call may spend, if there is a budget.

    Attributes:
        calls: The model's name and the result of each model's run that has ended.
        streamed: Whether a model has streamed any of its answer.

    Raises:
        BudgetExceededError: If the chain's price per call does not fit.
    """

    run_inline = True

    def __init__(self, chain: ChainMember, allowance: Allowance | None) -> None:
        self.calls: list[tuple[str, Result]] = []
        self.streamed = False
        self.raise_error = allowance is not None  # else core makes the call anyhow
        self._chain, self._allowance = chain, allowance
        self._runs: dict[UUID, _ModelRun] = {}
        self._taken = False
        self._refused: SmartError | None = None
        self._unpriced: BaseException | None = None
        if chain.fee:
            self._reserve(chain.fee)

    def outcome(self, answer: Any) -> Result:
        """Return the result of the call, which ends now with an answer."""
        if (problem := self._problem) is not None:
            return self.failure(problem)
        self._close_runs(_UnendedError())
        results = [result for _, result in self.calls]
        cached = all(isinstance(each, Outcome) and each.cached for each in results)
        cached = cached and bool(results) and not self._chain.fee
        cost = sum(each.cost for each in results) if cached else self._paid
        confidence = getattr(results[-1], "confidence", None) if results else None
        return Outcome(
            answer,
            cost,
            self._usage,
            confidence,
            cached=cached,
            unknown=self._unknown,
        )

    def failure(self, error: BaseException) -> Failure:
        """Return the result of the call, which ends now with an error.

        A missing price, or the end of the budget, takes the place of that error.
        """
        self._close_runs(error)
        problem = self._problem
        cause = problem if isinstance(problem, _ROOT_CAUSES) else error
        return Failure(cause, self._paid, self._usage, unknown=self._unknown)

    def take_calls(self) -> Sequence[tuple[str, Result]]:
        """Return all calls, once: what ends later was charged when the chain ended."""
        calls, self._taken = () if self._taken else self.calls, True
        return calls

    @property
    def _problem(self) -> BaseException | None:
        """Why the call's cost is unknown, or why a model's run was refused."""
        problem, chain = self._refused or self._unpriced, self._chain
        if problem or self.calls or chain.models or chain.fee is not None:
            return problem
        hint = (
            "no model was seen in this call, so its cost is unknown: add prices="
            f"{{{chain.name!r}: Price.free()}} if it costs nothing, or "
            "Price.per_call(usd)"
        )
        return UnpricedError(chain.name, hint)

    @property
    def _paid(self) -> float:
        told = (r.paid - (r.unknown or 0.0) for _, r in self.calls)
        return sum(told, self._chain.fee or 0.0)

    @property
    def _unknown(self) -> float | None:
        """USD that runs may have cost of which nobody told, None if all did."""
        most = [r.unknown for _, r in self.calls if r.unknown is not None]
        return sum(most) if most else None

    @property
    def _usage(self) -> Usage:
        used = [result.usage for _, result in self.calls if result.usage is not None]
        return Usage(
            sum(usage.input_tokens for usage in used),
            sum(usage.output_tokens for usage in used),
            estimated=any(usage.estimated for usage in used),
        )

    # -- what models report ----------------------------------------------------

    @override
    def on_chat_model_start(
        self, serialized: dict[str, Any], messages: Any, **kwargs: Any
    ) -> None:
        self._begin(serialized, messages[0], **kwargs)

    @override
    def on_llm_start(
        self, serialized: dict[str, Any], prompts: Any, **kwargs: Any
    ) -> None:
        self._begin(serialized, prompts, **kwargs)

    def _begin(
        self, serialized: Any, sent: Sequence[Any], *, run_id: UUID, **details: Any
    ) -> None:
        """Enter a model's run that begins.

        Raises:
            BudgetExceededError: If its worst-case cost does not fit.
            UnpricedError: If that cost is unknown.
        """
        official = (details.get("metadata") or {}).get("ls_model_name")
        found = ((serialized or {}).get("name"), official)
        names = tuple(str(name) for name in found if name)
        params = details.get("invocation_params") or {}
        sent = [*sent, *(params[name] for name in _EXTRAS if params.get(name))]
        limits = (self._chain.limits.get(name) for name in names)
        own = {"max_tokens": next((limit for limit in limits if limit), None)}
        limit = max_output_tokens([params, own])
        settings = {name: params[name] for name in _SEARCHES if params.get(name)}
        smart = params.get("_type") == "smart"
        run = _ModelRun(names, sent, limit, Clock(), settings, smart)
        if self._allowance is not None:
            try:
                run = run._replace(reserved=self._worst_case(run))
                self._reserve(run.reserved)
            except SmartError as error:
                self._refused = error
                raise
        self._runs[run_id] = run

    def _worst_case(self, run: _ModelRun) -> float:
        """Return the most a model's run can cost, in USD.

        Raises:
            UnpricedError: If that is unknown.
        """
        name, price = price_of(run.names, self._chain.prices)
        return worst_case_of_run(name, price, run.sent, run.limit, run.settings)

    def _reserve(self, worst_case: float) -> None:
        refused = self._allowance and self._allowance.begin(worst_case)
        if refused:
            raise refused

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
        """Enter the result of a model's run that ends."""
        run, message = self._runs.pop(run_id, None), _message_in(response)
        name, result = self._priced(run, message, failed=error is not None)
        if error is not None and run is not None and run.smart:
            result = Outcome(None, cost_until(error))
        if error is not None:
            result = Failure(error, result.paid, result.usage)
        elif isinstance(result, Failure):
            self._unpriced = self._unpriced or result.error
        if run is not None:
            result = self._charged(name, run, run.clock.timed(result))
        self.calls.append((name, result))

    def _charged(self, name: str, run: _ModelRun, result: Result) -> Result:
        """Return the result of a run, at its most where nobody told what it cost."""
        if isinstance(result, Failure) and not run.smart and is_untold(result):
            most = None
            with suppress(UnpricedError):
                most = run.reserved or self._worst_case(run)
            result = result if most == 0 else result._replace(unknown=most or 0.0)
        if self._allowance is not None:
            self._allowance.end(name, run.reserved, result.paid)
        return result

    def _close_runs(self, error: BaseException) -> None:
        """Charge the runs that the call has left behind."""
        for run_id in list(self._runs):
            self._end(LLMResult(generations=[]), run_id, error)

    def _priced(
        self, run: _ModelRun | None, message: AIMessage | None, *, failed: bool
    ) -> tuple[str, Result]:
        """Return a model's name and the result of its run, a failure if unpriced.

        Smart models price their answers themselves.
        """
        names, estimate = () if run is None else run.names, None
        if run is not None and self._chain.estimate:
            estimate = partial(counted, run.sent, message, run.limit)
        reply = message or AIMessage("")
        reported, metadata = reply.usage_metadata, reply.response_metadata
        usage = reported_usage(reported)
        if official := metadata.get("model_name"):
            names = (*names, str(official))
        name, price = price_of(names, self._chain.prices)
        smart = metadata.get("smart") or {}
        if smart.get("cost") is not None:
            cached, score = from_cache(reported), confidence_of(reply)
            if usage is not None:
                estimated = bool(smart.get("estimated"))
                usage = Usage() if cached else replace(usage, estimated=estimated)
            return name, Outcome(None, smart["cost"], usage, score, cached=cached)
        if failed and usage is None and (message is None or estimate is None):
            return name, Outcome(None, 0.0)  # no usage: it told nothing
        if price is None:
            return name, Failure(UnpricedError(name), 0.0, usage)
        return name, outcome(Member(name, None, price), reply, estimate)


class _UnendedError(Exception):
    """A call of a chain ended before a model's run within it."""


class _ModelRun(NamedTuple):
    """A model's run.

    Attributes:
        names: What the model may be called in `prices`, most specific first.
        sent: What was sent.
        limit: Most tokens of its answer, if there is a limit.
        clock: When it began.
        settings: Those of its parameters that may leave it without a bound.
        smart: Whether it is a smart model's, which prices its calls itself.
        reserved: USD that are reserved for it.
    """

    names: tuple[str, ...]
    sent: Sequence[Any]
    limit: int | None
    clock: Clock
    settings: dict[str, Any]
    smart: bool
    reserved: float = 0.0


def _message_in(response: LLMResult) -> AIMessage | None:
    """Return a model's first answer, if there is any; one with a usage comes first."""
    firsts = [line[0] for line in response.generations if line]
    chats = [first.message for first in firsts if isinstance(first, ChatGeneration)]
    messages = [message for message in chats if isinstance(message, AIMessage)]
    if messages:
        return min(messages, key=lambda message: message.usage_metadata is None)
    text = AIMessage("".join(first.text for first in firsts))
    counts = (response.llm_output or {}).get("token_usage") or {}
    if "prompt_tokens" in counts:  # a model of texts
        read, written = counts["prompt_tokens"], counts.get("completion_tokens", 0)
        total = counts.get("total_tokens", 0)
        usage = {"input_tokens": read, "output_tokens": written, "total_tokens": total}
        return text.model_copy(update={"usage_metadata": usage})
    return text if firsts else None
