"""Callbacks: what the handlers of a run see of the models and chains below it.

Chat models: handlers that record (tracers, counters of tokens) see every member's run
as a child of the item's run, and the item's run without tokens, so each token counts
once. Other handlers see the item alone, as the caller does, so streams show one answer.
Chains: tracers and plain handlers see every model's run, as in any chain; handlers that
show answers while they are written see inside a chain only if its answer is handed out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from inspect import iscoroutinefunction
from typing import Any, TypeVar

from langchain_core.callbacks import (
    AsyncCallbackHandler,
    AsyncCallbackManagerForLLMRun,
    BaseCallbackHandler,
    BaseCallbackManager,
    CallbackManager,
    CallbackManagerForLLMRun,
    Callbacks,
)
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import LLMResult
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
    "recorded",
    "silenced",
    "started",
]

RUN = "smart_run"
"""Argument that carries an item's run to the call: core passes none to streams."""

Run = CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun
"""One item's run."""

R = TypeVar("R", bound=BaseCallbackManager | Run)


def started(
    config: RunnableConfig, local: Callbacks
) -> tuple[RunnableConfig, dict[str, Any]]:
    """Return a config with a run's id, and the argument that passes that to the call.

    Without a handler that records nothing is added.

    Args:
        config: The config of the item.
        local: The smart model's own callbacks.
    """
    manager = recorded(CallbackManager.configure(config.get("callbacks"), local))
    if not any(type(handler) is _Recorder for handler in manager.handlers):
        return config, {}
    run_id = config.get("run_id") or uuid7()
    manager.add_tags(config.get("tags") or [])
    manager.add_metadata(config.get("metadata") or {})
    run = CallbackManagerForLLMRun(
        run_id=run_id,
        handlers=manager.handlers,
        inheritable_handlers=manager.inheritable_handlers,
        inheritable_tags=manager.inheritable_tags,
        inheritable_metadata=manager.inheritable_metadata,
    )
    return {**config, "callbacks": manager, "run_id": run_id}, {RUN: run}


def recorded(run: R) -> R:
    """Return an item's run, or its manager, that reports no tokens to recorders."""
    run.handlers = [
        _Recorder(handler) if _records(handler) else handler for handler in run.handlers
    ]
    return run


def member_config(
    run: Run | None, task: str, model: str, reference: str
) -> RunnableConfig:
    """Return the config for calling a member on behalf of a run.

    Args:
        run: The run of the item.
        task: Name of the item's task.
        model: Name of the member.
        reference: Name of the reference.

    What a handler raises there fails no call: it sees which models are asked about an
    item, and whether an audit counts may not depend on that.
    """
    handlers = [] if run is None else run.handlers
    recorders = [each for each in handlers if isinstance(each, _Recorder)]
    seen = [
        _Proxy(handler, {"raise_error": False}) if handler.raise_error else handler
        for handler in (_without(each.inner, _PIECES) for each in recorders)
    ]
    if run is None or not seen:
        return {"callbacks": [], "tags": ["nostream"]}
    manager = CallbackManager(
        handlers=[*seen], inheritable_handlers=[*seen], parent_run_id=run.run_id
    )
    manager.add_tags(run.inheritable_tags)
    marks = _marks(task, model, reference)
    manager.add_metadata({**run.inheritable_metadata, **marks})
    return {"callbacks": manager, "tags": ["nostream"]}


def _marks(task: str, model: str, reference: str) -> dict[str, str]:
    """Return what tracers such as LangSmith are told of a model's run, as metadata."""
    role = "reference" if model == reference else "candidate"
    return {"smart_task": task, "smart_model": model, "smart_role": role}


def silenced(model: BaseChatModel) -> BaseChatModel:
    """Return a model without handlers of its own."""
    if not (model.callbacks or model.verbose):
        return model
    return model.model_copy(update={"callbacks": None, "verbose": False})


def _records(handler: BaseCallbackHandler) -> bool:
    """Whether a handler accounts for models' runs, rather than show their answers.

    One that hears of pieces shows them, unless it follows chains, too: it keeps a tree
    of runs.
    """
    if type(handler) is _Recorder or _shows(handler):
        return False
    if isinstance(handler, BaseTracer | AsyncBaseTracer):
        return True
    if any(variable.get() is handler for variable in _ambient()):
        return True
    shows = _listens(handler, *_PIECES) and not _listens(handler, "on_chain_start")
    return _listens(handler, "on_llm_end") and not shows


def _listens(handler: BaseCallbackHandler, *events: str) -> bool:
    """Whether a handler does anything at one of these events."""
    # A proxy's own class is that of the handler behind it.
    kinds = handler.__class__, BaseCallbackHandler, AsyncCallbackHandler
    found = ([getattr(kind, name) for kind in kinds] for name in events)
    return any(own not in bases for own, *bases in found)


def quiet_context() -> Context:
    """Return a copy of this context in which no ambient handler is switched on.

    LangChain adds such handlers (`get_usage_metadata_callback`, for one) to every run
    started in their scope; the item's own run has them already.
    """
    copy = copy_context()
    for variable in _ambient():
        copy.run(variable.set, None)
    return copy


def _ambient() -> list[Any]:
    """Return the variables that hold handlers which are switched on by a scope."""
    from langchain_core.tracers import context

    # Not a public name: without it a token counter would only count twice.
    return [variable for variable, *_ in getattr(context, "_configure_hooks", ())]


_NO_TOKENS = UsageMetadata(input_tokens=0, output_tokens=0, total_tokens=0)
"""Reported, because services estimate the tokens of runs that report none."""

_REPORTS = ("token_usage", "usage", "usage_metadata")
"""Metadata of messages in which counters look for tokens, too."""


def _event_without_tokens(event: Callable[..., Any]) -> Callable[..., Any]:
    """Return a handler's event for the end of a run, without the run's usage."""
    if iscoroutinefunction(event):

        async def aended(response: LLMResult, **kwargs: Any) -> Any:
            return await event(_without_tokens(response), **kwargs)

        return aended

    def ended(response: LLMResult, **kwargs: Any) -> Any:
        return event(_without_tokens(response), **kwargs)

    return ended


def _without_tokens(response: LLMResult) -> LLMResult:
    """Return the result of an item's run without the usage of its answer."""

    def stripped(generation: Any) -> Any:
        reported = generation.message.response_metadata.items()
        metadata = {name: value for name, value in reported if name not in _REPORTS}
        update = {"usage_metadata": _NO_TOKENS, "response_metadata": metadata}
        message = generation.message.model_copy(update=update)
        return generation.model_copy(update={"message": message})

    lines = [[stripped(each) for each in line] for line in response.generations]
    return response.model_copy(update={"generations": lines})


# -- chains ---------------------------------------------------------------------------

_PIECES = ("on_llm_new_token", "on_stream_event")
"""Events with pieces of an answer."""


def is_watched(config: RunnableConfig) -> bool:
    """Whether a handler shows the answer as it is written, as `astream_events` does."""
    manager: Any = config["callbacks"]
    return any(_shows(handler) for handler in manager.inheritable_handlers)


def chain_config(
    config: RunnableConfig,
    meter: BaseCallbackHandler,
    task: str,
    name: str,
    reference: str,
    *,
    shown: bool,
    heard: bool,
) -> RunnableConfig:
    """Return the config for one call of a chain.

    Args:
        config: The config of the item, with the callbacks of its run's children.
        meter: Reads what the call costs.
        task: Name of the item's task.
        name: Name of the chain, and of its run.
        reference: Name of the reference.
        shown: Whether its answer is shown while it is written.
        heard: Whether its answer is handed out if the call succeeds.
    """
    callbacks: Any = config["callbacks"]
    manager = callbacks.copy()
    handlers = manager.inheritable_handlers
    if not shown:
        events = _PIECES if heard else (*_PIECES, "on_custom_event")
        handlers = [_without(each, events) for each in handlers if not _shows(each)]
        manager.add_tags(["nostream"])
    manager.add_metadata(dict(_marks(task, name, reference)))
    manager.set_handlers([meter, *handlers])  # others see no run that it refuses
    return {**config, "callbacks": manager, "run_name": name}


def _shows(handler: BaseCallbackHandler) -> bool:
    """Whether a handler shows answers while they are written."""
    return hasattr(handler, "tap_output_iter")


def _without(
    handler: BaseCallbackHandler, events: Sequence[str]
) -> BaseCallbackHandler:
    """Return a handler that does not hear some events.

    Tracers hear them all: they record what happened.
    """
    tracer = isinstance(handler, BaseTracer | AsyncBaseTracer)
    if tracer or not _listens(handler, *events):
        return handler
    return _Proxy(handler, dict.fromkeys(events, lambda *_, **__: None))


class _Proxy(BaseCallbackHandler):
    """A handler in all but some attributes; core takes the two for equal."""

    def __init__(self, inner: BaseCallbackHandler, instead: dict[str, Any]) -> None:
        self._inner, self._instead = inner, instead

    @override
    def __getattribute__(self, name: str) -> Any:
        instead = object.__getattribute__(self, "_instead")
        if name in instead:
            return instead[name]
        return getattr(object.__getattribute__(self, "_inner"), name)

    @override
    def __eq__(self, other: object) -> bool:
        return bool(object.__getattribute__(self, "_inner") == other)

    @override
    def __hash__(self) -> int:
        return hash(object.__getattribute__(self, "_inner"))


class _Recorder(_Proxy):
    """A recording handler as an item's run has it; members have the `inner` one."""

    inner: BaseCallbackHandler

    def __init__(self, inner: Any) -> None:
        instead = {
            "inner": inner,
            "on_llm_end": _event_without_tokens(inner.on_llm_end),
        }
        if hasattr(inner, "copy_with_metadata_defaults"):  # core copies LangSmith's
            copied = inner.copy_with_metadata_defaults
            instead["copy_with_metadata_defaults"] = lambda **defaults: _Recorder(
                copied(**defaults)
            )
        super().__init__(inner, instead)
