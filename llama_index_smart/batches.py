"""The verbs that take many items at once: one session a batch, sync and async."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
)

from llama_index_smart.request import Ask
from smart_engine.batch.self_agreement import SelfAgreement, drawn_twice
from smart_engine.errors import InvalidInputError, check_whole
from smart_engine.runtime.batch import Batch, Job, aeach, deliver, each
from smart_engine.runtime.self_agreement import Measurement
from smart_engine.runtime.settings import Settings
from smart_engine.store.store import Store

__all__ = ["SmartBatches"]

R = TypeVar("R")


class SmartBatches(Settings):
    """The batch verbs of a smart LLM."""

    def chat_batch(
        self,
        items: Sequence[Sequence[ChatMessage]],
        *,
        max_concurrency: int | None = None,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[ChatResponse]:
        """Answer many chats in one session.

        With probability at least `confidence`, at most the share `max_disagreement` of
        the answers differs from what the reference said or would have said. In shadow,
        or where `smart_model` names a model, items are answered one by one.

        Args:
            items: The messages of each item.
            max_concurrency: Most calls in flight at once; the model's if not given.
            return_exceptions: Return an item's exception in its place, instead of
                raising the first one after all items are done. A raised one carries
                all results in its attribute `smart_results`.
            **kwargs: Handed to every member; `smart_task` names the task.

        Raises:
            InvalidInputError: If an item is no list of messages.
        """
        asks = _asks(items, _chat, kwargs)
        return self._answer_all(asks, max_concurrency, return_exceptions)

    async def achat_batch(
        self,
        items: Sequence[Sequence[ChatMessage]],
        *,
        max_concurrency: int | None = None,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[ChatResponse]:
        """Answer many chats in one session, as `chat_batch` does."""
        asks = _asks(items, _chat, kwargs)
        return await self._aanswer_all(asks, max_concurrency, return_exceptions)

    def complete_batch(
        self,
        prompts: Sequence[str],
        *,
        formatted: bool = False,
        max_concurrency: int | None = None,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[CompletionResponse]:
        """Answer many prompts in one session, as `chat_batch` does."""
        asks = _asks(prompts, _completion, {"formatted": formatted, **kwargs})
        return self._answer_all(asks, max_concurrency, return_exceptions)

    async def acomplete_batch(
        self,
        prompts: Sequence[str],
        *,
        formatted: bool = False,
        max_concurrency: int | None = None,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[CompletionResponse]:
        """Answer many prompts in one session, as `chat_batch` does."""
        asks = _asks(prompts, _completion, {"formatted": formatted, **kwargs})
        return await self._aanswer_all(asks, max_concurrency, return_exceptions)

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
        disagreement with itself is refused for this task, here and in all copies,
        unless `accept_noise=True`. What it costs is in `report()`, and in no batch's or
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
        return self._measurement(items, n, max_concurrency, kwargs).run()

    async def aself_agreement(
        self,
        items: Sequence[str | Sequence[ChatMessage]],
        *,
        n: int = 100,
        max_concurrency: int | None = None,
        **kwargs: Any,
    ) -> SelfAgreement:
        """Ask the reference twice about a few items, as `self_agreement` does."""
        return await self._measurement(items, n, max_concurrency, kwargs).arun()

    # -- what a smart LLM provides -----------------------------------------------

    def _answer(self, ask: Ask[R]) -> R:
        """Answer a single item."""
        raise NotImplementedError

    async def _aanswer(self, ask: Ask[R]) -> R:
        """Answer a single item."""
        raise NotImplementedError

    def _job(self, asks: Sequence[Ask[Any]], limit: int) -> Job:
        """Return the job of some items, with at most so many calls in flight."""
        raise NotImplementedError

    # -- jobs --------------------------------------------------------------------

    def _answer_all(
        self, asks: list[Ask[R]], limit: int | None, return_exceptions: bool
    ) -> list[R]:
        limit = self._limit(limit)
        if self._one_by_one(asks):
            results = each(lambda n: self._answer(asks[n]), len(asks), limit)
            return deliver(results, return_exceptions=return_exceptions)
        return self._batch(asks, limit).run(return_exceptions=return_exceptions)

    async def _aanswer_all(
        self, asks: list[Ask[R]], limit: int | None, return_exceptions: bool
    ) -> list[R]:
        limit = self._limit(limit)
        if self._one_by_one(asks):
            results = await aeach(lambda n: self._aanswer(asks[n]), len(asks), limit)
            return deliver(results, return_exceptions=return_exceptions)
        batch = self._batch(asks, limit)
        return await batch.arun(return_exceptions=return_exceptions)

    def _one_by_one(self, asks: Sequence[Ask[Any]]) -> bool:
        """Whether no session decides who answers."""
        return self.mode == "shadow" or any(ask.model is not None for ask in asks)

    def _batch(self, asks: Sequence[Ask[Any]], limit: int) -> Batch:
        jobs, results = [self._job(asks, limit)], [None] * len(asks)
        store = self.store if isinstance(self.store, Store) else None
        return Batch(self._serving, self._books, store, jobs, results, self.progress)

    def _measurement(
        self, items: Sequence[Any], n: int, limit: int | None, kwargs: dict[str, Any]
    ) -> Measurement:
        drawn = drawn_twice("items", _asks(items, _either, kwargs), n, self.seed)
        job = self._job(drawn, self._limit(limit))
        return Measurement(job, self._names[0], self.confidence, self._books)

    def _limit(self, limit: int | None) -> int:
        """Return how many calls may be in flight."""
        if limit is None:
            return self.max_concurrency
        check_whole("max_concurrency", limit, 1)
        return limit


def _asks(
    items: Sequence[Any],
    ask: Callable[[Any, dict[str, Any]], Ask[R]],
    kwargs: dict[str, Any],
) -> list[Ask[R]]:
    """Return what is asked about each item."""
    if isinstance(items, str | bytes):
        hint = "a batch is a list of items: put a single one in brackets"
        raise InvalidInputError("items", items, hint)
    return [ask(item, kwargs) for item in items]


def _chat(item: Any, kwargs: dict[str, Any]) -> Ask[ChatResponse]:
    listed = isinstance(item, Sequence) and not isinstance(item, str)
    if not listed or not all(isinstance(message, ChatMessage) for message in item):
        hint = "each item is a list of ChatMessage; use complete_batch for prompts"
        raise InvalidInputError("items", item, hint)
    return Ask.chat(item, kwargs)


def _completion(item: Any, kwargs: dict[str, Any]) -> Ask[CompletionResponse]:
    if not isinstance(item, str):
        hint = "each item is a text; use chat_batch for messages"
        raise InvalidInputError("items", item, hint)
    return Ask.completion(item, kwargs)


def _either(item: Any, kwargs: dict[str, Any]) -> Ask[Any]:
    return (_completion if isinstance(item, str) else _chat)(item, kwargs)
