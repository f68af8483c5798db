"""What would a whole job cost? Sessions on many jobs that a sample could come from.

How many of a job's answers may differ, and how many items it has, is a choice: the
same simulated jobs say what other choices would save, and from which size on it pays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

from pydantic import BaseModel, ConfigDict

from smart_engine.calls import Call, Failure, Outcome, Result
from smart_engine.equivalence import Equivalence
from smart_engine.equivalence.labelling import Labelling, LabelOf
from smart_engine.errors import InvalidInputError, check_whole
from smart_engine.guarantee import Guarantee
from smart_engine.jobs.job import job_of
from smart_engine.jobs.record import TaskRecord
from smart_engine.jobs.task import Task
from smart_engine.labels.levels import least_share
from smart_engine.money.ledger import LedgerScope
from smart_engine.money.pricing import Price
from smart_engine.offline.sample_jobs import Ran, SampleJobs, coded, priced
from smart_engine.strategies import Strategy
from smart_engine.tiers import MIN_SAVING, Tier

__all__ = [
    "CURVE",
    "SIZES",
    "BatchLane",
    "Choice",
    "Estimate",
    "Range",
    "SampleSession",
    "estimate",
]

SIZES = (50, 100, 250, 500, 1_000, 2_500)
"""Items of the jobs for which the share saved is estimated, too."""

CURVE = (20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000)
"""The same for a curve, which takes several times as long."""

_MAX_SIMULATED = 100_000
"""Items of a simulated job. Larger jobs are scaled up from it, which overstates what
they cost: certifying costs less per item the more there are."""

_NEAR = 1.1
"""Sizes of which one is at most so many times the other are taken for the same."""


class SampleSession:
    """Asks every model about some of a job's items; decides nothing.

    Args:
        items: Indices of the items in the job.
        models: Names of the models.
        scope: Where every call is entered as it is recorded, if anywhere.

    Example:
        ```python
        session = SampleSession([7, 3], ["big", "small"])
        for call in session.next_calls():
            session.record(call, Outcome("yes", cost=0.01))
        assert [outcome.answer for outcome in session.outcomes["big"]] == ["yes"] * 2
        assert session.next_calls() == []
        ```
    """

    waits = False

    def __init__(
        self,
        items: Sequence[int],
        models: Sequence[str],
        scope: LedgerScope | None = None,
    ) -> None:
        self._items, self._models, self._scope = items, models, scope
        self._results: dict[Call, Result] = {}
        self._todo = [Call(item, model) for item in items for model in models]

    def next_calls(self) -> list[Call]:
        """Return the calls that may start now: all of them, once."""
        calls, self._todo = self._todo, []
        return calls

    def keep(self, call: Call, outcome: Result) -> None:
        """Do nothing; a session that resumes from a store keeps the result."""

    def record(self, call: Call, outcome: Result) -> BaseException | None:
        """Record the result of a call; return its error, if it failed."""
        self._results[call] = outcome
        if self._scope is not None:
            self._scope.record_call(call.item, call.tier, outcome)
        return outcome.error if isinstance(outcome, Failure) else None

    @property
    def outcomes(self) -> dict[str, list[Result]]:
        """Model → its results, item by item."""
        return {
            model: [self._results[Call(item, model)] for item in self._items]
            for model in self._models
        }


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


class BatchLane(BaseModel):
    """What a job is expected to cost by batches of the providers.

    Attributes:
        cost: USD spent on the job.
        reference_only: USD that the reference alone would cost, by batches, too.
        rounds: Waves of calls, one after the other: each takes as long as a batch.
        max_rounds: Most of them; None if nothing limits them.
    """

    model_config = ConfigDict(frozen=True)

    cost: Range
    reference_only: Range
    rounds: Range
    max_rounds: int | None


class Choice(BaseModel):
    """What a job is expected to save if that share of its answers may differ.

    Attributes:
        max_disagreement: The share, δ.
        saved_share: Share of the reference's cost that is saved.
        pays_from: See `Estimate`.
    """

    model_config = ConfigDict(frozen=True)

    max_disagreement: float
    saved_share: Range
    pays_from: int | None


class Estimate(BaseModel):
    """What a whole job is expected to cost; an estimate, no promise.

    Attributes:
        task: Name of the task, if it has one.
        max_disagreement: Share of the answers that may differ, δ; None where only
            labels are promised.
        items: Number of items of the job.
        sampled: Number of items on which all models were asked.
        jobs: Number of simulated jobs.
        differing: Candidate → answers of the sample that differ from the reference's.
        failed: Model → items of the sample without a usable answer.
        audits: Items for which the reference is paid in order to learn.
        certifying: USD spent on these items, by all models.
        cost: USD spent on the job.
        reference_only: USD that the reference alone would cost.
        saved: USD saved against the reference alone.
        saved_share: The same as a share of `reference_only`.
        by_size: Items of a job → share that a job of that size would save.
        positives: Label of a promised recall → items that the reference is expected to
            give it.
        floors: The same → least share of all other items about which the reference must
            be asked, unless something tells which of them may be missed.
        pays_from: The break-even size: the least number of items at which a job is
            expected to save `min_saving`; None if it is at none of these sizes.
        choices: The same if other shares of the answers may differ.
        with_history: Share that the job would save under one promise with earlier jobs
            of its task; None if these are not known.
        earlier_jobs: Number of these jobs.
        rounds: Waves of calls, one after the other, where calls are live.
        by_batch: The same job by batches of the providers; None where no model has a
            price of its own in them.
    """

    model_config = ConfigDict(frozen=True)

    task: str | None = None
    max_disagreement: float | None
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
    saved_share: Range
    by_size: dict[int, Range]
    pays_from: int | None
    choices: tuple[Choice, ...] = ()
    positives: dict[str, float] = {}
    floors: dict[str, float] = {}
    with_history: Range | None = None
    earlier_jobs: int = 0
    rounds: Range
    by_batch: BatchLane | None = None


def estimate(
    sample: Mapping[str, Sequence[Result]],
    items: int,
    guarantee: Guarantee,
    rule: Equivalence,
    *,
    strategy: str = "audit",
    max_in_flight: int = 1,
    min_saving: float = MIN_SAVING,
    sizes: Sequence[int] = (),
    shares: Sequence[float] = (),
    history: TaskRecord | None = None,
    task: str | None = None,
    jobs: int = 12,
    seed: int = 0,
    label_of: LabelOf | None = None,
    max_rounds: int | None = None,
    batch_prices: Mapping[str, Price] | None = None,
    max_batches: int | None = 12,
    slices: Sequence[str] | None = None,
) -> Estimate:
    """Return what a job is expected to cost, given all models' answers to a sample.

    Confidences, and signals in the answers themselves, are left out: a few items cannot
    show what they are worth. A real job that has them may cost less.

    Args:
        sample: Model → its results on items drawn at random, reference first.
        items: Number of items of the job.
        guarantee: What is to be promised.
        rule: When two answers mean the same.
        strategy: Name of the strategy.
        max_in_flight: Most calls that will be made at once.
        min_saving: Least share that candidates must be expected to save.
        sizes: Items of other jobs for which the share saved is estimated, too.
        shares: Other shares of differing answers for which it is, in order to choose.
        history: What earlier jobs of its task share, if it may share their promise.
        task: Name of the task.
        jobs: Number of simulated jobs; of other sizes and shares, a third of it.
        seed: Seed of all randomness.
        label_of: A function from an answer to its label; see `BatchSession`.
        max_rounds: Most waves of calls; see `BatchSession`.
        batch_prices: Model → its price in its provider's batches, if that is estimated,
            too. A result without a usage costs there what it has cost.
        max_batches: Most waves of such batches; None: no limit.
        slices: Per item of the sample, the name of its slice, if slices are promised.

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
    label = _labels(rule, label_of, guarantee)
    rows = [coded(row, rule, label) for row in zip(*sample.values(), strict=True)]
    if not any(isinstance(row[0], Outcome) for row in rows):
        hint = "the reference answered no item of the sample"
        raise InvalidInputError("sample", len(rows), hint)
    names, whole = list(sample), min(items, _MAX_SIMULATED)
    simulated = SampleJobs(names, rows, seed, slices)
    settings = {
        "strategy": strategy,
        "max_in_flight": max_in_flight,
        "min_saving": min_saving,
    }
    least = max(min_saving, 1e-9)

    @cache
    def ran(share: float | None, size: int) -> list[Ran]:
        promised = replace(guarantee, max_disagreement=share)
        itself = share == guarantee.max_disagreement and size == whole
        count = jobs if itself else max(1, jobs // 3)
        each = settings | {"max_rounds": max_rounds}
        return [simulated.run(job, size, promised, **each) for job in range(count)]

    def saved(share: float | None) -> Callable[[int], Range]:
        return lambda size: _share_saved(ran(share, min(size, _MAX_SIMULATED)))

    own, choices = guarantee.max_disagreement, []
    for share in shares if own is not None else ():
        chosen = saved(share)
        choices.append(
            Choice(
                max_disagreement=share,
                saved_share=chosen(items),
                pays_from=_pays_from(chosen, sizes, least),
            )
        )
    figures, scale = ran(own, whole), items / whole
    shared = None
    if history is not None:
        shared = _share_saved(
            simulated.run(
                job,
                whole,
                guarantee,
                decide=_after(history, names, guarantee, job, min_saving),
                **settings,
            )
            for job in range(jobs)
        )
    by_batch = None
    if batch_prices is not None:
        cheaper = SampleJobs(names, priced(rows, batch_prices, names), seed, slices)
        carried = settings | {"max_rounds": max_batches}
        found = [cheaper.run(job, whole, guarantee, **carried) for job in range(jobs)]
        by_batch = BatchLane(
            cost=_range(each.cost * scale for each in found),
            reference_only=_range(each.alone * scale for each in found),
            rounds=_range(each.rounds for each in found),
            max_rounds=max_batches,
        )
    usable = dict(zip(names, zip(*rows, strict=True), strict=True))
    right = [row[0].answer[1] for row in rows if isinstance(row[0], Outcome)]
    positives = {
        name: right.count(name) / len(right) * items for name in guarantee.recall
    }
    return Estimate(
        task=task,
        max_disagreement=own,
        items=items,
        sampled=len(rows),
        jobs=jobs,
        differing={
            name: sum(map(_differ, usable[names[0]], usable[name]))
            for name in names[1:]
        },
        failed={
            name: sum(isinstance(result, Failure) for result in results)
            for name, results in usable.items()
        },
        audits=_range(each.audits * scale for each in figures),
        certifying=_range(each.certifying * scale for each in figures),
        cost=_range(each.cost * scale for each in figures),
        reference_only=_range(each.alone * scale for each in figures),
        saved=_range((each.alone - each.cost) * scale for each in figures),
        saved_share=_share_saved(figures),
        by_size={size: saved(own)(size) for size in sizes},
        pays_from=_pays_from(saved(own), sizes, least),
        choices=tuple(choices),
        positives=positives,
        floors={
            name: least_share(guarantee.recall[name], int(count), guarantee.alpha)
            for name, count in positives.items()
        },
        with_history=shared,
        earlier_jobs=history.finished if history is not None else 0,
        rounds=_range(each.rounds for each in figures),
        by_batch=by_batch,
    )


class _Copy:
    """A task as it stands, for one simulated job."""

    def __init__(self, task: Task) -> None:
        self._task = task

    @contextmanager
    def step(self, *, durable: bool = False) -> Iterator[Task]:
        del durable
        yield self._task


def _after(
    history: TaskRecord,
    names: Sequence[str],
    guarantee: Guarantee,
    seed: int,
    min_saving: float,
) -> Strategy:
    """Return the strategy of a simulated job after those of a task."""
    tiers = [Tier(names[0], "reference"), *map(Tier, names[1:])]
    task = Task(tiers, guarantee, min_saving=min_saving)
    task.take_up(history.model_copy(update={"seed": seed}))
    return job_of(_Copy(task), f"simulated {seed}", lambda: False)


def _labels(
    rule: Equivalence, label_of: LabelOf | None, guarantee: Guarantee
) -> Callable[[Any], str]:
    """Return what says which promised label an answer is; another one is ""."""
    labelling = Labelling(rule, label_of, guarantee)
    names = {labelling.named(name): name for name in guarantee.labels}

    def label(answer: Any) -> str:
        try:
            return names.get(labelling.number(answer), "") if names else ""
        except Exception:  # noqa: BLE001 - a user's rule may raise anything
            return ""

    return label


def _differ(left: Result, right: Result) -> bool:
    """Whether both are answers, and not the same."""
    both = isinstance(left, Outcome) and isinstance(right, Outcome)
    return both and left[0] != right[0]


def _pays_from(
    saved: Callable[[int], Range], sizes: Iterable[int], least: float
) -> int | None:
    """Return the least size at which enough is saved.

    It lies between two of those given, nearly; the more items, the more is saved.
    """
    low = None
    for size in sorted(sizes):
        if saved(size).mean >= least:
            break
        low = size
    else:
        return None
    while low is not None and size > _NEAR * low:
        between = round(math.sqrt(low * size))
        between = round(between, 1 - int(math.log10(between)))
        if not low < between < size:
            break
        if saved(between).mean >= least:
            size = between
        else:
            low = between
    return size


def _share_saved(jobs: Iterable[Ran]) -> Range:
    return _range(job.saved_share for job in jobs)


def _range(figures: Iterable[float]) -> Range:
    found = list(figures)
    return Range(mean=sum(found) / len(found), low=min(found), high=max(found))
