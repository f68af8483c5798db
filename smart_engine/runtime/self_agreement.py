"""How often the reference agrees with itself: it is asked twice about a few items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from smart_engine.batch.self_agreement import SelfAgreement, SelfAgreementSession
from smart_engine.runtime.batch import Effect, Job, aperform, driven, perform
from smart_engine.runtime.drive import Flow, arun, run
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
    """

    job: Job
    reference: str
    confidence: float
    books: Books

    def run(self) -> SelfAgreement:
        """Measure in synchronous code."""
        return run(self._flow(), perform)

    async def arun(self) -> SelfAgreement:
        """Measure in asynchronous code."""
        return await arun(self._flow(), aperform)

    def _flow(self) -> Flow[Effect, SelfAgreement]:
        job, items = self.job, len(self.job.places) // 2
        session = SelfAgreementSession(items, self.reference, job.rule, job.scope)
        job.session = session

        def outputs(_: Job) -> list[Any]:
            return [session.answer_or_error(number) for number in range(2 * items)]

        yield from driven(job, None, outputs)
        result = session.result(job.task, self.confidence)
        self.books.enter_noise(result)
        return result
