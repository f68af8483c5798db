"""The records of a stream: its public state, and what its processes share in a store.

The shared part holds all that decisions rest on, and not what a process alone knows:
the items it let in and their answers. A killed process leaves its audits unresolved,
which the bound takes at their worst for ever, and its served items counted as possible
undetected errors. Fields are named as in stored rows and public JSON.
"""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, ConfigDict

from smart_engine.calls import Role
from smart_engine.money.spending import Spend

__all__ = [
    "ChoiceState",
    "PolicyCounts",
    "SharedPart",
    "StreamPoint",
    "StreamState",
    "Totals",
    "UnresolvedAudits",
]

Count = Annotated[int, Ge(0)]
Amount = Annotated[float, Ge(0)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class StreamPoint(_Record):
    """Where a stream stood after some answer, for a plot; as in `StreamState`."""

    answered: int
    allowed: int
    possible_misses: int
    audits: int
    cost: float


class StreamState(_Record):
    """What a stream promises, what its audits showed, and what it spent so far.

    Attributes:
        format: Version of this record.
        task: Name of the task, or None.
        seed: Seed of all audit draws.
        max_disagreement: Largest tolerated share of differing answers, δ.
        confidence: Probability with which that holds, after every answer, γ.
        equivalence: When two answers count as the same.
        reference: Name of the reference.
        arrived: Items that have arrived.
        in_flight: Items not closed, those included whose audit is not finished.
        answered: Answers handed out, t.
        allowed: Differing answers allowed among them, ⌊δ·t⌋.
        possible_misses: Bound on undetected errors: with the stated confidence, at most
            so many of the items that have arrived get a differing answer. It may exceed
            `allowed` for a while: then the reference answers everything.
        audits: Items drawn for an audit.
        unresolved: Audits whose outcome is not known yet.
        found: Detected errors: audits that showed one, or whose outcome was lost.
        audit_rate: Probability with which the next item goes to the reference.
        policy: Policy that serves items: a candidate, `a = b` (where both agree),
            `a → b → c` (asked in turn until two agree), or the reference alone.
        served: Model → answers handed out.
        roles: Role → answers handed out.
        unanswered: Items for which the reference itself failed.
        abandoned: Items closed before their answer was handed out.
        spend: Model → its calls and costs; judges as `judge: …`.
        reference_cost: Recent mean cost of a call of the reference, in USD; None if it
            was never asked.
        history: Earlier states, one whenever the answers had grown by 5 % since the
            last: about 50 for every tenfold.
        valid: Whether the promise can be claimed. It cannot where nothing but failures
            was handed out, nor where the budget let answers pass as `uncertified`.
            Abandoned items and killed processes do not touch it: the bound takes them
            at their worst.
    """

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
    valid: bool = True

    @property
    def cost(self) -> float:
        """USD spent by all models."""
        return sum(spend.cost for spend in self.spend.values())

    @property
    def estimated(self) -> float:
        """USD of the cost that rest on an estimated usage."""
        return sum(spend.estimated for spend in self.spend.values())

    @property
    def unknown(self) -> float:
        """USD of the cost that failed calls are charged at most; see `Spend`."""
        return sum(spend.unknown for spend in self.spend.values())

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
    def uncertified(self) -> int:
        """Answers that the guarantee does not cover, for the budget ended first."""
        return self.roles.get("uncertified", 0)

    @property
    def claim(self) -> str:
        """The promise, in one sentence."""
        if not self.valid:
            return (
                f"Nothing is claimed: {self.uncertified} answers were handed out "
                f"uncertified, and {self.unanswered} items have no answer."
            )
        return (
            f"With probability at least {self.confidence:.4g}, after every answer, at "
            f"most {self.max_disagreement:.4g} of the answers so far differ from "
            f"{self.reference}'s by the rule '{self.equivalence}'."
        )


class PolicyCounts(_Record):
    """Items compared with the reference under one policy, older ones counting less."""

    seen: Amount = 0.0  # items
    wrong: Amount = 0.0  # those that it answered wrongly
    escalated: Amount = 0.0  # those that it escalated
    asked: tuple[Amount, ...]  # per tier of it, items for which it asks that tier


class ChoiceState(_Record):
    """What the choice of a policy rests on."""

    policies: tuple[PolicyCounts, ...]  # in the order of `Choice.policies`
    chosen: Annotated[int, Ge(-1)]  # place of the policy, −1 for the reference alone
    error: Amount  # share of items it is expected to answer wrongly
    cost: tuple[Amount, ...]  # per tier, recent mean cost of a call in USD
    calls: tuple[Count, ...]  # per tier


class Totals(_Record):
    """Totals since the stream began; see `StreamState` for what they mean."""

    answered: Count
    unanswered: Count
    abandoned: Count
    audits: Count
    found: Count
    served: dict[str, Count]
    roles: dict[Role, Count]
    spend: dict[str, Spend]
    judging: dict[str, Spend]


class UnresolvedAudits(_Record):
    """Unresolved audits that were drawn with the same charges."""

    charges: tuple[float, ...]  # of a detected error, per slope
    audits: tuple[tuple[Count, Count], ...]  # number, and unaudited items before it


class SharedPart(_Record):
    """The shared part of a stream."""

    format: Literal[1] = 1
    seed: Count | None = None  # of the audit draws; None in an older version's streams
    arrived: Count
    unaudited: Count  # items served without an audit
    slopes: tuple[Annotated[float, Gt(0)], ...]  # of the bound
    log_wealth: tuple[Annotated[float, Le(0)], ...]  # of the bound
    # audit rate and steepest slope; None while the reference answers everything
    plan: tuple[Annotated[float, Gt(0), Le(1)], Annotated[float, Gt(0)]] | None
    due: Count  # number of answers at which to plan again
    crowd: float  # recent maximum of what items in flight add to the bound
    unresolved: tuple[UnresolvedAudits, ...]
    learned: ChoiceState
    compared: tuple[Count, ...]  # per tier, comparisons with the reference
    pending: tuple[Count, ...] = ()  # per tier, comparisons begun and not booked
    by_reference: Count  # items that the reference answers without a draw
    sums: Totals
    history: tuple[StreamPoint, ...]
