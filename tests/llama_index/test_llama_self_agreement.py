"""A LlamaIndex reference asked twice: booked, and too small a δ refused."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from llama_index.core.llms import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    CustomLLM,
    LLMMetadata,
)
from pydantic import PrivateAttr

from llama_index_smart import Price, SmartLLM
from smart_engine import InvalidInputError
from smart_engine.batch.self_agreement import NoisyReferenceError

PROMPTS = [f"item {number}" for number in range(40)]


class Moody(CustomLLM):
    """Answers anew each time about every `share`-th item."""

    model: str
    share: int
    _turns: Any = PrivateAttr(default_factory=itertools.count)

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name=self.model, is_chat_model=True)

    def complete(self, prompt: str, formatted: bool = False, **_) -> CompletionResponse:
        number = int(re.findall(r"item (\d+)", prompt)[0])
        turn = next(self._turns) if number % self.share == 0 else ""
        used = {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11}
        return CompletionResponse(text=f"a {number} {turn}", additional_kwargs=used)

    def chat(self, messages, **_) -> ChatResponse:
        said = self.complete(messages[-1].content)
        message = ChatMessage(role="assistant", content=said.text)
        return ChatResponse(message=message, additional_kwargs=said.additional_kwargs)

    def stream_complete(self, prompt: str, formatted: bool = False, **_):
        raise NotImplementedError


def smart_with(**settings) -> SmartLLM:
    return SmartLLM(
        reference=Moody(model="big", share=2),
        candidates=[Moody(model="small", share=1000)],
        prices={"big": Price(1000, 1000), "small": Price(1, 1)},
        **settings,
    )


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("chat", [False, True])
async def test_noise_is_measured_booked_and_refuses_what_is_below_it(is_async, chat):
    smart = smart_with()
    items = [[ChatMessage(content=prompt)] for prompt in PROMPTS] if chat else PROMPTS
    ask = smart.aself_agreement if is_async else smart.self_agreement
    told = ask(items)
    noise = await told if is_async else told
    assert (noise.items, noise.disagreements) == (40, 20)
    assert smart.report().spend["big"].calls == 80
    assert noise.cost == pytest.approx(smart.report().cost) == pytest.approx(0.88)
    with pytest.raises(NoisyReferenceError, match="20 of 40 items"):
        smart.complete_batch(PROMPTS)
    with pytest.raises(NoisyReferenceError):
        await smart.acomplete("item 7")
    forced = smart.model_copy(update={"accept_noise": True})
    assert forced.complete("item 7").text.startswith("a 7")
    assert smart.complete("item 7", smart_task="another").text.startswith("a 7")


def test_items_are_checked():
    smart = smart_with()
    for bad in ("item 1", [], [7]):
        with pytest.raises(InvalidInputError) as error:
            smart.self_agreement(bad)
        assert error.value.field == "items"
    with pytest.raises(InvalidInputError, match="n=0"):
        smart.self_agreement(PROMPTS, n=0)
    assert smart.self_agreement(PROMPTS, n=5, smart_task="five").items == 5
    assert smart.report().noise[0].task == "five"
