"""`Profile`: all that what a stream has learned is good for, and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

__all__ = ["Persistence", "Profile", "RowText", "StreamRow", "StreamStore", "mark"]


def mark(text: str) -> str:
    """Return a short hash of a text, which may hold what is nobody's business."""
    return "#" + hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Profile:
    """What a stream is good for: names, figures and hashes, never a prompt.

    Attributes:
        task: Name of the task.
        mode: Whether it serves or is only tried: `"serve"` or `"shadow"`.
        parts: What must be the same for the stream to go on, part by part.

    Example:
        ```python
        old = Profile("mail", "serve", {"models": "big #1, small #2", "seed": "0"})
        new = Profile("mail", "serve", {"models": "big #1, small #3", "seed": "0"})
        assert old.fingerprint != new.fingerprint
        assert new.changes(old.parts) == "models (big #1, small #2 → big #1, small #3)"
        ```
    """

    task: str
    mode: str
    parts: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        """Hash of all of it."""
        told = json.dumps([self.task, self.mode, sorted(self.parts.items())])
        return hashlib.sha256(told.encode()).hexdigest()

    def changes(self, before: Mapping[str, str]) -> str:
        """Say in which parts it differs from another, and how."""
        return ", ".join(
            f"{part} ({before.get(part, 'none')} → {value})"
            for part, value in self.parts.items()
            if before.get(part) != value
        )


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


class StreamStore(Protocol):
    """A store of streams by their profiles."""

    def row(self, profile: Profile, column: Literal["state", "budget"]) -> StreamRow:
        """Return the state or the budget of a profile's stream."""
        ...


class Persistence(NamedTuple):
    """How the streams of a smart model are kept.

    Attributes:
        profiles: Where.
        models: Returns each model's name and a text that tells its settings.
        prompt: Returns a text that tells what is asked beside the item itself.
    """

    profiles: StreamStore
    models: Callable[[], Iterable[tuple[str, str]]]
    prompt: Callable[[], str]
