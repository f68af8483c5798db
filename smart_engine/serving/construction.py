"""Errors at construction, told plainly: ours as they are, pydantic's as ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from smart_engine.errors import InvalidInputError

__all__ = ["PlainErrors"]


class PlainErrors(BaseModel):
    """A model whose constructor raises `InvalidInputError` and nothing else.

    Pydantic's own errors show every argument, keys among them. Unknown arguments are
    errors, too: a misspelt guarantee must not pass unseen. A class with further bases
    repeats that in its `model_config`, for they may say otherwise.
    """

    model_config = ConfigDict(extra="forbid")

    if not TYPE_CHECKING:  # type checkers see the fields as arguments

        def __init__(self, **kwargs: Any) -> None:
            try:
                super().__init__(**kwargs)
            except ValidationError as error:
                raise _plain(error, type(self)) from None


def _plain(error: ValidationError, model: type[BaseModel]) -> InvalidInputError:
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
