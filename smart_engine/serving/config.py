"""The settings of a smart object, and those of one task of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from smart_engine.equivalence import Equivalence
from smart_engine.equivalence.labelling import LabelOf
from smart_engine.errors import InvalidInputError
from smart_engine.guarantee import Guarantee
from smart_engine.serving.books import Books
from smart_engine.serving.resume import AnswerStore
from smart_engine.serving.slices import SliceOf
from smart_engine.serving.tasks import ByTask, TaskSettings, pool_of
from smart_engine.stream.drift import Drift
from smart_engine.tiers import MIN_SAVING, Tier

__all__ = ["ServingConfig"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ServingConfig:
    """The settings of a smart model, whatever the framework.

    Attributes:
        models: Names of the models, reference first.
        guarantee: What is promised.
        rule: When two answers mean the same, by the user's rule.
        strategy: How batches are served; see `BatchSession`.
        looks: For the paper's strategies.
        mode: `"serve"`; `"shadow"`: all models are asked, the reference answers; or
            `"strict"`: where the budget ends, items that the guarantee does not cover
            are errors, not answers marked `uncertified`.
        budget_usd: Most that a batch, and the stream of a task, may cost.
        seed: Seed of all draws; None: one of `fresh_seed` for each batch and stream.
        fresh_seed: Returns a seed that nobody can foresee, where `seed` is None.
        max_concurrency: Most calls of a batch in flight at once.
        min_saving: Least share of the cost that candidates must be expected to save.
        max_rounds: Most waves of calls that a batch may take; see `BatchSession`.
        costs: Per model, what a call is expected to cost, in USD; None if unknown.
        promise: `"batch"`: each batch keeps the guarantee by itself; `"task"`: after
            each of them, all answers of its task do, together; None: by its size, see
            `shares_promise`.
        accept_noise: Serve also where the reference was seen to differ from itself on
            more items than the guarantee allows.
        label_of: A function from an answer to its label; see `BatchSession`.
        slices: To which slice an input belongs, if `max_disagreement` is promised of
            each slice.
        tasks: What single tasks have of their own.
        pooled: Whether its task is a pool, whose items bring rules of their own.
        on_drift: Is told where a stream's recent errors leave its past; see `Drift`.

    Example:
        ```python
        config = ServingConfig(("big", "small"), Guarantee(0.05, 0.95), Exact())
        assert config.of("a task").guarantee.tolerance == 0.05
        ```
    """

    models: tuple[str, ...]
    guarantee: Guarantee
    rule: Equivalence = field(repr=False)
    strategy: str = "audit"
    looks: str = "corrected"
    mode: str = "serve"
    budget_usd: float | None = None
    seed: int | None = 0
    fresh_seed: Callable[[], int] = field(default=int, repr=False, compare=False)
    max_concurrency: int = 32
    min_saving: float = MIN_SAVING
    max_rounds: int | None = None
    costs: tuple[float | None, ...] = field(default=(), repr=False)
    accept_noise: bool = field(default=False, repr=False)
    label_of: LabelOf | None = field(default=None, repr=False)
    slices: SliceOf | None = field(default=None, repr=False)
    tasks: Mapping[str, TaskSettings] = field(default_factory=dict, repr=False)
    pooled: bool = field(default=False, repr=False)
    promise: str | None = field(default=None, repr=False)
    on_drift: Callable[[Drift], None] | None = field(
        default=None, repr=False, compare=False
    )

    def task_of(self, name: str) -> str:
        """Return the task that a name stands for: its pool, if it is in one."""
        return pool_of(self.tasks, name) if self.tasks else name

    def rule_of(self, task: str) -> Equivalence:
        """Return the user's rule for a task: its own, its pool's, or that of all."""
        if not self.tasks:
            return self.rule
        names = (task, pool_of(self.tasks, task))
        rules = (self.tasks[name].equivalence for name in names if name in self.tasks)
        return next(filter(None, rules), self.rule)

    def of(self, task: str | None) -> ServingConfig:
        """Return the settings of a task, by the name of its pool if it has one."""
        own = self.tasks.get(task or "")
        if own is None:
            return self if not self.tasks else replace(self, tasks={})
        rule = self.rule_of(task or "")
        rules = tuple((name, self.rule_of(name)) for name in own.pool)
        if any(each != rule for _, each in rules):
            rule = ByTask(rules)
        promise = self.guarantee
        return replace(
            self,
            guarantee=Guarantee(
                _first(own.max_disagreement, promise.max_disagreement),
                _first(own.confidence, promise.confidence),
                promise.recall,
                promise.precision,
            ),
            rule=rule,
            strategy=_first(own.strategy, self.strategy),
            min_saving=_first(own.min_saving, self.min_saving),
            tasks={},
            pooled=bool(own.pool),
        )

    @property
    def batches_alone(self) -> bool:
        """Whether something is promised that each batch keeps by itself, as a whole."""
        return bool(self.guarantee.labels) or self.slices is not None

    def check_objects(self) -> None:
        """Raise if objects are asked for in which nothing reads the labels promised.

        Raises:
            InvalidInputError: It names the way out.
        """
        texts = getattr(self.rule, "reads_text", False)
        if self.guarantee.labels and self.label_of is None and texts:
            hint = (
                f"{self.rule.name} reads labels in texts, and objects are asked for: "
                "say which label one is, as in label_of=lambda answer: answer.category"
            )
            raise InvalidInputError("label_of", None, hint)

    def batch_seed(self, stored: AnswerStore | None) -> int:
        """Return the seed of a batch's draws: as given, as stored, or a fresh one."""
        if self.seed is not None:
            return self.seed
        fresh = self.fresh_seed()
        return fresh if stored is None else stored.seed(fresh)

    def refuse_noise(self, books: Books, rule: Equivalence, task: str | None) -> None:
        """Raise where the reference was seen to be too noisy for the guarantee.

        Raises:
            NoisyReferenceError: If it agrees too seldom with itself.
        """
        noise = books.noise(task, self.models[0], rule)
        if noise is not None and not self.accept_noise:
            noise.refuse(self.guarantee.tolerance)

    @property
    def tiers(self) -> list[Tier]:
        """The models as sessions know them."""
        costs = self.costs or (None,) * len(self.models)
        return [
            Tier(name, "candidate" if place else "reference", cost)
            for place, (name, cost) in enumerate(zip(self.models, costs, strict=True))
        ]


def _first(own: T | None, common: T) -> T:
    """Return a task's own setting, where it has one."""
    return common if own is None else own
