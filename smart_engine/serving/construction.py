"""Construction errors told plainly: ours as they are, pydantic's as ours.

Pydantic's own would show every argument that was given, keys among them.
"""

from __future__ import annotations

from pydantic import BaseModel, ValidationError

from smart_engine.errors import InvalidInputError

__all__ = ["plain_error"]


def plain_error(error: ValidationError, model: type[BaseModel]) -> InvalidInputError:
    """Return the first of pydantic's errors as one of ours.

    Args:
        error: What pydantic raised.
        model: The class that was to be made.
    """
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
