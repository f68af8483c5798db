"""One batch through a smart model: inputs in, one session a task, messages out.

Everything that sync and async share is here; what differs by `await` is in the chat
model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.prompt_values import ChatPromptValue
from langchain_core.rate_limiters import BaseRateLimiter
from langchain_core.runnables import RunnableConfig

from langchain_smart.bound import Bound
from langchain_smart.members import ChatMember, outcome
from langchain_smart.runs import Run, member_config
from smart_engine.calls import Call, Failure, Outcome, Served
from smart_engine.certificate import Certificate
from smart_engine.serving.resumed import AnySession, ResumedSession

__all__ = ["BatchJob", "llm_result", "marked", "to_prompt"]


@dataclass
class BatchJob:
    """The items of one task in a batch, and their session.

    Attributes:
        session: A fresh session over the items.
        members: The models by name, each ready to be asked.
        places: Per item, its place in the whole batch.
        prompts: Per item, what to send.
        configs: Per item, the config it came with.
        task: Name of the task.
        tracing: What callbacks are told of every item's run.
        one_config: Whether all items came with the same config.
        rate_limiter: What every call waits for, if anything.
        output_version: The form of the answers' contents.
        runs: Per item, its run, once it has begun.
        manager: Callback manager of the last run begun.
    """

    session: AnySession
    members: dict[str, tuple[ChatMember, Bound]]
    places: Sequence[int]
    prompts: Sequence[ChatPromptValue]
    configs: Sequence[RunnableConfig]
    task: str
    tracing: dict[str, Any]
    one_config: bool
    rate_limiter: BaseRateLimiter | None = None
    output_version: str | None = None
    runs: list[Any] = field(init=False)
    manager: Any = None

    def __post_init__(self) -> None:
        """No run has begun."""
        self.runs = [None] * len(self.prompts)

    def start(self, item: int) -> dict[str, Any]:
        """Return the arguments that start an item's run."""
        config = self.configs[item]
        return {
            "serialized": self.tracing["serialized"],
            "messages": [self.prompts[item].messages],
            "invocation_params": self.tracing["params"],
            "options": self.tracing["options"],
            "name": config.get("run_name"),
            "run_id": config.get("run_id"),
            "batch_size": 1,
        }

    @property
    def restored(self) -> float:
        """USD of what was spent that was paid in earlier runs."""
        session = self.session
        return session.restored if isinstance(session, ResumedSession) else 0.0

    # -- calls -----------------------------------------------------------------

    def ask(self, call: Call) -> Outcome | Failure:
        """Make one call."""
        if self.rate_limiter:
            self.rate_limiter.acquire(blocking=True)
        member, bound = self.members[call.tier]
        config = member_config(self.runs[call.item])
        return outcome(member, bound.invoke(self.prompts[call.item], config))

    async def aask(self, call: Call) -> Outcome | Failure:
        """Make one call."""
        if self.rate_limiter:
            await self.rate_limiter.aacquire(blocking=True)
        member, bound = self.members[call.tier]
        config = member_config(self.runs[call.item])
        return outcome(member, await bound.ainvoke(self.prompts[call.item], config))

    # -- results ---------------------------------------------------------------

    def results(self) -> list[AIMessage | BaseException]:
        """Return per item its answer, or why there is none."""
        certificate = self.session.certificate
        certificate_id = certificate.id
        return [
            self._result(served, certificate, certificate_id)
            for served in self.session.answers
        ]

    def _result(
        self, served: Served, certificate: Certificate, certificate_id: str
    ) -> AIMessage | BaseException:
        """Return the message handed out for an item, with what it cost."""
        if served.error is not None:
            return served.error
        message: AIMessage = served.answer
        run = self.runs[served.item]
        reference_only = certificate.reference_only_cost
        saved = (
            None
            if reference_only is None
            else reference_only / certificate.items - served.cost
        )
        usage = message.usage_metadata
        for name, answer in self.session.bought(served.item):
            if name != served.tier:
                usage = add_usage(usage, answer.usage_metadata)
        answer = marked(
            message,
            run,
            usage,
            model=served.tier,
            role=served.role,
            task=self.task,
            cost=served.cost,
            saved=saved,
            certificate=certificate_id,
        )
        if self.output_version != "v1":
            return answer
        metadata = {**answer.response_metadata, "output_version": "v1"}
        blocks = {"content": answer.content_blocks, "response_metadata": metadata}
        return answer.model_copy(update=blocks)


def marked(
    message: AIMessage,
    run: Run | None,
    usage: UsageMetadata | None,
    **smart: Any,
) -> AIMessage:
    """Return a copy of a member's message as the smart model's own."""
    metadata = message.response_metadata
    return message.model_copy(
        update={
            "id": None if run is None else f"lc_run--{run.run_id}-0",
            "usage_metadata": usage,
            "response_metadata": {
                "model_name": smart["model"],
                **metadata,
                "smart": smart,
            },
        }
    )


def llm_result(message: AIMessage) -> LLMResult:
    """Return a message as callbacks expect it."""
    return LLMResult(generations=[[ChatGeneration(message=message)]])


def to_prompt(model: BaseChatModel, given: LanguageModelInput) -> ChatPromptValue:
    """Return an input's messages, as the model's own `invoke` would read them.

    Members take a prompt value as it is: it is converted once, not once a call.
    """
    messages = model._convert_input(given).to_messages()  # noqa: SLF001 - core's own
    return ChatPromptValue(messages=messages)
