"""A member given with settings around it: what is only configuration is read.

Frameworks put such settings into an object around the model, which has the model as
`bound`, arguments of every call as `kwargs`, and settings of its runs as `config`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from smart_engine.errors import InvalidInputError

__all__ = ["unbound"]

_TOOLS = "bind tools on the smart model, by bind_tools, which reaches every member"
_CHOOSE = "which model answers is open: give the model as it is to be called"
_LISTENERS = "give the model itself a handler: callbacks=[…]"

_ARGUMENTS = dict.fromkeys(("tools", "tool_choice", "functions"), _TOOLS) | {
    "ls_structured_output_format": "ask the smart model, by with_structured_output",
    "model": "give a model that is made with this name: what it costs depends on it",
}
"""Bound arguments that are more than configuration → what to do instead."""

_KINDS = {
    "max_attempt_number": "give the model itself, with max_retries=…: these attempts "
    "are made here, each with a row in the ledger",
    "fallbacks": "give the models one by one, as candidates, or put the fallbacks "
    "around the smart model",
    "alternatives": _CHOOSE,
    "fields": _CHOOSE,
    "_configurable_fields": _CHOOSE,
    "middle": "a chain is not a model: give the model itself and put the rest around "
    "the smart model, as in `prompt | smart` or with_structured_output; SmartRunnable "
    "compares whole chains",
}
"""Attributes of other objects around a model → what to do instead."""

_OF_RUNS = {"run_name", "tags", "metadata", "callbacks"}


def unbound(field: str, given: Any, kind: type[Any]) -> tuple[Any, dict[str, Any]]:
    """Return a model, and the arguments that are bound to it.

    A name, tags, metadata and callbacks that are bound become a copy's own.

    Args:
        field: Where the model was given.
        given: The model, or something else, which is returned as it is.
        kind: What models are instances of.

    Raises:
        InvalidInputError: If there is more around it than configuration.

    Example:
        ```python
        from types import SimpleNamespace

        around = SimpleNamespace(bound="model", kwargs={"temperature": 0}, config={})
        assert unbound("reference", around, str) == ("model", {"temperature": 0})
        ```
    """
    arguments: dict[str, Any] = {}
    runs: list[dict[str, Any]] = []
    while not isinstance(given, kind) and (parts := getattr(given, "__dict__", None)):
        for name in _KINDS.keys() & parts.keys():
            raise InvalidInputError(field, type(given).__name__, _KINDS[name])
        if not {"bound", "kwargs", "config"} <= parts.keys():
            return given, {}
        if parts.get("config_factories"):
            raise InvalidInputError(field, type(given).__name__, _LISTENERS)
        arguments = {**parts["kwargs"], **arguments}
        runs.append({name: value for name, value in parts["config"].items() if value})
        given = parts["bound"]
    for name in _ARGUMENTS.keys() & arguments.keys():
        raise InvalidInputError(field, f".bind({name}=…)", _ARGUMENTS[name])
    for config in reversed(runs):
        for name in sorted(config.keys() - _OF_RUNS):
            hint = f"set {name} in the config of the smart model's calls"
            raise InvalidInputError(field, f".with_config({name}=…)", hint)
        if config:
            given = given.model_copy(update=_fields(given, config))
    return given, arguments


def _fields(model: Any, config: dict[str, Any]) -> dict[str, Any]:
    """Return a model's fields with the settings of its runs that a binding has."""
    own: dict[str, Any] = {"name": config.get("run_name") or model.name}
    own["metadata"] = {**(model.metadata or {}), **config.get("metadata", {})}
    own["tags"] = [*(model.tags or ()), *config.get("tags", ())]
    handlers = (*_handlers(model.callbacks), *_handlers(config.get("callbacks")))
    return own | ({"callbacks": [*handlers]} if handlers else {})


def _handlers(callbacks: Any) -> Iterable[Any]:
    """Return the handlers in a list, or in a manager."""
    handlers: Iterable[Any] = getattr(callbacks, "handlers", callbacks) or ()
    return handlers
