"""Models for the LlamaIndex examples: scripted ones, or OpenAI's.

The scripted ones need no key and no network; nothing here is recorded from a real
model. They report their usage as a real one does, four characters to a token.
"""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from llama_index.core.llms import (
    LLM,
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    CompletionResponseGen,
    CustomLLM,
    LLMMetadata,
)
from pydantic import Field

from smart_engine import Price

PRICES = {
    "big": Price(input=10.0, output=30.0),
    "medium": Price(input=0.50, output=1.50),
    "small": Price(input=0.10, output=0.40),
}
LIVE = {
    "gpt-5": Price(input=1.25, output=10.0),
    "gpt-5-mini": Price(input=0.25, output=2.0),
    "gpt-5-nano": Price(input=0.05, output=0.40),
}
ERRS = {"big": 0.0, "medium": 0.01, "small": 0.03}


class ScriptedLLM(CustomLLM):
    """Answers what a script says, or `wrong` on its own share of all prompts.

    Attributes:
        model: Its name; it says how often the model errs.
        script: The right answer to a prompt.
        wrong: What it says where it errs.
    """

    model: str
    script: Callable[[str], str] = Field(exclude=True)
    wrong: str = "I do not know."

    @property
    def metadata(self) -> LLMMetadata:
        """Say what the model can do."""
        return LLMMetadata(model_name=self.model, is_chat_model=True)

    def complete(
        self,
        prompt: str,
        formatted: bool = False,  # noqa: ARG002 - there is nothing to format
        **_: Any,
    ) -> CompletionResponse:
        """Answer a prompt."""
        text = self._answer(prompt)
        return CompletionResponse(text=text, additional_kwargs=_usage(prompt, text))

    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseGen:
        """Answer a prompt in one piece."""
        whole = self.complete(prompt, formatted, **kwargs)
        whole.delta = whole.text
        yield whole

    def chat(self, messages: Sequence[ChatMessage], **_: Any) -> ChatResponse:
        """Answer a conversation."""
        prompt = "\n".join(message.content or "" for message in messages)
        text = self._answer(prompt)
        return ChatResponse(
            message=ChatMessage(role="assistant", content=text),
            additional_kwargs=_usage(prompt, text),
        )

    def _answer(self, prompt: str) -> str:
        """Answer rightly, or wrongly where a coin that the prompt tosses says so."""
        coin = zlib.crc32(f"{self.model}: {prompt}".encode()) / 2**32
        return self.wrong if coin < ERRS[self.model] else self.script(prompt)


def _usage(prompt: str, text: str) -> dict[str, int]:
    """Return the tokens of a call as OpenAI's models report them."""
    used = {"prompt_tokens": len(prompt) // 4, "completion_tokens": len(text) // 4 + 1}
    return {**used, "total_tokens": sum(used.values())}


def scripted(script: Callable[[str], str], wrong: str) -> list[LLM]:
    """Return scripted models, reference first."""
    return [ScriptedLLM(model=name, script=script, wrong=wrong) for name in PRICES]


def live() -> list[LLM]:
    """Return real models, reference first."""
    if not os.environ.get("OPENAI_API_KEY"):
        sys.exit("--live needs OPENAI_API_KEY in the environment")
    from llama_index.llms.openai import OpenAI

    return [OpenAI(model=name) for name in LIVE]
