"""The record of a stream so far: what is promised, what was seen, what was spent."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from smart_engine.calls import Role
from smart_engine.money.spending import Spend

__all__ = ["StreamPoint", "StreamState"]


class StreamPoint(BaseModel):
    """Where a stream stood after some answer, for a plot of the bound over time.

    Attributes:
        answered: Answers handed out by then.
        allowed: Differing answers allowed among them.
        possible_misses: The bound at that moment; see `StreamState`.
        audits: Items that a coin had sent to the reference.
        cost: USD spent by all models.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    answered: int
    allowed: int
    possible_misses: int
    audits: int
    cost: float


class StreamState(BaseModel):
    """What a stream promises, has shown and has spent so far.

    Attributes:
        format: Version of this record.
        task: Name of the task, or None.
        seed: Seed of all coins.
        max_disagreement: Largest tolerated share of differing answers, δ.
        confidence: Probability with which that holds, after every answer, γ.
        equivalence: When two answers count as the same.
        reference: Name of the reference.
        arrived: Items that have arrived.
        in_flight: Items not closed, those included whose audit is not finished.
        answered: Answers handed out, t.
        allowed: Differing answers allowed among them, ⌊δ·t⌋.
        possible_misses: With the stated confidence, at most so many of the items that
            have arrived were or will be answered by a differing answer. It may exceed
            `allowed` for a while: then the reference answers everything.
        audits: Items that a coin sent to the reference.
        unresolved: Audits whose outcome is not known yet.
        found: Audits that showed an error, or whose outcome was lost.
        audit_rate: Probability with which the next item goes to the reference.
        policy: What serves items: a candidate, `a = b` (where both agree), `a → b → c`
            (asked in turn until two agree), or the reference alone.
        served: Model → answers handed out.
        roles: Role → answers handed out.
        unanswered: Items for which the reference itself failed.
        abandoned: Items that nobody waited for.
        spend: Model → what it was asked and what it cost; judges as `judge: …`.
        reference_cost: Recent mean cost of a call of the reference, in USD; None if it
            was never asked.
        history: Where it stood before, a point whenever the answers had grown by 5 %
            since the last one: about 50 for every tenfold.
        valid: Whether the stated confidence is kept at the worst case: always.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    task: str | None
    seed: int
    max_disagreement: float
    confidence: float
    equivalence: str
    reference: str
    arrived: int
    in_flight: int
    answered: int
    allowed: int
    possible_misses: int
    audits: int
    unresolved: int
    found: int
    audit_rate: float
    policy: str
    served: dict[str, int]
    roles: dict[Role, int]
    unanswered: int
    abandoned: int
    spend: dict[str, Spend]
    reference_cost: float | None
    history: tuple[StreamPoint, ...] = ()
    valid: Literal[True] = True

    @property
    def cost(self) -> float:
        """USD spent by all models."""
        return sum(spend.cost for spend in self.spend.values())

    @property
    def estimated(self) -> float:
        """USD of the cost that rest on an estimated usage."""
        return sum(spend.estimated for spend in self.spend.values())

    @property
    def reference_only_cost(self) -> float | None:
        """USD that the reference alone would have cost (estimated), None if unknown."""
        if self.reference_cost is None:
            return None
        return self.answered * self.reference_cost

    @property
    def saved(self) -> float | None:
        """USD saved against the reference alone (estimated), None if unknown."""
        alone = self.reference_only_cost
        return None if alone is None else alone - self.cost

    @property
    def claim(self) -> str:
        """What follows, in one sentence."""
        return (
            f"With probability at least {self.confidence:.4g}, after every answer, at "
            f"most {self.max_disagreement:.4g} of the answers so far differ from "
            f"{self.reference}'s by the rule '{self.equivalence}'."
        )
