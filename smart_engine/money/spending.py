"""What calls cost in sum, and the calls that rules make while they compare answers.

A rule such as `Judge` makes its calls deep within a comparison. `record_rule_calls`
collects those of one comparison; each open collection receives every call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from pydantic import BaseModel

from smart_engine.calls import Failure, Outcome, Result
from smart_engine.money.pricing import Usage

__all__ = [
    "RuleCalls",
    "Spend",
    "add_spend",
    "cost_until",
    "make_rule_call",
    "note_cost",
    "record_rule_calls",
    "report_rule_call",
    "spend_of",
]


class Spend(BaseModel, frozen=True, extra="forbid"):
    """How often one model was called, and what it cost.

    Attributes:
        calls: Calls made, failed ones included.
        failures: Calls without a usable answer.
        cost: USD spent, failed calls included.
        input_tokens: Input tokens reported.
        output_tokens: Output tokens reported.
        estimated: USD of the cost that rest on an estimated usage, for the model
            reported none; its tokens are among those above.
        unknown: USD of the cost that calls are charged at most which failed, and of
            which nobody told whether they were billed.
    """

    calls: int = 0
    failures: int = 0
    cost: float = 0.0
    input_tokens: float = 0
    output_tokens: float = 0
    estimated: float = 0.0
    unknown: float = 0.0

    def __add__(self, other: Spend) -> Spend:
        """Return both together."""
        sums = {name: part + getattr(other, name) for name, part in self}
        return Spend(**sums)


def spend_of(result: Result) -> Spend:
    """Return what one call spent, with all its attempts; nothing if it was not made."""
    if isinstance(result, Failure) and result.sat_out:
        return Spend()
    usage, failed = result.usage or Usage(), isinstance(result, Failure)
    last = Spend(
        calls=1,
        failures=failed,
        cost=result.paid,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        estimated=result.estimated,
        unknown=result.unknown or 0.0,
    )
    return sum(map(spend_of, result.earlier), last)


def add_spend(table: dict[str, Spend], calls: Iterable[tuple[str, Result]]) -> None:
    """Add what calls spent to a table by name."""
    for name, result in calls:
        table[name] = table.get(name, Spend()) + spend_of(result)


def note_cost(error: BaseException, cost: float) -> None:
    """Note on an error what an item cost until it failed, for a chain around it."""
    error.smart_cost = cost  # type: ignore[attr-defined]


def cost_until(error: BaseException | None) -> float:
    """Return what `note_cost` noted on an error, in USD; 0 if nothing.

    Example:
        ```python
        error = ValueError("no answer")
        assert cost_until(error) == cost_until(None) == 0
        note_cost(error, 0.25)
        assert cost_until(error) == 0.25
        ```
    """
    return float(getattr(error, "smart_cost", 0.0))


RuleCalls = list[tuple[str, Result]]
"""Calls made by rules: role and model, such as `judge: big`, and the result."""

_COLLECTIONS: ContextVar[tuple[RuleCalls, ...]] = ContextVar("rule_calls", default=())


@contextmanager
def record_rule_calls() -> Iterator[RuleCalls]:
    """Collect the calls that rules make in this block.

    Example:
        ```python
        from smart_engine.calls import Outcome

        with record_rule_calls() as calls:
            report_rule_call("judge: big", Outcome("same", cost=0.25))
            report_rule_call("judge: big", Outcome("same", cost=0.25))
        table = {}
        add_spend(table, calls)
        assert table == {"judge: big": Spend(calls=2, cost=0.5)}
        ```
    """
    calls: RuleCalls = []
    token = _COLLECTIONS.set((*_COLLECTIONS.get(), calls))
    try:
        yield calls
    finally:
        _COLLECTIONS.reset(token)


def report_rule_call(name: str, result: Result) -> None:
    """Add a call to every open collection, under a name such as `judge: big`."""
    for calls in _COLLECTIONS.get():
        calls.append((name, result))


def make_rule_call(name: str, ask: Callable[[], Result]) -> Outcome:
    """Make a rule's call and report it; raise what made it fail, once reported."""
    try:
        result = ask()
    except BaseException as error:
        report_rule_call(name, Failure(error))
        raise
    report_rule_call(name, result)
    if isinstance(result, Failure):
        raise result.error
    return result
