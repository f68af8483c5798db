"""What would it have cost? Sessions against recorded or simulated answers.

The engine has no clock: planning time is measured with the one that a caller passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from pydantic import BaseModel, ConfigDict

from smart_engine.batch.session import BatchSession
from smart_engine.calls import Failure, Result
from smart_engine.equivalence import (
    Equivalence,
    EquivalenceLike,
    Exact,
    agree,
    as_equivalence,
)
from smart_engine.equivalence.labelling import Labelling
from smart_engine.errors import InvalidInputError
from smart_engine.evidence.slices import Slices
from smart_engine.evidence.tails import BoolArray
from smart_engine.guarantee import Guarantee
from smart_engine.offline.traces import Sample, Trace
from smart_engine.tiers import Tier

__all__ = [
    "LabelShares",
    "Recording",
    "ReplayResult",
    "Sliced",
    "accuracy",
    "label_shares",
    "replay",
    "run_session",
    "savings",
]


class Recording(Protocol):
    """Answers of several models to the same items, as a `Trace` or a `Simulation`."""

    @property
    def reference(self) -> str:
        """Name of the reference."""

    @property
    def candidates(self) -> Sequence[str]:
        """Names of the candidates."""

    def outcomes(self, seed: int) -> Mapping[str, Sequence[Result]]:
        """Return model → its result on every item; the reference comes first."""


@runtime_checkable
class Labelled(Protocol):
    """A recording in which some true answers are known, as in a `Trace`."""

    def gold(self, seed: int) -> Sequence[Any]:
        """Return the true answer to every item, None where it is not known."""


@runtime_checkable
class Sliced(Protocol):
    """A recording whose items may belong to slices, as in a `Trace`."""

    def slices(self, seed: int) -> Sequence[str] | None:
        """Return the slice of each item, None if there are none."""


class ReplayResult(BaseModel):
    """What a strategy cost, and how it kept the guarantee, over several trials.

    Attributes:
        strategy: Name of the strategy.
        items: Number of items.
        trials: Number of trials, each with its own seed.
        max_disagreement: δ of the guarantee.
        confidence: γ of the guarantee.
        cost_ratio: Mean spend ÷ what the reference alone would have cost.
        cost_ratio_max: Its maximum over the trials.
        cost_floor: Mean of the least possible cost ratio, if all answers were known
            beforehand.
        agreement_mean: Mean share of answers that are equivalent to the reference's.
        agreement_min: Its minimum over the trials.
        violations: Share of trials whose agreement is below 1 − δ.
        reference_share: Mean share of items for which the reference was paid.
        calls: Model → mean number of calls.
        planning_seconds: Engine time per trial.
        rounds: Mean number of waves of calls, one after the other.
        reference_cost: USD that the reference alone would have cost (mean).
        reference_accuracy: Mean share of the reference's answers that are the true
            ones, among items whose true answer is recorded; None if none is.
        accuracy: The same of the answers handed out.
        recall: Label that is promised → mean share of its items that are given it.
        precision: The same → mean share of what is given it that is right.
        label_violations: Share of trials in which a promise about a label is broken.
        slices: Slices of which the share is promised (mean); 0 if of none.
        slice_violations: Share of trials in which any slice has more answers that
            differ.
    """

    model_config = ConfigDict(frozen=True)

    strategy: str
    items: int
    trials: int
    max_disagreement: float | None
    confidence: float
    cost_ratio: float
    cost_ratio_max: float
    cost_floor: float
    agreement_mean: float
    agreement_min: float
    violations: float
    reference_share: float
    calls: dict[str, float]
    planning_seconds: float
    rounds: float
    reference_cost: float
    reference_accuracy: float | None
    accuracy: float | None
    recall: dict[str, float] = {}
    precision: dict[str, float] = {}
    label_violations: float = 0.0
    slices: float = 0.0
    slice_violations: float = 0.0

    @property
    def tolerance(self) -> float:
        """δ; 1 if nothing is promised of all answers together."""
        return 1.0 if self.max_disagreement is None else self.max_disagreement


def replay(
    recording: Recording,
    guarantee: Guarantee,
    *,
    strategy: str = "audit",
    looks: str = "corrected",
    trials: int = 20,
    seed: int = 0,
    equivalence: EquivalenceLike = Exact(),
    max_rounds: int | None = None,
    clock: Callable[[], float] = lambda: 0.0,
) -> ReplayResult:
    """Run a strategy on recorded answers, several times.

    Args:
        recording: Where the answers come from.
        guarantee: What is promised.
        strategy: Name of the strategy.
        looks: Name of the looks.
        trials: Number of trials; trial t runs with seed + t.
        seed: Seed of the first trial.
        equivalence: When two answers mean the same.
        max_rounds: Most waves of calls; see `BatchSession`.
        clock: Returns seconds; `planning_seconds` is zero without one.

    Raises:
        InvalidInputError: If an argument cannot be used, or there are no items.

    Example:
        ```python
        from smart_engine.offline.traces import Simulation

        models = Simulation(
            items=2000,
            reference="big",
            agreement={"small": 0.99},
            costs={"big": 1.0, "small": 0.01},
        )
        result = replay(models, Guarantee(0.05, 0.95), trials=3)
        assert result.violations == 0
        assert result.cost_ratio < 0.3
        ```
    """
    if trials < 1:
        raise InvalidInputError("trials", trials, "run at least one")
    rule = as_equivalence(equivalence)
    names = (recording.reference, *recording.candidates)
    costs, floors, agreements, shares = [], [], [], []
    alone_costs: list[float] = []
    rounds: list[int] = []
    labels: list[LabelShares] = []
    sliced: list[tuple[int, bool]] = []
    accuracies: list[list[float | None]] = []
    violations, seconds, floor, known = 0, 0.0, 0.0, None
    calls = dict.fromkeys(names, 0)
    for trial in range(seed, seed + trials):
        outcomes = recording.outcomes(trial)
        right = outcomes[names[0]]
        if not right:
            raise InvalidInputError("items", 0, "there is nothing to replay")
        slices = recording.slices(trial) if isinstance(recording, Sliced) else None
        if outcomes is not known:
            floor, known = _floor(outcomes, guarantee, rule, slices), outcomes
        started = clock()
        session = run_session(
            {name: outcomes[name] for name in names},
            guarantee,
            strategy=strategy,
            looks=looks,
            seed=trial,
            equivalence=rule,
            max_rounds=max_rounds,
            slices=slices,
        )
        certificate = session.certificate
        rounds.append(session.rounds)
        seconds += clock() - started
        alone = sum(outcome.cost for outcome in right)
        alone_costs.append(alone)
        costs.append(certificate.cost / alone if alone else 1.0)
        floors.append(floor / alone if alone else 1.0)
        wrong = _differing(session, right, rule)
        differing = int(wrong.sum())
        agreements.append(1 - differing / len(right))
        violations += differing > guarantee.max_errors(len(right))
        if slices is not None:
            kept = [
                wrong[items].sum() <= guarantee.max_errors(len(items))
                for items in Slices.read(slices, len(right)).items()
            ]
            sliced.append((len(kept), all(kept)))
        shares.append(certificate.spend[names[0]].calls / len(right))
        given = [served.answer for served in session.answers]
        truths = [None if isinstance(r, Failure) else r.answer for r in right]
        labels.append(label_shares(truths, given, guarantee, rule))
        gold: Sequence[Any] = [None] * len(right)
        if isinstance(recording, Labelled):
            gold = recording.gold(trial)
        accuracies.append([accuracy(each, gold, rule) for each in (truths, given)])
        for name in names:
            calls[name] += certificate.spend[name].calls
    return ReplayResult(
        strategy=strategy,
        items=len(right),
        trials=trials,
        max_disagreement=guarantee.max_disagreement,
        confidence=guarantee.confidence,
        cost_ratio=sum(costs) / trials,
        cost_ratio_max=max(costs),
        cost_floor=sum(floors) / trials,
        agreement_mean=sum(agreements) / trials,
        agreement_min=min(agreements),
        violations=violations / trials,
        reference_share=sum(shares) / trials,
        calls={name: count / trials for name, count in calls.items()},
        planning_seconds=seconds / trials,
        rounds=sum(rounds) / trials,
        reference_cost=sum(alone_costs) / trials,
        reference_accuracy=_mean(before for before, _ in accuracies),
        accuracy=_mean(after for _, after in accuracies),
        recall=_means([each.recall for each in labels]),
        precision=_means([each.precision for each in labels]),
        label_violations=sum(not each.kept for each in labels) / trials,
        slices=sum(count for count, _ in sliced) / trials,
        slice_violations=sum(not kept for _, kept in sliced) / trials,
    )


class LabelShares(NamedTuple):
    """Recall and precision of the labels that are promised, in one trial.

    Attributes:
        recall: Label → share of its items that are given it; 1 where there are none.
        precision: Label → share of what is given it that is right; 1 where nothing is.
        kept: Whether every promise about a label is kept.
    """

    recall: dict[str, float]
    precision: dict[str, float]
    kept: bool


def label_shares(
    truths: Sequence[Any], given: Sequence[Any], guarantee: Guarantee, rule: Equivalence
) -> LabelShares:
    """Compare answers handed out with the reference's, label by label.

    Args:
        truths: The reference's answers, None where it has none.
        given: The answers handed out, None where there is none.
        guarantee: What is promised.
        rule: When two answers mean the same.
    """
    recall: dict[str, float] = {}
    precision: dict[str, float] = {}
    if guarantee.labels:
        labelling = Labelling(rule, None, guarantee)
        meant, told = (
            np.array([_label(labelling, answer) for answer in answers])
            for answers in (truths, given)
        )
        for name in guarantee.labels:
            number = labelling.named(name)
            right = int(((meant == number) & (told == number)).sum())
            all_meant, all_told = (meant == number).sum(), (told == number).sum()
            recall[name] = right / int(all_meant) if all_meant else 1.0
            precision[name] = right / int(all_told) if all_told else 1.0
    kept = all(recall[name] >= least for name, least in guarantee.recall.items())
    kept &= all(precision[name] >= least for name, least in guarantee.precision.items())
    return LabelShares(recall, precision, kept)


def _label(labelling: Labelling, answer: Any) -> int:
    """Return the number of an answer's label, 0 if it has none."""
    try:
        return 0 if answer is None else labelling.number(answer)
    except Exception:  # noqa: BLE001 - a user's rule may raise anything
        return 0


def _means(shares: Sequence[dict[str, float]]) -> dict[str, float]:
    return {
        name: sum(each[name] for each in shares) / len(shares) for name in shares[0]
    }


def savings(
    trace: Trace,
    sizes: Sequence[int],
    shares: Sequence[float],
    *,
    confidence: float = 0.95,
    trials: int = 2,
    seed: int = 0,
    equivalence: EquivalenceLike = Exact(),
) -> list[ReplayResult]:
    """Return what jobs like a recorded one cost, by their size and by δ.

    Args:
        trace: The recorded job; each trial of a smaller one draws its items anew.
        sizes: Numbers of items; all items stand for what is larger.
        shares: Tolerated shares of differing answers (δ).
        confidence: γ of every guarantee.
        trials: Number of trials of each.
        seed: Seed of the first trial.
        equivalence: When two answers mean the same.

    Example:
        ```python
        small, large = savings(Trace.example(), [50, 500], [0.1], trials=1)
        assert large.cost_ratio < small.cost_ratio
        ```
    """
    return [
        replay(
            Sample(trace, size),
            Guarantee(share, confidence),
            trials=trials,
            seed=seed,
            equivalence=equivalence,
        )
        for size in dict.fromkeys(min(size, len(trace.rows)) for size in sizes)
        for share in shares
    ]


def accuracy(
    answers: Sequence[Any], gold: Sequence[Any], rule: Equivalence
) -> float | None:
    """Return the share of answers that mean the same as the true ones.

    Args:
        answers: An answer per item, None where there is none; that is never right.
        gold: The true answers, None where one is not known: such items are left out.
        rule: When two answers mean the same.

    Returns:
        The share, 0 to 1; None if no true answer is known.
    """
    known = [pair for pair in zip(answers, gold, strict=True) if pair[1] is not None]
    right = sum(given is not None and agree(rule, given, g) for given, g in known)
    return right / len(known) if known else None


def run_session(
    outcomes: Mapping[str, Sequence[Result]], guarantee: Guarantee, **settings: Any
) -> BatchSession:
    """Return a session that ran on known results.

    Args:
        outcomes: Model → its result on every item; the reference comes first. Their
            mean costs are taken to be known from the start, as list prices are.
        guarantee: What is promised.
        **settings: More settings of a `BatchSession`.
    """
    tiers = [
        Tier(name, "candidate" if place else "reference", sum(r.cost for r in results))
        for place, (name, results) in enumerate(outcomes.items())
    ]
    items = len(next(iter(outcomes.values())))
    session = BatchSession(items, tiers, guarantee, **settings)
    while calls := session.next_calls():
        for call in calls:
            session.record(call, outcomes[call.tier][call.item])
    return session


def _floor(
    outcomes: Mapping[str, Sequence[Result]],
    guarantee: Guarantee,
    rule: Equivalence,
    slices: Sequence[str] | None,
) -> float:
    """Return the cost, in USD, of the cheapest answers that keep the guarantee.

    Each item goes to the cheapest model that is right; then as many may be wrong as the
    guarantee allows, in each slice if there are any, where that saves most.
    """
    right, *others = outcomes.values()
    cheapest_right, savings = 0.0, []
    for item, truth in enumerate(right):
        best = least = truth.cost
        for results in others:
            result = results[item]
            if isinstance(result, Failure):
                continue
            least = min(least, result.cost)
            if result.cost < best and not isinstance(truth, Failure):
                same = agree(rule, result.answer, truth.answer)
                best = result.cost if same else best
        cheapest_right += best
        savings.append(best - least)
    for items in Slices.read(slices, len(right)).items():
        best_first = sorted((savings[item] for item in items.tolist()), reverse=True)
        cheapest_right -= sum(best_first[: guarantee.max_errors(len(items))])
    return cheapest_right


def _differing(
    session: BatchSession, right: Sequence[Result], rule: Equivalence
) -> BoolArray:
    """Return which answers handed out differ from the reference's recorded ones."""
    differing = np.zeros(len(right), bool)
    for served in session.answers:
        truth = right[served.item]
        if served.error is not None or isinstance(truth, Failure):
            differing[served.item] = True
        elif served.answer is not truth.answer:
            differing[served.item] = not agree(rule, served.answer, truth.answer)
    return differing


def _mean(shares: Iterable[float | None]) -> float | None:
    """Return the mean of what is known, None if nothing is."""
    known = [share for share in shares if share is not None]
    return sum(known) / len(known) if known else None
