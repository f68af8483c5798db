"""How a chat model is asked about one item, and what its messages brought.

Every call of a chat member goes through here, in batches and on its own.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import add_ai_message_chunks

from langchain_smart.bound import Bound
from langchain_smart.members import ChatMember, outcome
from langchain_smart.runs import Run, member_config
from smart_engine.calls import Failure, Outcome

__all__ = ["ChatAsker", "as_chunk"]


@dataclass(frozen=True, slots=True)
class ChatAsker:
    """Puts one item to chat models.

    Attributes:
        members: The models by name.
        put_to: Makes a model ready to be asked; what it raises fails that call.
        given: What to send.
        run: The run of the item, where core tells it.
    """

    members: Mapping[str, ChatMember]
    put_to: Callable[[ChatMember], Bound]
    given: LanguageModelInput
    run: Run | None = None

    watched = False  # core itself streams where somebody shows an answer

    def streamed(self, name: str) -> bool:
        """Whether any of a whole answer was shown: never here."""
        del name
        return False

    def ask(self, name: str, *, shown: bool = False) -> Outcome | Failure:
        """Return what a model brings."""
        del shown
        member = self.members[name]
        bound = self.put_to(member)
        return outcome(member, bound.invoke(self.given, member_config(self.run)))

    async def aask(self, name: str, *, shown: bool = False) -> Outcome | Failure:
        """Return what a model brings."""
        del shown
        member = self.members[name]
        bound = self.put_to(member)
        return outcome(member, await bound.ainvoke(self.given, member_config(self.run)))

    def stream(self, name: str) -> Iterator[AIMessageChunk]:
        """Yield a model's answer piece by piece."""
        bound = self.put_to(self.members[name])
        for message in bound.stream(self.given, member_config(self.run)):
            yield as_chunk(message)

    async def astream(self, name: str) -> AsyncGenerator[AIMessageChunk]:
        """Yield a model's answer piece by piece."""
        bound = self.put_to(self.members[name])
        pieces = bound.astream(self.given, member_config(self.run))
        try:
            async for message in pieces:
                yield as_chunk(message)
        finally:
            await pieces.aclose()

    def whole(self, name: str, pieces: Sequence[AIMessageChunk]) -> Outcome | Failure:
        """Return what a streamed answer brought."""
        return outcome(self.members[name], add_ai_message_chunks(*pieces))

    def broken_off(
        self, name: str, pieces: Sequence[AIMessageChunk], error: BaseException
    ) -> Failure:
        """Return what an answer brought that ended by an error: its usage so far."""
        told = [piece for piece in pieces if piece.usage_metadata]
        if not told:
            return Failure(error)
        billed = self.whole(name, told)
        return Failure(error, billed.paid, billed.usage)


def as_chunk(message: AIMessage) -> AIMessageChunk:
    """Return a message as a piece of a stream."""
    if isinstance(message, AIMessageChunk):
        return message
    fields = message.model_dump(exclude={"type"})
    return AIMessageChunk(**fields)
