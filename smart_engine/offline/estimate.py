"""What would a whole job cost? Sessions on many jobs that a sample could come from.

A sample leaves open how often candidates differ. So each simulated job draws its items
from the sample with weights of its own (a Bayesian bootstrap; Rubin 1981), to which
each candidate brings half a wrong answer that nobody gave, half of it shared with all
others: where no answer in the sample differs, some in the job still may.
"""

from __future__ import annotations

import operator
from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from smart_engine.batch.session import BatchSession
from smart_engine.calls import Failure, Outcome, Result
from smart_engine.equivalence import Equivalence, agree
from smart_engine.errors import InvalidInputError, SmartError, check_whole
from smart_engine.evidence.tails import FloatArray
from smart_engine.guarantee import Guarantee
from smart_engine.tiers import Tier

__all__ = ["Estimate", "Range", "estimate"]

_UNSEEN = 0.25
"""Weight, in items, of an error that the sample did not show."""

_MOST = 20_000
"""Items of a simulated job. Larger jobs are scaled up from it, which overstates what
they cost: certifying costs less per item the more there are."""

Row = list[Result]
"""What each model brought on one item."""


class Range(BaseModel):
    """A figure over the simulated jobs.

    Attributes:
        mean: Its mean.
        low: Its least.
        high: Its most. With n simulated jobs, one more would have stayed between both
            with probability (n − 1) / (n + 1).
    """

    model_config = ConfigDict(frozen=True)

    mean: float
    low: float
    high: float


class Estimate(BaseModel):
    """What a whole job is expected to cost; an estimate, no promise.

    Attributes:
        items: Number of items of the job.
        sampled: Number of items on which all models were asked.
        jobs: Number of simulated jobs.
        differing: Candidate → answers of the sample that differ from the reference's.
        failed: Model → items of the sample on which it brought no usable answer.
        audits: Items for which the reference is paid in order to learn.
        certifying: USD spent on these items, by all models.
        cost: USD spent on the job.
        reference_only: USD that the reference alone would cost.
        saved: USD saved against the reference alone.
    """

    model_config = ConfigDict(frozen=True)

    items: int
    sampled: int
    jobs: int
    differing: dict[str, int]
    failed: dict[str, int]
    audits: Range
    certifying: Range
    cost: Range
    reference_only: Range
    saved: Range


def estimate(
    sample: Mapping[str, Sequence[Result]],
    items: int,
    guarantee: Guarantee,
    rule: Equivalence,
    *,
    strategy: str = "audit",
    max_in_flight: int = 1,
    jobs: int = 12,
    seed: int = 0,
) -> Estimate:
    """Return what a job is expected to cost, given all models' answers to a sample.

    Confidences, and what an answer itself tells, are left out: a few items cannot
    show what they are worth. A real job that has them may cost less.

    Args:
        sample: Model → what it brought on items drawn at random, reference first.
        items: Number of items of the job.
        guarantee: What is to be promised.
        rule: When two answers mean the same.
        strategy: Name of the strategy.
        max_in_flight: Most calls that will be made at once.
        jobs: Number of simulated jobs.
        seed: Seed of all randomness.

    Raises:
        InvalidInputError: If an argument cannot be used, or the reference failed on
            every item of the sample.

    Example:
        ```python
        big, small = Outcome("yes", cost=1.0), Outcome("yes", cost=0.01)
        sample = {"big": [big] * 50, "small": [small] * 50}
        expected = estimate(sample, 2000, Guarantee(0.05, 0.95), Exact(), jobs=5)
        assert expected.reference_only.mean == 2000
        assert 0 < expected.cost.low < expected.cost.high < 2000
        ```
    """
    check_whole("items", items, 1)
    check_whole("jobs", jobs, 1)
    rows = _read(sample, rule)
    if not any(isinstance(row[0], Outcome) for row in rows):
        hint = "the reference answered no item of the sample"
        raise InvalidInputError("sample", len(rows), hint)
    names, size = list(sample), min(items, _MOST)
    rng = np.random.default_rng([seed, items])
    figures = []
    for job in range(jobs):
        population = _population(rows, size, rng)
        session = BatchSession(
            size,
            [Tier(names[0], role="reference"), *map(Tier, names[1:])],
            guarantee,
            strategy=strategy,
            seed=job,
            equivalence=operator.eq,
            max_in_flight=max_in_flight,
        )
        place = {name: place for place, name in enumerate(names)}
        while calls := session.next_calls():
            for call in calls:
                session.record(call, population[call.item][place[call.tier]])
        audited = [each.cost for each in session.answers if each.role == "profiled"]
        alone, spent = sum(row[0].cost for row in population), session.certificate.cost
        figures.append((len(audited), sum(audited), spent, alone, alone - spent))
    scaled = np.array(figures).T * (items / size)
    audits, certifying, cost, reference_only, saved = (_range(one) for one in scaled)
    return Estimate(
        items=items,
        sampled=len(rows),
        jobs=jobs,
        differing={
            name: sum(_differ(row[0], row[place]) for row in rows)
            for place, name in enumerate(names)
            if place
        },
        failed={
            name: sum(isinstance(row[place], Failure) for row in rows)
            for place, name in enumerate(names)
        },
        audits=audits,
        certifying=certifying,
        cost=cost,
        reference_only=reference_only,
        saved=saved,
    )


def _read(sample: Mapping[str, Sequence[Result]], rule: Equivalence) -> list[Row]:
    """Return per item what each model brought, equal numbers for the same answers."""
    rows = []
    for brought in zip(*sample.values(), strict=True):
        kinds: list[Any] = []
        row: list[Result] = []
        for place, each in enumerate(brought):
            if isinstance(each, Failure) or (place and not _readable(rule, each)):
                row.append(Failure(SmartError("no usable answer"), each.cost))
                continue
            known = (
                k for k, said in enumerate(kinds) if agree(rule, each.answer, said)
            )
            kind = next(known, len(kinds))
            kinds += [each.answer] if kind == len(kinds) else []
            row.append(Outcome(kind, each.cost))
        rows.append(row)
    return rows


def _readable(rule: Equivalence, outcome: Outcome) -> bool:
    """Whether a rule can read an answer."""
    try:
        rule.parse(outcome.answer)
    except Exception:  # noqa: BLE001 - a user's rule may raise anything
        return False
    return True


def _differ(right: Result, said: Result) -> bool:
    """Whether both are answers, and not the same."""
    both = isinstance(right, Outcome) and isinstance(said, Outcome)
    return both and right[0] != said[0]


def _population(rows: list[Row], size: int, rng: np.random.Generator) -> list[Row]:
    """Return the items of one job that the sample could come from."""
    known, candidates = len(rows), len(rows[0]) - 1
    unseen: list[list[Row]] = [[_wrong(row, range(1, 1 + candidates)) for row in rows]]
    unseen += [[_wrong(row, [1 + one]) for row in rows] for one in range(candidates)]
    weights = rng.dirichlet([1.0] * known + [_UNSEEN] * len(unseen))
    drawn = rng.choice(len(weights), size, p=weights).tolist()
    others = rng.integers(known, size=size).tolist()
    return [
        rows[place] if place < known else unseen[place - known][other]
        for place, other in zip(drawn, others, strict=True)
    ]


def _wrong(row: Row, places: Container[int]) -> Row:
    """Return an item on which some candidates give an answer that nobody gave."""
    return [
        Outcome(-1, each.cost) if place in places else each
        for place, each in enumerate(row)
    ]


def _range(figures: FloatArray) -> Range:
    """Return how a figure spreads."""
    return Range(
        mean=float(figures.mean()), low=float(figures.min()), high=float(figures.max())
    )
