"""One batch through a smart model: inputs in, one session, messages out.

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
from langchain_core.runnables import RunnableConfig

from langchain_smart.members import Member
from langchain_smart.runs import Run, member_config
from smart_engine.calls import Call, Failure, Outcome, Served
from smart_engine.certificate import Certificate
from smart_engine.session import BatchSession

__all__ = ["BatchJob", "llm_result", "marked", "to_prompt"]


@dataclass
class BatchJob:
    """The items of one batch and their session.

    Attributes:
        session: A fresh session over the items.
        members: The models by name.
        prompts: Per item, what to send.
        configs: Per item, the config it came with.
        kwargs: What `.bind()` or the caller hands to every member.
        tracing: What callbacks are told of every item's run.
        one_config: Whether all items came with the same config.
        runs: Per item, its run, once it has begun.
        manager: Callback manager of the last run begun.
    """

    session: BatchSession
    members: dict[str, Member]
    prompts: Sequence[ChatPromptValue]
    configs: Sequence[RunnableConfig]
    kwargs: dict[str, Any]
    tracing: dict[str, Any]
    one_config: bool
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
            "options": {"stop": self.kwargs.get("stop")},
            "name": config.get("run_name"),
            "run_id": config.get("run_id"),
            "batch_size": 1,
        }

    # -- calls -----------------------------------------------------------------

    def ask(self, call: Call) -> Outcome | Failure:
        """Make one call."""
        member, config = self._member(call)
        prompt = self.prompts[call.item]
        return member.outcome(member.model.invoke(prompt, config, **self.kwargs))

    async def aask(self, call: Call) -> Outcome | Failure:
        """Make one call."""
        member, config = self._member(call)
        prompt = self.prompts[call.item]
        message = await member.model.ainvoke(prompt, config, **self.kwargs)
        return member.outcome(message)

    def _member(self, call: Call) -> tuple[Member, RunnableConfig]:
        return self.members[call.tier], member_config(self.runs[call.item])

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
        return marked(
            message,
            run,
            usage,
            model=served.tier,
            role=served.role,
            cost=served.cost,
            saved=saved,
            certificate=certificate_id,
        )


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
