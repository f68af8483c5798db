"""`TaskProfile`: what a store knows of a task, to be looked at and exported.

It is read from the same row as processes share. It carries no promise elsewhere: what
was promised is in certificates, and what was learned serves the same task, models,
prompt, rule, guarantee and seed alone.
"""

from __future__ import annotations

import json
from typing import Literal

from pydantic import BaseModel, ConfigDict

from smart_engine.errors import StoreError
from smart_engine.guarantee import Guarantee
from smart_engine.jobs.record import TaskRecord
from smart_engine.jobs.task import Task
from smart_engine.stream.choice import Choice
from smart_engine.stream.session import StreamSession
from smart_engine.stream.state import SharedPart
from smart_engine.tiers import Tier

__all__ = ["ModelProfile", "PolicyProfile", "TaskProfile", "read_profile"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelProfile(_Record):
    """What is known of a model.

    Attributes:
        name: Its name.
        role: What it is to the task.
        calls: Calls whose cost was learned.
        mean_cost: Recent mean cost of a call, in USD; None before any.
        compared: Comparisons with the reference.
        hopeless: Whether it was never right, on enough of them to tell.
    """

    name: str
    role: Literal["reference", "candidate"]
    calls: int
    mean_cost: float | None
    compared: int
    hopeless: bool


class PolicyProfile(_Record):
    """What is known of a pattern of candidates' answers: a policy.

    Attributes:
        policy: `a`, `a = b` (both agree), or `a → b → c` (in turn until two agree).
        items: Items that show how it does; older ones count less.
        wrong: Share of them that it answers wrongly; None before any.
        escalated: Share of them that it passes to the reference; None before any.
    """

    policy: str
    items: float
    wrong: float | None
    escalated: float | None


class TaskProfile(_Record):
    """What a store knows of a task.

    Attributes:
        task: Its name.
        kind: `"jobs"`: its batches; `"stream"`: its single items; `"shadow"`: single
            items in shadow mode.
        max_disagreement: Largest tolerated share of differing answers, δ.
        confidence: Probability with which that holds, γ.
        equivalence: When two answers mean the same.
        jobs: Jobs under one promise that have ended; None for single items.
        open_jobs: Those that were begun and have not ended.
        apart: Batches with promises of their own; no other figure of answers, audits
            and errors counts them.
        answers: Answers handed out under the promise.
        allowed: Differing answers allowed among them.
        possible: Bound on those that differ, at the stated confidence.
        audits: Items drawn for an audit.
        found: Audits that showed an error.
        unresolved: Audits without an outcome: they count as errors.
        serves: The policy that would serve next; None: the reference alone.
        models: What is known of each model, the reference first.
        policies: What is known of each policy.
    """

    format: Literal[1] = 1
    task: str
    kind: Literal["jobs", "stream", "shadow"]
    max_disagreement: float
    confidence: float
    equivalence: str
    jobs: int | None
    open_jobs: int | None
    apart: int | None
    answers: int
    allowed: int
    possible: int
    audits: int
    found: int
    unresolved: int
    serves: str | None
    models: tuple[ModelProfile, ...]
    policies: tuple[PolicyProfile, ...]


def read_profile(task: str, mode: str, parts: str, state: str) -> TaskProfile:
    """Return what a row says of its task.

    Args:
        task: Name of the task.
        mode: What the row is of; see `Profile`.
        parts: What the promise applies to, as JSON; see `Profile`.
        state: What processes share, as JSON.

    Raises:
        StoreError: If it cannot be read.
    """
    try:
        promised = json.loads(parts)
        share, confidence = map(float, promised["guarantee"].split(","))
        guarantee = Guarantee(share, confidence)
        record: TaskRecord | SharedPart
        kind: Literal["jobs", "stream", "shadow"]
        if mode == "jobs":
            kind, record = "jobs", TaskRecord.model_validate_json(state)
        else:
            kind = "shadow" if mode == "shadow" else "stream"
            record = SharedPart.model_validate_json(state)
        names = _names(promised["models"], len(record.compared))
        tiers = [Tier(names[0], "reference"), *map(Tier, names[1:])]
        choice = Choice(range(1, len(tiers)), share, [1.0] * len(tiers))
        choice.take_up(record)
        counts = _counts(tiers, guarantee, record)
        rule = promised["equivalence"].rpartition(" #")[0]
    except (ValueError, KeyError, AttributeError, RecursionError) as error:
        hint = "it is damaged or was written by another version"
        raise StoreError(f"a task in the store cannot be read: {hint}") from error
    learned, policies = record.learned, choice.policies
    serving = None if learned.chosen < 0 else policies[learned.chosen].name(names)
    return TaskProfile(
        task=task,
        kind=kind,
        max_disagreement=share,
        confidence=confidence,
        equivalence=rule,
        **counts,
        serves=serving,
        models=tuple(
            ModelProfile(
                name=name,
                role="candidate" if tier else "reference",
                calls=learned.calls[tier],
                mean_cost=choice.cost(tier),
                compared=record.compared[tier],
                hopeless=tier > 0 and choice.hopeless(tier),
            )
            for tier, name in enumerate(names)
        ),
        policies=tuple(
            PolicyProfile(
                policy=policy.name(names),
                items=known.seen,
                wrong=known.wrong / known.seen if known.seen else None,
                escalated=known.escalated / known.seen if known.seen else None,
            )
            for policy, known in zip(policies, learned.policies, strict=False)
        ),
    )


def _counts(
    tiers: list[Tier], guarantee: Guarantee, record: TaskRecord | SharedPart
) -> dict[str, int | None]:
    """Return the figures of the promise."""
    if isinstance(record, TaskRecord):
        task = Task(tiers, guarantee)
        task.take_up(record)
        guard = task.guard
        return {
            "jobs": record.finished,
            "open_jobs": sum(not job.ended for job in record.jobs.values()),
            "apart": record.apart,
            "answers": guard.answered,
            "allowed": guard.allowed(0),
            "possible": guard.possible,
            "audits": guard.audits,
            "found": guard.detected,
            "unresolved": len(guard.unresolved),
        }
    session = StreamSession(tiers, guarantee)
    session.take_up(record)
    state = session.state()
    return {
        "jobs": None,
        "open_jobs": None,
        "apart": None,
        "answers": state.answered,
        "allowed": state.allowed,
        "possible": state.possible_misses,
        "audits": state.audits,
        "found": state.found,
        "unresolved": state.unresolved,
    }


def _names(models: str, count: int) -> list[str]:
    """Return the models' names; numbers where they cannot be told apart."""
    names = [name.rpartition(" #")[0] or name for name in models.split(", ")]
    if len(names) == count and len(set(names)) == count:
        return names
    return ["reference", *(f"candidate {number}" for number in range(1, count))]
