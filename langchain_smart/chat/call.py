"""How an item is put to chat models, alone or in a batch, and the answer as our own."""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from langchain_core.callbacks import AsyncCallbackManager, CallbackManager
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata, add_ai_message_chunks, add_usage
from langchain_core.outputs import (
    ChatGeneration,
    ChatGenerationChunk,
    ChatResult,
    LLMResult,
)
from langchain_core.rate_limiters import BaseRateLimiter
from langchain_core.runnables import RunnableConfig
from typing_extensions import override

from langchain_smart.batching import Share
from langchain_smart.callbacks import Run, member_config, quiet_context
from langchain_smart.chat.bound_model import BoundModel
from langchain_smart.chat.compare import read_answer, write_answer
from langchain_smart.chat.cost import (
    answer_in,
    check_bounded,
    estimated,
    outcome,
    usage_in,
    worst_case,
)
from langchain_smart.chat.members import ChatMember
from langchain_smart.chat.request import Request, as_sent
from smart_engine.calls import Call, Failure, Result, Served
from smart_engine.runtime.asker import Clock
from smart_engine.runtime.batch import Job
from smart_engine.runtime.item import ItemRun

__all__ = ["ChatAsker", "ChatJob", "as_chunk", "ending", "piece", "result"]


@dataclass(slots=True)
class ChatAsker:
    """Puts one item to chat models.

    Attributes:
        members: The models by name.
        request: What is asked beside the messages.
        messages: What is sent.
        given: The same, in the form that models take at once.
        retried: Enters attempts that failed.
        run: The run of the item, where core passes it.
        estimates: Whether usage that a model does not report is estimated.
        rate_limiter: What each call waits for; core waits for single items.
    """

    members: Mapping[str, ChatMember]
    request: Request
    messages: Sequence[BaseMessage]
    given: Any
    retried: Callable[[str, Failure], None]
    run: Run | None
    estimates: bool
    rate_limiter: BaseRateLimiter | None = None
    _clocks: dict[str, Clock] = field(init=False, default_factory=dict)

    watched = False  # core itself streams where a handler shows tokens
    context = staticmethod(quiet_context)

    @property
    def retries(self) -> int:
        """How often a call that failed is made again, where that may help."""
        return self.request.retries

    def streamed(self, model: str) -> bool:  # noqa: ARG002
        """Whether any piece of a whole answer was shown: never here."""
        return False

    def call(self, model: str, *, shown: bool = False) -> Result:  # noqa: ARG002
        """Return a model's whole answer."""
        if self.rate_limiter:
            self.rate_limiter.acquire(blocking=True)
        bound, config = self._start(model)
        message = bound.model.invoke(self.given, config, **bound.arguments)
        return self._result(model, message)

    async def acall(self, model: str, *, shown: bool = False) -> Result:  # noqa: ARG002
        """Return a model's whole answer."""
        if self.rate_limiter:
            await self.rate_limiter.aacquire(blocking=True)
        bound, config = self._start(model)
        message = await bound.model.ainvoke(self.given, config, **bound.arguments)
        return self._result(model, message)

    def stream(self, model: str) -> Generator[AIMessageChunk]:
        """Yield a model's answer piece by piece."""
        bound, config = self._start(model)
        arguments = bound.streaming_arguments
        yield from map(as_chunk, bound.model.stream(self.given, config, **arguments))

    async def astream(self, model: str) -> AsyncGenerator[AIMessageChunk]:
        """Yield a model's answer piece by piece."""
        bound, config = self._start(model)
        arguments = bound.streaming_arguments
        pieces = bound.model.astream(self.given, config, **arguments)
        async with aclosing(pieces):  # type: ignore[type-var]
            async for message in pieces:
                yield as_chunk(message)

    def joined(self, model: str, pieces: Sequence[AIMessageChunk]) -> Result:
        """Return the result of a call whose answer was streamed to its end."""
        return self._result(model, add_ai_message_chunks(*pieces))

    def failed(
        self, model: str, pieces: Sequence[AIMessageChunk], error: BaseException
    ) -> Failure:
        """Return the result of a call that ended by an error, with what it cost."""
        failure = self._billed(model, pieces, error)
        clock = self._clocks.get(model)  # none where the call was not even made
        return failure if clock is None else clock.timed(failure)

    def _billed(
        self, model: str, pieces: Sequence[AIMessageChunk], error: BaseException
    ) -> Failure:
        """Return a failure with what is billed for its pieces, or for its reply."""
        usage, answer = usage_in(error), answer_in(error)
        if pieces and (self.estimates or any(each.usage_metadata for each in pieces)):
            billed = self.joined(model, pieces)
        elif usage is not None or (answer is not None and self.estimates):
            member = self.members[model]
            estimate = partial(self._estimate, member, answer)
            allowed = estimate if self.estimates else None
            billed = member.outcome(None, usage, estimate=allowed)
        else:
            return Failure(error)
        return Failure(error, billed.paid, billed.usage)

    def _start(self, model: str) -> tuple[BoundModel, RunnableConfig]:
        """Return a model that is called now, and the config to call it with."""
        bound = self.request.put_to(self.members[model])
        self._clocks[model] = Clock()
        return bound, member_config(self.run)

    def _result(self, model: str, message: AIMessage) -> Result:
        """Return the result of a call, whose message is whole now."""
        member = self.members[model]
        estimate = partial(self._estimate, member, message)
        allowed = estimate if self.estimates else None
        return self._clocks[model].timed(outcome(member, message, allowed))

    def _estimate(self, member: ChatMember, answer: AIMessage | None) -> Any:
        return estimated(self.messages, self.request, member, answer)


@dataclass
class ChatJob(Job):
    """The items of one task in a batch of chats.

    Attributes:
        share: The items.
        members: The models by name.
        request: What is asked beside the messages.
        identities: Per model, its name and a text that identifies it and its settings.
        tracing: What callbacks are told of every item's run.
        manager_settings: Settings of callback managers that all items share.
        estimates: Whether usage that a model does not report is estimated.
        rate_limiter: What every call waits for, if anything.
        output_version: The form of the answers' contents.
    """

    share: Share = field(kw_only=True)
    members: Mapping[str, ChatMember] = field(kw_only=True)
    request: Request = field(kw_only=True)
    identities: Sequence[tuple[str, str]] = field(kw_only=True)
    tracing: dict[str, Any] = field(kw_only=True)
    manager_settings: dict[str, Any] = field(kw_only=True)
    estimates: bool = field(kw_only=True)
    rate_limiter: BaseRateLimiter | None = field(kw_only=True)
    output_version: str | None = field(kw_only=True)

    def __post_init__(self) -> None:
        self._runs: list[Any] = [None] * len(self.places)
        self._manager: Any = None

    # -- runs ------------------------------------------------------------------

    @override
    def start(self, item: int) -> None:
        if self._runs[item] is None:
            manager = self._configured(item, CallbackManager)
            (self._runs[item],) = manager.on_chat_model_start(**self._start(item))

    @override
    async def astart(self, item: int) -> None:
        if self._runs[item] is None:
            manager = self._configured(item, AsyncCallbackManager)
            runs = await manager.on_chat_model_start(**self._start(item))
            (self._runs[item],) = runs

    def _configured(self, item: int, kind: type[Any]) -> Any:
        """Return the callback manager of an item's run."""
        if self._manager is None or not self.share.one_config:
            config = self.share.configs[item]
            metadata = {**(config.get("metadata") or {}), **self.tracing["metadata"]}
            self._manager = kind.configure(
                inheritable_callbacks=config.get("callbacks"),
                inheritable_tags=config.get("tags"),
                inheritable_metadata=metadata,
                **self.manager_settings,
            )
        return self._manager

    def _start(self, item: int) -> dict[str, Any]:
        config = self.share.configs[item]
        return {
            "serialized": self.tracing["serialized"],
            "messages": [self.share.inputs[item].messages],
            "invocation_params": self.tracing["params"],
            "options": self.tracing["options"],
            "name": config.get("run_name"),
            "run_id": config.get("run_id"),
            "batch_size": 1,
        }

    @override
    def finish(self, item: int, output: Any) -> Awaitable[None] | None:
        ending: Awaitable[None] | None = None
        run = self._runs[item]
        if run is not None and isinstance(output, BaseException):
            ending = run.on_llm_error(output)
        elif run is not None and run.handlers:
            generation = ChatGeneration(message=output)
            ending = run.on_llm_end(LLMResult(generations=[[generation]]))
        return ending

    # -- calls and answers -------------------------------------------------------

    @override
    def asker(self, item: int) -> ChatAsker:
        given = self.share.inputs[item]
        return ChatAsker(
            self.members,
            self.request,
            given.messages,
            given,
            partial(self.scope.record_call, item),
            self._runs[item],
            self.estimates,
            self.rate_limiter,
        )

    @override
    def worst_case(self, call: Call) -> float:
        messages = self.share.inputs[call.item].messages
        return worst_case(self.members[call.tier], messages, self.request)

    @override
    def check_bounded(self) -> None:
        prompts = (given.messages for given in self.share.inputs)
        check_bounded(self.members.values(), prompts, self.request)

    @override
    def contents(self) -> Iterator[str]:
        yield from map(repr, self.identities)
        yield self.request.content
        for given in self.share.inputs:
            yield repr([as_sent(message) for message in given.messages])

    write = staticmethod(write_answer)
    read = staticmethod(read_answer)

    @override
    def output(self, served: Served, smart: dict[str, Any]) -> AIMessage:
        message: AIMessage = served.answer
        bought = self.session.bought(served.item)
        others = [answer for name, answer in bought if name != served.tier]
        usage = _usage([message, *others])
        answer = _marked(message, self._runs[served.item], usage, smart)
        if self.output_version != "v1":
            return answer
        metadata = {**answer.response_metadata, "output_version": "v1"}
        blocks = {"content": answer.content_blocks, "response_metadata": metadata}
        return answer.model_copy(update=blocks)


def as_chunk(message: AIMessage) -> AIMessageChunk:
    """Return a message as a piece of a stream."""
    if isinstance(message, AIMessageChunk):
        return message
    return AIMessageChunk(**message.model_dump(exclude={"type"}))


def result(run: ItemRun, message: AIMessage) -> ChatResult:
    """Return the whole answer of a single item."""
    usage = _usage(run.item.answers.values())
    answer = _marked(message, None, usage, run.item.mark)
    return ChatResult(generations=[ChatGeneration(message=answer)])


def piece(run: ItemRun, chunk: AIMessageChunk, *, first: bool) -> ChatGenerationChunk:
    """Return a piece of a single item's answer; the first one names the model."""
    metadata = {k: v for k, v in chunk.response_metadata.items() if k != "smart"}
    if first:
        metadata["smart"] = {"model": run.shown_model, "task": run.item.task}
    # The last piece has the usage of all calls, so that it is counted once.
    update: dict[str, Any] = {"id": None, "chunk_position": None}
    update |= {"usage_metadata": None, "response_metadata": metadata}
    return ChatGenerationChunk(message=chunk.model_copy(update=update))


def ending(run: ItemRun) -> ChatGenerationChunk:
    """Return the last piece of a single item's answer: what it cost."""
    mark = run.item.mark
    whole = run.item.answers[mark["model"]]
    first = ("model", "task")  # are in the first piece: metadata of pieces is merged
    metadata: dict[str, Any] = {
        "smart": {name: value for name, value in mark.items() if name not in first}
    }
    if not whole.response_metadata.get("model_name"):
        metadata["model_name"] = mark["model"]
    last = AIMessageChunk(
        content="" if isinstance(whole.content, str) else [],
        usage_metadata=_usage(run.item.answers.values()),
        response_metadata=metadata,
        chunk_position="last",
    )
    return ChatGenerationChunk(message=last)


def _marked(
    message: AIMessage,
    run: Run | None,
    usage: UsageMetadata | None,
    smart: dict[str, Any],
) -> AIMessage:
    """Return a copy of a model's message as the smart model's own."""
    named = {"model_name": smart["model"], **message.response_metadata, "smart": smart}
    return message.model_copy(
        update={
            "id": None if run is None else f"lc_run--{run.run_id}-0",
            "usage_metadata": usage,
            "response_metadata": named,
        }
    )


def _usage(messages: Iterable[AIMessage]) -> UsageMetadata | None:
    """Return what all models used together."""
    usage = None
    for message in messages:
        usage = add_usage(usage, message.usage_metadata)
    return usage
