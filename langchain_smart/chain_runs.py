"""Callbacks of chains: whoever counts sees every model, whoever shows only the answer.

The run of a smart chain has the tiers' runs below it, and tracers and plain handlers
see all of them, as in any chain: what a token counter counts is what was spent. Those
who show an answer while it is made see inside a tier only if its answer is handed out.
"""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.runnables import RunnableConfig
from langchain_core.tracers.base import AsyncBaseTracer, BaseTracer
from typing_extensions import override

from langchain_smart.meter import Meter

__all__ = ["is_watched", "tier_config"]

_PIECES = ("on_llm_new_token", "on_stream_event")
"""Events that tell pieces of an answer."""


def is_watched(config: RunnableConfig) -> bool:
    """Whether somebody shows the answer while it is made, such as `astream_events`."""
    return any(_shows(handler) for handler in _manager(config).inheritable_handlers)


def tier_config(
    config: RunnableConfig, meter: Meter, name: str, *, shown: bool
) -> RunnableConfig:
    """Return the config for one call of a tier.

    Args:
        config: The config of the item, with the callbacks of its run's children.
        meter: Reads what the call costs.
        name: What the tier's run is called.
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
