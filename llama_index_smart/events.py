"""What callbacks and instrumentation see: each call of a member, as it reports it.

The smart LLM itself reports no call, so that each token counts once. A call that is
made for its request alone is no event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextvars import Context, copy_context
from dataclasses import replace
from typing import Any, TypeVar

from llama_index.core.callbacks import CallbackManager
from llama_index.core.instrumentation.span import active_span_id
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.dispatcher import DISPATCHER_SPAN_DECORATED_ATTR

from llama_index_smart.members import LLMMember
from smart_engine.runtime.lanes.exchange import only_writing

__all__ = ["hear_no_writing", "one_span", "reporting", "within"]

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


class _Handlers(list[Any]):
    """Handlers that hear nothing of calls which are made for their requests alone."""

    def __iter__(self) -> Iterator[Any]:
        return iter(()) if only_writing() else super().__iter__()


def hear_no_writing() -> None:
    """Keep such calls from all handlers that are attached, now or later."""
    manager = get_dispatcher(__name__).manager
    for dispatcher in list(manager.dispatchers.values()) if manager else ():
        if type(dispatcher.event_handlers) is not _Handlers:
            dispatcher.event_handlers = _Handlers(dispatcher.event_handlers)
        if type(dispatcher.span_handlers) is not _Handlers:
            dispatcher.span_handlers = _Handlers(dispatcher.span_handlers)


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
