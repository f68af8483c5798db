"""Says which promise a batch keeps: its own, or one with the jobs of its task."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from smart_engine.equivalence import Equivalence
from smart_engine.equivalence.identity import identity
from smart_engine.errors import InvalidInputError
from smart_engine.jobs.beliefs import informed
from smart_engine.jobs.job import job_of
from smart_engine.jobs.task import Task
from smart_engine.serving.books import Books
from smart_engine.serving.config import ServingConfig
from smart_engine.serving.profile import Profile, StreamStore, mark
from smart_engine.serving.shared import SharedTask
from smart_engine.strategies import STRATEGIES, Strategy

__all__ = ["check_named", "decided", "shared_task", "shares_promise", "worth_a_batch"]

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


def check_named(config: ServingConfig, name: str | None) -> None:
    """Raise if a task whose batches share a promise has no name.

    Raises:
        InvalidInputError: It names the ways to name it.
    """
    if config.promise == "task" and name is None:
        hint = "name the task whose jobs share it: task=…, or smart_task in a call"
        raise InvalidInputError("promise", config.promise, hint)


def shares_promise(config: ServingConfig, n_items: int, name: str | None) -> bool:
    """Whether a batch keeps a promise together with others of its task.

    Unless the user has chosen, its size alone decides: where fewer than twelve of a
    named task's answers may differ, a promise of its own would save little. What is
    promised of single labels or slices, each batch keeps by itself.

    Args:
        config: The settings of the task.
        n_items: Number of items.
        name: Name of its task, if the user gave one.

    Example:
        ```python
        config = ServingConfig(("big", "small"), Guarantee(0.05, 0.95), Exact())
        assert shares_promise(config, 239, "mails")
        assert not shares_promise(config, 240, "mails")
        assert not shares_promise(config, 239, None)
        ```
    """
    if config.strategy == "reference" or config.promise is not None:
        return config.promise == "task" and config.strategy != "reference"
    if config.max_rounds is not None:
        return False
    small = 0 < n_items * config.guarantee.tolerance < _SMALL
    of_all = not config.batches_alone and config.strategy == "audit"
    return name is not None and of_all and small


def decided(
    config: ServingConfig,
    books: Books,
    task: SharedTask,
    name: str,
    key: str,
    kept: Callable[[], bool] | None,
) -> Strategy:
    """Return what decides on a batch of a named task, in place of the strategy.

    Args:
        config: The settings of the task.
        books: Where it is entered that something was said.
        task: The task.
        name: Its name.
        key: What identifies the job; see `job_key`.
        kept: Returns whether all answers of the job so far are stored; None where
            the batch keeps a promise of its own.
    """
    if kept is None:
        return informed(task, key, STRATEGIES[config.strategy])
    if config.promise is None:
        books.say_once(
            f"batches of {name!r} in which fewer than {_SMALL} answers may differ "
            "keep one promise together, as their certificates say: choose "
            "promise='task' for all of its batches, or promise='batch' for none"
        )
    return job_of(task, key, kept)


def shared_task(
    config: ServingConfig,
    books: Books,
    rule: Equivalence,
    task: str,
    models: Sequence[str],
    asked: Sequence[str],
    store: StreamStore | None,
) -> SharedTask:
    """Return what the batches of a named task share.

    Args:
        config: The settings of the task.
        books: Where the task is kept.
        rule: How answers are compared.
        task: Name of the task.
        models: Texts that identify the models with their settings.
        asked: Texts that identify what is asked beside the items; a pool has items
            of several kinds.
        store: Where the task outlives this process, if it does.
    """
    promise, same = config.guarantee, identity(config.rule)
    if config.pooled:
        rule, asked = config.rule, ()
    parts = {
        "models": f"{', '.join(config.models)} {mark(repr([*models, *asked]))}",
        "equivalence": f"{rule.name} #{same.mark}",
        "guarantee": f"{promise.max_disagreement}, {promise.confidence}",
        "seed": "random" if config.seed is None else str(config.seed),
    }

    def begin() -> Task:
        return Task(
            config.tiers,
            promise,
            seed=config.fresh_seed() if config.seed is None else config.seed,
            min_saving=config.min_saving,
        )

    profile = Profile(task, "jobs", parts)
    row = None if store is None else store.row(profile, "state")
    return books.task((profile.fingerprint, same, store), begin, row)


def worth_a_batch(config: ServingConfig, n_items: int) -> bool:
    """Whether that many single items are worth a batch, rather than their stream.

    They are where only a batch can keep what is promised.

    Example:
        ```python
        config = ServingConfig(("big", "small"), Guarantee(0.05, 0.95), Exact())
        assert worth_a_batch(config, 100)
        assert not worth_a_batch(config, 99)
        ```
    """
    if config.mode == "shadow" or config.strategy == "reference":
        return False
    if config.batches_alone:
        return n_items > 0
    return n_items * config.guarantee.tolerance >= _FEWEST_ERRORS
