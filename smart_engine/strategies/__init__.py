"""The strategies by name; each is a generator that reads from top to bottom."""

from __future__ import annotations

from smart_engine.errors import InvalidInputError, check_whole, choose
from smart_engine.guarantee import Guarantee
from smart_engine.strategies._base import (
    Audited,
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
from smart_engine.strategies.slice_audit import slice_audit

__all__ = [
    "LIMITED",
    "STRATEGIES",
    "Audited",
    "Decision",
    "Strategy",
    "Tally",
    "Verdict",
    "Wave",
    "ask",
    "check_rounds",
    "check_sliced",
    "strategy_for",
]

STRATEGIES: dict[str, Strategy] = {
    "reference": reference,
    "exhaustive": exhaustive,
    "efficient": efficient,
    "mix": mix,
    "audit": audit,
}


def strategy_for(name: str, guarantee: Guarantee, *, sliced: bool = False) -> Strategy:
    """Return the strategy of that name that can keep a guarantee.

    Args:
        name: Its name.
        guarantee: What is promised.
        sliced: Whether that is promised of each slice.

    Raises:
        InvalidInputError: If there is none.
    """
    strategy = choose("strategy", name, STRATEGIES)
    if not (guarantee.labels or sliced) or name == "reference":
        return strategy
    if name != "audit":
        hint = (
            "it promises nothing of single labels or slices: use 'audit' for recall=, "
            "precision= and slices="
        )
        raise InvalidInputError("strategy", name, hint)
    return label_audit if guarantee.labels else slice_audit


def check_sliced(guarantee: Guarantee, *, sliced: bool) -> None:
    """Raise unless a guarantee may be one of each slice, where it is to be.

    Raises:
        InvalidInputError: If nothing is promised of all answers.
    """
    if sliced and guarantee.max_disagreement is None:
        hint = "slices= promises this share in each slice: give one, such as 0.05"
        raise InvalidInputError("max_disagreement", None, hint)


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
