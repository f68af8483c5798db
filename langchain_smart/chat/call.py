"""How an item is put to chat models, and how a model's message becomes the answer."""

from __future__ import annotations

from collections.abc import (
    Callable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, cast

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata, add_ai_message_chunks
from langchain_core.outputs import (
    ChatGeneration,
    ChatGenerationChunk,
    ChatResult,
    LLMResult,
)
from langchain_core.prompt_values import ChatPromptValue
from langchain_core.rate_limiters import BaseRateLimiter
from langsmith import tracing_context
from typing_extensions import override

from langchain_smart.batching import CORE_VERBS, RunnableJob
from langchain_smart.callbacks import (
    Run,
    member_config,
    quiet_context,
    recorded,
    silenced,
)
from langchain_smart.chat.compare import read_answer, write_answer
from langchain_smart.chat.cost import (
    estimated,
    outcome,
    reply_in,
    worst_case,
)
from langchain_smart.chat.history import history_for
from langchain_smart.chat.members import BoundModel, ChatMember
from langchain_smart.chat.request import Request, as_sent
from langchain_smart.logprobs import without_logprobs
from smart_engine.calls import Call, Failure, Outcome, Result, Served
from smart_engine.equivalence.kinds import reported_ending
from smart_engine.errors import InvalidInputError
from smart_engine.money.limits import settings_of
from smart_engine.money.pricing import Usage
from smart_engine.money.reservations import Allowance
from smart_engine.money.usage import from_cache
from smart_engine.runtime.item import ItemRun
from smart_engine.runtime.requester import Requester, Verb
from smart_engine.runtime.signals import LOGPROBS, Signals, completes_chats

__all__ = ["ChatJob", "ChatRequester", "ending", "piece", "result"]


@dataclass(slots=True)
class ChatRequester(Requester):
    """Puts one item to chat models.

    Attributes:
        members: The models by name, the reference first.
        request: All that comes with the messages.
        prompt: The messages.
        run: The run of the item, where core passes it.
        estimates: Whether usage that a model does not report is estimated.
        allowance: Returns what a model's call may spend, if there is a budget.
        rate_limiter: What each call waits for; core waits for single items.
        by_itself: How those are asked live whose calls are carried.
        task: Name of the item's task, for tracers.
        signals, plain: See `Requester`.
    """

    members: Mapping[str, ChatMember]
    request: Request
    prompt: ChatPromptValue
    run: Run | None
    estimates: bool
    allowance: Callable[[str], Allowance | None]
    rate_limiter: BaseRateLimiter | None = None
    by_itself: Mapping[str, ChatMember] = field(default_factory=dict)
    task: str = ""
    signals: Signals = field(default_factory=Signals)
    plain: set[str] = field(default_factory=set)

    context = staticmethod(quiet_context)

    @override
    def live(self) -> ChatRequester:
        return replace(self, members={**self.members, **self.by_itself})

    @override
    def unseen(self) -> ChatRequester:
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        return _UnseenRequester(**{**given, "run": None})

    @override
    def retries(self, model: str) -> int:
        chosen = self.request.retries
        return self.members[model].retries if chosen is None else chosen

    @override
    def worst_case(self, model: str) -> float | None:
        with suppress(InvalidInputError):
            return worst_case(self.members[model], self._sent(model), self.request)
        return None

    @override
    def prepare(self, model: str, verb: Verb, *, shown: bool) -> Callable[[], Any]:
        """Return a model's call; see `Requester`.

        Raises:
            OversizedError: If the item does not fit into it; a named model is asked.
        """
        bound = self._bound(model)
        if self.request.model is None:
            self.members[model].check_fit(
                lambda: self._counted(model, None).input_tokens,
                lambda: settings_of(bound.arguments, bound.model),
            )
        config = member_config(self.run, self.task, model, next(iter(self.members)))
        prompt = ChatPromptValue(messages=self._sent(model))
        asked = getattr(bound.model, CORE_VERBS[verb])
        return partial(asked, prompt, config, **bound.arguments)

    @override
    def result(self, model: str, answer: AIMessage) -> Result:
        result = outcome(self.members[model], answer, self._estimate(model, answer))
        if isinstance(result, Outcome):
            return result._replace(answer=self.as_asked(model, result.answer))
        return result

    def as_asked(self, model: str, message: AIMessage) -> AIMessage:
        """Return an answer, or a piece of one, as its model gives it to the user."""
        adds = self._adds_logprobs(model)
        return without_logprobs(message) if adds else message

    @override
    def joined(self, model: str, pieces: Sequence[AIMessageChunk]) -> Result:
        return self.result(model, add_ai_message_chunks(*map(_as_chunk, pieces)))

    @override
    def failed(
        self, model: str, pieces: Sequence[AIMessageChunk], error: BaseException
    ) -> Failure:
        billing, answer = reply_in(error)
        billed: Result = Failure(error)
        if pieces and (self.estimates or _is_whole(pieces)):
            billed = self.joined(model, pieces)
        elif billing.usage is not None or (answer is not None and self.estimates):
            estimate = self._estimate(model, answer)
            billed = self.members[model].outcome(
                None, estimate=estimate, **billing._asdict()
            )
        return Failure(error, billed.paid, billed.usage)

    def _bound(self, model: str) -> BoundModel:
        """Return a model, ready to be called."""
        bound = self.request.bound_to(self.members[model])
        asks = self._adds_logprobs(model) and self.asks_for_logprobs(model)
        if asks and completes_chats(bound.model, bound.arguments):
            return replace(bound, arguments={LOGPROBS: True, **bound.arguments})
        return bound

    def _adds_logprobs(self, model: str) -> bool:
        """Whether a model may be asked for logprobs that its caller left open.

        Answers of a model that the caller named are compared with no other.
        """
        open_ = self.request.model is None and LOGPROBS not in self.request.arguments
        return open_ and model in self.signals.models

    def _sent(self, model: str) -> list[BaseMessage]:
        """Return the messages as a model is given them."""
        return history_for(model, self.prompt.messages, next(iter(self.members)))

    def _counted(self, model: str, answer: AIMessage | None) -> Usage:
        """Return what a model's call may use, as its texts show."""
        return estimated(self._sent(model), self.request, self.members[model], answer)

    def _estimate(
        self, model: str, answer: AIMessage | None
    ) -> Callable[[], Usage] | None:
        """Return what estimates the usage of a call, if that is allowed."""
        return partial(self._counted, model, answer) if self.estimates else None


class _UnseenRequester(ChatRequester):
    """Puts one item to chat models for no handler to see, not even a model's own."""

    __slots__ = ()

    @override
    def prepare(self, model: str, verb: Verb, *, shown: bool) -> Callable[[], Any]:
        call = super().prepare(model, verb, shown=shown)

        def unseen() -> Any:
            with tracing_context(enabled=False):
                return call()

        async def aunseen() -> Any:
            with tracing_context(enabled=False):
                return await call()

        return aunseen if verb == "acall" else unseen

    @override
    def _bound(self, model: str) -> BoundModel:
        bound = super()._bound(model)
        return replace(bound, model=silenced(bound.model))


@dataclass(kw_only=True)
class ChatJob(RunnableJob):
    """The items of one task in a batch of chats.

    Attributes:
        members, request, estimates, signals: See `ChatRequester`.
        rate_limiter, by_itself: See `ChatRequester`.
        reserved: The models as budgets reserve for their calls.
        manager_settings: Settings of all callback managers.
        run_settings: What callbacks receive of every item's run.
        output_version: The form of the answers' contents.
    """

    members: Mapping[str, ChatMember]
    request: Request
    manager_settings: dict[str, Any]
    run_settings: dict[str, Any]
    estimates: bool
    signals: Signals
    rate_limiter: BaseRateLimiter | None
    by_itself: Mapping[str, ChatMember]
    reserved: Mapping[str, ChatMember]
    output_version: str | None

    @override
    def _start_run(self, item: int, kind: type[Any]) -> Any:
        config = self.configs[item]
        manager = kind.configure(
            inheritable_callbacks=config.get("callbacks"),
            inheritable_tags=config.get("tags"),
            inheritable_metadata=config.get("metadata"),
            **self.manager_settings,
        )
        return recorded(manager).on_chat_model_start(
            messages=[self.inputs[item].messages],
            name=config.get("run_name"),
            run_id=config.get("run_id"),
            batch_size=1,
            **self.run_settings,
        )

    @override
    def finish(self, item: int, output: Any) -> Any:
        run = self._runs[item]
        if run is not None and isinstance(output, BaseException):
            return run.on_llm_error(output)
        if run is not None and run.handlers:
            generation = ChatGeneration(message=output)
            return run.on_llm_end(LLMResult(generations=[[generation]]))
        return None

    @override
    def requester(self, item: int) -> ChatRequester:
        return ChatRequester(
            self.members,
            self.request,
            self.inputs[item],
            self._runs[item],
            self.estimates,
            partial(self.allowance, item),
            self.rate_limiter,
            self.by_itself,
            self.scope.task,
            self.signals,
        )

    @override
    def worst_case(self, call: Call) -> float:
        messages = self.inputs[call.item].messages
        sent = history_for(call.tier, messages, next(iter(self.members)))
        return worst_case(self.reserved[call.tier], sent, self.request)

    @override
    def contents(self) -> Iterator[str]:
        yield self.request.content

    @override
    def requests(self) -> Iterator[str]:
        for given in self.inputs:
            yield repr([as_sent(message) for message in given.messages])

    write = staticmethod(write_answer)
    read = staticmethod(read_answer)

    @override
    def output(
        self, served: Served, smart: dict[str, Any], *, bought: bool
    ) -> AIMessage:
        message: AIMessage = served.answer if bought else _free(served.answer)
        answer = _marked(message, self._runs[served.item], smart)
        if self.output_version != "v1":
            return answer
        metadata = {**answer.response_metadata, "output_version": "v1"}
        blocks = {"content": answer.content_blocks, "response_metadata": metadata}
        return answer.model_copy(update=blocks)


def result(run: ItemRun, message: AIMessage) -> ChatResult:
    """Return the whole answer of a single item."""
    answer = _marked(message, None, run.item.mark)
    return ChatResult(generations=[ChatGeneration(message=answer)])


def piece(run: ItemRun, message: AIMessage, *, first: bool) -> ChatGenerationChunk:
    """Return a piece of a single item's answer; the first one names the model."""
    requester, model = cast("ChatRequester", run.requester), str(run.shown_model)
    chunk = _as_chunk(requester.as_asked(model, message))
    metadata = {k: v for k, v in chunk.response_metadata.items() if k != "smart"}
    if first:
        metadata["smart"] = {"model": model, "task": run.item.task}
    # The last piece has the usage, so that it is counted once.
    update: dict[str, Any] = {"id": None, "chunk_position": None}
    update |= {"usage_metadata": None, "response_metadata": metadata}
    return ChatGenerationChunk(message=chunk.model_copy(update=update))


def ending(run: ItemRun) -> ChatGenerationChunk:
    """Return the last piece of a single item's answer: what it cost."""
    mark = run.item.mark
    whole = run.item.answers[mark["model"]]
    first = ("model", "task")  # are in the first piece: metadata of pieces is merged
    details = {name: value for name, value in mark.items() if name not in first}
    metadata: dict[str, Any] = {"smart": details}
    if not whole.response_metadata.get("model_name"):
        metadata["model_name"] = mark["model"]
    last = AIMessageChunk(
        content="" if isinstance(whole.content, str) else [],
        usage_metadata=whole.usage_metadata,
        response_metadata=metadata,
        chunk_position="last",
    )
    return ChatGenerationChunk(message=last)


def _is_whole(pieces: Sequence[AIMessageChunk]) -> bool:
    """Whether pieces told what they cost and how they ended: no more was billed."""
    ended = any(reported_ending(each.response_metadata) for each in pieces)
    return ended and any(each.usage_metadata for each in pieces)


def _as_chunk(message: AIMessage) -> AIMessageChunk:
    """Return a message as a piece of a stream."""
    if isinstance(message, AIMessageChunk):
        return message
    fields = {name: value for name, value in message if name != "type"}
    return AIMessageChunk(**fields)


def _marked(message: AIMessage, run: Run | None, smart: dict[str, Any]) -> AIMessage:
    """Return a copy of a model's message as the smart model's own."""
    named = {"model_name": smart["model"], **message.response_metadata, "smart": smart}
    return message.model_copy(
        update={
            "id": None if run is None else f"lc_run--{run.run_id}-0",
            "response_metadata": named,
        }
    )


def _free(message: AIMessage) -> AIMessage:
    """Return an answer that was not bought for its item, whose usage says so."""
    usage = message.usage_metadata
    if usage is None or from_cache(usage):
        return message
    none = UsageMetadata(input_tokens=0, output_tokens=0, total_tokens=0)
    return message.model_copy(update={"usage_metadata": none | {"total_cost": 0}})
