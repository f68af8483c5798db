"""How often the reference agrees with itself: it is asked twice about a few items.

Sync and async share all but the calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.utils import Input, Output

from langchain_smart.batches import Batches
from langchain_smart.driver import adrive, drive
from langchain_smart.jobs import Job
from smart_engine.batch.self_agreement import (
    SelfAgreement,
    SelfAgreementSession,
    sample,
)
from smart_engine.errors import InvalidInputError, check_whole

__all__ = ["SelfAgreeing"]


class SelfAgreeing(Batches[Input, Output], Generic[Input, Output]):
    """The verbs that measure the reference's own noise, task by task."""

    def self_agreement(
        self,
        inputs: Sequence[Input],
        config: RunnableConfig | None = None,
        *,
        n: int = 100,
        **kwargs: Any,
    ) -> SelfAgreement:
        """Ask the reference twice about a few items, and compare its answers.

        From then on a `max_disagreement` that is demonstrably below the reference's own
        noise is refused for this task, here and in all copies, unless
        `accept_noise=True`. What it costs is in `report()`, and in no batch's or
        stream's `budget_usd`. Replies from a cache are no second answers: their items
        are left out, and counted.

        Args:
            inputs: Items of one task, such as those of a batch.
            config: The config to ask with; it may name the task.
            n: Most items to ask about, drawn at random.
            **kwargs: Handed to the reference with every call.

        Raises:
            InvalidInputError: If there is no item.
            SmartError: If no item got two answers of its own.
        """
        job, noise, limit = self._twice(inputs, config, n, kwargs)
        error: BaseException | None = None
        try:
            drive(noise, job.begin, job.ask, job.broken_off, limit)
        except BaseException as ended:
            error = ended
            raise
        finally:
            for number, run in enumerate(job.runs):
                if run is not None:
                    job.end(run, error or noise.answer_or_error(number))
        return self._noted(job, noise)

    async def aself_agreement(
        self,
        inputs: Sequence[Input],
        config: RunnableConfig | None = None,
        *,
        n: int = 100,
        **kwargs: Any,
    ) -> SelfAgreement:
        """Ask the reference twice about a few items, as `self_agreement` does."""
        job, noise, limit = self._twice(inputs, config, n, kwargs)
        error: BaseException | None = None
        try:
            await adrive(noise, job.abegin, job.aask, job.broken_off, limit)
        except BaseException as ended:
            error = ended
            raise
        finally:
            for number, run in enumerate(job.runs):
                if run is None:
                    continue
                ending = job.end(run, error or noise.answer_or_error(number))
                if ending is not None:
                    await ending
        return self._noted(job, noise)

    def _twice(
        self,
        inputs: Sequence[Input],
        config: RunnableConfig | None,
        n: int,
        kwargs: dict[str, Any],
    ) -> tuple[Job, SelfAgreementSession, int]:
        """Return the items, each of them twice, and what asks about them."""
        check_whole("n", n, 1)
        drawn = sample(list(inputs), n, self.seed)
        if not drawn:
            raise InvalidInputError("inputs", [], "give items of the task")
        # Its own session is never begun: nothing of it is refused, stored or limited.
        free = {"accept_noise": True, "budget_usd": None, "store": None}
        asking = self.model_copy(update=free)
        _, (job,) = asking._prepare([*drawn, *drawn], config, False, kwargs)  # noqa: SLF001 - ours
        noise = SelfAgreementSession(len(drawn), self._names[0], job.rule, job.scope)
        return job, noise, self._limit(job.share)

    def _noted(self, job: Job, noise: SelfAgreementSession) -> SelfAgreement:
        """Return what was seen; keep it in the books."""
        result = noise.result(job.task, self.confidence)
        self._books.enter_noise(result)
        return result
