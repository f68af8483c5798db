"""How often the evidence is looked at, and what each look may conclude."""

from __future__ import annotations

from smart_engine.errors import choose
from smart_engine.strategies.looks._base import Looks
from smart_engine.strategies.looks.corrected import CorrectedLooks
from smart_engine.strategies.looks.paper import PaperLooks

__all__ = ["LOOKS", "CorrectedLooks", "Looks", "PaperLooks", "find_looks"]

LOOKS: dict[str, type[PaperLooks | CorrectedLooks]] = {
    looks.name: looks for looks in (CorrectedLooks, PaperLooks)
}


def find_looks(name: str) -> type[PaperLooks | CorrectedLooks]:
    """Return the looks of that name.

    Raises:
        InvalidInputError: If there are none.
    """
    return choose("looks", name, LOOKS)
