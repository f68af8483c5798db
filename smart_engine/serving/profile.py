"""`Profile`: what a stream's guarantee applies to, and nothing else."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from smart_engine.row import StreamRow

__all__ = ["Persistence", "Profile", "StreamStore", "mark"]


def mark(text: str) -> str:
    """Return a short hash of a text that may be confidential."""
    return "#" + hashlib.sha256(text.encode()).hexdigest()[:12]


_HASH = re.compile(r" ?#\w+")
"""What stands for texts that are never written down."""


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
        assert new.changes(old.parts) == "models (other settings of small)"
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
        """Say in which parts it differs from another, and how, without the hashes."""
        return ", ".join(
            _change(part, str(before.get(part, "none")), value)
            for part, value in self.parts.items()
            if before.get(part) != value
        )


def _change(part: str, before: str, after: str) -> str:
    """Return how a part differs; where only hashes do, whose these are."""
    old, new = (_HASH.sub("", text) for text in (before, after))
    if old != new:
        return f"{part} ({old or 'another'} → {new or 'another'})"
    pairs = [*zip(before.split(", "), after.split(", "), strict=True)]
    if not old:
        return part
    if not all("#" in text for _, text in pairs):
        return f"{part} (other settings, or something else is asked with each item)"
    names = [_HASH.sub("", text) for was, text in pairs if was != text]
    return f"{part} (other settings of {' and '.join(names)})"


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
