"""How an equivalence reads a message: its text, and nothing it was refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage

from smart_engine.equivalence import Equivalence
from smart_engine.errors import UnparseableAnswerError

__all__ = ["MessageText"]


@dataclass(frozen=True, slots=True)
class MessageText:
    """Applies an equivalence of texts to messages.

    A refusal cannot be read, and neither can an empty message: a candidate's item
    then escalates to the reference.

    Args:
        inner: The equivalence of texts.
    """

    inner: Equivalence

    @property
    def name(self) -> str:
        """Name of the inner equivalence."""
        return self.inner.name

    @property
    def keyed(self) -> bool:
        """Whether equal readings mean equal answers."""
        return bool(getattr(self.inner, "keyed", False))

    def parse(self, answer: AIMessage) -> Any:
        """Return what the inner equivalence reads in the message's text."""
        if answer.additional_kwargs.get("refusal"):
            raise UnparseableAnswerError("the model refused to answer")
        text = str(answer.text)
        if not text.strip():
            raise UnparseableAnswerError("the message has no text")
        return self.inner.parse(text)

    def same(self, left: Any, right: Any) -> bool:
        """Whether the inner equivalence takes both for the same."""
        return self.inner.same(left, right)
