"""Says who decides on a single item: its stream, its budget, or who named a model."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from typing import Literal

from smart_engine.equivalence import Equivalence
from smart_engine.equivalence.identity import Identity, identity
from smart_engine.errors import InvalidInputError
from smart_engine.money.reservations import Reservations, WorstCase
from smart_engine.row import StreamRow
from smart_engine.serving.books import Books
from smart_engine.serving.budgeted import BudgetedRouter
from smart_engine.serving.config import ServingConfig
from smart_engine.serving.item import SingleItem
from smart_engine.serving.profile import Persistence, Profile, mark
from smart_engine.serving.router import (
    FixedRouter,
    Router,
    ShadowRouter,
    StoredRouter,
)
from smart_engine.stream.session import StreamSession

__all__ = ["single_item"]

Column = Literal["state", "budget"]
Rows = Callable[[Column], StreamRow]


def single_item(
    config: ServingConfig,
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
    """Return a single item, and who decides on it.

    Args:
        config: The settings of its task.
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
    same = identity(config.rule)
    shared = config.rule if config.pooled else rule
    promised = (config.guarantee, config.seed, config.models, shared.name, same)
    key = (task, stream, *promised, persistence and persistence.store)
    known = stream or task
    rows = persistence and _rows(config, shared, known, same, persistence)
    router, fallback = _router(config, books, rule, task, model, pinned, key, rows)
    reservations = None
    if config.budget_usd is not None:
        row = rows and partial(rows, "budget")
        budget = books.budget((key, config.budget_usd), config.budget_usd, row)
        reservations = Reservations(budget, worst_case, books.new_lock())
        router = BudgetedRouter(router, reservations, config.models[0], fallback)
    return SingleItem(router, books, config.models[0], task, reservations, rule)


def _rows(
    config: ServingConfig,
    rule: Equivalence,
    task: str,
    same: Identity,
    persistence: Persistence,
) -> Rows:
    """Return a function from a column to the row of a task's stream."""

    def row(column: Column) -> StreamRow:
        models = (f"{name} {mark(text)}" for name, text in persistence.models())
        promise = config.guarantee
        parts = {
            "models": ", ".join(models),
            "prompt": mark(persistence.prompt()),
            "equivalence": f"{rule.name} #{same.mark}",
            "guarantee": f"{promise.max_disagreement}, {promise.confidence}",
            "seed": "random" if config.seed is None else str(config.seed),
        }
        mode = "shadow" if config.mode == "shadow" else "serve"
        return persistence.store.row(Profile(task, mode, parts), column)

    return row


def _router(
    config: ServingConfig,
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
        if model not in config.models:
            hint = f"name one of the members: {', '.join(config.models)}"
            raise InvalidInputError("model", model, hint)
        return FixedRouter(model, "named"), None
    by_reference = pinned == config.models[0] and config.mode != "shadow"
    if config.strategy == "reference" or by_reference:
        return FixedRouter(config.models[0], "reference"), None

    if config.slices is not None:
        hint = (
            "slices are promised of whole batches: a stream cannot know which are "
            "still to come; hand all items in as one batch"
        )
        raise InvalidInputError("slices", config.slices, hint)

    def begin() -> StreamSession:
        return StreamSession(
            config.tiers,
            config.guarantee,
            seed=config.fresh_seed() if config.seed is None else config.seed,
            equivalence=config.rule if config.pooled else rule,
            task=task,
            min_saving=config.min_saving,
        )

    shadow = config.mode == "shadow"
    if not shadow:
        config.refuse_noise(books, rule, task)
    row = rows and partial(rows, "state")
    stream = books.stream(key, begin, shadow=shadow, row=row, on_drift=config.on_drift)
    router: Router = stream
    if rows is not None:
        router = StoredRouter(stream, config.models[0])
    if shadow:
        return ShadowRouter(router, config.models, rule), None
    return router, None if config.mode == "strict" else config.models[1]
