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
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    BaseCallbackHandler,
    CallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.runnables import RunnableConfig
from langchain_core.tracers.base import AsyncBaseTracer, BaseTracer
from langchain_core.utils.uuid import uuid7

__all__ = [
    "RUN",
    "BegunRun",
    "Run",
    "aeach_in",
    "begun",
    "each_in",
    "member_config",
    "quiet_context",
    "silence_ambient_handlers",
]

T = TypeVar("T")
_END = object()

RUN = "smart_run"
"""Argument that carries a `BegunRun` to the call: core passes streams no manager."""


@dataclass(frozen=True, slots=True)
class BegunRun:
    """A run that core will begin, with what its members' runs inherit.

    Attributes:
        run_id: Its id.
        inheritable_handlers: Who watches.
        inheritable_tags: Tags of the caller.
        inheritable_metadata: Metadata of the caller.
    """

    run_id: UUID
    inheritable_handlers: list[BaseCallbackHandler]
    inheritable_tags: list[str]
    inheritable_metadata: dict[str, Any]


Run = CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | BegunRun
"""One item's run."""


def begun(config: RunnableConfig) -> tuple[RunnableConfig, dict[str, Any]]:
    """Return a config with a run's id, and the argument that tells the call of it.

    Nothing is added where no tracer watches.
    """
    callbacks = config.get("callbacks") or []
    tags, metadata = config.get("tags") or [], config.get("metadata") or {}
    if not isinstance(callbacks, list):
        tags = [*callbacks.inheritable_tags, *tags]
        metadata = {**callbacks.inheritable_metadata, **metadata}
        callbacks = callbacks.inheritable_handlers
    if not _tracers(callbacks):
        return config, {}
    run_id = config.get("run_id") or uuid7()
    run = BegunRun(run_id, callbacks, tags, metadata)
    return {**config, "run_id": run_id}, {RUN: run}


def member_config(run: Run | None) -> RunnableConfig:
    """Return the config for calling a member on behalf of a run."""
    tracers = [] if run is None else _tracers(run.inheritable_handlers)
    if run is None or not tracers:
        return {"callbacks": [], "tags": ["nostream"]}
    manager = CallbackManager(
        handlers=list(tracers),
        inheritable_handlers=list(tracers),
        parent_run_id=run.run_id,
        tags=list(run.inheritable_tags),
        inheritable_tags=list(run.inheritable_tags),
        metadata=dict(run.inheritable_metadata),
        inheritable_metadata=dict(run.inheritable_metadata),
    )
    return {"callbacks": manager, "tags": ["nostream"]}


def _tracers(handlers: Iterable[BaseCallbackHandler]) -> list[BaseCallbackHandler]:
    """Return the tracers that keep runs; some only show tokens, as users see them."""
    return [
        handler
        for handler in handlers
        if isinstance(handler, BaseTracer | AsyncBaseTracer)
        and not hasattr(handler, "tap_output_iter")
    ]


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
