"""What callbacks and instrumentation see: each call of a member, as it reports it.

The smart LLM itself reports no call, so that each token counts once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import Context, copy_context
from dataclasses import replace
from typing import TypeVar

from llama_index.core.callbacks import CallbackManager
from llama_index.core.instrumentation.span import active_span_id
from llama_index_instrumentation.dispatcher import DISPATCHER_SPAN_DECORATED_ATTR

from llama_index_smart.members import LLMMember

__all__ = ["one_span", "reporting", "within"]

F = TypeVar("F", bound=Callable[..., object])


def reporting(
    members: Mapping[str, LLMMember], callbacks: CallbackManager
) -> dict[str, LLMMember]:
    """Return members that report their calls to these callbacks."""

    def with_callbacks(member: LLMMember) -> LLMMember:
        model = member.model
        if model.callback_manager is callbacks:
            return member
        update = {"callback_manager": callbacks}
        return replace(member, model=model.model_copy(update=update))

    return {name: with_callbacks(member) for name, member in members.items()}


def within(span: str | None) -> Context:
    """Return a copy of this context in which calls belong to a span.

    A stream is read when the span of the verb that returned it has ended.
    """
    context = copy_context()
    context.run(active_span_id.set, span)
    return context


def one_span(verb: F) -> F:
    """Mark a verb as one that calls the verb of its name, which has a span."""
    setattr(verb, DISPATCHER_SPAN_DECORATED_ATTR, True)
    return verb
