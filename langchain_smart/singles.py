"""One item at a time: models are asked, the books are kept, the answer is marked.

Who is asked is decided elsewhere; sync and async share all that is not a call. The
user sees one answer: pieces are shown only of the answer that is handed out, and an
answer that depends on what several candidates say is shown whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Iterator,
    Sequence,
)
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata, add_ai_message_chunks, add_usage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from langchain_smart.batch import marked
from langchain_smart.bound import Bound
from langchain_smart.members import ChatMember, outcome
from langchain_smart.runs import (
    Run,
    aeach_in,
    each_in,
    member_config,
    quiet_context,
)
from smart_engine.calls import Call, Failure, Outcome
from smart_engine.serving.item import SingleItem

__all__ = ["Single"]


@dataclass
class Single:
    """One answer in the making.

    Attributes:
        item: Says who is asked, and whose answer is handed out.
        members: The models by name.
        put_to: Makes a model ready to be asked; what it raises fails that call.
        run: The run of the item, where core tells it.
    """

    item: SingleItem
    members: dict[str, ChatMember]
    put_to: Callable[[ChatMember], Bound]
    run: Run | None = None
    _chunks: list[AIMessageChunk] = field(default_factory=list)

    # -- whole answers ---------------------------------------------------------

    def ask(self, messages: list[BaseMessage]) -> ChatResult:
        """Return the answer."""
        with self.item.admitted(shown=False):
            while calls := self.item.next_calls():
                first, *others = calls
                with self._beside(others, messages):
                    self._call(first, messages)
            return self._result()

    async def aask(self, messages: list[BaseMessage]) -> ChatResult:
        """Return the answer."""
        with self.item.admitted(shown=False):
            while calls := self.item.next_calls():
                async with self._abeside(calls, messages):
                    pass
            return self._result()

    def _result(self) -> ChatResult:
        """Return the answer as the smart model's own."""
        message = self.item.settle()
        answer = marked(message, None, self._usage, **self.item.told)
        return ChatResult(generations=[ChatGeneration(message=answer)])

    # -- answers that come piece by piece --------------------------------------

    def stream(self, messages: list[BaseMessage]) -> Iterator[ChatGenerationChunk]:
        """Yield the answer piece by piece, as it comes."""
        with self.item.admitted(shown=True):
            while calls := self.item.next_calls():
                live = self.item.live(calls)
                with self._beside([c for c in calls if c != live], messages):
                    if live is not None:
                        yield from self._pieces(live, messages)
            yield from self._ending()

    async def astream(
        self, messages: list[BaseMessage]
    ) -> AsyncGenerator[ChatGenerationChunk]:
        """Yield the answer piece by piece, as it comes."""
        with self.item.admitted(shown=True):
            while calls := self.item.next_calls():
                live = self.item.live(calls)
                async with self._abeside([c for c in calls if c != live], messages):
                    if live is not None:
                        async with aclosing(self._apieces(live, messages)) as pieces:
                            async for piece in pieces:
                                yield piece
            for piece in self._ending():
                yield piece

    def _pieces(
        self, call: Call, messages: list[BaseMessage]
    ) -> Iterator[ChatGenerationChunk]:
        """Make one call and yield what it brings."""
        with self._recording_failure(call):
            bound = self.put_to(self.members[call.tier])
            asked = bound.stream(messages, member_config(self.run))
            for message in each_in(quiet_context(), asked):
                yield self._piece(call.tier, message)
        self._close(call)

    async def _apieces(
        self, call: Call, messages: list[BaseMessage]
    ) -> AsyncGenerator[ChatGenerationChunk]:
        """Make one call and yield what it brings."""
        with self._recording_failure(call):
            bound = self.put_to(self.members[call.tier])
            asked = bound.astream(messages, member_config(self.run))
            async with aclosing(aeach_in(quiet_context(), asked)) as pieces:
                async for message in pieces:
                    yield self._piece(call.tier, message)
        self._close(call)

    def _piece(self, name: str, message: AIMessage) -> ChatGenerationChunk:
        """Keep a piece and return it; the first one says who answers."""
        chunk = message if isinstance(message, AIMessageChunk) else _as_chunk(message)
        metadata = {k: v for k, v in chunk.response_metadata.items() if k != "smart"}
        if not self._chunks:
            metadata["smart"] = {"model": name, "task": self.item.task}
        self._chunks.append(chunk)
        # The ending tells the usage of all calls: whoever counts looks once.
        update: dict[str, Any] = {"id": None, "chunk_position": None}
        update |= {"usage_metadata": None, "response_metadata": metadata}
        return ChatGenerationChunk(message=chunk.model_copy(update=update))

    @contextmanager
    def _recording_failure(self, call: Call) -> Iterator[None]:
        """Record a call that fails, or is broken off, with the usage told so far.

        What was shown cannot be withdrawn: then the error is the caller's.
        """
        try:
            yield
        except BaseException as error:
            told = [chunk for chunk in self._chunks if chunk.usage_metadata]
            failure = Failure(error)
            if told:
                billed = self._outcome(call, add_ai_message_chunks(*told))
                failure = Failure(error, billed.paid, billed.usage)
            self.item.record(call, failure)
            if self._chunks or not isinstance(error, Exception):
                raise

    def _close(self, call: Call) -> None:
        """Record a call that was shown to its end; one that failed is recorded."""
        if not self._chunks:
            return
        brought = self._outcome(call, add_ai_message_chunks(*self._chunks))
        self.item.record(call, brought)
        if isinstance(brought, Failure):
            raise brought.error

    def _ending(self) -> Iterator[ChatGenerationChunk]:
        """Yield what was not shown yet, and a piece that says what it cost."""
        whole = self.item.settle()
        told = self.item.told
        if not self._chunks:
            yield self._piece(told["model"], whole)
        shown_first = ("model", "task")
        smart = {name: value for name, value in told.items() if name not in shown_first}
        metadata: dict[str, Any] = {"smart": smart}
        if not whole.response_metadata.get("model_name"):
            metadata["model_name"] = told["model"]
        last = AIMessageChunk(
            content="" if isinstance(whole.content, str) else [],
            usage_metadata=self._usage,
            response_metadata=metadata,
            chunk_position="last",
        )
        yield ChatGenerationChunk(message=last)

    # -- calls -----------------------------------------------------------------

    def _call(self, call: Call, messages: list[BaseMessage]) -> None:
        """Make one call and record what it brings."""
        try:
            bound = self.put_to(self.members[call.tier])
            config = member_config(self.run)
            message = quiet_context().run(bound.invoke, messages, config)
        except BaseException as error:
            self.item.record(call, Failure(error))
            if not isinstance(error, Exception):
                raise
        else:
            self.item.record(call, self._outcome(call, message))

    async def _acall(self, call: Call, messages: list[BaseMessage]) -> None:
        """Make one call and record what it brings."""
        try:
            bound = self.put_to(self.members[call.tier])
            message = await bound.ainvoke(messages, member_config(self.run))
        except BaseException as error:
            self.item.record(call, Failure(error))
            if not isinstance(error, Exception):
                raise
        else:
            self.item.record(call, self._outcome(call, message))

    @contextmanager
    def _beside(
        self, calls: Sequence[Call], messages: list[BaseMessage]
    ) -> Iterator[None]:
        """Make calls in threads meanwhile."""
        if not calls:
            yield
            return
        with ThreadPoolExecutor(len(calls), "smart") as pool:
            for call in calls:
                pool.submit(copy_context().run, self._call, call, messages)
            yield

    @asynccontextmanager
    async def _abeside(
        self, calls: Sequence[Call], messages: list[BaseMessage]
    ) -> AsyncIterator[None]:
        """Make calls in tasks meanwhile."""
        tasks = [
            asyncio.create_task(self._acall(call, messages), context=quiet_context())
            for call in calls
        ]
        try:
            yield
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _outcome(self, call: Call, message: AIMessage) -> Outcome | Failure:
        """Return what a message brought, priced."""
        return outcome(self.members[call.tier], message)

    @property
    def _usage(self) -> UsageMetadata | None:
        """What all models used together."""
        usage = None
        for message in self.item.said.values():
            usage = add_usage(usage, message.usage_metadata)
        return usage


def _as_chunk(message: AIMessage) -> AIMessageChunk:
    """Return a whole message as the only piece of a stream."""
    fields = message.model_dump(exclude={"type"})
    return AIMessageChunk(**fields)
