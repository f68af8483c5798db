"""How often the reference agrees with itself: it is asked twice about a few items.

Sync and async share all but the calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter, time
from typing import Any

from llama_index.core.base.llms.types import ChatMessage

from llama_index_smart.batches import SmartBatches, checked, listed
from llama_index_smart.driver import adrive, drive
from llama_index_smart.members import outcome
from llama_index_smart.request import Ask
from smart_engine.batch.self_agreement import (
    SelfAgreement,
    SelfAgreementSession,
    sample,
)
from smart_engine.calls import Call, Failure, Outcome
from smart_engine.errors import InvalidInputError, check_whole
from smart_engine.runtime.asker import Clock

__all__ = ["SelfAgreeing"]


class SelfAgreeing(SmartBatches):
    """The verbs that measure the reference's own noise, task by task."""

    def self_agreement(
        self,
        items: Sequence[str | Sequence[ChatMessage]],
        *,
        n: int = 100,
        max_concurrency: int | None = None,
        **kwargs: Any,
    ) -> SelfAgreement:
        """Ask the reference twice about a few items, and compare its answers.

        From then on a `max_disagreement` that is demonstrably below the reference's own
        noise is refused for this task, here and in all copies, unless
        `accept_noise=True`. What it costs is in `report()`, and in no batch's or
        stream's `budget_usd`.

        Args:
            items: Prompts, or the messages of chats, of one task.
            n: Most items to ask about, drawn at random.
            max_concurrency: Most calls in flight at once; the model's if not given.
            **kwargs: Handed to the reference; `smart_task` names the task.

        Raises:
            InvalidInputError: If there is no item.
            SmartError: If no item got two answers of its own.
        """
        asks = self._drawn(items, n, kwargs)
        noise = self._twice(asks)

        def ask(call: Call) -> Outcome | Failure:
            asked, clock = asks[call.item % len(asks)], Clock(time, perf_counter)
            member = self._members[0]
            brought = outcome(member, asked.of(member), self._estimate(asked))
            return clock.timed(brought)

        drive(noise, ask, self._limit(max_concurrency))
        return self._noted(asks, noise)

    async def aself_agreement(
        self,
        items: Sequence[str | Sequence[ChatMessage]],
        *,
        n: int = 100,
        max_concurrency: int | None = None,
        **kwargs: Any,
    ) -> SelfAgreement:
        """Ask the reference twice about a few items, as `self_agreement` does."""
        asks = self._drawn(items, n, kwargs)
        noise = self._twice(asks)

        async def ask(call: Call) -> Outcome | Failure:
            asked, clock = asks[call.item % len(asks)], Clock(time, perf_counter)
            member = self._members[0]
            brought = outcome(member, await asked.aof(member), self._estimate(asked))
            return clock.timed(brought)

        await adrive(noise, ask, self._limit(max_concurrency))
        return self._noted(asks, noise)

    def _drawn(
        self,
        items: Sequence[str | Sequence[ChatMessage]],
        n: int,
        kwargs: dict[str, Any],
    ) -> list[Ask[Any]]:
        """Return what is asked about the items that are drawn."""
        check_whole("n", n, 1)
        drawn = sample(listed(items), n, self.seed)
        if not drawn:
            raise InvalidInputError("items", [], "give items of the task")
        return [
            Ask.completion(item, kwargs)
            if isinstance(item, str)
            else Ask.chat(checked(item), kwargs)
            for item in drawn
        ]

    def _twice(self, asks: Sequence[Ask[Any]]) -> SelfAgreementSession:
        """Return what asks twice about each item."""
        reference = self._members[0].name
        scope = self._books.batch(reference, self._task_of(asks))
        return SelfAgreementSession(len(asks), reference, self._reading(asks), scope)

    def _noted(
        self, asks: Sequence[Ask[Any]], noise: SelfAgreementSession
    ) -> SelfAgreement:
        """Return what was seen; keep it in the books."""
        result = noise.result(self._task_of(asks), self.confidence)
        self._books.enter_noise(result)
        return result
