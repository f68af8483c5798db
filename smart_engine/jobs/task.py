"""`Task`: what the jobs of a task share; each step of theirs holds a lock around it.

`guard` keeps the promise. What is decided here matters only for the cost: which policy
serves the next items of a job, how often they are audited, which candidates are tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from smart_engine.errors import ProtocolError, check_share, check_whole
from smart_engine.evidence.acceptance import SequentialTest
from smart_engine.evidence.policies import Policy
from smart_engine.evidence.record import REFERENCE
from smart_engine.evidence.task_promise import TaskPromise
from smart_engine.guarantee import Guarantee, of_all_answers
from smart_engine.jobs.guard import AUDITED, SERVED, TaskGuard
from smart_engine.jobs.own_audit import TRIAL, OwnAudits
from smart_engine.jobs.record import Brief, JobRecord, JobWave, TaskRecord
from smart_engine.stream.choice import HARM, REFERENCE_ONLY, Choice
from smart_engine.stream.rate import Plan, plan_job
from smart_engine.tiers import MIN_SAVING, Tier, check_tiers, expected_ratios

__all__ = ["BY_REFERENCE", "JobEnd", "JobTakenError", "Task"]

BY_REFERENCE = "r"
"""How an item is answered for which nothing was drawn."""

_FIRST = 2  # items that show what the reference costs
_FEWEST_AT_ONCE = 32  # fewest items to let in at once, …
_LEARNING = 60  # comparisons before which waves are small, for few show little, …
_FEWEST, _SMALL = 4, 40  # … and how small
_FEW = 8  # answers to check where only unresolved audits stand in the way
_OPEN = 100  # jobs that were begun and have not ended
_KEPT = 16  # jobs that have ended and may be asked for again
_SELDOM = 16  # batches of which one tries candidates that are not worth asking


class JobTakenError(ProtocolError):
    """Another run goes on with a job, or it was given up."""


class JobEnd(NamedTuple):
    """How a job ends.

    Attributes:
        answered: Answers that it hands out.
        unseen: Those of them that are neither the reference's nor checked by it.
        corrected: Errors that it found when it checked unaudited answers after all.
        hidden: Most errors among the unseen, by an audit of its own; None without one.
        first: Number of the first item of that audit; None without one.
    """

    answered: int
    unseen: int
    corrected: int
    hidden: int | None = None
    first: int | None = None


class Task:
    """What the jobs of a task share.

    Args:
        tiers: One reference and at least one candidate, the cheapest first.
        guarantee: What is promised.
        seed: Seed of all audit draws.
        min_saving: As of `BatchSession`.

    Attributes:
        guard: Keeps the promise.
    """

    def __init__(
        self,
        tiers: Sequence[Tier],
        guarantee: Guarantee | None = None,
        *,
        seed: int = 0,
        min_saving: float = MIN_SAVING,
    ) -> None:
        check_whole("seed", seed, 0)
        tiers, guarantee = check_tiers(tiers), of_all_answers(guarantee, "a task")
        self.guard = TaskGuard(guarantee, seed)
        self._choice = Choice(
            range(1, len(tiers)),
            guarantee.tolerance,
            expected_ratios(tiers),
            check_share("min_saving", min_saving),
        )
        self._own = OwnAudits(self.guard, self._choice)
        self._finished = self._unseen = self._forced = self._begun = 0
        self._beside = 0.0
        self._jobs: dict[str, JobRecord] = {}
        self._briefs: dict[str, Brief] = {}
        self._apart = 0

    # -- a job, from its beginning to its end ------------------------------------------

    def begin(self, key: str) -> JobRecord:
        """Begin a job, or go on with what another run of it has begun.

        Where too many others are open, those begun first are given up.
        """
        job = self._jobs.pop(key, JobRecord(run=0))
        # No number comes again: an earlier run of a job that has ended stays out of it.
        self._begun = max(self._begun, job.run) + 1
        open_jobs = [k for k, other in self._jobs.items() if not other.ended]
        for oldest in open_jobs[: len(open_jobs) + 1 - _OPEN]:
            self._give_up(oldest)
        self._jobs[key] = job.model_copy(update={"run": self._begun})
        return self._jobs[key]

    def _give_up(self, key: str) -> None:
        """Forget a job that nobody went on with: its audits stay detected errors."""
        for wave in self._jobs.pop(key).waves:
            for place, way in enumerate(wave.ways):
                if way == AUDITED and wave.first + place in self.guard.unresolved:
                    self.guard.settle(wave.first + place, detected=True)

    def job(self, key: str, run: int) -> JobRecord:
        """Return a job.

        Raises:
            JobTakenError: If another run goes on with it.
        """
        job = self._jobs.get(key)
        if job is None or job.run != run:
            raise JobTakenError("another run of the same job goes on with it")
        return job

    def choose(self, key: str, run: int, answers: int, left: int) -> tuple[int, bool]:
        """Choose a policy, `chosen`, for further items of a job.

        Args:
            key: The job.
            run: Its run.
            answers: Answers that the job may hand out at most.
            left: Its items that were not let in yet.

        Returns:
            For how many; and whether by an audit of the job's own.
        """
        choice, job = self._choice, self.job(key, run)

        def rate(place: int) -> float:
            waves = self._rate(answers, choice.error_of(place) * left)
            return min(waves, self._own.rate(job, answers, left, place))

        choice.choose(self.guard.answered, rate)
        if self.chosen < 0 or rate(self.chosen) >= 1:
            choice.policy = REFERENCE_ONLY
            known = choice.cost(REFERENCE) is not None
            return min(left, TRIAL if known else _FIRST), False
        if self._audits_itself(job, answers, left, self.chosen):
            return left, True
        seen = min(choice.compared[tier] for tier in choice.policy.tiers)
        if seen < _LEARNING:
            return min(left, max(_FEWEST, 2 * seen), _SMALL), False
        return min(left, max(_FEWEST_AT_ONCE, left // 2)), False

    @property
    def chosen(self) -> int:
        """Place of the policy that was chosen; −1: the reference alone."""
        policy = self._choice.policy
        return -1 if policy == REFERENCE_ONLY else self._choice.policies.index(policy)

    def let_in(
        self, key: str, run: int, answers: int, left: int, size: int, place: int
    ) -> JobWave:
        """Let further items of a job in.

        Args:
            key: The job.
            run: Its run.
            answers: Answers that it may hand out at most.
            left: Its items that were not let in yet.
            size: Items to let in.
            place: Place of the policy that serves them; −1: the reference answers.
        """
        job, guard, choice = self.job(key, run), self.guard, self._choice
        plan = own = None
        if place >= 0:
            plan = self._plan(answers, choice.error_of(place) * left)
            if size == left and self._audits_itself(job, answers, left, place):
                own = self._own.design(job, answers, left, place)
        first, spare = guard.arrived, self._spare(answers)
        if own is not None:
            guard.let_in(size)
            ways = SERVED * size
            tried = self._to_try(size, spare)
        elif plan is None:
            tried, place = self._to_try(size, spare), -1
            if choice.cost(REFERENCE) is not None:
                # Items after the last one that teaches may be drawn for after all.
                teach = [place for place, tiers in enumerate(tried, 1) if tiers]
                tried = tried[: teach[-1]] if teach else [()] * left
            ways = BY_REFERENCE * len(tried)
            self._forced += len(tried)
        else:
            ways = guard.draw(size, plan)
            tried = self._to_try(ways.count(AUDITED), spare)
        while tried and not tried[-1]:
            tried.pop()
        wave = JobWave(
            first=first, ways=ways, policy=place, tried=tuple(tried), own=own
        )
        self._jobs[key] = job.model_copy(update={"waves": (*job.waves, wave)})
        return wave

    def _plan(self, answers: int, errors: float) -> Plan | None:
        """Return how to draw for the next items of a job, None: not at all for now.

        Unresolved audits of all jobs are taken as they are expected to end. The worst
        case counts when answers are handed out, not before.
        """
        guard = self.guard
        allowed = guard.allowed(answers) + guard.corrected
        return plan_job(guard.expected(self._choice.error), allowed, errors)

    def _rate(self, answers: int, errors: float) -> float:
        """Return at what rate the next items of a job would be drawn for."""
        found = self._plan(answers, errors)
        return 1.0 if found is None else found.rate

    # -- an audit of a job's own -------------------------------------------------------

    def _audits_itself(
        self, job: JobRecord, answers: int, left: int, place: int
    ) -> bool:
        """Whether an audit of its own draws fewer of a job's items than waves would."""
        waves = self._rate(answers, self._choice.error_of(place) * left)
        return self._own.rate(job, answers, left, place) < waves

    def own_test(self, policy: str, wave: JobWave) -> SequentialTest:
        """Return the audit of a wave, before its first draw; see `OwnAudits`."""
        return self._own.test(policy, wave)

    def further(
        self, key: str, run: int, first: int, test: SequentialTest
    ) -> tuple[int, bool]:
        """Return how many draws a job's own audit should have made next.

        No more than there are, if it is over.

        Args:
            key: The job.
            run: Its run.
            first: Number of the first of the audit's items.
            test: The audit so far.

        Returns:
            The draws; and whether its candidates should answer all items before.
        """
        wave = self.own_wave(key, run, first)
        then, until = self._own.further(wave, test)
        self._replace(key, wave, then)
        return until, then.own is not None and then.own.asked

    def draw_on(self, key: str, run: int, first: int, until: int) -> None:
        """Audit further ones of the items of an audit of a job's own.

        Args:
            key: The job.
            run: Its run.
            first: Number of the first of these items.
            until: Draws to have made then.
        """
        wave = self.own_wave(key, run, first)
        self._replace(key, wave, self.guard.draw_on(wave, until))

    def own_wave(self, key: str, run: int, first: int) -> JobWave:
        """Return the wave with a job's own audit, by the number of its first item."""
        waves = self.job(key, run).waves
        return next(wave for wave in waves if wave.own and wave.first == first)

    def _replace(self, key: str, wave: JobWave, by: JobWave) -> None:
        job = self._jobs[key]
        waves = tuple(by if other == wave else other for other in job.waves)
        self._jobs[key] = job.model_copy(update={"waves": waves})

    def forget(self, key: str, run: int, wave: JobWave) -> None:
        """Let another run draw anew for a wave's items, whose audits are resolved.

        The wave keeps its place, so that the draws of others stay with their items.
        """
        self.job(key, run)
        self._replace(key, wave, wave.model_copy(update={"anew": True}))

    def policy(self, place: int) -> Policy:
        """Return the policy at a place; −1: the reference alone."""
        return REFERENCE_ONLY if place < 0 else self._choice.policies[place]

    def paid(self, tier: int, cost: float) -> None:
        """Learn what a call has cost."""
        self._choice.paid(tier, cost)
        if tier != REFERENCE:
            self._beside += cost

    def learn(
        self, usable: Mapping[int, bool], same: Callable[[int, int], bool]
    ) -> None:
        """Learn from an item that was compared; see `Choice.learn`."""
        self._choice.learn(usable, same)

    def to_check(self, key: str, run: int, end: JobEnd, checked: int) -> int:
        """Return of how many unaudited answers to ask the reference after all.

        Once that many were asked, ask again: errors found may make the rest suffice, or
        other jobs' audits have their outcome by then.

        Args:
            key: The job.
            run: Its run.
            end: How it would end now.
            checked: Answers of which the reference was asked after all so far.
        """
        guard, new = self.guard, self._new(key, run, end)
        answers, unseen, corrected = new[:3]
        excess = guard.excess(*self._counted(key, run, new))
        if excess <= 0:
            return 0
        enough = min(guard.possible + unseen - guard.allowed(answers), end.unseen)
        likely = guard.expected(self._choice.error).undetected
        if likely - guard.corrected - corrected <= guard.allowed(answers):
            return min(enough, max(_FEW, checked // 4))
        expected = excess / max(self._choice.error, 1 / _FEWEST_AT_ONCE)
        return min(enough, max(_FEWEST_AT_ONCE, int(expected / 2)))

    def end(
        self, key: str, run: int, end: JobEnd, checked: Iterable[int], *, kept: bool
    ) -> TaskPromise:
        """Count the answers of a job, which are handed out now.

        Args:
            key: The job.
            run: Its run.
            end: How it ends.
            checked: Items whose unaudited answer was checked after all.
            kept: Whether its answers are stored, so that it may be asked for again.
        """
        job, guard = self.job(key, run), self.guard
        new = self._new(key, run, end)
        before, unseen = guard.possible, new.unseen
        guard.hand_out(*self._counted(key, run, new))
        self._unseen += unseen
        self._finished += not job.ended
        del self._jobs[key]
        if kept:
            ended = [k for k, other in self._jobs.items() if other.ended]
            for oldest in ended[: len(ended) + 1 - _KEPT]:
                del self._jobs[oldest]
            self._jobs[key] = job.model_copy(
                update={
                    "answered": end.answered,
                    "unseen": end.unseen,
                    "corrected": end.corrected,
                    "checked": tuple(checked),
                    "ended": True,
                }
            )
        worst = guard.at_worst()
        return TaskPromise(
            jobs=self._finished,
            answers=guard.answered,
            allowed=guard.allowed(0),
            possible=guard.possible,
            undetected=worst.undetected,
            corrected=guard.corrected,
            before=before,
            unseen=unseen,
            hidden=new.hidden,
            again=end.unseen - unseen,
            audits=guard.audits,
            found=guard.detected,
            unresolved=len(guard.unresolved),
            slopes=tuple(worst.slopes.tolist()),
            log_wealth=tuple(worst.log_wealth.tolist()),
        )

    # -- a batch with a promise of its own ---------------------------------------------

    def brief(self, key: str) -> tuple[bool, Brief]:
        """Return what a batch is told of the candidates, and whether it is a new one.

        One batch in `_SELDOM` is told of no candidate that it is not worth asking.
        """
        if key in self._briefs:
            return False, self._briefs[key]
        choice, hopeless, ratios = self._choice, [], []
        for tier in choice.tiers:
            ratio = choice.ratio(tier)
            again = self._apart % _SELDOM == _SELDOM - 1
            ratios.append(None if again and ratio is not None and ratio >= 1 else ratio)
            if choice.hopeless(tier) and not again:
                hopeless.append(tier)
        brief = Brief(ratios=(1.0, *ratios), hopeless=tuple(hopeless))
        for oldest in list(self._briefs)[: len(self._briefs) + 1 - _KEPT]:
            del self._briefs[oldest]
        self._briefs[key] = brief
        return True, brief

    def costs(self, tier: int, cost: float) -> None:
        """Learn what a call has cost, where it was not made in order to learn."""
        self._choice.paid(tier, cost)

    def taught(self) -> None:
        """Count a batch that has let the task learn."""
        self._apart += 1

    # -- several processes ---------------------------------------------------------

    @property
    def arrived(self) -> int:
        """Items that were drawn for."""
        return self.guard.arrived

    def shared(self) -> TaskRecord:
        """Return the state that all processes share."""
        guard, choice = self.guard, self._choice
        return TaskRecord(
            seed=guard.seed,
            arrived=guard.arrived,
            audits=guard.audits,
            found=guard.detected,
            slopes=tuple(guard.bound.slopes.tolist()),
            log_wealth=tuple(guard.bound.log_wealth.tolist()),
            unresolved=guard.late(),
            answered=guard.answered,
            possible=guard.possible,
            corrected=guard.corrected,
            own_left=guard.own_left,
            finished=self._finished,
            unseen=self._unseen,
            forced=self._forced,
            beside=self._beside,
            learned=choice.shared(),
            compared=tuple(choice.compared),
            jobs=dict(self._jobs),
            briefs=dict(self._briefs),
            apart=self._apart,
            begun=self._begun,
        )

    def take_up(self, part: TaskRecord) -> None:
        """Go on from where other processes have come.

        Raises:
            ValueError: If it is the state of another task.
        """
        self.guard.take_up(part)
        self._choice.take_up(part)
        self._finished, self._unseen = part.finished, part.unseen
        self._forced, self._beside = part.forced, part.beside
        self._jobs = dict(part.jobs)
        self._briefs, self._apart = dict(part.briefs), part.apart
        self._begun = part.begun

    # -- steps that several of these take ------------------------------------------

    def _new(self, key: str, run: int, end: JobEnd) -> JobEnd:
        """Return how a job ends, less what it handed out when it ended before."""
        job = self.job(key, run)
        return JobEnd(
            max(0, end.answered - job.answered),
            max(0, end.unseen - job.unseen),
            max(0, end.corrected - job.corrected),
            end.hidden,
            end.first,
        )

    def _counted(
        self, key: str, run: int, end: JobEnd
    ) -> tuple[int, int, int, JobWave | None]:
        """Return what the guard counts of a job that ends; see its `hand_out`."""
        hidden = end.unseen if end.hidden is None else min(end.unseen, end.hidden)
        wave = None if end.first is None else self.own_wave(key, run, end.first)
        return end.answered, hidden, end.corrected, wave

    def _to_try(self, items: int, spare: float) -> list[tuple[int, ...]]:
        """Return the candidates to compare with the reference on so many items."""
        choice, turn = self._choice, self.guard.audits + self._forced
        chosen = []
        for place in range(items):
            tiers = choice.to_compare(turn + place, spare)
            spare -= sum(choice.price(tier) for tier in tiers)
            chosen.append(tiers)
        return chosen

    def _spare(self, answers: int) -> float:
        """What trying candidates may cost now, so that no task is dearer for it.

        In USD: what was saved so far, and a small share of what the reference alone
        would cost when the job has ended.
        """
        unit = self._choice.cost(REFERENCE) or 0.0
        everything = self.guard.answered + answers
        return unit * (HARM * everything + self._unseen) - self._beside
