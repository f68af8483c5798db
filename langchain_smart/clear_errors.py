"""Construction errors told plainly: ours as they are, pydantic's as ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.load.serializable import Serializable
from pydantic import ConfigDict, ValidationError

from smart_engine.serving.construction import plain_error

__all__ = ["PlainErrors"]


class PlainErrors(Serializable):
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
                raise plain_error(error, type(self)) from None
