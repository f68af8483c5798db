"""How verdicts that were paid for outlive the process that bought them.

Whoever keeps a job's answers opens a memory around its comparisons. A rule that spends
money looks there before it does, and puts there what it has bought: whether two texts
are the same, under a hash of both and of the rule's name, and what it cost to say.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple, Protocol

from smart_engine.calls import Outcome
from smart_engine.money.spending import record_rule_calls, report_rule_call

__all__ = ["Memory", "Verdict", "verdict_memory", "verdict_of"]


class Verdict(NamedTuple):
    """A verdict, and the calls that brought it.

    Attributes:
        same: Whether the texts mean the same.
        calls: Each call: role and model, such as `judge: big`, and its result.
    """

    same: bool
    calls: Sequence[tuple[str, Outcome]]


class Memory(Protocol):
    """What was said for one job."""

    def recall(self, key: str) -> Verdict | None:
        """Return what was said for the job before; what it cost, but once."""
        ...

    def remember(self, key: str, said: Verdict) -> None:
        """Keep what was bought now."""
        ...


_OPEN: ContextVar[Memory | None] = ContextVar("smart_memory", default=None)


@contextmanager
def verdict_memory(memory: Memory) -> Iterator[None]:
    """Let rules look here before they spend money, and put here what they buy."""
    token = _OPEN.set(memory)
    try:
        yield
    finally:
        _OPEN.reset(token)


def verdict_of(rule: str, left: str, right: str, buy: Callable[[], bool]) -> bool:
    """Return a verdict that costs money, bought once for the job that is open.

    What was bought in an earlier run of the job is booked as it was then, so that the
    job ends with the books it would have had.

    Args:
        rule: Name of the rule, its settings and version included.
        left: A text.
        right: The text it is compared with.
        buy: Asks for the verdict.

    Example:
        ```python
        assert verdict_of("a rule", "five", "5", lambda: True)
        ```
    """
    memory = _OPEN.get()
    if memory is None:
        return buy()
    key = hashlib.sha256(repr((rule, left, right)).encode()).hexdigest()
    said = memory.recall(key)
    if said is not None:
        for name, outcome in said.calls:
            report_rule_call(name, outcome._replace(restored=True))
        return said.same
    with record_rule_calls() as calls:
        same = buy()
    bought = [(name, made) for name, made in calls if isinstance(made, Outcome)]
    memory.remember(key, Verdict(same, bought))
    return same
