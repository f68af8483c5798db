"""One item at a time: a member is asked, the books are kept, the answer is marked.

Which member answers is decided elsewhere; sync and async share all that is not a call.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from langchain_smart.batch import marked
from langchain_smart.books import Books
from langchain_smart.bound import Bound
from langchain_smart.members import Member
from langchain_smart.runs import (
    Run,
    aeach_in,
    each_in,
    member_config,
    quiet_context,
)
from smart_engine.calls import Failure, Outcome
from smart_engine.certificate import Spend
from smart_engine.pricing import Usage

__all__ = ["Single"]


@dataclass
class Single:
    """One answer in the making.

    Attributes:
        member: Who answers.
        bound: That member, ready to be asked.
        role: Why it answers.
        task: The item's task.
        books: Where its cost is entered.
        run: The run of the item, where core tells it.
    """

    member: Member
    bound: Bound
    role: str
    task: str
    books: Books
    run: Run | None = None
    _chunks: list[AIMessageChunk] = field(default_factory=list)

    # -- whole answers ---------------------------------------------------------

    def ask(self, messages: list[BaseMessage]) -> ChatResult:
        """Return the answer."""
        config = member_config(self.run)
        with self._counting_failure():
            message = quiet_context().run(self.bound.invoke, messages, config)
        return self._result(message)

    async def aask(self, messages: list[BaseMessage]) -> ChatResult:
        """Return the answer."""
        answering = self.bound.ainvoke(messages, member_config(self.run))
        with self._counting_failure():
            message = await asyncio.create_task(answering, context=quiet_context())
        return self._result(message)

    def _result(self, message: AIMessage) -> ChatResult:
        """Enter the call in the books and return its answer."""
        usage = message.usage_metadata
        answer = marked(message, None, usage, **self._who, **self._settle(message))
        return ChatResult(generations=[ChatGeneration(message=answer)])

    # -- answers that come piece by piece --------------------------------------

    def stream(self, messages: list[BaseMessage]) -> Iterator[ChatGenerationChunk]:
        """Yield the answer piece by piece, as it comes."""
        pieces = self.bound.stream(messages, member_config(self.run))
        with self._counting_failure():
            for message in each_in(quiet_context(), pieces):
                yield self._piece(message)
        yield self._closing()

    async def astream(
        self, messages: list[BaseMessage]
    ) -> AsyncGenerator[ChatGenerationChunk]:
        """Yield the answer piece by piece, as it comes."""
        asked = self.bound.astream(messages, member_config(self.run))
        with self._counting_failure():
            async with aclosing(aeach_in(quiet_context(), asked)) as pieces:
                async for message in pieces:
                    yield self._piece(message)
        yield self._closing()

    def _piece(self, message: AIMessage) -> ChatGenerationChunk:
        """Keep a piece and return it; the first one says who answers."""
        chunk = message if isinstance(message, AIMessageChunk) else _as_chunk(message)
        metadata = {k: v for k, v in chunk.response_metadata.items() if k != "smart"}
        if not self._chunks:
            metadata["smart"] = self._who
        self._chunks.append(chunk)
        update = {"id": None, "chunk_position": None, "response_metadata": metadata}
        return ChatGenerationChunk(message=chunk.model_copy(update=update))

    def _closing(self) -> ChatGenerationChunk:
        """Enter the call in the books and return a piece that says what it cost."""
        first, *rest = self._chunks or [AIMessageChunk(content="")]
        whole = add_ai_message_chunks(first, *rest)
        metadata: dict[str, Any] = {"smart": self._settle(whole)}
        if not whole.response_metadata.get("model_name"):
            metadata["model_name"] = self.member.name
        last = AIMessageChunk(
            content="" if isinstance(whole.content, str) else [],
            response_metadata=metadata,
            chunk_position="last",
        )
        return ChatGenerationChunk(message=last)

    # -- the books -------------------------------------------------------------

    @property
    def _who(self) -> dict[str, Any]:
        """Who answers, and why."""
        return {"model": self.member.name, "role": self.role, "task": self.task}

    def _settle(self, message: AIMessage) -> dict[str, Any]:
        """Enter the call that brought a message; return what it cost."""
        outcome = self.member.outcome(message)
        self._enter(outcome, failed=isinstance(outcome, Failure))
        if isinstance(outcome, Failure):
            raise outcome.error
        return {"cost": outcome.paid, "saved": 0.0, "certificate": None}

    def _enter(self, outcome: Outcome | Failure, *, failed: bool) -> None:
        """Enter one call in the books."""
        usage = outcome.usage or Usage()
        spend = Spend(
            calls=1,
            failures=failed,
            cost=outcome.paid,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
        )
        self.books.enter({self.member.name: spend})

    @contextmanager
    def _counting_failure(self) -> Iterator[None]:
        """Enter a call that fails, or is broken off, with the usage told so far."""
        try:
            yield
        except BaseException as error:
            told = [chunk for chunk in self._chunks if chunk.usage_metadata]
            outcome: Outcome | Failure = Failure(error)
            if told:
                outcome = self.member.outcome(add_ai_message_chunks(*told))
            self._enter(outcome, failed=True)
            raise


def _as_chunk(message: AIMessage) -> AIMessageChunk:
    """Return a whole message as the only piece of a stream."""
    fields = message.model_dump(exclude={"type"})
    return AIMessageChunk(**fields)
