"""How often the evidence is looked at, and what each look may conclude."""

from __future__ import annotations

from smart_engine.strategies.looks._base import Looks
from smart_engine.strategies.looks.corrected import CorrectedLooks
from smart_engine.strategies.looks.paper import PaperLooks

__all__ = ["LOOKS", "CorrectedLooks", "Looks", "PaperLooks"]

LOOKS: dict[str, type[CorrectedLooks | PaperLooks]] = {
    "corrected": CorrectedLooks,
    "paper": PaperLooks,
}
"""The looks by name: made of guarantee, number of items and number of candidates."""
