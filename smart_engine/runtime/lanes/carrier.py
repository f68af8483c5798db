"""What a provider's batches have in common: the only place that knows a provider.

A carrier makes single requests, each once: the dispatcher decides whether one is made
again. What it raises is what the provider's own client raises.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit, urlunsplit

from smart_engine.errors import SmartError
from smart_engine.runtime.lanes.exchange import Reply, Request
from smart_engine.serving.submissions import Submission

__all__ = [
    "Carrier",
    "GoneError",
    "Limits",
    "NoReply",
    "NotYetKnownError",
    "Row",
    "State",
    "UnansweredError",
    "UncarriableError",
    "account_of",
    "without_user",
]

_DIGITS = 4
"""Digits of a key's hash that are kept: they tell keys apart, and let none be found."""


def account_of(*credentials: object) -> str:
    """Return what tells credentials from others, and does not disclose them.

    Example:
        ```python
        assert account_of("sk-1", "project") == account_of("sk-1", "project")
        assert account_of("sk-1", "project") != account_of("sk-2", "project")
        ```
    """
    return sha256(repr(credentials).encode()).hexdigest()[:_DIGITS]


def without_user(address: object) -> str:
    """Return an address without a user and a password, which may be in it.

    Example:
        ```python
        assert (
            without_user("https://me:secret@a.example/v1/") == "https://a.example/v1/"
        )
        ```
    """
    parts = urlsplit(str(address))
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))


class UnansweredError(SmartError):
    """A batch ended without an answer to a request, which is not billed."""


class GoneError(SmartError):
    """A provider has no longer a batch, or its answers: whether it billed them is open.

    See `UnansweredError` for requests that are not billed.
    """


class UncarriableError(SmartError):
    """A request that no batch takes."""


NoReply = GoneError | UnansweredError | UncarriableError
"""Why a request that was to be carried has no reply."""


class NotYetKnownError(SmartError):
    """Whether a batch is the one that is looked for shows only later."""


class Row(NamedTuple):
    """One request in a batch.

    Attributes:
        name: What tells it from all others.
        request: The request.
    """

    name: str
    request: Request


@dataclass(frozen=True, slots=True)
class Limits:
    """What a provider takes in one batch.

    Attributes:
        rows: Most requests.
        size: Most bytes.
    """

    rows: int
    size: int


@dataclass(frozen=True, slots=True)
class State:
    """Where a batch is.

    Attributes:
        name: What the provider calls its state.
        ended: Whether nothing more will happen to it.
        done: Requests that are answered so far.
        problem: Why the whole batch failed, if it did.
        busy: Whether it failed because too much is waiting already: later it may work.
    """

    name: str
    ended: bool
    done: int = 0
    problem: str | None = None
    busy: bool = False


class Carrier(Protocol):
    """Carries requests in a provider's batches."""

    limits: Limits

    @property
    def address(self) -> str:
        """Where the provider is."""
        ...

    @property
    def account(self) -> str:
        """What tells the key that is used from other keys: see `account_of`.

        Providers show a batch to the keys of its project or workspace only.
        """
        ...

    def kind(self, request: Request) -> str:
        """Return what all requests of one batch have in common.

        Raises:
            UncarriableError: If such a request cannot be carried in a batch.
        """
        ...

    def encode(self, row: Row) -> bytes:
        """Return a request as a batch has it."""
        ...

    def submit(self, name: str, kind: str, rows: Sequence[bytes]) -> str:
        """Submit a batch under a name of ours; return the provider's id of it.

        Called again with the same name, it goes on where it failed.
        """
        ...

    def find(self, submission: Submission, others: Collection[str]) -> str | None:
        """Return the id of the batch that was submitted for it, if any was.

        Args:
            submission: What is remembered of it.
            others: Ids of batches that are known to be others.

        Raises:
            NotYetKnownError: If that shows only later.
        """
        ...

    def look(self, batch: str) -> State:
        """Return where a batch is.

        Raises:
            GoneError: If its answers are no longer there.
        """
        ...

    def replies(self, batch: str) -> Iterator[tuple[str, Reply | UnansweredError]]:
        """Yield the rows' names and what came of them, in any order.

        Rows of which the provider says nothing are left out. If a part of the results
        is no longer there, the provider's error is raised once the rest was yielded.
        """
        ...

    def cancel(self, batch: str) -> None:
        """Let a batch end with what is answered so far, which is billed."""
        ...
