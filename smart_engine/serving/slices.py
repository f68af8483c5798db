"""To which slice an item belongs: what a function says, or a key of its config."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from smart_engine.errors import InvalidInputError
from smart_engine.evidence.slices import name_of_slice

__all__ = ["SliceOf", "check_slices", "slice_of"]

SliceOf = str | Callable[[Any], object]
"""A key, or a function from an input to the name of its slice."""


def check_slices(slices: object, *, keys: str | None) -> None:
    """Raise unless slices are given by a function, or by a key where there are keys.

    Args:
        slices: As the user gave it.
        keys: Where keys are looked up; None: nowhere.

    Raises:
        InvalidInputError: It names the way out.
    """
    if slices is None or callable(slices) or (keys and slices and type(slices) is str):
        return
    key = f", or a key of {keys}, such as 'tenant'" if keys else ""
    hint = f"give a function from an input to the name of its slice{key}"
    raise InvalidInputError("slices", slices, hint)


def slice_of(
    slices: SliceOf, given: Any, item: int, keys: Mapping[str, Any] | None = None
) -> str:
    """Return the name of an item's slice.

    Args:
        slices: The key or function.
        given: The item's input.
        item: Its place among the inputs.
        keys: What keys are looked up in.

    Raises:
        InvalidInputError: If it is in none.
    """
    if isinstance(slices, str):
        name = (keys or {}).get(slices)
        if name is None:
            hint = f"item {item} has no such key: give it in its config's metadata"
            raise InvalidInputError("slices", slices, hint)
        return name_of_slice(name, item)
    try:
        name = slices(given)
    except Exception as error:
        hint = f"the function failed on item {item}: {type(error).__name__}: {error}"
        raise InvalidInputError("slices", slices, hint) from error
    return name_of_slice(name, item)
