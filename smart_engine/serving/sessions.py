"""Begins the session of a batch, wraps it, and says what identifies its job."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

from smart_engine.batch.session import BatchSession
from smart_engine.calls import Call
from smart_engine.equivalence import Equivalence
from smart_engine.equivalence.identity import identity
from smart_engine.money.budget import Budget
from smart_engine.money.ledger import LedgerScope
from smart_engine.money.reservations import Reservations
from smart_engine.serving.books import Books
from smart_engine.serving.budgeted import BudgetedSession
from smart_engine.serving.config import ServingConfig
from smart_engine.serving.repeated import RepeatedSession
from smart_engine.serving.session import AnySession
from smart_engine.strategies import Strategy

__all__ = ["batch_budget", "begin_session", "job_key", "wrapped"]


def begin_session(
    config: ServingConfig,
    n_items: int,
    rule: Equivalence,
    task: str | None,
    *,
    scope: LedgerScope | None = None,
    books: Books | None = None,
    seed: int | None = None,
    firsts: Sequence[int] | None = None,
    decide: Strategy | None = None,
    keep_answers: bool = True,
    slices: Sequence[str] | None = None,
) -> BatchSession:
    """Return a fresh session over that many items.

    Args:
        config: The settings of its task.
        n_items: Number of items.
        rule: How answers to this request are compared.
        task: Name of the task.
        scope: Where its calls are entered, if anywhere.
        books: Where the reference's agreement with itself may have been entered.
        seed: Seed of its draws; see `batch_seed`.
        firsts: Per item, the first one with the same request, if that is made once.
        decide: Decides in place of the strategy; see `promises.decided`.
        keep_answers: Whether it keeps the answers; see `BatchSession`.
        slices: Per item, the name of its slice, if slices are promised.

    Raises:
        NoisyReferenceError: If the reference agrees too seldom with itself.
    """
    if books is not None and config.strategy != "reference":
        config.refuse_noise(books, rule, task)
    return BatchSession(
        n_items,
        config.tiers,
        config.guarantee,
        task=task,
        strategy=config.strategy,
        looks=config.looks,
        seed=config.batch_seed(None) if seed is None else seed,
        equivalence=rule,
        max_in_flight=config.max_concurrency,
        scope=scope,
        firsts=firsts,
        min_saving=config.min_saving,
        max_rounds=config.max_rounds,
        label_of=config.label_of,
        decide=decide,
        keep_answers=keep_answers,
        slices=slices,
    )


def wrapped(
    session: BatchSession,
    config: ServingConfig,
    *,
    firsts: Sequence[int] | None = None,
    reservations: Reservations | None = None,
    needed: Iterable[Call] | None = None,
) -> AnySession:
    """Return a session that asks equal requests once, within a budget.

    Args:
        session: The session.
        config: The settings of its task.
        firsts: Per item, the first one with the same request, if that is made once.
        reservations: What its calls reserve, if there is a budget.
        needed: Calls of which its guarantee needs one; see `BudgetedSession`.
    """
    outer: AnySession = session
    if firsts is not None:
        outer = RepeatedSession(outer, firsts)
    if reservations is None:
        return outer
    strict = config.mode == "strict"
    return BudgetedSession(outer, reservations, strict=strict, needed=needed)


def batch_budget(config: ServingConfig, books: Books) -> Budget | None:
    """Return a batch's budget, None if it has none."""
    limit = config.budget_usd
    return None if limit is None else Budget(limit, books.new_lock())


def job_key(
    config: ServingConfig, rule: Equivalence, task: str, asked: Iterable[str]
) -> str:
    """Return a hash of all that a batch's result depends on.

    How much may be spent, and how many calls may be in flight, is no part of it:
    a job whose budget ended goes on with a larger one.

    Args:
        config: The settings of its task.
        rule: How answers are compared.
        task: Name of the task.
        asked: Texts that tell what is asked of whom: models with their settings,
            what comes with each call, and every item.
    """
    same = replace(config, budget_usd=None, max_concurrency=1)
    own = [identity(each).mark for each in (config.label_of, config.slices) if each]
    digest = hashlib.sha256(repr((same, rule.name, task, *own)).encode())
    for text in asked:
        digest.update(hashlib.sha256(text.encode()).digest())
    return digest.hexdigest()
