"""The settings of a smart object; every session and every single item starts here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, TypeVar

from smart_engine.batch.session import BatchSession
from smart_engine.equivalence import Equivalence
from smart_engine.equivalence.identity import Identity, identity
from smart_engine.equivalence.labelling import LabelOf
from smart_engine.errors import InvalidInputError, check_whole, choose
from smart_engine.guarantee import Guarantee
from smart_engine.jobs.beliefs import informed
from smart_engine.jobs.job import job_of
from smart_engine.jobs.task import Task
from smart_engine.money.budget import Budget, check_budget
from smart_engine.money.ledger import LedgerScope
from smart_engine.money.reservations import Reservations, WorstCase
from smart_engine.row import StreamRow
from smart_engine.serving.books import Books
from smart_engine.serving.budgeted import BudgetedRouter, BudgetedSession
from smart_engine.serving.item import SingleItem
from smart_engine.serving.profile import Persistence, Profile, StreamStore, mark
from smart_engine.serving.repeated import RepeatedSession
from smart_engine.serving.resume import AnswerStore
from smart_engine.serving.router import (
    FixedRouter,
    Router,
    ShadowRouter,
    StoredRouter,
)
from smart_engine.serving.session import AnySession
from smart_engine.serving.shared import SharedTask
from smart_engine.serving.slices import SliceOf
from smart_engine.serving.tasks import ByTask, TaskSettings, pool_of
from smart_engine.strategies import STRATEGIES, Strategy, check_rounds
from smart_engine.stream.drift import Drift
from smart_engine.stream.session import StreamSession
from smart_engine.tiers import MIN_SAVING, Tier
from smart_engine.warn import warn

__all__ = ["ServingConfig"]

T = TypeVar("T")
Column = Literal["state", "budget"]
Rows = Callable[[Column], StreamRow]

_FEWEST_ERRORS = 5
"""Answers that may differ in a batch which is cheaper than the beginning of a stream.

Measured, as shares of the reference's cost, with candidates at 5 % of its price that
err on 1 % (3 %) of the items: 80 items 0.98 (0.99), 100 items 0.80 (0.86), 200 items
0.52 (0.55); the first 100 of a stream 0.96 (0.96), its first 200 0.81 (0.86).
"""

_SMALL = 12
"""Errors allowed in a batch from which on it keeps a promise of its own by default.

Measured at δ = .05, with a candidate at 5 % of the price that errs on 1 % (3 %) of the
items: five batches of 200 items cost 0.39 (0.53) of the reference under one promise,
0.46 (0.53) with one each; ten batches of 100 items 0.43 (0.53) and 0.75 (0.90).
"""

_PROMISES = ("batch", "task")
_MODES = ("serve", "shadow", "strict")


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
        config.check()
        assert config.session(100, Exact(), "a task").next_calls()
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

    def check(self) -> None:
        """Raise unless all of it can be used.

        Raises:
            InvalidInputError: It names the field.
        """
        self._check()
        for name in self.tasks:
            try:
                self.of(name)._check()  # noqa: SLF001 - of the same class
            except InvalidInputError as error:
                field = f"tasks[{name!r}].{error.field}"
                raise InvalidInputError(field, error.value, error.hint) from error
        self._warn_of_prices()

    def _check(self) -> None:
        if self.mode not in _MODES:
            raise InvalidInputError(
                "mode", self.mode, f"choose one of {', '.join(_MODES)}"
            )
        if self.promise is not None:
            choose("promise", self.promise, dict.fromkeys(_PROMISES))
        if self.promise == "task" and self.strategy not in ("audit", "reference"):
            hint = (
                f"strategy={self.strategy!r} proves each batch by itself: use 'audit'"
            )
            raise InvalidInputError("promise", self.promise, hint)
        if self.promise == "task" and self.batches_alone:
            hint = (
                "jobs that are still to come may have none of a label or slice, or all "
                "of it: recall=, precision= and slices= hold for each batch by itself, "
                "promise='batch'"
            )
            raise InvalidInputError("promise", self.promise, hint)
        if self.mode == "shadow" and self.batches_alone:
            hint = (
                "items are answered one by one, as a stream: recall=, precision= and "
                "slices= are promises about whole batches, leave them out"
            )
            raise InvalidInputError("mode", self.mode, hint)
        check_budget(self.budget_usd)
        if self.budget_usd is not None and getattr(self.rule, "costs", False):
            hint = (
                f"what {self.rule.name} will spend cannot be set aside beforehand, so "
                "that no budget would hold: leave budget_usd out, compare by a rule "
                "that costs nothing, or give a local model Price.free()"
            )
            raise InvalidInputError("budget_usd", self.budget_usd, hint)
        if self.mode == "strict" and self.budget_usd is None:
            hint = "set budget_usd: strict says what happens where the budget ends"
            raise InvalidInputError("mode", self.mode, hint)
        check_whole("max_concurrency", self.max_concurrency, 1)
        by_task = self.promise == "task"
        check_rounds(self.max_rounds, self.strategy, self.guarantee, by_task=by_task)
        self.session(0, self.rule, None, slices=None if self.slices is None else ())

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

    def _warn_of_prices(self) -> None:
        """Name the candidates that cannot save anything by their prices."""
        unit, *costs = self.costs or (None,)
        for name, cost in zip(self.models[1:], costs, strict=False):
            if unit and cost is not None and cost >= unit:
                warn(
                    f"{name} is priced no lower than the reference {self.models[0]}, "
                    "so it will not be asked: remove it, or correct prices="
                )

    def session(
        self,
        n_items: int,
        rule: Equivalence,
        task: str | None,
        *,
        scope: LedgerScope | None = None,
        books: Books | None = None,
        reservations: Reservations | None = None,
        seed: int | None = None,
        firsts: Sequence[int] | None = None,
        job: Strategy | None = None,
        slices: Sequence[str] | None = None,
    ) -> AnySession:
        """Return a fresh session over that many items.

        Args:
            n_items: Number of items.
            rule: How answers to this request are compared.
            task: Name of the task.
            scope: Where its calls are entered, if anywhere.
            books: Where the reference's agreement with itself may have been entered.
            reservations: What its calls reserve, if there is a budget.
            seed: Seed of its draws; see `batch_seed`.
            firsts: Per item, the first one with the same request, if that is made once.
            job: Decides in place of the strategy; see `task_job`.
            slices: Per item, the name of its slice, if slices are promised.

        Raises:
            NoisyReferenceError: If the reference agrees too seldom with itself.
        """
        session: AnySession = self.batch_session(
            n_items,
            rule,
            task,
            scope=scope,
            books=books,
            seed=seed,
            firsts=firsts,
            job=job,
            slices=slices,
        )
        if firsts is not None:
            session = RepeatedSession(session, firsts)
        if reservations is None:
            return session
        return BudgetedSession(session, reservations, strict=self.mode == "strict")

    def batch_session(
        self,
        n_items: int,
        rule: Equivalence,
        task: str | None,
        *,
        scope: LedgerScope | None = None,
        books: Books | None = None,
        seed: int | None = None,
        firsts: Sequence[int] | None = None,
        job: Strategy | None = None,
        keep_answers: bool = True,
        slices: Sequence[str] | None = None,
    ) -> BatchSession:
        """Return a fresh session with nothing around it; see `session`.

        Args: As of `session`.
            keep_answers: Whether it keeps the answers; see `BatchSession`.
        """
        if books is not None and self.strategy != "reference":
            self._refuse_noise(books, rule, task)
        return BatchSession(
            n_items,
            self._tiers,
            self.guarantee,
            task=task,
            strategy=self.strategy,
            looks=self.looks,
            seed=self.batch_seed(None) if seed is None else seed,
            equivalence=rule,
            max_in_flight=self.max_concurrency,
            scope=scope,
            firsts=firsts,
            min_saving=self.min_saving,
            max_rounds=self.max_rounds,
            label_of=self.label_of,
            job=job,
            keep_answers=keep_answers,
            slices=slices,
        )

    def check_named(self, name: str | None) -> None:
        """Raise if a task whose batches share a promise has no name.

        Raises:
            InvalidInputError: It names the ways to name it.
        """
        if self.promise == "task" and name is None:
            hint = "name the task whose jobs share it: task=…, or smart_task in a call"
            raise InvalidInputError("promise", self.promise, hint)

    def shares_promise(self, n_items: int, name: str | None) -> bool:
        """Whether a batch keeps a promise together with others of its task.

        Unless the user has chosen, its size alone decides: where fewer than twelve of a
        named task's answers may differ, a promise of its own would save little. What is
        promised of single labels or slices, each batch keeps by itself.

        Args:
            n_items: Number of items.
            name: Name of its task, if the user gave one.

        Example:
            ```python
            config = ServingConfig(("big", "small"), Guarantee(0.05, 0.95), Exact())
            assert config.shares_promise(239, "mails")
            assert not config.shares_promise(240, "mails")
            assert not config.shares_promise(239, None)
            ```
        """
        if self.strategy == "reference" or self.promise is not None:
            return self.promise == "task" and self.strategy != "reference"
        if self.max_rounds is not None:
            return False
        small = 0 < n_items * self.guarantee.tolerance < _SMALL
        of_all = not self.batches_alone and self.strategy == "audit"
        return name is not None and of_all and small

    def decided(
        self,
        books: Books,
        task: SharedTask,
        name: str,
        key: str,
        kept: Callable[[], bool] | None,
    ) -> Strategy:
        """Return what decides on a batch of a named task, in place of the strategy.

        Args:
            books: Where it is entered that something was said.
            task: The task.
            name: Its name.
            key: What identifies the job; see `job`.
            kept: Returns whether all answers of the job so far are stored; None where
                the batch keeps a promise of its own.
        """
        if kept is None:
            return informed(task, key, STRATEGIES[self.strategy])
        if self.promise is None:
            books.say_once(
                f"batches of {name!r} in which fewer than {_SMALL} answers may differ "
                "keep one promise together, as their certificates say: choose "
                "promise='task' for all of its batches, or promise='batch' for none"
            )
        return job_of(task, key, kept)

    def shared_task(
        self,
        books: Books,
        rule: Equivalence,
        task: str,
        models: Sequence[str],
        asked: Sequence[str],
        store: StreamStore | None,
    ) -> SharedTask:
        """Return what the batches of a named task share.

        Args:
            books: Where the task is kept.
            rule: How answers are compared.
            task: Name of the task.
            models: Texts that identify the models with their settings.
            asked: Texts that identify what is asked beside the items; a pool has items
                of several kinds.
            store: Where the task outlives this process, if it does.
        """
        promise, same = self.guarantee, identity(self.rule)
        if self.pooled:
            rule, asked = self.rule, ()
        parts = {
            "models": f"{', '.join(self.models)} {mark(repr([*models, *asked]))}",
            "equivalence": f"{rule.name} #{same.mark}",
            "guarantee": f"{promise.max_disagreement}, {promise.confidence}",
            "seed": "random" if self.seed is None else str(self.seed),
        }

        def begin() -> Task:
            return Task(
                self._tiers,
                promise,
                seed=self.fresh_seed() if self.seed is None else self.seed,
                min_saving=self.min_saving,
            )

        profile = Profile(task, "jobs", parts)
        row = None if store is None else store.row(profile, "state")
        return books.task((profile.fingerprint, same, store), begin, row)

    def batch_seed(self, stored: AnswerStore | None) -> int:
        """Return the seed of a batch's draws: as given, as stored, or a fresh one."""
        if self.seed is not None:
            return self.seed
        fresh = self.fresh_seed()
        return fresh if stored is None else stored.seed(fresh)

    def budget(self, books: Books) -> Budget | None:
        """Return a batch's budget, None if it has none."""
        limit = self.budget_usd
        return None if limit is None else Budget(limit, books.new_lock())

    def worth_a_batch(self, n_items: int) -> bool:
        """Whether that many single items are worth a batch, rather than their stream.

        They are where only a batch can keep what is promised.

        Example:
            ```python
            config = ServingConfig(("big", "small"), Guarantee(0.05, 0.95), Exact())
            assert config.worth_a_batch(100)
            assert not config.worth_a_batch(99)
            ```
        """
        if self.mode == "shadow" or self.strategy == "reference":
            return False
        if self.batches_alone:
            return n_items > 0
        return n_items * self.guarantee.tolerance >= _FEWEST_ERRORS

    def job(self, rule: Equivalence, task: str, asked: Iterable[str]) -> str:
        """Return a hash of all that a batch's result depends on.

        How much may be spent, and how many calls may be in flight, is no part of it:
        a job whose budget ended goes on with a larger one.

        Args:
            rule: How answers are compared.
            task: Name of the task.
            asked: Texts that tell what is asked of whom: models with their settings,
                what comes with each call, and every item.
        """
        job = replace(self, budget_usd=None, max_concurrency=1)
        own = [identity(each).mark for each in (self.label_of, self.slices) if each]
        digest = hashlib.sha256(repr((job, rule.name, task, *own)).encode())
        for text in asked:
            digest.update(hashlib.sha256(text.encode()).digest())
        return digest.hexdigest()

    def item(
        self,
        books: Books,
        rule: Equivalence,
        task: str,
        worst_case: WorstCase,
        *,
        model: str | None = None,
        persistence: Persistence | None = None,
        stream: str | None = None,
        pinned: str | None = None,
    ) -> SingleItem:
        """Return a single item, and who decides on it; the only place that does.

        Args:
            books: Where the task's stream is kept.
            rule: How answers to this request are compared.
            task: Name of the task.
            worst_case: The most a call can cost, in USD, for a budget.
            model: The model that must answer, if the caller named one.
            persistence: How the stream outlives this process, if it does.
            stream: What tells its stream from others of that name, if there may be any.
            pinned: The model that began its conversation, if that is to go on with it.
                Only the reference can answer whatever is drawn: a candidate goes on
                wherever its stream lets it.

        Raises:
            InvalidInputError: If the caller named a model that is not there.
            NoisyReferenceError: If the reference agrees too seldom with itself.
        """
        same = identity(self.rule)
        shared = self.rule if self.pooled else rule
        promised = (self.guarantee, self.seed, self.models, shared.name, same)
        key = (task, stream, *promised, persistence and persistence.store)
        known = stream or task
        rows = persistence and self._rows(shared, known, same, persistence)
        router, fallback = self._router(books, rule, task, model, pinned, key, rows)
        reservations = None
        if self.budget_usd is not None:
            row = rows and partial(rows, "budget")
            budget = books.budget((key, self.budget_usd), self.budget_usd, row)
            reservations = Reservations(budget, worst_case, books.new_lock())
            router = BudgetedRouter(router, reservations, self.models[0], fallback)
        return SingleItem(router, books, self.models[0], task, reservations, rule)

    def _rows(
        self, rule: Equivalence, task: str, same: Identity, persistence: Persistence
    ) -> Rows:
        """Return a function from a column to the row of a task's stream."""

        def row(column: Column) -> StreamRow:
            models = (f"{name} {mark(text)}" for name, text in persistence.models())
            promise = self.guarantee
            parts = {
                "models": ", ".join(models),
                "prompt": mark(persistence.prompt()),
                "equivalence": f"{rule.name} #{same.mark}",
                "guarantee": f"{promise.max_disagreement}, {promise.confidence}",
                "seed": "random" if self.seed is None else str(self.seed),
            }
            mode = "shadow" if self.mode == "shadow" else "serve"
            return persistence.store.row(Profile(task, mode, parts), column)

        return row

    def _router(
        self,
        books: Books,
        rule: Equivalence,
        task: str,
        model: str | None,
        pinned: str | None,
        key: Hashable,
        rows: Rows | None,
    ) -> tuple[Router, str | None]:
        """Return who decides, and whose answer may be handed out beyond a budget."""
        if model is not None:
            if model not in self.models:
                hint = f"name one of the members: {', '.join(self.models)}"
                raise InvalidInputError("model", model, hint)
            return FixedRouter(model, "named"), None
        by_reference = pinned == self.models[0] and self.mode != "shadow"
        if self.strategy == "reference" or by_reference:
            return FixedRouter(self.models[0], "reference"), None

        if self.slices is not None:
            hint = (
                "slices are promised of whole batches: a stream cannot know which are "
                "still to come; hand all items in as one batch"
            )
            raise InvalidInputError("slices", self.slices, hint)

        def begin() -> StreamSession:
            return StreamSession(
                self._tiers,
                self.guarantee,
                seed=self.fresh_seed() if self.seed is None else self.seed,
                equivalence=self.rule if self.pooled else rule,
                task=task,
                min_saving=self.min_saving,
            )

        shadow = self.mode == "shadow"
        if not shadow:
            self._refuse_noise(books, rule, task)
        row = rows and partial(rows, "state")
        stream = books.stream(
            key, begin, shadow=shadow, row=row, on_drift=self.on_drift
        )
        router: Router = stream
        if rows is not None:
            router = StoredRouter(stream, self.models[0])
        if shadow:
            return ShadowRouter(router, self.models, rule), None
        return router, None if self.mode == "strict" else self.models[1]

    def _refuse_noise(self, books: Books, rule: Equivalence, task: str | None) -> None:
        """Raise where the reference was seen to be too noisy for the guarantee."""
        noise = books.noise(task, self.models[0], rule)
        if noise is not None and not self.accept_noise:
            noise.refuse(self.guarantee.tolerance)

    @property
    def _tiers(self) -> list[Tier]:
        """The models as sessions know them."""
        costs = self.costs or (None,) * len(self.models)
        return [
            Tier(name, "candidate" if place else "reference", cost)
            for place, (name, cost) in enumerate(zip(self.models, costs, strict=True))
        ]


def _first(own: T | None, common: T) -> T:
    """Return a task's own setting, where it has one."""
    return common if own is None else own
