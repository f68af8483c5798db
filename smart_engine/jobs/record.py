"""What the jobs of a task share: fields are named as in stored rows."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ConfigDict

from smart_engine.stream.state import ChoiceState

__all__ = ["Brief", "JobRecord", "JobWave", "LateAudits", "TaskRecord"]

Count = Annotated[int, Ge(0)]
Amount = Annotated[float, Ge(0)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class OwnAudit(_Record):
    """The one audit of its own that a task's job may make, as it was designed."""

    answers: Count  # those that the allowance is a share of, earlier jobs' included
    elsewhere: Count  # bound on the differing ones among earlier jobs'
    expected_errors: Amount
    kept: tuple[Annotated[float, Gt(0), Lt(1)], ...]  # wealth after an error, by slope
    drawn: Count = 0
    asked: bool = False  # whether candidates answer all of its items
    given_up: bool = False


class JobWave(_Record):
    """Items of a job that were let in together."""

    first: Count  # number of the first one that was drawn for
    ways: str  # per item: served or audited, or the reference alone
    policy: Annotated[int, Ge(-1)]  # place of the policy; −1: the reference alone
    # candidates to try, beside the policy, on the first items that are not served
    tried: tuple[tuple[Count, ...], ...] = ()
    own: OwnAudit | None = None  # then they are drawn for in order, one by one
    anew: bool = False  # whether another run draws anew for its items, after all others


class JobRecord(_Record):
    """A job that was begun: another run of it goes on with the same draws."""

    run: Count  # number among all runs of the task's jobs; the last one alone goes on
    waves: tuple[JobWave, ...] = ()
    # when it ended last: what was handed out, and which items were checked after all
    answered: Count = 0
    unseen: Count = 0
    corrected: Count = 0
    checked: tuple[Count, ...] = ()
    ended: bool = False


class Brief(_Record):
    """What a batch with a promise of its own was told of the candidates."""

    ratios: tuple[Amount | None, ...]  # per tier, cost of a call, in the reference's
    hopeless: tuple[Count, ...]  # tiers that were never right


class LateAudits(_Record):
    """Unresolved audits that were drawn with the same charges."""

    charges: tuple[float, ...]  # of a detected error, per slope
    numbers: tuple[Count, ...]


class TaskRecord(_Record):
    """The state of a task's promise, and what its jobs have learned."""

    format: Literal[1] = 1
    seed: Count  # of the audit draws
    arrived: Count  # items that were drawn for
    audits: Count
    found: Count  # detected errors
    slopes: tuple[Annotated[float, Gt(0)], ...]  # of the bound
    log_wealth: tuple[Annotated[float, Le(0)], ...]  # of the bound
    unresolved: tuple[LateAudits, ...]
    answered: Count  # answers handed out
    possible: Count  # bound on those of them that differ
    corrected: Count  # errors found when unaudited answers were checked after all
    own_left: bool  # whether a job may still make an audit of its own
    finished: Count  # jobs
    unseen: Count  # answers handed out that the reference neither gave nor checked
    forced: Count  # items that the reference answered without a draw
    beside: Amount  # USD paid for candidates
    learned: ChoiceState
    compared: tuple[Count, ...]  # per tier, comparisons with the reference
    pending: tuple[Count, ...] = ()  # jobs book what they compare at once
    jobs: dict[str, JobRecord]
    briefs: dict[
        str, Brief
    ] = {}  # of batches with promises of their own, the last ones
    apart: Count = 0  # such batches
    begun: Count = 0  # runs of jobs
