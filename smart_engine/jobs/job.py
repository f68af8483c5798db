"""A job of a task as a strategy: waves of items until all may be handed out at once.

1. Choose a policy by what the task's history makes cheap, and ask its candidates about
   the next items. Or the reference answers them.
2. Let these items in: each is drawn for, at a rate that is chosen now. Ask the
   reference about those that are audited, then about those that the policy escalates.
   What that shows changes the next wave.
3. When all are in, hand the job out, if the task's promise allows it. Until it does,
   ask the reference about some of the answers that nobody has seen.

Once, early in its task, all items left are one wave, which is drawn for item by item
until an audit of the job's own accepts, as a batch with a promise of its own would be.

The waves are in the task's shared state: a job that was cut off goes on with the same
draws, so that no audit is lost. Where another run goes on with them, this one draws
anew, as another job of the same items: their answers are both handed out. Where the
state is out of reach, the reference answers all items.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

import numpy as np

from smart_engine.errors import ProtocolError, StoreError
from smart_engine.evidence.acceptance import SequentialTest
from smart_engine.evidence.record import (
    ANSWERED,
    FAILED,
    REFERENCE,
    UNASKED,
    BatchRecord,
)
from smart_engine.evidence.tails import BoolArray, IntArray
from smart_engine.evidence.task_promise import TaskPromise
from smart_engine.jobs.beliefs import teach
from smart_engine.jobs.guard import AUDITED, SERVED
from smart_engine.jobs.record import JobWave
from smart_engine.jobs.steps import TaskSteps
from smart_engine.jobs.task import BY_REFERENCE, JobEnd, JobTakenError, Task
from smart_engine.strategies import Decision, Strategy, Tally, Verdict, Wave, ask
from smart_engine.warn import warn

__all__ = ["job_of"]


_TELLING = 4
"""Comparisons that show whether a candidate is hopeless."""


def job_of(task: TaskSteps, key: str, kept: Callable[[], bool]) -> Strategy:
    """Return the strategy of one job of a task.

    Args:
        task: The task.
        key: Identifies the job: another run of the same job has the same key.
        kept: Returns whether all of its answers so far are stored: others, bought
            again, may be different ones, of which no audit has shown anything.
    """

    def decide(batch: BatchRecord, looks: str) -> Generator[Wave, None, Decision]:
        del looks
        return _Job(batch, task, key, kept).run()

    return decide


class _Job:
    """One run of a job."""

    def __init__(
        self,
        batch: BatchRecord,
        task: TaskSteps,
        key: str,
        kept: Callable[[], bool],
    ) -> None:
        self._batch, self._task, self._key, self._kept = batch, task, key, kept
        self._run = 0
        self._server = np.full(batch.n_items, REFERENCE, np.int16)  # of served items
        self._compared = np.zeros(batch.n_items, bool)
        self._uncompared = np.zeros(batch.n_items, bool)  # answered by the reference
        self._checked: list[int] = []
        self._own: SequentialTest | None = None
        self._own_first, self._own_items = 0, np.zeros(0, np.int64)

    def run(self) -> Generator[Wave, None, Decision]:
        """Answer all items."""
        batch, promise = self._batch, None
        try:
            while promise is None:
                try:
                    promise = yield from self._serve()
                except JobTakenError:
                    self._begin_as_another()
        except (StoreError, ProtocolError) as error:
            why = f"a job goes on without its task, at the reference's cost: {error}"
            warn(why)
            yield Wave(np.arange(batch.n_items), (REFERENCE,), learning=False)
        tests = () if self._own is None else (self._own,)
        return Decision(self._server, self._evidence(), tests=tests, promise=promise)

    def _begin_as_another(self) -> None:
        """Let the items in once more, for another run goes on with what was drawn."""
        self._key, self._kept = f"{self._key} {self._run}", lambda: False
        self._server[:] = REFERENCE
        self._checked, self._own = [], None

    def _serve(self) -> Generator[Wave, None, TaskPromise]:
        n_items = self._batch.n_items
        with self._task.step(durable=True) as task:
            begun = task.begin(self._key)
        self._run = begun.run
        order = np.random.default_rng([*self._key.encode()]).permutation(n_items)
        left, waves = order, [*begun.waves]
        while len(left):
            again = bool(waves)
            if again:
                wave = waves.pop(0)
            else:
                size, chosen = yield from self._prepare(left)
                failed = int((self._batch.status[REFERENCE] == FAILED).sum())
                with self._task.step(durable=True) as task:
                    wave = task.let_in(
                        self._key,
                        self._run,
                        n_items - failed,
                        len(left),
                        size,
                        chosen,
                    )
            items, left = np.split(left, [len(wave.ways)])
            if wave.anew:
                left = np.append(left, items)
            elif wave.own is not None:
                yield from self._audit(wave, items)
            else:
                yield from self._follow(wave, items, fresh=not again)
        yield from self._check([*begun.checked])
        while True:
            unseen = order[self._unseen[order]]
            with self._task.step(durable=True) as task:
                many = len(self._checked)
                more = task.to_check(self._key, self._run, self._end, many)
                if not more:
                    end, checked, kept = self._end, self._checked, self._kept()
                    return task.end(self._key, self._run, end, checked, kept=kept)
            yield from self._check(unseen[-more:].tolist())

    def _prepare(self, left: IntArray) -> Generator[Wave, None, tuple[int, int]]:
        """Ask a policy about the next items, before any is drawn for.

        What was drawn for is unresolved, and so an error to all jobs of the task, until
        the reference has answered: the fewer calls lie between, the better for others.
        """
        batch = self._batch
        failed = int((batch.status[REFERENCE] == FAILED).sum())
        with self._task.step() as task:
            answers = batch.n_items - failed
            size, by_own = task.choose(self._key, self._run, answers, len(left))
            chosen, policy = task.chosen, task.policy(task.chosen)
        if policy.tiers and not by_own:
            yield from ask(batch, policy, left[:size])
        return size, chosen

    def _follow(
        self,
        wave: JobWave,
        items: IntArray,
        *,
        fresh: bool,
    ) -> Generator[Wave, None, None]:
        """Ask about the items of a wave, and enter what that shows."""
        batch, ways = self._batch, np.array([*wave.ways])
        with self._task.step() as task:
            policy = task.policy(wave.policy)
        detected = np.zeros(len(items), bool)
        served, escalated = ways == SERVED, ways == BY_REFERENCE
        audited = ways == AUDITED
        answers = yield from ask(batch, policy, items)
        yield Wave(items[audited], (REFERENCE,))
        if policy.tiers:
            result = policy.apply(answers)
            self._server[items] = np.where(served & result.agreed, result.server, 0)
            escalated = served & ~result.agreed
            wrong = batch.wrong[:, items] | self._uncompared[items]
            detected = result.agreed & result.wrong(wrong)
        with self._task.step() as task:
            self._settle(task, wave.first, np.flatnonzero(audited), detected[audited])
            if not self._kept():
                task.forget(self._key, self._run, wave)
        beside = items[~served][: len(wave.tried)]
        for tier in batch.candidates:
            trying = [tier in tiers for tiers in wave.tried]
            yield Wave(beside[trying], (tier,))
        compared = np.union1d(items[audited], beside[[*map(bool, wave.tried)]])
        yield Wave(compared, (REFERENCE,))
        self._compared[compared] = True
        others = np.setdiff1d(items[escalated], compared)
        self._uncompared[others] = True
        yield Wave(others, (REFERENCE,), False)
        if fresh:
            compared = compared[~self._uncompared[compared]]
            with self._task.step() as task:
                teach(task, batch, items, compared, task.paid)

    def _audit(self, wave: JobWave, items: IntArray) -> Generator[Wave, None, None]:
        """Draw for a wave's items one by one, until their own audit accepts."""
        batch, first = self._batch, wave.first
        with self._task.step() as task:
            policy, order = task.policy(wave.policy), task.guard.order(wave)
            self._own = test = task.own_test(policy.name(batch.names), wave)
        self._own_first, self._own_items = first, items
        until, fresh = sum(way == AUDITED for way in wave.ways), False
        while True:
            places = order[test.draws : until]
            drawn = items[places]
            answers = yield from ask(batch, policy, drawn)
            yield Wave(drawn, (REFERENCE,))
            result = policy.apply(answers)
            wrong = batch.wrong[:, drawn] | self._uncompared[drawn]
            detected = result.agreed & result.wrong(wrong)
            with self._task.step() as task:
                self._settle(task, first, places, detected)
                if not self._kept():
                    own = task.own_wave(self._key, self._run, first)
                    task.forget(self._key, self._run, own)
            for tier in batch.candidates:
                beside = [tier in tiers for tiers in wave.tried[test.draws : until]]
                yield Wave(drawn[: len(beside)][beside], (tier,))
            self._compared[drawn] = True
            test.observe(detected, batch.status[REFERENCE, drawn] == FAILED)
            compared = drawn[~self._uncompared[drawn]]
            with self._task.step() as task:
                if fresh:
                    teach(task, batch, drawn, compared, task.paid)
                until, whole = task.further(self._key, self._run, first, test)
            if until <= test.draws:
                break
            # In an order that says nothing of the order of draws.
            soon = items if whole else items[np.sort(order[test.draws : until])]
            yield from ask(batch, policy, soon)
            with self._task.step(durable=True) as task:
                task.draw_on(self._key, self._run, first, until)
            fresh = True
        rest = items[order[test.draws :]]
        if test.accepted is not None:
            result = policy.apply((yield from ask(batch, policy, rest)))
            if fresh:
                with self._task.step() as task:
                    teach(task, batch, rest, rest[:0], task.paid)
            self._server[rest] = np.where(result.agreed, result.server, REFERENCE)
            rest = rest[~result.agreed]
        self._uncompared[rest] = True
        yield Wave(rest, (REFERENCE,), False)

    def _settle(
        self, task: Task, first: int, places: IntArray, detected: BoolArray
    ) -> None:
        """Enter what audits of a wave have shown."""
        task.job(self._key, self._run)
        for place, error in zip(places.tolist(), detected.tolist(), strict=True):
            if first + place in task.guard.unresolved:
                task.guard.settle(first + place, detected=error)

    def _check(self, items: list[int]) -> Generator[Wave, None, None]:
        """Ask the reference about answers that nobody has seen."""
        self._checked += items
        yield Wave(np.array(items, np.int64), (REFERENCE,))

    @property
    def _unseen(self) -> BoolArray:
        """Per item, whether a candidate answers it and the reference was not asked."""
        unasked = self._batch.status[REFERENCE] == UNASKED
        return np.asarray((self._server != REFERENCE) & unasked)

    @property
    def _end(self) -> JobEnd:
        """How the job would end now."""
        batch, unseen = self._batch, int(self._unseen.sum())
        answered = batch.status[REFERENCE] == ANSWERED
        wrong = batch.wrong[self._server, np.arange(batch.n_items)]
        corrected = answered & wrong & (self._server != REFERENCE)
        end = JobEnd(int(answered.sum()) + unseen, unseen, int(corrected.sum()))
        if self._own is None or self._own.accepted is None:
            return end
        others = unseen - int(self._unseen[self._own_items].sum())
        hidden = self._own.undetected + others
        return end._replace(hidden=hidden, first=self._own_first)

    def _evidence(self) -> list[tuple[Tally, Verdict]]:
        """Return what comparisons have shown of each candidate."""
        batch, found = self._batch, []
        for tier in batch.candidates:
            asked = batch.status[tier] != UNASKED
            drawn = np.flatnonzero(self._compared & asked)
            if len(drawn):
                errors = batch.errors(tier, drawn)
                never = errors == len(drawn) >= _TELLING
                verdict: Verdict = "never right" if never else "undecided"
                if (self._server == tier).any():
                    verdict = "admitted"
                cost = batch.cost(tier, drawn) / len(drawn)
                found.append((Tally(tier, len(drawn), errors, cost), verdict))
        return found
