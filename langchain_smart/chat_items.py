"""One item put to chat models: how each is asked, and the answer as our own.

Every call of a chat member goes through here, in batches and on its own.
"""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field, replace
from functools import partial
from time import perf_counter, time
from typing import Any

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import UsageMetadata, add_ai_message_chunks, add_usage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from langchain_smart.bound import Bound
from langchain_smart.members import (
    ChatMember,
    Estimate,
    answer_in,
    outcome,
    usage_in,
)
from langchain_smart.runs import Run, member_config
from langchain_smart.singles import Single
from smart_engine.calls import Failure, Outcome
from smart_engine.runtime.clock import Clock

__all__ = ["ChatAsker", "as_chunk", "ending", "marked", "piece", "result"]


@dataclass(slots=True)
class ChatAsker:
    """Puts one item to chat models.

    Attributes:
        members: The models by name.
        put_to: Makes a model ready to be asked; what it raises fails that call.
        given: What to send.
        repeated: Told of a model's call that has failed and is made again.
        run: The run of the item, where core tells it.
        estimate: Returns what a call may have used that reports nothing; None if the
            user did not allow that.
    """

    members: Mapping[str, ChatMember]
    put_to: Callable[[ChatMember], Bound]
    given: LanguageModelInput
    repeated: Callable[[str, Failure], None]
    run: Run | None = None
    estimate: Estimate | None = None
    _clocks: dict[str, Clock] = field(init=False, default_factory=dict)

    watched = False  # core itself streams where somebody shows an answer

    def streamed(self, name: str) -> bool:
        """Whether any of a whole answer was shown: never here."""
        del name
        return False

    def ask(self, name: str, *, shown: bool = False) -> Outcome | Failure:
        """Return what a model brings."""
        del shown
        bound = self._begin(name)
        return self._brought(name, bound.invoke(self.given, member_config(self.run)))

    async def aask(self, name: str, *, shown: bool = False) -> Outcome | Failure:
        """Return what a model brings."""
        del shown
        bound = self._begin(name)
        return self._brought(
            name, await bound.ainvoke(self.given, member_config(self.run))
        )

    def stream(self, name: str) -> Iterator[AIMessageChunk]:
        """Yield a model's answer piece by piece."""
        bound = self._begin(name)
        for message in bound.stream(self.given, member_config(self.run)):
            yield as_chunk(message)

    async def astream(self, name: str) -> AsyncGenerator[AIMessageChunk]:
        """Yield a model's answer piece by piece."""
        bound = self._begin(name)
        pieces = bound.astream(self.given, member_config(self.run))
        try:
            async for message in pieces:
                yield as_chunk(message)
        finally:
            await pieces.aclose()

    def whole(self, name: str, pieces: Sequence[AIMessageChunk]) -> Outcome | Failure:
        """Return what a streamed answer brought."""
        return self._brought(name, add_ai_message_chunks(*pieces))

    def broken_off(
        self, name: str, pieces: Sequence[AIMessageChunk], error: BaseException
    ) -> Failure:
        """Return what an answer brought that ended by an error: what it used so far."""
        failure = self._billed(name, pieces, error)
        clock = self._clocks.get(name)  # none where the call was not even made
        return failure if clock is None else clock.timed(failure)

    def _billed(
        self, name: str, pieces: Sequence[AIMessageChunk], error: BaseException
    ) -> Failure:
        """Return a failure with what it is billed: by its pieces, or by its reply."""
        usage, answer = usage_in(error), answer_in(error)
        estimable = self.estimate is not None
        if any(piece.usage_metadata for piece in pieces) or (pieces and estimable):
            billed = self.whole(name, pieces)
        elif usage is not None or (answer is not None and estimable):
            member = self.members[name]
            allowed = self.estimate and partial(self.estimate, member, answer)
            billed = member.outcome(None, usage, estimate=allowed)
        else:
            return Failure(error)
        return Failure(error, billed.paid, billed.usage)

    def _begin(self, name: str) -> Bound:
        """Return a model that is asked now."""
        bound = self.put_to(self.members[name])
        clock = self._clocks[name] = Clock(time, perf_counter)
        if not bound.retries:
            return bound

        def repeats(error: BaseException) -> None:
            self.repeated(name, clock.timed(self._billed(name, (), error)))

        return replace(bound, begins=clock.restart, repeats=repeats)

    def _brought(self, name: str, message: AIMessage) -> Outcome | Failure:
        """Return what a model's message brought, now that it is whole."""
        brought = outcome(self.members[name], message, self.estimate)
        return self._clocks[name].timed(brought)


def as_chunk(message: AIMessage) -> AIMessageChunk:
    """Return a message as a piece of a stream."""
    if isinstance(message, AIMessageChunk):
        return message
    fields = message.model_dump(exclude={"type"})
    return AIMessageChunk(**fields)


def marked(
    message: AIMessage,
    run: Run | None,
    usage: UsageMetadata | None,
    **smart: Any,
) -> AIMessage:
    """Return a copy of a member's message as the smart model's own."""
    metadata = message.response_metadata
    return message.model_copy(
        update={
            "id": None if run is None else f"lc_run--{run.run_id}-0",
            "usage_metadata": usage,
            "response_metadata": {
                "model_name": smart["model"],
                **metadata,
                "smart": smart,
            },
        }
    )


def result(single: Single, message: AIMessage) -> ChatResult:
    """Return a whole answer."""
    usage = _together(single.item.said.values())
    answer = marked(message, None, usage, **single.item.told)
    return ChatResult(generations=[ChatGeneration(message=answer)])


def piece(single: Single, chunk: AIMessageChunk, *, first: bool) -> ChatGenerationChunk:
    """Return a piece of an answer; the first one says who answers."""
    metadata = {k: v for k, v in chunk.response_metadata.items() if k != "smart"}
    if first:
        metadata["smart"] = {"model": single.shows, "task": single.item.task}
    # The ending tells the usage of all calls: whoever counts looks once.
    update: dict[str, Any] = {"id": None, "chunk_position": None}
    update |= {"usage_metadata": None, "response_metadata": metadata}
    return ChatGenerationChunk(message=chunk.model_copy(update=update))


def ending(single: Single) -> ChatGenerationChunk:
    """Return the piece that says what a settled answer cost."""
    told = single.item.told
    whole = single.item.said[told["model"]]
    shown_first = ("model", "task")
    smart = {name: value for name, value in told.items() if name not in shown_first}
    metadata: dict[str, Any] = {"smart": smart}
    if not whole.response_metadata.get("model_name"):
        metadata["model_name"] = told["model"]
    last = AIMessageChunk(
        content="" if isinstance(whole.content, str) else [],
        usage_metadata=_together(single.item.said.values()),
        response_metadata=metadata,
        chunk_position="last",
    )
    return ChatGenerationChunk(message=last)


def _together(said: Iterable[AIMessage]) -> UsageMetadata | None:
    """Return what all models used together."""
    usage = None
    for message in said:
        usage = add_usage(usage, message.usage_metadata)
    return usage
