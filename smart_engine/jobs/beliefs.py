"""What a task's jobs learn of its candidates, whatever promise each of them keeps.

A job under the task's promise learns as it goes. A batch with a promise of its own is
told at its start which candidates were never right and what calls really cost, and
teaches in the end what its draws have shown. It keeps what it was told when it is run
again, so that the same batch decides the same. Nothing of this carries a promise: it
leads to other calls, never to another level or design than the draws themselves prove.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator

import numpy as np

from smart_engine.errors import StoreError
from smart_engine.evidence.record import ANSWERED, REFERENCE, UNASKED, BatchRecord
from smart_engine.evidence.tails import IntArray
from smart_engine.jobs.steps import TaskSteps
from smart_engine.jobs.task import Task
from smart_engine.strategies import Decision, Strategy, Wave
from smart_engine.warn import warn

__all__ = ["informed", "teach"]


def informed(task: TaskSteps, key: str, strategy: Strategy) -> Strategy:
    """Return a strategy of a batch with a promise of its own, told by the task's jobs.

    Args:
        task: The task.
        key: Identifies the batch: another run of the same batch has the same key.
        strategy: How the batch is served.
    """

    def decide(batch: BatchRecord, looks: str) -> Generator[Wave, None, Decision]:
        fresh = False
        try:
            with task.step(durable=True) as known:
                fresh, brief = known.brief(key)
            for tier, ratio in enumerate(brief.ratios):
                batch.ratios[tier] = batch.ratios[tier] if ratio is None else ratio
            for tier in brief.hopeless:
                batch.ratios[tier] = math.inf
        except StoreError as error:
            _warn(error)
        compared = np.zeros(batch.n_items, bool)
        deciding = strategy(batch, looks)
        while True:
            try:
                wave = next(deciding)
            except StopIteration as end:
                decision: Decision = end.value
                break
            compared[wave.items] |= REFERENCE in wave.tiers and wave.learning
            yield wave
        if fresh:
            try:
                with task.step() as known:
                    items = np.arange(batch.n_items)
                    teach(known, batch, items, np.flatnonzero(compared), known.costs)
                    known.taught()
            except StoreError as error:
                _warn(error)
        return decision

    return decide


def teach(
    task: Task,
    batch: BatchRecord,
    items: IntArray,
    compared: IntArray,
    paid: Callable[[int, float], None],
) -> None:
    """Let a task learn what calls cost and who was right.

    Args:
        task: The task.
        batch: What is known of the job's items.
        items: Items whose calls it learns the costs of.
        compared: Items of which both the reference and candidates were asked.
        paid: Enters what a call of a tier has cost, in USD.
    """
    status = batch.status
    for tier in range(len(batch.names)):
        for item in items[status[tier, items] != UNASKED].tolist():
            paid(tier, float(batch.costs[tier, item]))
    for item in compared[status[REFERENCE, compared] == ANSWERED].tolist():
        usable = {
            tier: bool(status[tier, item] == ANSWERED)
            for tier in batch.candidates
            if status[tier, item] != UNASKED
        }

        def same(left: int, right: int, item: int = item) -> bool:
            if right == REFERENCE:
                return not batch.wrong[left, item]
            pair = min(left, right), max(left, right)
            return bool(batch.same(*pair, np.array([item]))[0])

        task.learn(usable, same)


def _warn(error: StoreError) -> None:
    why = f"a batch goes on without what its task has learned: {error}"
    warn(why)
