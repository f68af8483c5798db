"""How often the reference agrees with itself: it is asked twice about each item."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from smart_engine.batch.self_agreement import SelfAgreement, SelfAgreementSession
from smart_engine.runtime.job import Job, aoutputs_of, outputs_of
from smart_engine.runtime.lanes.members import Lanes
from smart_engine.serving.books import Books

__all__ = ["Measurement"]


@dataclass
class Measurement:
    """Asks the reference twice about each item of a job, and enters what that shows.

    Attributes:
        job: The items, and once more the same; no budget and no store limits it.
        reference: Name of the reference.
        confidence: Confidence of the interval.
        books: Where it is entered.
        lanes: How the reference is asked.
    """

    job: Job
    reference: str
    confidence: float
    books: Books
    lanes: Lanes = field(default_factory=Lanes)

    def run(self) -> SelfAgreement:
        """Measure in synchronous code."""
        self._open()
        outputs_of(self.job, None, _answers)
        return self._close()

    async def arun(self) -> SelfAgreement:
        """Measure in asynchronous code."""
        self._open()
        await aoutputs_of(self.job, None, _answers)
        return self._close()

    def _open(self) -> None:
        job, items = self.job, len(self.job.places) // 2
        job.dispatcher = self.lanes.dispatcher(None)
        job.session = SelfAgreementSession(items, self.reference, job.rule, job.scope)

    def _close(self) -> SelfAgreement:
        result: SelfAgreement = self.job.session.result(self.job.task, self.confidence)
        self.books.enter_noise(result)
        return result


def _answers(job: Job) -> list[Any]:
    return [*map(job.session.answer_or_error, range(len(job.places)))]
