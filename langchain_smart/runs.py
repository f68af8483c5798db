"""Callbacks: one run per item for whoever watches, member runs nested below it.

A member's run is shown to tracers only, as a child of the item's run. Other handlers
see the item once, so token counters count once and streams show one answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    Generator,
    Iterable,
    Iterator,
)
from contextvars import Context, copy_context
from typing import Any, TypeVar

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForLLMRun,
    CallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.runnables import RunnableConfig
from langchain_core.tracers.base import AsyncBaseTracer, BaseTracer

__all__ = [
    "Run",
    "aeach_in",
    "each_in",
    "member_config",
    "quiet_context",
    "silence_ambient_handlers",
]

T = TypeVar("T")
_END = object()

Run = CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun
"""Callback manager of one item's run."""


def member_config(run: Run | None) -> RunnableConfig:
    """Return the config for calling a member on behalf of a run."""
    if run is None:
        return {"callbacks": [], "tags": ["nostream"]}
    tracers = [
        handler
        for handler in run.inheritable_handlers
        if isinstance(handler, BaseTracer | AsyncBaseTracer)
    ]
    if not tracers:
        return {"callbacks": [], "tags": ["nostream"]}
    is_async = isinstance(run, AsyncCallbackManagerForLLMRun)
    manager = (AsyncCallbackManager if is_async else CallbackManager)(
        handlers=list(tracers),
        inheritable_handlers=list(tracers),
        parent_run_id=run.run_id,
        tags=list(run.inheritable_tags),
        inheritable_tags=list(run.inheritable_tags),
        metadata=dict(run.inheritable_metadata),
        inheritable_metadata=dict(run.inheritable_metadata),
    )
    return {"callbacks": manager, "tags": ["nostream"]}


def quiet_context() -> Context:
    """Return a copy of this context in which no ambient handler is switched on.

    LangChain adds such handlers (`get_usage_metadata_callback`, for one) to every run
    started in their scope; the item's own run has them already.
    """
    context = copy_context()
    context.run(silence_ambient_handlers)
    return context


def each_in(context: Context, iterator: Iterator[T]) -> Iterator[T]:
    """Yield from an iterator that runs in a context."""
    try:
        while (item := context.run(next, iterator, _END)) is not _END:
            yield item  # type: ignore[misc]
    finally:
        if isinstance(iterator, Generator):
            context.run(iterator.close)


async def aeach_in(context: Context, iterator: AsyncGenerator[T]) -> AsyncGenerator[T]:
    """Yield from an iterator that runs in a context."""

    async def step() -> Any:
        return await anext(iterator, _END)

    try:
        while (item := await asyncio.create_task(step(), context=context)) is not _END:
            yield item
    finally:
        await asyncio.create_task(_aclose(iterator), context=context)


async def _aclose(iterator: AsyncGenerator[Any]) -> None:
    """Close an iterator."""
    await iterator.aclose()


def silence_ambient_handlers() -> None:
    """Switch ambient handlers off in the current context."""
    for variable in _ambient_handlers():
        variable.set(None)


def _ambient_handlers() -> Iterable[Any]:
    """Yield the context variables that LangChain adds handlers from."""
    from langchain_core.tracers import context

    # Not a public name: without it a token counter would only count twice.
    for variable, *_ in getattr(context, "_configure_hooks", ()):
        yield variable
