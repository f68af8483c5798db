"""The models that can answer: one reference and its candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from smart_engine.errors import InvalidInputError

__all__ = ["Tier", "check_tiers"]

TierRole = Literal["reference", "candidate"]


@dataclass(frozen=True, slots=True)
class Tier:
    """One model that can answer items.

    Args:
        name: Unique name of the model; calls, ledger and certificate use it.
        role: `"reference"` for the model whose answers define "right",
            `"candidate"` for a cheaper one that may stand in for it.

    Example:
        ```python
        tiers = [Tier("gpt-big", role="reference"), Tier("gpt-small")]
        ```
    """

    name: str
    role: TierRole = "candidate"


def check_tiers(tiers: Sequence[Tier]) -> tuple[Tier, ...]:
    """Return the tiers with the reference first, candidates in the given order.

    Args:
        tiers: Exactly one reference and at least one candidate, in any order.

    Raises:
        InvalidInputError: If a name repeats, or a reference or candidate is missing.
    """
    for tier in tiers:
        if not isinstance(tier, Tier) or tier.role not in get_args(TierRole):
            hint = "each is a Tier(name), with role='reference' for one of them"
            raise InvalidInputError("tiers", tier, hint)
    names = [tier.name for tier in tiers]
    for name in names:
        if names.count(name) > 1:
            hint = (
                "two tiers share this name; the reference cannot be a candidate too, "
                "and each candidate is listed once"
            )
            raise InvalidInputError("tiers", name, hint)
    references = [tier for tier in tiers if tier.role == "reference"]
    candidates = [tier for tier in tiers if tier.role == "candidate"]
    if len(references) != 1:
        hint = "exactly one tier must have role='reference'"
        raise InvalidInputError("tiers", names, hint)
    if not candidates:
        hint = "name at least one cheaper model as a candidate"
        raise InvalidInputError("candidates", [], hint)
    return (*references, *candidates)
