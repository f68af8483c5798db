"""Callbacks: what the handlers of a run see of the models and chains below it.

Chat models: only tracers see a member's run, as a child of the item's run. Other
handlers see the item once, so token counters count once and streams show one answer.
Chains: tracers and plain handlers see every model's run, as in any chain, so a token
counter counts what was spent; handlers that show answers while they are written see
inside a chain only if its answer is handed out.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import Context, copy_context
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    BaseCallbackHandler,
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
    "chain_config",
    "is_watched",
    "member_config",
    "quiet_context",
    "started",
]

RUN = "smart_run"
"""Argument that carries an item's run to the call: core passes none to streams."""

Run = CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun
"""One item's run."""


def started(config: RunnableConfig) -> tuple[RunnableConfig, dict[str, Any]]:
    """Return a config with a run's id, and the argument that passes that to the call.

    Without a tracer nothing is added.
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
    run = CallbackManagerForLLMRun(
        run_id=run_id,
        handlers=callbacks,
        inheritable_handlers=callbacks,
        inheritable_tags=tags,
        inheritable_metadata=metadata,
    )
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
    """Return the tracers that record runs: some only show tokens to users."""
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
    from langchain_core.tracers import context

    copy = copy_context()
    # Not a public name: without it a token counter would only count twice.
    for variable, *_ in getattr(context, "_configure_hooks", ()):
        copy.run(variable.set, None)
    return copy


# -- chains ---------------------------------------------------------------------------

_PIECES = ("on_llm_new_token", "on_stream_event")
"""Events with pieces of an answer."""


def is_watched(config: RunnableConfig) -> bool:
    """Whether a handler shows the answer as it is written, as `astream_events` does."""
    manager: Any = config["callbacks"]
    return any(_shows(handler) for handler in manager.inheritable_handlers)


def chain_config(
    config: RunnableConfig, meter: BaseCallbackHandler, name: str, *, shown: bool
) -> RunnableConfig:
    """Return the config for one call of a chain.

    Args:
        config: The config of the item, with the callbacks of its run's children.
        meter: Reads what the call costs.
        name: Name of the chain's run.
        shown: Whether its answer is handed out if the call succeeds.
    """
    callbacks: Any = config["callbacks"]
    manager = callbacks.copy()
    handlers = manager.inheritable_handlers
    if not shown:
        handlers = [_withheld(each) for each in handlers if not _shows(each)]
        manager.add_tags(["nostream"])
    manager.set_handlers([meter, *handlers])  # others see no run that it refuses
    return {**config, "callbacks": manager, "run_name": name}


def _shows(handler: BaseCallbackHandler) -> bool:
    """Whether a handler shows answers while they are written."""
    return hasattr(handler, "tap_output_iter")


def _withheld(handler: BaseCallbackHandler) -> BaseCallbackHandler:
    """Return a handler without the events that have pieces of an answer.

    Tracers have them all: they record what happened.
    """
    base, own = BaseCallbackHandler, type(handler)
    listens = any(getattr(own, name) is not getattr(base, name) for name in _PIECES)
    if not listens or isinstance(handler, BaseTracer | AsyncBaseTracer):
        return handler
    return _Withheld(handler)


class _Withheld(BaseCallbackHandler):
    """A handler in all but the events that have pieces of an answer."""

    def __init__(self, inner: BaseCallbackHandler) -> None:
        self._inner = inner

    @override
    def __getattribute__(self, name: str) -> Any:
        if name in _PIECES:
            return lambda *_, **__: None
        return getattr(object.__getattribute__(self, "_inner"), name)
