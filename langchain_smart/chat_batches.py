"""Whole batches of chat messages: what they ask, and what callbacks are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.prompt_values import ChatPromptValue
from langchain_core.runnables import RunnableConfig
from typing_extensions import override

from langchain_smart.answers import read_answer, write_answer
from langchain_smart.bounds import check_bounded, most
from langchain_smart.chat_batch import ChatJob, to_prompt
from langchain_smart.jobs import Job, Share
from langchain_smart.requests import Request, as_sent
from langchain_smart.self_agreement import SelfAgreeing
from langchain_smart.settings import SmartSettings
from langchain_smart.tasks import fingerprint
from langchain_smart.tools import described
from smart_engine.calls import Call
from smart_engine.money.ledger import LedgerScope
from smart_engine.money.reservations import Reservations
from smart_engine.serving.resume import ResumedSession
from smart_engine.serving.session import AnySession
from smart_engine.store.store import Store

__all__ = ["ChatBatches"]


class ChatBatches(SelfAgreeing[LanguageModelInput, AIMessage], SmartSettings):
    """The verbs that take many items at once; see `SmartChatModel`."""

    @override
    def _read(self, given: LanguageModelInput) -> ChatPromptValue:
        return to_prompt(self, given)

    @override
    def _job_maker(self, kwargs: dict[str, Any]) -> Callable[[Share], Job]:
        request = self._request(kwargs.pop("stop", None), kwargs)
        tracing = self._tracing(request, kwargs)
        members = {member.name: member for member in self._members}
        bound = {member.name: request.put_to(member) for member in self._members}
        terms = self._terms
        rule, budget = request.reading(terms.rule), terms.budget(self._books)

        def configuration(config: RunnableConfig) -> dict[str, Any]:
            metadata = {**(config.get("metadata") or {}), **tracing["metadata"]}
            return {
                "inheritable_callbacks": config.get("callbacks"),
                "local_callbacks": self.callbacks,
                "verbose": self.verbose,
                "inheritable_tags": config.get("tags"),
                "local_tags": self.tags,
                "inheritable_metadata": metadata,
                "local_metadata": self.metadata,
            }

        def session_of(share: Share, task: str, scope: LedgerScope) -> AnySession:
            if budget is not None:
                prompts = (prompt.messages for prompt in share.given)
                check_bounded(self._members, prompts, request)

            def bounded(call: Call) -> float:
                asked = share.given[call.item].messages
                return most(members[call.tier], asked, request)

            items, books = len(share.places), self._books
            reservations = None
            if budget is not None:
                reservations = Reservations(budget, bounded, books.new_lock())
            session = terms.session(items, rule, task, scope, books, reservations)
            if not isinstance(self.store, Store):
                return session
            job = terms.job(rule, task, self._asked(share, request))
            stored = self.store.answers(job, write_answer, read_answer)
            return ResumedSession(session, stored)

        def make(share: Share) -> ChatJob:
            asked = (prompt.messages for prompt in share.given)
            task = share.task or fingerprint(asked, request)
            scope = self._books.batch(terms.models[0], task)
            return ChatJob(
                share,
                session_of(share, task, scope),
                scope,
                task,
                rule,
                members=members,
                put_to=lambda member: bound[member.name],
                estimate=lambda item: self._estimate(
                    share.given[item].messages, request
                ),
                tracing=tracing,
                configuration=configuration,
                rate_limiter=self.rate_limiter,
                output_version=self.output_version,
            )

        return make

    def _asked(self, share: Share, request: Request) -> Iterator[str]:
        """Yield what is asked of whom, as texts."""
        yield from map(repr, self._models_told())
        arguments = {k: described(value) for k, value in request.arguments.items()}
        yield repr((arguments, request.tools, request.schema))
        for prompt in share.given:
            yield repr([as_sent(message) for message in prompt.messages])

    def _tracing(self, request: Request, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return what callbacks are told of every item's run."""
        told = {k: v for k, v in kwargs.items() if k != "ls_structured_output_format"}
        told["stop"] = stop = request.arguments.get("stop")
        options: dict[str, Any] = {"stop": stop}
        if request.schema is not None and request.schema.json_schema is not None:
            options["ls_structured_output_format"] = request.schema.told
        return {
            "serialized": self._serialized,
            "params": self._get_invocation_params(**told),
            "metadata": self._get_ls_params_with_defaults(**told),
            "options": options,
        }
