"""What a call of a chain can do in a LangGraph graph that it is a part of.

A graph gives its nodes access to itself (its state, checkpoints, interrupts and
streams) in the config, under names of its own.
Only the reference may ask a human, write to the state, or save checkpoints: a candidate
that tries to has failed. What a call streams reaches the user only if its answer is the
one that is handed out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["within_graph"]

_OWN = "__pregel_"
"""Prefix of those names."""

_STREAM, _RUNTIME = "__pregel_stream", "__pregel_runtime"

_HARMLESS = {_STREAM, _RUNTIME, "__pregel_read", "__pregel_read_state"}
_HARMLESS |= {"__pregel_task_id"}  # a graph inside raises what it would ask a human

_UNSAVED = {"__pregel_checkpointer": None}
"""With it, a graph inside saves no checkpoints, not even to its own checkpointer."""


def within_graph(
    configurable: Mapping[str, Any], *, reference: bool, heard: bool
) -> dict[str, Any]:
    """Return what a chain's call gets as `configurable`.

    Args:
        configurable: What the item got.
        reference: Whether the chain is the reference.
        heard: Whether the graph's user may see what the call streams.
    """
    given = dict(configurable)
    if not any(name.startswith(_OWN) for name in given):
        return given
    if not reference:
        kept = {n: v for n, v in given.items() if not n.startswith(_OWN)}
        given = kept | _UNSAVED | {n: given[n] for n in _HARMLESS & given.keys()}
    if not heard:
        given.pop(_STREAM, None)
        if _RUNTIME in given:
            given[_RUNTIME] = given[_RUNTIME].override(stream_writer=lambda _: None)
    return given
