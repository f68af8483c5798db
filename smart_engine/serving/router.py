"""Which models are asked about an item: a stream decides, or the caller named one.

Whatever decides, the item takes the same steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from smart_engine.calls import Call, Failure, Outcome, Served
from smart_engine.equivalence import Equivalence
from smart_engine.errors import StoreError
from smart_engine.money.reservations import Reservations
from smart_engine.warn import warn

__all__ = [
    "FixedRouter",
    "Router",
    "Settled",
    "ShadowRouter",
    "StoredRouter",
    "StoredStream",
]


class Settled(NamedTuple):
    """How an item was answered.

    Attributes:
        model: Name of the model whose answer is handed out.
        role: Why that model answered.
        error: Set where no answer could be had.
        reference_cost: What the reference costs an item, in USD, where known.
    """

    model: str
    role: str
    error: BaseException | None
    reference_cost: float | None


class Router(Protocol):
    """The steps of an item; see `StreamSession` for each."""

    @property
    def reservations(self) -> Reservations | None:
        """What the item's calls reserve, if there is a budget."""
        ...

    @property
    def waits(self) -> bool:
        """Whether steps may wait: for a database, or for a judge's verdict."""
        ...

    def arrive(self, *, shown: bool, rule: Equivalence | None = None) -> int:
        """Let the item in; its answers are compared by a rule of its own, if given."""
        ...

    def serving(self, item: int) -> str | None:
        """Name of the model whose answer is handed out if its call succeeds."""
        ...

    def next_calls(self, item: int) -> list[Call]:
        """Return the calls that may start now; no answers are compared for that."""
        ...

    def fall_back(self, item: int, model: str) -> None:
        """Let a candidate answer, whatever was decided, for the budget has ended."""
        ...

    def record(self, call: Call, outcome: Outcome | Failure) -> BaseException | None:
        """Record a call's result; return why its answer is of no use, if so."""
        ...

    def settle(self, item: int) -> Settled:
        """Hand out the answer."""
        ...

    def must_finish(self, item: int) -> bool:
        """Whether its calls have to be made to their end, for they decide an audit."""
        ...

    def abandon(self, item: int, *, shown: bool) -> None:
        """Close an item whose answer is no longer wanted, or was shown in part."""
        ...


class StoredStream(Router, Protocol):
    """A stream whose steps a store may fail to write."""

    def peek(self, item: int) -> Served | None:
        """Return the answer to an item if it can be handed out."""
        ...

    def forget(self, item: int) -> None:
        """Close an item whose step could not be written."""
        ...


class ShadowRouter:
    """One item in shadow: all models are asked, and the reference answers.

    The stream records only the calls that it would have made: its state is what it
    would be, had it served.

    Args:
        stream: The stream that is tried.
        models: Names of all models, the reference first.
        rule: Reads the candidates' answers.
    """

    reservations = None

    def __init__(
        self, stream: Router, models: Sequence[str], rule: Equivalence
    ) -> None:
        """Nobody was asked yet."""
        self._stream, self._models, self._rule = stream, models, rule
        self._item = -1
        self._asked = False
        self._results: dict[str, Outcome | Failure] = {}

    @property
    def waits(self) -> bool:
        """Whether steps may wait."""
        return self._stream.waits

    def arrive(self, *, shown: bool, rule: Equivalence | None = None) -> int:
        """Let the item in."""
        self._item = self._stream.arrive(shown=shown, rule=rule)
        return self._item

    def serving(self, item: int) -> str | None:
        """Name of the reference."""
        del item
        return self._models[0]

    def next_calls(self, item: int) -> list[Call]:
        """Return a call of every model, once."""
        calls = [] if self._asked else [Call(item, name) for name in self._models]
        self._asked = True
        return calls

    def fall_back(self, item: int, model: str) -> None:
        """The reference answers, or the item has no answer."""
        raise NotImplementedError

    def record(self, call: Call, outcome: Outcome | Failure) -> BaseException | None:
        """Keep a call's result; return why its answer is of no use, if so."""
        self._results[call.tier] = outcome
        if isinstance(outcome, Failure) or call.tier == self._models[0]:
            return None
        try:
            self._rule.parse(outcome.answer)
        except Exception as error:  # noqa: BLE001 - a user's rule may raise anything
            return error
        return None

    def settle(self, item: int) -> Settled:
        """Let the stream answer for itself; hand out the reference's answer."""
        while calls := self._stream.next_calls(item):
            for call in calls:
                self._stream.record(call, self._results[call.tier])
        tried = self._stream.settle(item)
        said = self._results[self._models[0]]
        error = said.error if isinstance(said, Failure) else None
        return Settled(self._models[0], "shadow", error, tried.reference_cost)

    def must_finish(self, item: int) -> bool:
        """Nothing is promised of a stream that is only tried."""
        del item
        return False

    def abandon(self, item: int, *, shown: bool) -> None:
        """Close the item in the stream."""
        self._stream.abandon(item, shown=shown)


class FixedRouter:
    """One item for a model that was named: nothing is left to decide.

    Args:
        name: Name of the model.
        role: Why it answers.
    """

    reservations, waits = None, False

    def __init__(self, name: str, role: str) -> None:
        """Nothing was asked yet."""
        self._name, self._role = name, role
        self._asked = False
        self._error: BaseException | None = None

    def arrive(self, *, shown: bool, rule: Equivalence | None = None) -> int:
        """Let the item in."""
        del shown, rule
        return 0

    def serving(self, item: int) -> str | None:
        """Name of the model."""
        del item
        return self._name

    def next_calls(self, item: int) -> list[Call]:
        """Return the one call, once."""
        calls = [] if self._asked else [Call(item, self._name)]
        self._asked = True
        return calls

    def fall_back(self, item: int, model: str) -> None:
        """The named model answers, or the item has no answer."""
        raise NotImplementedError

    def record(self, call: Call, outcome: Outcome | Failure) -> None:
        """Record the call's result."""
        del call
        self._error = outcome.error if isinstance(outcome, Failure) else None

    def settle(self, item: int) -> Settled:
        """Hand out the answer."""
        del item
        return Settled(self._name, self._role, self._error, None)

    def must_finish(self, item: int) -> bool:
        """Nothing is audited."""
        del item
        return False

    def abandon(self, item: int, *, shown: bool) -> None:
        """Nothing has to be settled."""


class StoredRouter:
    """One item of a stored stream; where the store fails, the reference answers.

    Args:
        stream: The stream.
        reference: Name of the reference.
    """

    reservations, waits = None, True

    def __init__(self, stream: StoredStream, reference: str) -> None:
        self._stream, self._reference = stream, reference
        self._asked: set[str] = set()
        self._outcomes: dict[str, Outcome | Failure] = {}
        self._alone = False
        self._ready: Served | None = None

    def arrive(self, *, shown: bool, rule: Equivalence | None = None) -> int:
        """Let the item in."""
        try:
            return self._stream.arrive(shown=shown, rule=rule)
        except StoreError as error:
            self._go_alone(-1, error)
            return -1

    def serving(self, item: int) -> str | None:
        """Name of the model whose answer is handed out if its call succeeds."""
        return self._reference if self._alone else self._stream.serving(item)

    def next_calls(self, item: int) -> list[Call]:
        """Return the calls that may start now."""
        if not self._alone:
            calls = self._stream.next_calls(item)
        elif self._ready is not None or self._reference in self._asked:
            calls = []
        else:
            calls = [Call(item, self._reference)]
        self._asked.update(call.tier for call in calls)
        return calls

    def fall_back(self, item: int, model: str) -> None:
        """Let a candidate answer, whatever was decided, for the budget has ended.

        Raises:
            StoreError: If the stream cannot count its answer.
        """
        if self._alone:
            raise StoreError("no stream counts an uncertified answer")
        self._stream.fall_back(item, model)

    def record(self, call: Call, outcome: Outcome | Failure) -> BaseException | None:
        """Record an outcome; return why its answer cannot be used, if so."""
        self._outcomes[call.tier] = outcome
        if self._alone:
            return None
        try:
            return self._stream.record(call, outcome)
        except StoreError as error:
            self._go_alone(call.item, error)
            return None

    def settle(self, item: int) -> Settled:
        """Hand out the answer."""
        if not self._alone:
            self._ready = self._stream.peek(item)
            try:
                return self._stream.settle(item)
            except StoreError as problem:
                self._go_alone(item, problem)
        if self._ready is not None:
            return Settled(self._ready.tier, self._ready.role, self._ready.error, None)
        outcome = self._outcomes[self._reference]
        error = outcome.error if isinstance(outcome, Failure) else None
        return Settled(self._reference, "reference", error, None)

    def must_finish(self, item: int) -> bool:
        """Whether its calls have to be made to their end, for they decide an audit."""
        return not self._alone and self._stream.must_finish(item)

    def abandon(self, item: int, *, shown: bool) -> None:
        """Close an item whose answer is no longer wanted, or was shown in part."""
        if self._alone:
            return
        try:
            self._stream.abandon(item, shown=shown)
        except StoreError as error:
            self._go_alone(item, error)

    def _go_alone(self, item: int, error: StoreError) -> None:
        """Go on without the stream."""
        self._alone = True
        self._ready = self._ready or self._stream.peek(item)
        self._stream.forget(item)
        why = f"an item goes on without its stream, at the reference's cost: {error}"
        warn(why)
