"""One task's items in a batch: their session, their runs, and how each is asked.

Everything that sync and async share is here, whatever is asked; what differs by `await`
is in `Batches`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.runnables import RunnableConfig

from smart_engine.batch.certificate import Certificate
from smart_engine.calls import Call, Failure, Outcome, Served
from smart_engine.equivalence import Equivalence
from smart_engine.money.ledger import LedgerScope
from smart_engine.serving.session import AnySession

__all__ = ["Job", "Share"]


@dataclass(frozen=True, slots=True)
class Share:
    """One task's share of a batch.

    Attributes:
        task: Name of the task, if one was given.
        places: Per item, its place in the whole batch.
        given: Per item, its input.
        configs: Per item, the config it came with.
        one_config: Whether all items came with the same config.
    """

    task: str | None
    places: Sequence[int]
    given: Sequence[Any]
    configs: Sequence[RunnableConfig]
    one_config: bool


@dataclass
class Job(ABC):
    """The items of one task in a batch, and their session.

    Attributes:
        share: The items.
        session: A fresh session over them.
        scope: Where its calls are entered.
        task: Name of the task.
        rule: How answers are compared.
        runs: Per item, its run, once it has begun.
        manager: Callback manager of the last run begun.
    """

    share: Share
    session: AnySession
    scope: LedgerScope
    task: str
    rule: Equivalence
    runs: list[Any] = field(init=False)
    manager: Any = field(init=False, default=None)

    def __post_init__(self) -> None:
        """No run has begun."""
        self.runs = [None] * len(self.share.places)

    # -- runs ------------------------------------------------------------------

    def begin(self, item: int) -> None:
        """Begin an item's run, if it has none."""
        if self.runs[item] is None:
            if self.manager is None or not self.share.one_config:
                self.manager = self.configured(item, is_async=False)
            self.runs[item] = self.started(item)

    async def abegin(self, item: int) -> None:
        """Begin an item's run, if it has none."""
        if self.runs[item] is None:
            if self.manager is None or not self.share.one_config:
                self.manager = self.configured(item, is_async=True)
            self.runs[item] = await self.astarted(item)

    @abstractmethod
    def configured(self, item: int, *, is_async: bool) -> Any:
        """Return the callback manager of an item's run."""

    @abstractmethod
    def started(self, item: int) -> Any:
        """Start an item's run by the manager."""

    @abstractmethod
    async def astarted(self, item: int) -> Any:
        """Start an item's run by the manager."""

    @abstractmethod
    def end(self, run: Any, output: Any) -> Awaitable[None] | None:
        """End a run with its output or error; what it returns has to be awaited."""

    @property
    def begun(self) -> list[Any]:
        """The runs that have begun."""
        return [run for run in self.runs if run is not None]

    # -- calls and results -----------------------------------------------------

    @abstractmethod
    def ask(self, call: Call) -> Outcome | Failure:
        """Make one call."""

    @abstractmethod
    async def aask(self, call: Call) -> Outcome | Failure:
        """Make one call."""

    @abstractmethod
    def broken_off(self, call: Call, error: BaseException) -> Failure:
        """Return what a call brought that raised an error."""

    def results(self) -> list[Any]:
        """Return per item its answer, or why there is none."""
        certificate = self.session.certificate
        certificate_id = certificate.id
        return [
            served.error or self.handed_out(served, certificate, certificate_id)
            for served in self.session.answers
        ]

    @abstractmethod
    def handed_out(
        self, served: Served, certificate: Certificate, certificate_id: str
    ) -> Any:
        """Return the answer of an item as its user gets it."""
