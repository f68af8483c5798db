"""Verdicts that were paid for, remembered beyond the process that paid.

A runner that stores a job's answers opens a memory around its comparisons. A rule that
spends money looks there first, and puts there each verdict it pays for, under a hash of
both texts and of the rule's name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple, Protocol

from smart_engine.calls import Outcome
from smart_engine.money.spending import record_rule_calls, report_rule_call

__all__ = ["Verdict", "VerdictMemory", "verdict_memory", "verdict_of"]


class Verdict(NamedTuple):
    """A verdict, and the calls that were made for it.

    Attributes:
        same: Whether the texts mean the same.
        calls: Each call: role and model, such as `judge: big`, and its result.
    """

    same: bool
    calls: Sequence[tuple[str, Outcome]]


class VerdictMemory(Protocol):
    """The verdicts of one job."""

    def recall(self, key: str, /) -> Verdict | None:
        """Return an earlier verdict of the job; its calls only the first time."""
        ...

    def remember(self, key: str, verdict: Verdict, /) -> None:
        """Store a verdict that was paid for now."""
        ...


_MEMORY: ContextVar[VerdictMemory | None] = ContextVar("smart_memory", default=None)


@contextmanager
def verdict_memory(memory: VerdictMemory) -> Iterator[None]:
    """Let rules use this memory in the block."""
    token = _MEMORY.set(memory)
    try:
        yield
    finally:
        _MEMORY.reset(token)


def verdict_of(rule: str, left: str, right: str, ask: Callable[[], bool]) -> bool:
    """Return a rule's verdict from the open memory, or ask for it and remember it.

    The calls of a verdict from an earlier run of the job are reported again, as
    restored, so that the job ends with the same ledger.

    Example:
        ```python
        assert verdict_of("a rule", "five", "5", ask=lambda: True)
        ```
    """
    memory = _MEMORY.get()
    if memory is None:
        return ask()
    key = hashlib.sha256(repr((rule, left, right)).encode()).hexdigest()
    verdict = memory.recall(key)
    if verdict is not None:
        for name, outcome in verdict.calls:
            report_rule_call(name, outcome._replace(restored=True))
        return verdict.same
    with record_rule_calls() as calls:
        same = ask()
    answered = [(name, call) for name, call in calls if isinstance(call, Outcome)]
    memory.remember(key, Verdict(same, answered))
    return same
