"""What the jobs of a task have shown together, as a job's certificate states it."""

from __future__ import annotations

import math

from pydantic import BaseModel

__all__ = ["OWN_SHARE", "TaskPromise"]

OWN_SHARE = 0.2
"""Share of the level that is left for one job's audit of its own."""


class TaskPromise(BaseModel, frozen=True, extra="forbid"):
    """The promise over all of a task's answers, when one of its jobs has just ended.

    Attributes:
        jobs: Jobs of the task that have ended, this one included.
        answers: Answers that they handed out.
        allowed: Differing answers allowed among them, ⌊δ·answers⌋.
        possible: Bound on those that differ: the smaller of `undetected` − `corrected`
            and `before` + `unseen`, or `before` + `hidden`.
        undetected: Bound on the errors of all items that were not audited.
        corrected: Those of them that were found when a job checked answers after all.
        before: `possible` when this job ended its audits.
        unseen: This job's answers that are neither the reference's nor checked by it.
        hidden: Most errors among these, by an audit of this job's own, if it made one.
        again: Such answers that it had handed out already: it was run again.
        audits: Items that were drawn for an audit.
        found: Audits that showed an error, or whose outcome was lost.
        unresolved: Audits whose outcome is not known yet, here counted as errors.
        slopes: λ_k of the bound.
        log_wealth: ln w_k − U_k of the bound, unresolved audits charged.
    """

    jobs: int
    answers: int
    allowed: int
    possible: int
    undetected: int
    corrected: int
    before: int
    unseen: int
    hidden: int | None = None
    again: int
    audits: int
    found: int
    unresolved: int
    slopes: tuple[float, ...]
    log_wealth: tuple[float, ...]

    def log_mixture(self, undetected: int) -> float:
        """Return ln W at a number of undetected errors; see `stream/bound.py`."""
        exponents = [
            wealth + slope * undetected
            for wealth, slope in zip(self.log_wealth, self.slopes, strict=True)
        ]
        top = max(exponents)
        return top + math.log(sum(math.exp(each - top) for each in exponents))
