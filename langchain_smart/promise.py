"""What is promised, and how it is kept: the settings that all smart objects share."""

from __future__ import annotations

import threading
from os import PathLike
from typing import Annotated, Any

from pydantic import ConfigDict, Field, SkipValidation
from typing_extensions import override

from langchain_smart.clear_errors import PlainErrors
from smart_engine.equivalence import (
    Equivalence,
    EquivalenceLike,
    Normalized,
    as_equivalence,
)
from smart_engine.errors import InvalidInputError
from smart_engine.guarantee import Guarantee
from smart_engine.money.ledger import Ledger
from smart_engine.money.pricing import Price
from smart_engine.report.report import Report
from smart_engine.serving.books import Books
from smart_engine.serving.config import ServingConfig
from smart_engine.store.store import Store, as_store

__all__ = ["Promise"]


class Promise(PlainErrors):
    """Settings, terms and books; see `SmartChatModel` for what each setting means."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    max_disagreement: float = 0.05
    confidence: float = 0.95
    strategy: str = "audit"
    looks: str = "corrected"
    mode: str = "serve"
    equivalence: Annotated[EquivalenceLike, SkipValidation] = Field(
        default_factory=Normalized
    )
    prices: dict[str, Price] = Field(default_factory=dict, frozen=True)
    seed: int = 0
    max_concurrency: int = 32
    progress: bool = False
    task: str | None = None
    accept_noise: bool = False
    estimate_usage: bool = False
    budget_usd: float | None = None
    store: Annotated[Store | str | PathLike[str] | None, SkipValidation] = Field(
        default=None, exclude=True
    )
    books: Annotated[Books | None, SkipValidation] = Field(
        default=None, exclude=True, repr=False
    )

    def report(self) -> Report:
        """Return what was asked, paid and saved so far, with all certificates."""
        return self._books.report()

    def ledger(self) -> Ledger:
        """Return every call so far, one by one and in sums.

        A call that is made again, for `max_retries`, has a row for each attempt, as has
        each model's run within a chain; what a provider's own client tries again is
        seen once. `report()` is made of the same rows.
        """
        return self._books.ledger()

    def _open(self) -> None:
        """Check the terms before anything is spent, and open books and store."""
        self.equivalence = as_equivalence(self.equivalence)
        self._terms.check()
        self._check_bounds()
        self.books = self.books or Books(threading.Lock)
        self.books.admit(self._names)
        self.store = as_store(self.store)

    def _check_bounds(self) -> None:
        """Raise where there is a budget that could not be kept."""

    @override
    def __repr_args__(self) -> Any:
        """Tell who answers by name: what models show of themselves may be secret."""
        yield "models", list(self._names)
        for name, value in super().__repr_args__():
            if name not in ("reference", "candidates"):
                yield name, value

    @property
    def _names(self) -> tuple[str, ...]:
        """Names of all that may answer, the reference first."""
        raise NotImplementedError

    @property
    def _books(self) -> Books:
        """The books, which are there once they are opened."""
        if self.books is None:
            raise InvalidInputError("books", None, "leave it out to start new ones")
        return self.books

    @property
    def _rule(self) -> Equivalence:
        """When two answers mean the same."""
        return as_equivalence(self.equivalence)

    @property
    def _terms(self) -> ServingConfig:
        """What was told, as the engine knows it; fields may have been set since."""
        return ServingConfig(
            models=self._names,
            guarantee=Guarantee(self.max_disagreement, self.confidence),
            rule=self._rule,
            strategy=self.strategy,
            looks=self.looks,
            mode=self.mode,
            seed=self.seed,
            max_concurrency=self.max_concurrency,
            accept_noise=self.accept_noise,
            budget_usd=self.budget_usd,
        )
