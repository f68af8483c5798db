"""What the processes that work on one stream share, as a record that can be kept.

It is all that decisions rest on: how many items arrived, the bound, the plan, what was
learned of policies, the sums of the ledger, and the audits that are not resolved yet.
What a process alone knows, the items it let in and their answers, is not in it.

Whoever is killed leaves its open audits unresolved, which the bound takes at their
worst for ever, and its served items counted as possible misses: as sound as if all of
them had been found or missed. What its calls had cost when they were recorded stays in
the sums.
"""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, ConfigDict

from smart_engine.calls import Role
from smart_engine.money.spending import Spend
from smart_engine.stream.state import StreamPoint

__all__ = ["Learned", "Seen", "SharedPart", "Sums", "Waiting"]

Count = Annotated[int, Ge(0)]
Amount = Annotated[float, Ge(0)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Seen(_Record):
    """What was seen of one policy, older items counting less.

    Attributes:
        seen: Items.
        wrong: Those that it answered wrongly.
        escalated: Those that it passed on.
        asked: Per tier of it, items for which that tier was asked.
    """

    seen: Amount = 0.0
    wrong: Amount = 0.0
    escalated: Amount = 0.0
    asked: tuple[Amount, ...]


class Learned(_Record):
    """What the choice of a policy rests on.

    Attributes:
        policies: What was seen of each policy, in the order of their family.
        chosen: Place of the policy that serves, −1 for nobody.
        error: Share of items it is expected to answer wrongly.
        cost: Per tier, recent mean cost of a call in USD.
        calls: Per tier, calls.
    """

    policies: tuple[Seen, ...]
    chosen: Annotated[int, Ge(-1)]
    error: Amount
    cost: tuple[Amount, ...]
    calls: tuple[Count, ...]


class Sums(_Record):
    """The sums of the ledger; see `StreamState` for what they mean."""

    answered: Count
    unanswered: Count
    abandoned: Count
    audits: Count
    found: Count
    served: dict[str, Count]
    roles: dict[Role, Count]
    spend: dict[str, Spend]
    judging: dict[str, Spend]


class Waiting(_Record):
    """Audits that are not resolved, of items tossed for with the same charges.

    Attributes:
        charges: What a find is charged, per slope.
        audits: Number of each item, and how many had gone unaudited before it.
    """

    charges: tuple[float, ...]
    audits: tuple[tuple[Count, Count], ...]


class SharedPart(_Record):
    """The shared part of a stream.

    Attributes:
        format: Version of this record.
        arrived: Items that have arrived.
        unaudited: Of them, those that were served without an audit.
        slopes: Slopes of the bound.
        log_wealth: Its wealth, in logarithms.
        plan: Audit rate and steepest slope, None while the reference answers all.
        due: Number of answers at which to plan again.
        crowd: How many misses items in flight may lately have hidden.
        unresolved: Audits that are not resolved.
        learned: What the choice of a policy rests on.
        compared: Per tier, how often it was compared with the reference.
        by_reference: Items that the reference answered without a coin.
        sums: The sums of the ledger.
        history: Where the stream stood before.
    """

    format: Literal[1] = 1
    arrived: Count
    unaudited: Count
    slopes: tuple[Annotated[float, Gt(0)], ...]
    log_wealth: tuple[Annotated[float, Le(0)], ...]
    plan: tuple[Annotated[float, Gt(0), Le(1)], Annotated[float, Gt(0)]] | None
    due: Count
    crowd: float
    unresolved: tuple[Waiting, ...]
    learned: Learned
    compared: tuple[Count, ...]
    by_reference: Count
    sums: Sums
    history: tuple[StreamPoint, ...]
