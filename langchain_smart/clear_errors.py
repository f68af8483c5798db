"""Construction errors told plainly: ours as they are, pydantic's as ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.load.serializable import Serializable
from pydantic import ConfigDict, ValidationError

from smart_engine.errors import InvalidInputError

__all__ = ["ClearErrors"]


class ClearErrors(Serializable):
    """A mixin whose constructor raises `InvalidInputError` and nothing else.

    Unknown arguments are errors, too: a misspelt guarantee must not pass unseen.
    A class with further bases says so again, for they may say otherwise.
    """

    model_config = ConfigDict(extra="forbid")

    if not TYPE_CHECKING:  # type checkers see the fields as arguments

        def __init__(self, **kwargs: Any) -> None:
            """Take the fields by name."""
            try:
                super().__init__(**kwargs)
            except ValidationError as error:
                raise _plain(error, type(self)) from None


def _plain(error: ValidationError, model: type[Serializable]) -> InvalidInputError:
    """Return the first of pydantic's errors as one of ours."""
    first = error.errors()[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InvalidInputError):
        return cause
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return InvalidInputError(field, None, "this argument is needed")
    if first["type"] == "extra_forbidden":  # its value may be a key: keep it out
        known = ", ".join(model.model_fields)
        return InvalidInputError(field, ..., f"no such argument; there are {known}")
    return InvalidInputError(field, first["input"], first["msg"])
