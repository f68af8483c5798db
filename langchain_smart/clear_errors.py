"""Construction errors told plainly: ours as they are, pydantic's as ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.language_models.chat_models import BaseChatModel
from pydantic import ConfigDict, ValidationError

from smart_engine.serving.construction import plain_error

__all__ = ["ClearErrorsChatModel"]


class ClearErrorsChatModel(BaseChatModel):
    """A chat model whose constructor raises `InvalidInputError` and nothing else.

    Unknown arguments are errors, too: a misspelt guarantee must not pass unseen.
    """

    model_config = ConfigDict(extra="forbid")

    if not TYPE_CHECKING:  # type checkers see the fields as arguments

        def __init__(self, **kwargs: Any) -> None:
            """Take the fields by name."""
            try:
                super().__init__(**kwargs)
            except ValidationError as error:
                raise plain_error(error, type(self)) from None
