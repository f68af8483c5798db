"""`Profile`: what a stream's guarantee applies to, and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from smart_engine.row import StreamRow

__all__ = ["Persistence", "Profile", "StreamStore", "mark"]


def mark(text: str) -> str:
    """Return a short hash of a text that may be confidential."""
    return "#" + hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Profile:
    """What a stream's guarantee applies to: names, figures and hashes, never a prompt.

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
        text = json.dumps([self.task, self.mode, sorted(self.parts.items())])
        return hashlib.sha256(text.encode()).hexdigest()

    def changes(self, before: Mapping[str, str]) -> str:
        """Say in which parts it differs from another, and how."""
        return ", ".join(
            f"{part} ({before.get(part, 'none')} → {value})"
            for part, value in self.parts.items()
            if before.get(part) != value
        )


class StreamStore(Protocol):
    """A store of streams by their profiles."""

    def row(self, profile: Profile, column: Literal["state", "budget"]) -> StreamRow:
        """Return the state or the budget of a profile's stream."""
        ...


class Persistence(NamedTuple):
    """How the streams of a smart model outlive the process.

    Attributes:
        store: The store.
        models: Returns each model's name and a text that states its settings.
        prompt: Returns a text that states what is asked beside the item itself.
    """

    store: StreamStore
    models: Callable[[], Iterable[tuple[str, str]]]
    prompt: Callable[[], str]
