"""Jobs of many items: one session a batch, sync and async."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from time import perf_counter, time
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
)

from llama_index_smart.call import marked
from llama_index_smart.driver import adrive, drive
from llama_index_smart.events import told_of
from llama_index_smart.members import Response, outcome
from llama_index_smart.request import Ask
from llama_index_smart.settings import SmartSettings
from smart_engine.batch.certificate import Certificate
from smart_engine.calls import Call, Failure, Outcome, Served
from smart_engine.errors import InvalidInputError, check_whole
from smart_engine.runtime.asker import Clock
from smart_engine.runtime.progress_bar import progress_bar
from smart_engine.serving.session import AnySession, Session

__all__ = ["SmartBatches", "checked", "listed"]


class SmartBatches(SmartSettings):
    """The verbs that take many items at once; see `SmartLLM`."""

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
        the answers differs from what the reference said or would have said.

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
        asks = [Ask.chat(checked(item), kwargs) for item in listed(items)]
        return self._batch(asks, max_concurrency, return_exceptions)

    async def achat_batch(
        self,
        items: Sequence[Sequence[ChatMessage]],
        *,
        max_concurrency: int | None = None,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[ChatResponse]:
        """Answer many chats in one session, as `chat_batch` does."""
        asks = [Ask.chat(checked(item), kwargs) for item in listed(items)]
        return await self._abatch(asks, max_concurrency, return_exceptions)

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
        kwargs["formatted"] = formatted
        asks = [Ask.completion(_text(prompt), kwargs) for prompt in listed(prompts)]
        return self._batch(asks, max_concurrency, return_exceptions)

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
        kwargs["formatted"] = formatted
        asks = [Ask.completion(_text(prompt), kwargs) for prompt in listed(prompts)]
        return await self._abatch(asks, max_concurrency, return_exceptions)

    def _batch(
        self, asks: list[Ask[Any]], limit: int | None, return_exceptions: bool
    ) -> list[Any]:
        """Answer a batch."""
        self._refuse_shadow(asks)
        task = self._task_of(asks)
        scope = self._books.batch(self._terms.models[0], task)
        session = self._session(asks, task, scope)

        def ask(call: Call) -> Outcome | Failure:
            member, asked = self._by_name[call.tier], asks[call.item]
            clock = Clock(time, perf_counter)
            try:
                response = asked.of(member)
                return clock.timed(outcome(member, response, self._estimate(asked)))
            except Exception as error:  # noqa: BLE001 - the item's, not the job's
                return clock.timed(Failure(error))

        with self._shown(session) as driven:
            drive(driven, ask, self._limit(limit))
        results = self._results(session, task)
        self._books.end_batch(scope, session.certificate)
        return self._deliver(asks, results, return_exceptions)

    async def _abatch(
        self, asks: list[Ask[Any]], limit: int | None, return_exceptions: bool
    ) -> list[Any]:
        """Answer a batch."""
        self._refuse_shadow(asks)
        task = self._task_of(asks)
        scope = self._books.batch(self._terms.models[0], task)
        session = self._session(asks, task, scope)

        async def ask(call: Call) -> Outcome | Failure:
            member, asked = self._by_name[call.tier], asks[call.item]
            clock = Clock(time, perf_counter)
            try:
                response = await asked.aof(member)
                return clock.timed(outcome(member, response, self._estimate(asked)))
            except Exception as error:  # noqa: BLE001 - the item's, not the job's
                return clock.timed(Failure(error))

        with self._shown(session) as driven:
            await adrive(driven, ask, self._limit(limit))
        results = self._results(session, task)
        self._books.end_batch(scope, session.certificate)
        return self._deliver(asks, results, return_exceptions)

    def _refuse_shadow(self, asks: list[Ask[Any]]) -> None:
        """Raise where no session can decide."""
        if self.mode == "shadow":
            hint = "a batch is served in one session; try the stream item by item"
            raise InvalidInputError("mode", self.mode, hint)
        if any(ask.model is not None for ask in asks):
            hint = "a batch's session chooses the models; ask item by item"
            raise InvalidInputError("smart_model", asks[0].model, hint)

    def _shown(self, session: AnySession) -> AbstractContextManager[Session]:
        """Return a session; to drive it shows where it stands, if wanted."""
        return progress_bar(session, self.task, shown=self.progress)

    def _limit(self, limit: int | None) -> int:
        """Return how many calls may be in flight."""
        if limit is None:
            return self.max_concurrency
        check_whole("max_concurrency", limit, 1)
        return limit

    def _results(self, session: AnySession, task: str) -> list[Any]:
        """Return per item its answer, or why there is none."""
        certificate = session.certificate
        told = {"task": task, "certificate": certificate.id}
        return [
            _result(session, served, certificate, told) for served in session.answers
        ]

    def _deliver(
        self,
        asks: Sequence[Ask[Any]],
        results: list[Any],
        return_exceptions: bool,
    ) -> list[Any]:
        """Tell callbacks, and hand out the results."""
        payload = self.to_payload()
        for ask, result in zip(asks, results, strict=True):
            if self.callback_manager.handlers and not isinstance(result, BaseException):
                with told_of(self.callback_manager, ask, payload) as event:
                    event.response = result
        errors = [result for result in results if isinstance(result, BaseException)]
        if errors and not return_exceptions:
            errors[0].add_note(
                f"{len(results) - len(errors)} of {len(results)} items were answered: "
                "see smart_results, or call it with return_exceptions=True"
            )
            errors[0].smart_results = results  # type: ignore[attr-defined]
            raise errors[0]
        return results


def _result(
    session: AnySession,
    served: Served,
    certificate: Certificate,
    told: dict[str, Any],
) -> Response | BaseException:
    """Return the response handed out for an item, with what it cost."""
    if served.error is not None:
        return served.error
    saved = certificate.saved_by(served.cost)
    smart = {"model": served.tier, "role": served.role, "cost": served.cost, **told}
    if served.estimated:
        smart["estimated"] = served.estimated
    said = [answer for _, answer in session.bought(served.item)]
    return marked(served.answer, said, {**smart, "saved": saved})


def listed(given: Sequence[Any]) -> Sequence[Any]:
    """Return the items of a batch; raise if it is one item, not a list."""
    if isinstance(given, str | bytes):
        hint = "a batch is a list of items: put a single one in brackets"
        raise InvalidInputError("items", given, hint)
    return given


def _text(prompt: str) -> str:
    """Return a prompt; raise if it is anything else."""
    if not isinstance(prompt, str):
        hint = "each item is a text; use chat_batch for messages"
        raise InvalidInputError("items", prompt, hint)
    return prompt


def checked(item: Sequence[ChatMessage]) -> Sequence[ChatMessage]:
    """Return an item's messages; raise if it is anything else."""
    listed = isinstance(item, Sequence) and not isinstance(item, str)
    if not listed or not all(isinstance(message, ChatMessage) for message in item):
        hint = "each item is a list of ChatMessage; use complete_batch for prompts"
        raise InvalidInputError("items", item, hint)
    return item
