"""A batch put to chat models: how an item's run begins, how its answer is marked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from langchain_core.callbacks import AsyncCallbackManager, CallbackManager
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.messages.ai import add_usage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.prompt_values import ChatPromptValue
from langchain_core.rate_limiters import BaseRateLimiter
from langchain_core.runnables import RunnableConfig
from typing_extensions import override

from langchain_smart.bound import Bound
from langchain_smart.chat_items import ChatAsker, marked
from langchain_smart.jobs import Job
from langchain_smart.members import ChatMember, Estimate
from smart_engine.batch.certificate import Certificate
from smart_engine.calls import Call, Failure, Outcome, Served

__all__ = ["ChatJob", "llm_result", "to_prompt"]


@dataclass
class ChatJob(Job):
    """The items of one task in a batch, for chat models.

    Attributes:
        members: The models by name.
        put_to: Makes a model ready to be asked.
        estimate: Returns what estimates the usage of an item's calls, if that is
            allowed.
        tracing: What callbacks are told of every item's run.
        configuration: Returns how the callbacks of a config are configured.
        rate_limiter: What every call waits for, if anything.
        output_version: The form of the answers' contents.
    """

    members: Mapping[str, ChatMember]
    put_to: Callable[[ChatMember], Bound]
    estimate: Callable[[int], Estimate | None]
    tracing: dict[str, Any]
    configuration: Callable[[RunnableConfig], dict[str, Any]]
    rate_limiter: BaseRateLimiter | None = None
    output_version: str | None = None
    _askers: dict[Call, ChatAsker] = field(init=False, default_factory=dict)

    # -- runs ------------------------------------------------------------------

    @override
    def configured(self, item: int, *, is_async: bool) -> Any:
        kind = AsyncCallbackManager if is_async else CallbackManager
        return kind.configure(**self.configuration(self.share.configs[item]))

    @override
    def started(self, item: int) -> Any:
        return self.manager.on_chat_model_start(**self._start(item))[0]

    @override
    async def astarted(self, item: int) -> Any:
        return (await self.manager.on_chat_model_start(**self._start(item)))[0]

    def _start(self, item: int) -> dict[str, Any]:
        """Return the arguments that start an item's run."""
        config = self.share.configs[item]
        return {
            "serialized": self.tracing["serialized"],
            "messages": [self.share.given[item].messages],
            "invocation_params": self.tracing["params"],
            "options": self.tracing["options"],
            "name": config.get("run_name"),
            "run_id": config.get("run_id"),
            "batch_size": 1,
        }

    @override
    def end(self, run: Any, output: Any) -> Awaitable[None] | None:
        ending: Awaitable[None] | None = None
        if isinstance(output, BaseException):
            ending = run.on_llm_error(output)
        elif run.handlers:
            ending = run.on_llm_end(llm_result(output))
        return ending

    # -- calls and results -----------------------------------------------------

    @override
    def ask(self, call: Call) -> Outcome | Failure:
        if self.rate_limiter:
            self.rate_limiter.acquire(blocking=True)
        brought = self._asker(call).ask(call.tier)
        del self._askers[call]
        return brought

    @override
    async def aask(self, call: Call) -> Outcome | Failure:
        if self.rate_limiter:
            await self.rate_limiter.aacquire(blocking=True)
        brought = await self._asker(call).aask(call.tier)
        del self._askers[call]
        return brought

    @override
    def broken_off(self, call: Call, error: BaseException) -> Failure:
        asker = self._askers.pop(call, None)
        return asker.broken_off(call.tier, [], error) if asker else Failure(error)

    def _asker(self, call: Call) -> ChatAsker:
        """Return who makes a call; it is known until the call has ended."""
        given, run = self.share.given[call.item], self.runs[call.item]
        repeated = partial(self.scope.record_call, call.item)
        estimate = self.estimate(call.item)
        asker = ChatAsker(self.members, self.put_to, given, repeated, run, estimate)
        self._askers[call] = asker
        return asker

    @override
    def handed_out(
        self, served: Served, certificate: Certificate, certificate_id: str
    ) -> AIMessage:
        message: AIMessage = served.answer
        usage = message.usage_metadata
        for name, answer in self.session.bought(served.item):
            if name != served.tier:
                usage = add_usage(usage, answer.usage_metadata)
        smart = {
            "model": served.tier,
            "role": served.role,
            "task": self.task,
            "cost": served.cost,
            "saved": certificate.saved_by(served.cost),
            "certificate": certificate_id,
        }
        if served.estimated:
            smart["estimated"] = served.estimated
        answer = marked(message, self.runs[served.item], usage, **smart)
        if self.output_version != "v1":
            return answer
        metadata = {**answer.response_metadata, "output_version": "v1"}
        blocks = {"content": answer.content_blocks, "response_metadata": metadata}
        return answer.model_copy(update=blocks)


def llm_result(message: AIMessage) -> LLMResult:
    """Return a message as callbacks expect it."""
    return LLMResult(generations=[[ChatGeneration(message=message)]])


def to_prompt(model: BaseChatModel, given: LanguageModelInput) -> ChatPromptValue:
    """Return an input's messages, as the model's own `invoke` would read them.

    Members take a prompt value as it is: it is converted once, not once a call.
    """
    messages = model._convert_input(given).to_messages()  # noqa: SLF001 - core's own
    return ChatPromptValue(messages=messages)
