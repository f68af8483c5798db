"""How the money that a rule spends while it compares reaches the books.

Whoever keeps books opens a meter around a comparison; whatever is spent within it, at
any depth, is entered in every meter that is open.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from smart_engine.calls import Failure, Outcome
from smart_engine.certificate import Spend
from smart_engine.pricing import Usage

__all__ = ["add", "book", "metered", "spent"]

Table = dict[str, Spend]

_OPEN: ContextVar[tuple[Table, ...]] = ContextVar("smart_meters", default=())


@contextmanager
def metered() -> Iterator[Table]:
    """Collect what rules spend meanwhile, by name.

    Example:
        ```python
        with metered() as table:
            book("judge: big", Spend(calls=1, cost=0.25))
            book("judge: big", Spend(calls=1, cost=0.25))
        assert table == {"judge: big": Spend(calls=2, cost=0.5)}
        ```
    """
    table: Table = {}
    token = _OPEN.set((*_OPEN.get(), table))
    try:
        yield table
    finally:
        _OPEN.reset(token)


def book(name: str, spend: Spend) -> None:
    """Enter what was spent in all meters that are open."""
    for table in _OPEN.get():
        add(table, {name: spend})


def add(table: Table, more: Table) -> None:
    """Add what was spent to a table."""
    for name, spend in more.items():
        table[name] = table.get(name, Spend()) + spend


def spent(outcome: Outcome | Failure) -> Spend:
    """Return what one call spent."""
    usage = outcome.usage or Usage()
    return Spend(
        calls=1,
        failures=isinstance(outcome, Failure),
        cost=outcome.paid,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
    )
