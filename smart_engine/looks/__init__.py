"""How often the evidence is looked at, and what each look may conclude."""

from __future__ import annotations

from smart_engine.errors import InvalidInputError
from smart_engine.guarantee import Guarantee
from smart_engine.looks._base import Looks, Seen
from smart_engine.looks.corrected import CorrectedLooks
from smart_engine.looks.paper import PaperLooks

__all__ = ["LOOKS", "CorrectedLooks", "Looks", "PaperLooks", "Seen", "make_looks"]

LOOKS: dict[str, type[PaperLooks | CorrectedLooks]] = {
    "corrected": CorrectedLooks,
    "paper": PaperLooks,
}


def make_looks(
    name: str, guarantee: Guarantee, n_items: int, n_candidates: int
) -> Looks:
    """Return the looks of that name.

    Raises:
        InvalidInputError: If there are none.
    """
    if name not in LOOKS:
        hint = f"choose one of {', '.join(sorted(LOOKS))}"
        raise InvalidInputError("looks", name, hint)
    return LOOKS[name](guarantee, n_items, n_candidates)
