"""The strategies by name; each is a generator that reads from top to bottom."""

from __future__ import annotations

from smart_engine.errors import choose
from smart_engine.strategies._base import Decision, Strategy, Tally, Verdict, Wave
from smart_engine.strategies.audit import audit
from smart_engine.strategies.paper import efficient, exhaustive, mix, reference

__all__ = [
    "STRATEGIES",
    "Decision",
    "Strategy",
    "Tally",
    "Verdict",
    "Wave",
    "find_strategy",
]

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
