"""The audit of its own that one early job of a task makes: when, how, and how far.

What it proves, and at what level, is the guard's. What is decided here matters only for
the cost. It needs fewer draws than the bound of all jobs, which has to hold at all
times. It saves nothing before its end; so it begins where its candidates were right on
a few items, and asks them about all others when half of its draws are made.
"""

from __future__ import annotations

import numpy as np

from smart_engine.errors import ProtocolError
from smart_engine.evidence.acceptance import Acceptance, Allowance, SequentialTest
from smart_engine.jobs.guard import AUDITED, SERVED, TaskGuard
from smart_engine.jobs.record import JobRecord, JobWave, OwnAudit
from smart_engine.stream.choice import Choice

__all__ = ["TRIAL", "OwnAudits"]

TRIAL = 8
"""Items on which a candidate was compared before such an audit begins."""

_FEWEST = 4  # draws to make at once
_KEPT = 0.3  # part of the wealth that an error leaves at least
_FEW_ERRORS, _MANY_ERRORS = 0.2, 2.0  # errors that it may expect
_DETECTED = 1 / 3  # of a job's errors, about so many


class OwnAudits:
    """Decides on it.

    Args:
        guard: Keeps the task's promise.
        choice: Chooses policies, by what is known of them.
    """

    def __init__(self, guard: TaskGuard, choice: Choice) -> None:
        self._guard, self._choice = guard, choice

    def rate(self, job: JobRecord, answers: int, left: int, place: int) -> float:
        """Return what share of a job's items it would draw; 1 where it is not made.

        Args:
            job: The job.
            answers: Answers that it may hand out at most.
            left: Its items that were not let in yet.
            place: Place of the policy that serves them.
        """
        design = self._acceptance(job, answers, left, place)
        if design is None or not design.draws(0):
            return 1.0
        draws = _needed(SequentialTest("", design), self._choice.seen_error_of(place))
        return min(1.0, draws / left)

    def design(self, job: JobRecord, answers: int, left: int, place: int) -> OwnAudit:
        """Return how it is made, where `rate` is below 1."""
        guard, share = self._guard, self.rate(job, answers, left, place)
        # With this, errors weigh as they do already once such a share is drawn.
        kept = (1 - (1 - share) * np.exp(guard.bound.slopes)) / share
        return OwnAudit(
            answers=guard.answered + answers,
            elsewhere=guard.possible,
            expected_errors=self._expected(left, place),
            kept=tuple(np.maximum(kept, _KEPT).tolist()),
        )

    def _acceptance(
        self, job: JobRecord, answers: int, left: int, place: int
    ) -> Acceptance | None:
        """Return its acceptance numbers; None where it is not made.

        It covers all answers of the job that the reference does not give. These are to
        be more than all before, for their rate will count for those, too.
        """
        guard, policy = self._guard, self._choice.policies[place]
        allowed = guard.allowed(answers) - guard.possible
        begun = any({SERVED, AUDITED} & {*wave.ways} for wave in job.waves)
        known = min(self._choice.compared[tier] for tier in policy.tiers)
        few = left <= guard.answered
        if not guard.own_left or begun or few or known < TRIAL or allowed < 0:
            return None
        expected = self._expected(left, place)
        return Acceptance(left, allowed, guard.own_level, expected)

    def _expected(self, left: int, place: int) -> float:
        """Return how many errors it expects to detect."""
        errors = _DETECTED * self._choice.error_of(place) * left
        return min(max(errors, _FEW_ERRORS), _MANY_ERRORS)

    def test(self, policy: str, wave: JobWave) -> SequentialTest:
        """Return the audit of a wave, before its first draw.

        Args:
            policy: Name of the policy.
            wave: Its items.
        """
        guard, own = self._guard, _own(wave)
        allowance = Allowance(guard.guarantee, own.answers, own.elsewhere)
        design = Acceptance(
            len(wave.ways), allowance.after(0), guard.own_level, own.expected_errors
        )
        return SequentialTest(policy, design, allowance)

    def further(self, wave: JobWave, test: SequentialTest) -> tuple[JobWave, int]:
        """Return how to go on with it.

        Args:
            wave: Its items.
            test: The audit so far.

        Returns:
            The wave, which says whether candidates should answer all items now; and how
            many draws to have made next: no more than there are, if it is over, because
            it has accepted or because it does not pay.
        """
        own, drawn = _own(wave), test.draws
        if test.accepted is not None or own.given_up:
            return wave, drawn
        if own.asked:  # and paid for: each draw only serves to prove them right
            return wave, test.target
        needed = _needed(test, self._choice.seen_error_of(wave.policy))
        if not self._choice.worthwhile(wave.policy, needed / len(wave.ways)):
            own = own.model_copy(update={"given_up": True})
            return wave.model_copy(update={"own": own}), drawn
        if 2 * drawn >= test.target:
            own = own.model_copy(update={"asked": True})
            return wave.model_copy(update={"own": own}), test.target
        return wave, min(drawn + max(_FEWEST, drawn), -(-test.target // 2))


def _own(wave: JobWave) -> OwnAudit:
    if wave.own is None:
        raise ProtocolError("these items have no audit of their own")
    return wave.own


def _needed(test: SequentialTest, error: float) -> int:
    """Return at about how many draws an audit accepts if such a share of them errs."""
    draws = test.target
    for _ in range(3):  # errors ask for draws, which detect errors
        further = round(error * (draws - test.draws))
        draws = test.acceptance.draws(len(test.errors) + further)
    return draws
