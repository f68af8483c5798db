"""The strategies by name; each is one file that reads from top to bottom."""

from __future__ import annotations

from smart_engine.errors import choose
from smart_engine.strategies._base import Decision, Strategy, Wave
from smart_engine.strategies.audit import audit
from smart_engine.strategies.efficient import efficient
from smart_engine.strategies.exhaustive import exhaustive
from smart_engine.strategies.mix import mix
from smart_engine.strategies.reference import reference

__all__ = ["STRATEGIES", "Decision", "Strategy", "Wave", "find_strategy"]

STRATEGIES: dict[str, Strategy] = {
    "reference": reference,
    "exhaustive": exhaustive,
    "efficient": efficient,
    "mix": mix,
    "audit": audit,
}


def find_strategy(name: str) -> Strategy:
    """Return the strategy of that name.

    Raises:
        InvalidInputError: If there is none.
    """
    return choose("strategy", name, STRATEGIES)
