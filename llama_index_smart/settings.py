"""What a smart LLM is: its members, what it promises, what it tells of itself."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Annotated, Any, Self

from llama_index.core.base.llms.types import LLMMetadata
from llama_index.core.llms.function_calling import FunctionCallingLLM
from pydantic import (
    ConfigDict,
    Field,
    PrivateAttr,
    SkipValidation,
    ValidationError,
)
from typing_extensions import override

from llama_index_smart.compare import ResponseReading
from llama_index_smart.cost import check_bounded, most, output_limit
from llama_index_smart.estimates import estimated
from llama_index_smart.members import (
    Estimate,
    LLMMember,
    read_model,
    settings_of,
    shared_metadata,
)
from llama_index_smart.request import Ask
from llama_index_smart.stored import read_response, write_response
from llama_index_smart.tasks import fingerprint, lasting, task_of_prompt
from smart_engine.calls import Call
from smart_engine.equivalence import EquivalenceLike, Normalized, as_equivalence
from smart_engine.errors import InvalidInputError
from smart_engine.guarantee import Guarantee
from smart_engine.money.ledger import Ledger, LedgerScope
from smart_engine.money.pricing import Price
from smart_engine.money.reservations import Reservations
from smart_engine.report.report import Report
from smart_engine.serving.books import Books
from smart_engine.serving.config import ServingConfig
from smart_engine.serving.construction import plain_error
from smart_engine.serving.item import SingleItem
from smart_engine.serving.members import find_members
from smart_engine.serving.profile import Persistence
from smart_engine.serving.resume import ResumedSession
from smart_engine.serving.session import AnySession
from smart_engine.store.store import Store, as_store

__all__ = ["SmartSettings"]


class SmartSettings(FunctionCallingLLM):
    """The fields of a smart LLM, checked before anything is spent.

    See `SmartLLM` for what they mean.
    """

    reference: Annotated[Any, SkipValidation] = Field(
        exclude=True, repr=False, frozen=True
    )
    candidates: Annotated[Sequence[Any], SkipValidation] = Field(
        exclude=True, repr=False, frozen=True
    )
    max_disagreement: float = 0.05
    confidence: float = 0.95
    strategy: str = "audit"
    looks: str = "corrected"
    mode: str = "serve"
    budget_usd: float | None = None
    equivalence: Annotated[EquivalenceLike, SkipValidation] = Field(
        default_factory=Normalized, exclude=True, repr=False
    )
    prices: dict[str, Price] = Field(default_factory=dict)
    seed: int = 0
    max_concurrency: int = 32
    progress: bool = False
    task: str | None = None
    store: Annotated[Store | str | PathLike[str] | None, SkipValidation] = Field(
        default=None, exclude=True, repr=False
    )
    accept_noise: bool = False
    estimate_usage: bool = False
    books: Annotated[Books | None, SkipValidation] = Field(
        default=None, exclude=True, repr=False
    )

    model_config = ConfigDict(extra="forbid")  # a misspelt guarantee must not pass

    _members: tuple[LLMMember, ...] = PrivateAttr()
    _by_name: dict[str, LLMMember] = PrivateAttr()

    if not TYPE_CHECKING:  # type checkers see the fields as arguments

        def __init__(self, **kwargs: Any) -> None:
            """Take the fields by name; raise `InvalidInputError` and nothing else."""
            try:
                super().__init__(**kwargs)
            except ValidationError as error:
                raise plain_error(error, type(self)) from None

    @override
    def model_post_init(self, context: Any, /) -> None:
        """Check everything before anything is spent."""
        super().model_post_init(context)
        self._members = find_members(
            self.reference, self.candidates, self.prices, read_model
        )
        self._by_name = {member.name: member for member in self._members}
        billed = {member.name: member.price for member in self._members}
        self.prices = {**self.prices, **billed}
        self.equivalence = as_equivalence(self.equivalence)
        self._terms.check()
        if self.budget_usd is not None:
            for member in self._members:
                output_limit(member, {})
        self.store = as_store(self.store)
        self.books = self.books or Books(threading.Lock)
        self.books.admit(self._by_name)

    def report(self) -> Report:
        """Return what was asked, paid and saved so far, with all certificates."""
        return self._books.report()

    def ledger(self) -> Ledger:
        """Return every call so far, one by one and in sums.

        What an LLM's own client tries again is seen once. `report()` is made of the
        same rows.
        """
        return self._books.ledger()

    @property
    def _books(self) -> Books:
        """The books, which are there once the model is made."""
        if self.books is None:
            raise InvalidInputError("books", None, "leave it out to start new ones")
        return self.books

    @property
    def _terms(self) -> ServingConfig:
        """What was told, as the engine knows it; fields may have been set since."""
        return ServingConfig(
            models=tuple(self._by_name),
            guarantee=Guarantee(self.max_disagreement, self.confidence),
            rule=as_equivalence(self.equivalence),
            strategy=self.strategy,
            looks=self.looks,
            mode=self.mode,
            budget_usd=self.budget_usd,
            seed=self.seed,
            max_concurrency=self.max_concurrency,
            accept_noise=self.accept_noise,
        )

    def _task_of(self, asks: Sequence[Ask[Any]]) -> str:
        """Return the task of some items, which is one."""
        named = next((ask.task for ask in asks if ask.task is not None), None)
        return named or self.task or task_of_prompt() or fingerprint(asks)

    def _reading(self, asks: Sequence[Ask[Any]]) -> ResponseReading:
        """Return how answers to some items are compared."""
        offered = frozenset[str]().union(*(ask.tool_names for ask in asks))
        return ResponseReading(as_equivalence(self.equivalence), offered)

    def _estimate(self, ask: Ask[Any]) -> Estimate | None:
        """Return what estimates the usage of a call, if that is allowed."""
        return partial(estimated, ask) if self.estimate_usage else None

    def _item(self, ask: Ask[Any], task: str) -> SingleItem:
        """Return one item of a task, and who decides on it."""
        terms, rule = self._terms, self._reading([ask])

        def bound(call: Call) -> float:
            return most(self._by_name[call.tier], ask)

        keeping = self._keeping(ask)
        router = terms.router(self._books, rule, task, ask.model, bound, keeping)
        return SingleItem(router, self._books, terms.models[0], task)

    def _session(
        self, asks: Sequence[Ask[Any]], task: str, scope: LedgerScope
    ) -> AnySession:
        """Return a session over some items, which may go on where one was cut off."""
        terms, rule = self._terms, self._reading(asks)
        if terms.budget_usd is not None:
            check_bounded(self._members, asks)

        def bound(call: Call) -> float:
            return most(self._by_name[call.tier], asks[call.item])

        books = self._books
        budget = terms.budget(books)
        reservations = None
        if budget is not None:
            reservations = Reservations(budget, bound, books.new_lock())
        session = terms.session(len(asks), rule, task, scope, books, reservations)
        if not isinstance(self.store, Store):
            return session
        job = terms.job(rule, task, self._asked(asks))
        stored = self.store.answers(job, write_response, read_response)
        return ResumedSession(session, stored)

    def _keeping(self, ask: Ask[Any]) -> Persistence | None:
        """Return how the stream of an item is kept, if there is a store."""
        if not isinstance(self.store, Store):
            return None

        template = task_of_prompt()  # now: that of whoever asks
        return Persistence(
            self.store, self._models_told, lambda: lasting(ask, template)
        )

    def _models_told(self) -> Iterator[tuple[str, str]]:
        """Yield each member's name, and a text that tells its settings."""
        for member in self._members:
            yield member.name, settings_of(member.model)

    def _asked(self, asks: Sequence[Ask[Any]]) -> Iterator[str]:
        """Yield what is asked of whom, as texts."""
        yield from map(repr, self._models_told())
        for ask in asks:
            messages = [message.model_dump() for message in ask.messages or ()]
            yield repr((messages, ask.prompt, ask.told_tools, ask.arguments))

    # -- what LlamaIndex asks of an LLM ----------------------------------------

    @classmethod
    @override
    def class_name(cls) -> str:
        return "SmartLLM"

    @property
    @override
    def metadata(self) -> LLMMetadata:
        return shared_metadata(self._members)

    @override
    def to_payload(self) -> dict[str, Any]:
        return {**super().to_payload(), "members": list(self._by_name)}

    @override
    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Return the settings: no member, hence no secret; see `from_dict`."""
        data = super().to_dict(**kwargs)
        rule = as_equivalence(self.equivalence).name
        return {**data, "members": list(self._by_name), "equivalence": rule}

    @classmethod
    @override
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> Self:
        """Return a smart LLM of these settings.

        Args:
            data: What `to_dict` returned.
            **kwargs: `reference` and `candidates`, which are not among the settings, as
                they hold secrets; and `equivalence`, if it was not `Normalized()`.

        Raises:
            InvalidInputError: If one of them is missing.
        """
        data = dict(data)
        members, rule = data.pop("members", None), data.pop("equivalence", None)
        for name in ("reference", "candidates"):
            if name not in kwargs:
                hint = f"a stored SmartLLM holds no models; give them again ({members})"
                raise InvalidInputError(
                    name, None, f"{hint}: from_dict(data, {name}=…)"
                )
        if rule != Normalized().name and "equivalence" not in kwargs:
            hint = "it is not stored; give it again: from_dict(data, equivalence=…)"
            raise InvalidInputError("equivalence", rule, hint)
        return super().from_dict(data, **kwargs)

    @override
    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled; nothing may be left out without a word."""
        for name in ("reference", "candidates", "equivalence"):
            try:
                pickle.dumps(getattr(self, name))
            except Exception as error:
                hint = f"it cannot be pickled ({error}), and without it nothing holds"
                raise InvalidInputError(
                    name, type(getattr(self, name)), hint
                ) from error
        return super().__getstate__()

    @override
    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Return a copy with the same members, which hold connections, and books."""
        return self.model_copy(update={"prices": dict(self.prices)})
