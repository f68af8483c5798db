"""How an item is put to LLMs, alone or in a batch, and the answer as our own."""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    Callable,
    Generator,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

from llama_index.core.base.llms.types import ChatResponse
from llama_index.core.instrumentation.span import active_span_id
from pydantic import ValidationError
from typing_extensions import override

from llama_index_smart.compare import ending_of, read_response, text_of, write_response
from llama_index_smart.cost import (
    estimated,
    member_settings,
    outcome,
    tokens_sent,
    usage_of,
    worst_case,
)
from llama_index_smart.events import hear_no_writing, within
from llama_index_smart.history import signed
from llama_index_smart.logprobs import with_logprobs, without_logprobs
from llama_index_smart.members import LLMMember, Response
from llama_index_smart.request import Ask
from smart_engine.calls import Call, Failure, Outcome, Result, Served
from smart_engine.errors import InvalidInputError
from smart_engine.money.pricing import Usage
from smart_engine.money.reservations import Allowance
from smart_engine.runtime.item import ItemRun
from smart_engine.runtime.job import Job
from smart_engine.runtime.requester import Requester, Verb
from smart_engine.runtime.signals import LOGPROBS, Signals

__all__ = ["LLMJob", "LLMRequester", "ending", "marked", "piece", "whole"]


_FORMS = {"call": "", "acall": "a", "stream": "stream_", "astream": "astream_"}
"""What the names of LlamaIndex's verbs begin with, by how the runtime asks."""


@dataclass(slots=True)
class LLMRequester(Requester):
    """Puts one item to LLMs.

    Attributes:
        members: The models by name, the reference first.
        ask: What is asked.
        estimates: Whether usage that a model does not report is estimated.
        allowance: Returns what a model's call may spend, if there is a budget.
        silent: The models that can be called for no callback to hear.
        by_itself: How those are asked live whose calls are carried.
        signals, plain: See `Requester`.
    """

    members: Mapping[str, LLMMember]
    ask: Ask[Any]
    estimates: bool
    allowance: Callable[[str], Allowance | None]
    silent: Mapping[str, LLMMember] = field(default_factory=dict)
    by_itself: Mapping[str, LLMMember] = field(default_factory=dict)
    signals: Signals = field(default_factory=Signals)
    plain: set[str] = field(default_factory=set)
    _span: str | None = field(init=False, default_factory=active_span_id.get)

    @override
    def context(self) -> Context:
        return within(self._span)

    @override
    def live(self) -> LLMRequester:
        return replace(self, members={**self.members, **self.by_itself})

    @override
    def unseen(self) -> LLMRequester:
        hear_no_writing()
        return replace(self, members={**self.members, **self.silent})

    @override
    def retries(self, model: str) -> int:
        return self.members[model].retries

    @override
    def worst_case(self, model: str) -> float | None:
        with suppress(InvalidInputError):
            return worst_case(self.members[model], self._asked(model))
        return None

    @override
    def prepare(self, model: str, verb: Verb, *, shown: bool) -> Callable[[], Any]:
        """Return a model's call; see `Requester`.

        Raises:
            OversizedError: If the item does not fit into it; a named model is asked.
        """
        member, ask = self.members[model], self._asked(model)
        if ask.model is None:
            member.check_fit(
                lambda: tokens_sent(ask), lambda: member_settings(member, ask.arguments)
            )
        if self._adds_logprobs(model) and self.asks_for_logprobs(model):
            ask = with_logprobs(member, ask)
        call = ask.put_to(member, _FORMS[verb])
        wrapped: dict[Verb, Any] = {"stream": _pieces, "astream": _apieces}
        return partial(wrapped[verb], call) if verb in wrapped else call

    @override
    def result(self, model: str, answer: Response) -> Result:
        return self._priced(model, answer, [answer])

    def as_asked(self, model: str, response: Response) -> Response:
        """Return an answer, or a piece of one, as its model gives it to the user."""
        adds = self._adds_logprobs(model)
        return without_logprobs(response) if adds else response

    @override
    def joined(self, model: str, pieces: Sequence[Response]) -> Result:
        """Return the result of a call whose answer was streamed to its end.

        That is the last piece, with the last usage and the last ending that any piece
        reported.
        """
        last, usage = pieces[-1], _last_usage(pieces)
        endings = [reason for piece in pieces if (reason := ending_of(piece))]
        kwargs = last.additional_kwargs | ({} if usage is None else _counts(usage))
        kwargs |= {"finish_reason": endings[-1]} if endings else {}
        last = last.model_copy(update={"additional_kwargs": kwargs})
        return self._priced(model, last, pieces)

    @override
    def failed(
        self, model: str, pieces: Sequence[Response], error: BaseException
    ) -> Failure:
        failure = Failure(error)
        whole = _last_usage(pieces) is not None and any(map(ending_of, pieces))
        if pieces and (self.estimates or whole):
            billed = self.joined(model, pieces)
            failure = Failure(error, billed.paid, billed.usage)
        return failure

    def _priced(
        self, model: str, answer: Response, pieces: Sequence[Response]
    ) -> Result:
        """Return the result of a call with this answer, which came in these pieces."""
        member = self.members[model]
        estimate = partial(estimated, self._asked(model), member, answer)
        result = outcome(member, answer, estimate if self.estimates else None, pieces)
        if isinstance(result, Outcome):
            return result._replace(answer=self.as_asked(model, result.answer))
        return result

    def _adds_logprobs(self, model: str) -> bool:
        """Whether a model may be asked for logprobs that its caller left open.

        Answers of a model that the caller named are compared with no other.
        """
        open_ = self.ask.model is None and LOGPROBS not in self.ask.arguments
        return open_ and model in self.signals.models

    def _asked(self, model: str) -> Ask[Any]:
        """Return what is asked as a model is given it."""
        return self.ask.addressed_to(model, next(iter(self.members)))


def _pieces(call: Callable[[], Any]) -> Generator[Response]:
    """Yield an answer piece by piece: each holds all so far.

    Of a stream without a piece core may raise `ValidationError`.
    """
    response = None
    try:
        for response in call():
            yield response
    except ValidationError:
        if response is not None:
            raise


async def _apieces(call: Callable[[], Any]) -> AsyncGenerator[Response]:
    """Yield an answer piece by piece, as `_pieces` does."""
    response = None
    try:
        pieces = await call()
        try:
            async for response in pieces:
                yield response
        finally:
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()
    except ValidationError:
        if response is not None:
            raise


def _last_usage(pieces: Sequence[Response]) -> Usage | None:
    found = map(usage_of, reversed(pieces))
    return next((usage for usage in found if usage is not None), None)


@dataclass(kw_only=True)
class LLMJob(Job):
    """The items of one task in a batch.

    Attributes:
        asks: The items.
        members: The models by name.
        silent, by_itself, signals: See `LLMRequester`.
        reserved: The models as budgets reserve for their calls.
        estimates: Whether usage that a model does not report is estimated.
        signs: See `marked`.
    """

    asks: Sequence[Ask[Any]]
    members: Mapping[str, LLMMember]
    silent: Mapping[str, LLMMember]
    by_itself: Mapping[str, LLMMember]
    signals: Signals
    reserved: Mapping[str, LLMMember]
    estimates: bool
    signs: bool

    @override
    def requester(self, item: int) -> LLMRequester:
        allowance = partial(self.allowance, item)
        asked = self.members, self.asks[item], self.estimates, allowance
        return LLMRequester(*asked, self.silent, self.by_itself, self.signals)

    @override
    def worst_case(self, call: Call) -> float:
        reference = next(iter(self.members))
        ask = self.asks[call.item].addressed_to(call.tier, reference)
        return worst_case(self.reserved[call.tier], ask)

    @override
    def requests(self) -> Iterator[str]:
        yield from (ask.content for ask in self.asks)

    write = staticmethod(write_response)
    read = staticmethod(read_response)

    @override
    def output(
        self, served: Served, smart: dict[str, Any], *, bought: bool
    ) -> Response:
        return marked(served.answer, smart, bought=bought, signs=self.signs)


def whole(run: ItemRun, response: Response, *, signs: bool) -> Response:
    """Return the whole answer of a single item; `signs`: marked for later turns."""
    return marked(response, run.item.mark, signs=signs)


def piece(run: ItemRun, response: Response, *, signs: bool) -> Response:
    """Return a piece of a single item's answer; the ending has the usage, once."""
    requester, model = cast("LLMRequester", run.requester), str(run.shown_model)
    response = requester.as_asked(model, response)
    counts = response.additional_kwargs.items()
    kwargs = {name: value for name, value in counts if not name.endswith("_tokens")}
    kwargs["smart"] = {"model": model, "task": run.item.task}
    settled = bool(run.item.mark)  # then this is the whole answer, none of it shown yet
    delta = text_of(response) if settled else response.delta
    answer = _with_author(response, kwargs, signs=signs)
    return answer.model_copy(update={"delta": delta})


def ending(run: ItemRun, *, signs: bool) -> Response:
    """Return the last piece of a single item's answer: all of it, and what it cost."""
    response = whole(run, run.item.answers[run.item.mark["model"]], signs=signs)
    return response.model_copy(update={"delta": ""})


def marked(
    response: Response,
    smart: dict[str, Any],
    *,
    bought: bool = True,
    signs: bool = False,
) -> Response:
    """Return a copy of a member's response as the smart model's own.

    Args:
        response: The member's.
        smart: Who answered, and at what cost.
        bought: Whether it was bought for its item; else it used nothing.
        signs: Whether its message says who wrote it even where all may read it.
    """
    usage, counts = usage_of(response) if bought else Usage(), _counts(Usage())
    own = response.additional_kwargs.items()
    kwargs = {name: value for name, value in own if name not in counts}
    if usage is not None and usage.problem is None:
        kwargs |= _counts(usage)
    kwargs["smart"] = smart
    return _with_author(response, kwargs, signs=signs)


def _with_author(
    response: Response, kwargs: dict[str, Any], *, signs: bool
) -> Response:
    """Return a response with its marks; its message, which outlives it, is signed."""
    update: dict[str, Any] = {"additional_kwargs": kwargs}
    if isinstance(response, ChatResponse):
        update["message"] = signed(
            response.message, kwargs["smart"]["model"], always=signs
        )
    return response.model_copy(update=update)


def _counts(usage: Usage) -> dict[str, float]:
    """Return a usage under the names that LlamaIndex's counters look for."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
    }
