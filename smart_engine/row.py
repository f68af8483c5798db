"""The port through which streams and budgets outlive a process: a row of text."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

__all__ = ["RowText", "StreamRow"]


@dataclass(slots=True)
class RowText:
    """What a locked row holds; change it to write something else.

    Attributes:
        text: The row's text; empty at first.
    """

    text: str = field(repr=False)


class StreamRow(Protocol):
    """A text that several processes read and write."""

    def locked(self, *, durable: bool) -> AbstractContextManager[RowText]:
        """Lock it against all others, and write what the block leaves in it.

        If the block raises, all stays as it was.

        Args:
            durable: Whether what is written must outlive a power cut. All that was
                written before then does, too.

        Raises:
            StoreError: If it cannot be read or written; whether it was written then is
                unknown.
        """
        ...
