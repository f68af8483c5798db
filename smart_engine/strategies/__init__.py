"""The strategies by name; each is a generator that reads from top to bottom."""

from __future__ import annotations

from smart_engine.strategies._base import Decision, Strategy, Tally, Verdict, Wave
from smart_engine.strategies.audit import audit
from smart_engine.strategies.paper import efficient, exhaustive, mix, reference

__all__ = ["STRATEGIES", "Decision", "Strategy", "Tally", "Verdict", "Wave"]

STRATEGIES: dict[str, Strategy] = {
    "reference": reference,
    "exhaustive": exhaustive,
    "efficient": efficient,
    "mix": mix,
    "audit": audit,
}
