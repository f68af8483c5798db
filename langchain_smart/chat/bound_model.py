"""A chat model and everything it is called with, in the model's own form."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.runnables import Runnable, RunnableBinding

__all__ = ["BoundModel", "unwrapped"]


@dataclass(frozen=True, slots=True)
class BoundModel:
    """A model and what it is called with.

    Attributes:
        model: The model to call: never a binding, whose empty config would bring the
            ambient callbacks back in.
        arguments: What it is called with beside the messages.
        parser: Turns its messages into the object that was asked for, if one was.
    """

    model: BaseChatModel
    arguments: dict[str, Any] = field(default_factory=dict)
    parser: Runnable[Any, Any] | None = None

    def called_with(self, arguments: dict[str, Any]) -> BoundModel:
        """Return the same with further arguments, which take precedence."""
        return replace(self, arguments={**self.arguments, **arguments})

    @property
    def streaming_arguments(self) -> dict[str, Any]:
        """Arguments of a streamed call: it reports usage unless that was chosen."""
        undecided = getattr(self.model, "stream_usage", ...) is None
        return {"stream_usage": True, **self.arguments} if undecided else self.arguments


def unwrapped(runnable: Runnable[Any, Any]) -> tuple[Any, dict[str, Any]]:
    """Return what bindings are around, and all arguments that they bind to it."""
    arguments: dict[str, Any] = {}
    while isinstance(runnable, RunnableBinding):
        arguments = {**runnable.kwargs, **arguments}
        runnable = runnable.bound
    return runnable, arguments
