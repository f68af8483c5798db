"""What would a whole job cost? Sessions on many jobs that a sample could come from.

A sample leaves open how often candidates differ. So each simulated job draws its items
from the sample with weights of its own (a Bayesian bootstrap; Rubin 1981), to which
each candidate adds half a wrong answer that no model gave, half of it shared with all
others: where no answer in the sample differs, some in the job still may.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from smart_engine.calls import Call, Failure, Outcome, Result
from smart_engine.equivalence import Equivalence, agree
from smart_engine.equivalence.labelling import Labelling, LabelOf
from smart_engine.errors import InvalidInputError, SmartError, check_whole
from smart_engine.evidence.tails import FloatArray
from smart_engine.guarantee import Guarantee
from smart_engine.jobs.job import job_of
from smart_engine.jobs.record import TaskRecord
from smart_engine.jobs.task import Task
from smart_engine.labels.levels import least_share
from smart_engine.money.ledger import LedgerScope
from smart_engine.money.pricing import Price
from smart_engine.offline.replay import run_session
from smart_engine.strategies import Strategy
from smart_engine.tiers import MIN_SAVING, Tier

__all__ = ["BatchLane", "Estimate", "Range", "SampleSession", "estimate"]

_UNSEEN_WEIGHT = 0.25
"""Weight, in items, of an error that the sample did not show."""

_MAX_SIMULATED = 20_000
"""Items of a simulated job. Larger jobs are scaled up from it, which overstates what
they cost: certifying costs less per item the more there are."""

Row = list[Result]
"""Every model's result on one item, reference first."""


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


class Estimate(BaseModel):
    """What a whole job is expected to cost; an estimate, no promise.

    Attributes:
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
        pays_from: Least of these sizes from which on a job is expected to save
            `min_saving`; None if none is.
        with_history: Share that the job would save under one promise with earlier jobs
            of its task; None if these are not known.
        earlier_jobs: Number of these jobs.
        rounds: Waves of calls, one after the other, where calls are live.
        by_batch: The same job by batches of the providers; None where no model has a
            price of its own in them.
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
    saved_share: Range
    by_size: dict[int, Range]
    pays_from: int | None
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
    history: TaskRecord | None = None,
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
        history: What earlier jobs of its task share, if it may share their promise.
        jobs: Number of simulated jobs; of every other size, a third of it.
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
    rows = [_coded(row, rule, label) for row in zip(*sample.values(), strict=True)]
    if not any(isinstance(row[0], Outcome) for row in rows):
        hint = "the reference answered no item of the sample"
        raise InvalidInputError("sample", len(rows), hint)
    names, size = list(sample), min(items, _MAX_SIMULATED)

    def simulated(
        size: int,
        jobs: int,
        history: TaskRecord | None = None,
        *,
        rows: list[Row] = rows,
        max_rounds: int | None = max_rounds,
    ) -> FloatArray:
        """Return audits, certifying, cost, alone, saved and waves, a row a job."""
        rng = np.random.default_rng([seed, size])
        figures = []
        for job in range(jobs):
            job_rows, like = _simulated_job(rows, size, rng)
            columns = zip(*job_rows, strict=True)
            results = dict(zip(names, columns, strict=True))
            session = run_session(
                results,
                guarantee,
                strategy=strategy,
                seed=job,
                equivalence=operator.eq,
                max_in_flight=max_in_flight,
                min_saving=min_saving,
                label_of=operator.itemgetter(1),
                slices=slices and [slices[place] for place in like],
                job=history and _after(history, names, guarantee, job, min_saving),
                max_rounds=None if history else max_rounds,
            )
            audits = [each.cost for each in session.answers if each.role == "profiled"]
            cost = session.certificate.cost
            alone = sum(result.cost for result in results[names[0]])
            money = sum(audits), cost, alone, alone - cost
            figures.append((len(audits), *money, session.rounds))
        return np.array(figures, float).T

    figures, fewer = simulated(size, jobs), max(1, jobs // 3)
    by_size = {each: _share_saved(simulated(each, fewer)) for each in sizes}
    shared = None
    if history is not None:
        shared = _share_saved(simulated(size, jobs, history))
    by_batch = None
    if batch_prices is not None:
        cheaper = [_priced(row, map(batch_prices.get, names)) for row in rows]
        found = simulated(size, jobs, rows=cheaper, max_rounds=max_batches)
        by_batch = BatchLane(
            cost=_range(found[2] * (items / size)),
            reference_only=_range(found[3] * (items / size)),
            rounds=_range(found[5]),
            max_rounds=max_batches,
        )
    audits, certifying, spent, reference_only, saved = map(
        _range, figures[:5] * (items / size)
    )
    usable = dict(zip(names, zip(*rows, strict=True), strict=True))
    right = [row[0].answer[1] for row in rows if isinstance(row[0], Outcome)]
    positives = {
        name: right.count(name) / len(right) * items for name in guarantee.recall
    }
    return Estimate(
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
        audits=audits,
        certifying=certifying,
        cost=spent,
        reference_only=reference_only,
        saved=saved,
        saved_share=_share_saved(figures),
        by_size=by_size,
        pays_from=_pays_from(by_size, min_saving),
        positives=positives,
        floors={
            name: least_share(guarantee.recall[name], int(count), guarantee.alpha)
            for name, count in positives.items()
        },
        with_history=shared,
        earlier_jobs=history.finished if history is not None else 0,
        rounds=_range(figures[5]),
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


def _coded(
    row: Sequence[Result], rule: Equivalence, label: Callable[[Any], str]
) -> Row:
    """Return results whose answers are pairs: what means the same, and its label."""
    kinds: list[Any] = []
    coded: Row = []
    for index, result in enumerate(row):
        if isinstance(result, Failure) or (index and not _readable(rule, result)):
            lost = SmartError("no usable answer")
            coded.append(Failure(lost, result.cost, result.usage))
            continue
        same = (k for k, kind in enumerate(kinds) if agree(rule, result.answer, kind))
        code = next(same, len(kinds))
        if code == len(kinds):
            kinds.append(result.answer)
        answer = code, label(result.answer)
        coded.append(Outcome(answer, result.cost, result.usage))
    return coded


def _priced(row: Row, prices: Iterable[Price | None]) -> Row:
    """Return results at other prices, where their models have one."""
    return [
        result._replace(cost=price.cost(result.usage))
        if price is not None and result.usage is not None
        else result
        for result, price in zip(row, prices, strict=True)
    ]


def _readable(rule: Equivalence, outcome: Outcome) -> bool:
    try:
        rule.parse(outcome.answer)
    except Exception:  # noqa: BLE001 - a user's rule may raise anything
        return False
    return True


def _differ(left: Result, right: Result) -> bool:
    """Whether both are answers, and not the same."""
    both = isinstance(left, Outcome) and isinstance(right, Outcome)
    return both and left[0] != right[0]


def _simulated_job(
    rows: list[Row], size: int, rng: np.random.Generator
) -> tuple[list[Row], list[int]]:
    """Return the items of one job that the sample could come from.

    With each comes the place in the sample of an item like it.
    """
    known, candidates = len(rows), range(1, len(rows[0]))
    erring: list[Container[int]] = [candidates, *([one] for one in candidates)]
    weights = rng.dirichlet([1.0] * known + [_UNSEEN_WEIGHT] * len(erring))
    drawn = rng.choice(len(weights), size, p=weights).tolist()
    others = rng.integers(known, size=size).tolist()
    pairs = [*zip(drawn, others, strict=True)]
    like = [place if place < known else other for place, other in pairs]
    return [
        rows[place] if place < known else _spoilt(rows[other], erring[place - known])
        for place, other in pairs
    ], like


def _spoilt(row: Row, erring: Container[int]) -> Row:
    """Return an item on which these candidates give an answer that no model gave."""
    return [
        Outcome((-1, ""), result.cost, result.usage) if index in erring else result
        for index, result in enumerate(row)
    ]


def _share_saved(figures: FloatArray) -> Range:
    *_, alone, saved, _ = figures
    return _range(np.divide(saved, alone, out=np.zeros_like(saved), where=alone > 0))


def _pays_from(by_size: Mapping[int, Range], min_saving: float) -> int | None:
    """Return the size from which on all save enough."""
    found = None
    for size, share in sorted(by_size.items(), reverse=True):
        if share.mean <= 0 or share.mean < min_saving:
            break
        found = size
    return found


def _range(figures: FloatArray) -> Range:
    return Range(
        mean=float(figures.mean()), low=float(figures.min()), high=float(figures.max())
    )
