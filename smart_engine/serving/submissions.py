"""Which requests are in which batch of a provider, so that none is bought twice.

A batch is remembered before it is submitted, under a name of ours that the provider
keeps with it. Whoever finds it remembered, but not submitted as far as is known, looks
for the name at the provider first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["MemorySubmissions", "Submission", "SubmissionStore"]


@dataclass(frozen=True, slots=True)
class Submission:
    """A batch that was submitted to a provider, or is about to be.

    Attributes:
        name: Our name of it.
        model: Name of the model that it asks.
        address: Where the provider is.
        kind: What its requests have in common, as the provider's carrier tells.
        rows: Names of its requests.
        began: When it was first remembered, in seconds since 1970, UTC.
        batch: The provider's id of it; None as long as that is not known.
        account: What tells the key with which it was submitted from other keys; None
            if an older version submitted it.
    """

    name: str
    model: str
    address: str
    kind: str
    rows: tuple[str, ...]
    began: float
    batch: str | None = None
    account: str | None = None


class SubmissionStore(Protocol):
    """The batches that one job has submitted."""

    @property
    def key(self) -> str:
        """What tells the job's requests from those of others."""
        ...

    @property
    def durable(self) -> bool:
        """Whether another process finds them."""
        ...

    def saved(self) -> Sequence[Submission]:
        """Return all, the oldest first."""
        ...

    def save(self, submission: Submission) -> None:
        """Remember a batch, or what is known of it now, durably once this returns.

        Raises:
            StoreError: If that is not possible.
        """
        ...


class MemorySubmissions:
    """The batches of a job that ends with its process: none to begin with.

    Args:
        key: See `SubmissionStore`.

    Example:
        ```python
        submissions = MemorySubmissions("a job")
        submissions.save(Submission("a name", "big", "http://…", "", ("a row",), 0))
        assert not submissions.durable
        assert not submissions.saved()  # nobody comes back to them
        ```
    """

    durable = False

    def __init__(self, key: str) -> None:
        self.key = key

    def saved(self) -> Sequence[Submission]:
        """Return nothing: there was no process before."""
        return ()

    def save(self, submission: Submission) -> None:
        """Remember nothing: the process itself knows."""
