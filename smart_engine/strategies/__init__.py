"""The strategies by name; each is a generator that reads from top to bottom."""

from __future__ import annotations

from smart_engine.errors import InvalidInputError, choose
from smart_engine.guarantee import Guarantee
from smart_engine.strategies._base import Decision, Strategy, Tally, Verdict, Wave
from smart_engine.strategies.audit import audit
from smart_engine.strategies.label_audit import label_audit
from smart_engine.strategies.paper import efficient, exhaustive, mix, reference

__all__ = [
    "STRATEGIES",
    "Decision",
    "Strategy",
    "Tally",
    "Verdict",
    "Wave",
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
