"""Callbacks: what the handlers of a run see of the models and chains below it.

Of chat models: a member's run is shown to tracers only, as a child of the item's run.
Other handlers see the item once, so token counters count once and streams show one
answer. Of chains: tracers and plain handlers see every model's run, as in any chain, so
what a token counter counts is what was spent; handlers that show answers while they are
made see inside a chain only if its answer is handed out.
"""

from __future__ import annotations

from collections.abc import (
    Iterable,
)
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    BaseCallbackHandler,
    BaseCallbackManager,
    CallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.runnables import RunnableConfig
from langchain_core.tracers.base import AsyncBaseTracer, BaseTracer
from langchain_core.utils.uuid import uuid7
from typing_extensions import override

__all__ = [
    "RUN",
    "Run",
    "StartedRun",
    "chain_config",
    "is_watched",
    "member_config",
    "quiet_context",
    "started",
]

RUN = "smart_run"
"""Argument that carries a `StartedRun` to the call: core passes streams no manager."""


@dataclass(frozen=True, slots=True)
class StartedRun:
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


Run = CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | StartedRun
"""One item's run."""


def started(config: RunnableConfig) -> tuple[RunnableConfig, dict[str, Any]]:
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
    run = StartedRun(run_id, callbacks, tags, metadata)
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


# -- chains ---------------------------------------------------------------------------

_PIECES = ("on_llm_new_token", "on_stream_event")
"""Events that tell pieces of an answer."""


def is_watched(config: RunnableConfig) -> bool:
    """Whether somebody shows the answer while it is made, such as `astream_events`."""
    return any(_shows(handler) for handler in _manager(config).inheritable_handlers)


def chain_config(
    config: RunnableConfig, meter: BaseCallbackHandler, name: str, *, shown: bool
) -> RunnableConfig:
    """Return the config for one call of a chain.

    Args:
        config: The config of the item, with the callbacks of its run's children.
        meter: Reads what the call costs.
        name: What the chain's run is called.
        shown: Whether its answer is handed out if the call succeeds.
    """
    manager = _manager(config).copy()
    handlers = manager.inheritable_handlers
    if not shown:
        handlers = [_withheld(each) for each in handlers if not _shows(each)]
        manager.add_tags(["nostream"])
    manager.set_handlers([meter, *handlers])  # of a run it refuses, nobody is told
    return {**config, "callbacks": manager, "run_name": name}


def _manager(config: RunnableConfig) -> BaseCallbackManager:
    """Return the callback manager of a run's children."""
    manager = config["callbacks"]
    assert isinstance(manager, BaseCallbackManager)  # noqa: S101 - ours
    return manager


def _shows(handler: BaseCallbackHandler) -> bool:
    """Whether a handler shows answers while they are made."""
    return hasattr(handler, "tap_output_iter")


def _withheld(handler: BaseCallbackHandler) -> BaseCallbackHandler:
    """Return a handler that is not told of pieces of an answer.

    Tracers are: they keep what has happened.
    """
    base, own = BaseCallbackHandler, type(handler)
    tells = any(getattr(own, name) is not getattr(base, name) for name in _PIECES)
    if not tells or isinstance(handler, BaseTracer | AsyncBaseTracer):
        return handler
    return _Withheld(handler)


class _Withheld(BaseCallbackHandler):
    """A handler in all but the events that tell pieces of an answer.

    Args:
        inner: The handler.
    """

    def __init__(self, inner: BaseCallbackHandler) -> None:
        """Stand in for it."""
        self._inner = inner

    @override
    def __getattribute__(self, name: str) -> Any:
        if name in _PIECES:
            return _unheard
        return getattr(object.__getattribute__(self, "_inner"), name)


def _unheard(*_: Any, **__: Any) -> None:
    """Take an event and do nothing."""
