"""How the money that a rule spends while it compares reaches the books.

Whoever keeps books opens a meter around a comparison; whatever is spent within it, at
any depth, is entered in every meter that is open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from smart_engine.batch.certificate import Spend
from smart_engine.calls import Failure, Outcome, Result
from smart_engine.money.pricing import Usage

__all__ = ["EMBEDDING", "JUDGE", "Bought", "add", "book", "booked", "metered", "spent"]

JUDGE = "judge: "
"""How the names of judges begin in books; models' names stand as they are."""

EMBEDDING = "embedding: "
"""How the names of embedding models begin there."""

Table = dict[str, Spend]

Bought = list[tuple[str, Result]]
"""Calls that rules made, one by one: who was asked, and what that brought."""

_OPEN: ContextVar[tuple[Bought, ...]] = ContextVar("smart_meters", default=())


@contextmanager
def metered() -> Iterator[Bought]:
    """Collect the calls that rules make meanwhile.

    Example:
        ```python
        from smart_engine.calls import Outcome

        with metered() as bought:
            book("judge: big", Outcome("same", cost=0.25))
            book("judge: big", Outcome("same", cost=0.25))
        table = {}
        add(table, bought)
        assert table == {"judge: big": Spend(calls=2, cost=0.5)}
        ```
    """
    bought: Bought = []
    token = _OPEN.set((*_OPEN.get(), bought))
    try:
        yield bought
    finally:
        _OPEN.reset(token)


def book(name: str, brought: Result) -> None:
    """Enter a call in all meters that are open.

    Args:
        name: Who was asked, after what for: `judge: …`.
        brought: What that brought.
    """
    for bought in _OPEN.get():
        bought.append((name, brought))


def booked(name: str, ask: Callable[[], Result]) -> Outcome:
    """Return what a rule's own call brought, once it is in all meters that are open.

    Args:
        name: Who is asked, after what for.
        ask: Makes the call.

    Raises:
        BaseException: Whatever made the call fail; the failure is booked, too.
    """
    try:
        brought = ask()
    except BaseException as error:
        book(name, Failure(error))
        raise
    book(name, brought)
    if isinstance(brought, Failure):
        raise brought.error
    return brought


def add(table: Table, bought: Bought) -> None:
    """Add what was spent to a table."""
    for name, brought in bought:
        table[name] = table.get(name, Spend()) + spent(brought)


def spent(outcome: Result) -> Spend:
    """Return what one call spent."""
    usage = outcome.usage or Usage()
    return Spend(
        calls=1,
        failures=isinstance(outcome, Failure),
        cost=outcome.paid,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        estimated=outcome.estimated,
    )
