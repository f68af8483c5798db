"""The strategies by name; each is a generator that reads from top to bottom."""

from __future__ import annotations

from smart_engine.errors import InvalidInputError, check_whole, choose
from smart_engine.guarantee import Guarantee
from smart_engine.strategies._base import (
    Decision,
    Strategy,
    Tally,
    Verdict,
    Wave,
    ask,
)
from smart_engine.strategies.audit import audit
from smart_engine.strategies.label_audit import label_audit
from smart_engine.strategies.paper import efficient, exhaustive, mix, reference

__all__ = [
    "LIMITED",
    "STRATEGIES",
    "Decision",
    "Strategy",
    "Tally",
    "Verdict",
    "Wave",
    "ask",
    "check_rounds",
    "strategy_for",
]

STRATEGIES: dict[str, Strategy] = {
    "reference": reference,
    "exhaustive": exhaustive,
    "efficient": efficient,
    "mix": mix,
    "audit": audit,
}


def strategy_for(name: str, guarantee: Guarantee) -> Strategy:
    """Return the strategy of that name that can keep a guarantee.

    Raises:
        InvalidInputError: If there is none.
    """
    strategy = choose("strategy", name, STRATEGIES)
    if not guarantee.labels or name == "reference":
        return strategy
    if name != "audit":
        hint = "it promises nothing of single labels: use 'audit' for recall= and "
        raise InvalidInputError("strategy", name, f"{hint}precision=")
    return label_audit


LIMITED = {"audit": 2, "reference": 1}
"""Strategies whose waves can be limited, and the fewest in which each can serve."""


def check_rounds(
    rounds: int | None, strategy: str, guarantee: Guarantee, *, by_task: bool = False
) -> None:
    """Raise unless a batch may be limited to that many waves.

    Args:
        rounds: Most waves; None: no limit.
        strategy: Name of the strategy.
        guarantee: What is promised.
        by_task: Whether the batch is a job of a task whose jobs share one promise.

    Raises:
        InvalidInputError: It names the ways out.
    """
    if rounds is None:
        return
    check_whole("max_rounds", rounds, 1)
    if by_task and strategy != "reference":
        hint = "with promise='task' waves cannot be limited: leave it out"
        raise InvalidInputError("max_rounds", rounds, hint)
    if guarantee.labels and strategy != "reference":
        hint = "audits of single labels take as many waves as they need: leave it out"
        raise InvalidInputError("max_rounds", rounds, hint)
    if strategy not in LIMITED:
        hint = f"{strategy!r} takes as many waves as its looks: use strategy='audit'"
        raise InvalidInputError("max_rounds", rounds, hint)
    if rounds < LIMITED[strategy]:
        hint = (
            "one wave shows nothing in time to use it: allow 2 or more, or use "
            "strategy='reference'"
        )
        raise InvalidInputError("max_rounds", rounds, hint)
