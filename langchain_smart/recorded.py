"""`RecordedChatModel`: answers from a trace, for replays and tests of chains."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import ConfigDict, Field
from typing_extensions import override

from smart_engine.calls import Failure
from smart_engine.errors import InvalidInputError, SmartError
from smart_engine.money.pricing import Usage
from smart_engine.offline.traces import Trace
from smart_engine.runtime.settings import PlainErrors

__all__ = ["RecordedChatModel"]


class RecordedChatModel(PlainErrors, BaseChatModel):
    """A chat model that answers as one model of a trace did.

    An item is recognised by its recorded input: the last message is that text, or
    contains it, as behind a prompt; the longest recorded input wins. Where no input was
    recorded, the item's id takes its place. Items with the same input have the first
    one's answers. Token usage is the recorded one.

    Args:
        trace: The recorded answers; see `Trace.read`.
        model: The model of the trace that this one replays.
        latency: Seconds that each answer takes.

    Raises:
        InvalidInputError: If the trace has no such model.

    Example:
        ```python
        rows = [Row(input="1+1?", answers={"big": "2"}, tokens={"big": (4, 1)})]
        trace = Trace(rows, "big", [], {"big": Price.free()})
        model = RecordedChatModel(trace=trace, model="big")
        assert model.invoke("Compute: 1+1?").content == "2"
        ```
    """

    model_config = ConfigDict(extra="forbid")

    trace: Any
    model: str
    latency: Annotated[float, Field(ge=0)] = 0.0

    @classmethod
    def read(
        cls, path: str | Path, models: Sequence[str] = (), *, latency: float = 0.0
    ) -> dict[str, Self]:
        """Return a model per name, the reference first, all of one trace.

        Args:
            path: The items; the models file is in the same directory.
            models: Names; the reference and candidates of the file if not given.
            latency: Seconds that each answer takes.
        """
        trace = Trace.read(
            path, reference=models[0] if models else None, candidates=models[1:]
        )
        names = (trace.reference, *trace.candidates)
        return {name: cls(trace=trace, model=name, latency=latency) for name in names}

    @override
    def model_post_init(self, context: Any, /) -> None:
        if not isinstance(self.trace, Trace):
            hint = "give a Trace, such as Trace.read('items.jsonl.gz')"
            raise InvalidInputError("trace", self.trace, hint)
        if not any(self.model in row.answers for row in self.trace.rows):
            hint = "the trace has no answers of this model"
            raise InvalidInputError("model", self.model, hint)
        if self.model not in self.trace.prices:
            priced = ", ".join(self.trace.prices)
            hint = f"the trace has no price for it; priced: {priced}"
            raise InvalidInputError("model", self.model, hint)

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if self.latency:
            time.sleep(self.latency)
        return self._recorded(messages)

    @override
    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if self.latency:
            await asyncio.sleep(self.latency)
        return self._recorded(messages)

    def _recorded(self, messages: list[BaseMessage]) -> ChatResult:
        text = str(messages[-1].text)
        item = self.trace.find(text)
        if item is None:
            raise SmartError(f"no recorded input in the prompt {text[:200]!r}")
        outcome = self.trace.outcome(item, self.model)
        if isinstance(outcome, Failure):
            raise outcome.error
        usage = outcome.usage or Usage()
        read, written = round(usage.input_tokens), round(usage.output_tokens)
        message = AIMessage(
            content=str(outcome.answer),
            usage_metadata=UsageMetadata(
                input_tokens=read, output_tokens=written, total_tokens=read + written
            ),
            response_metadata={
                "model_name": self.model,
                "item_id": self.trace.rows[item].item_id,
                "confidence": outcome.confidence,
            },
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    @property
    @override
    def _llm_type(self) -> str:
        return "recorded"

    @property
    @override
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.model, "items": len(self.trace.rows)}
