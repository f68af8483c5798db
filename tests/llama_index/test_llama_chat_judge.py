"""Any LLM judges: blind, out of sight of callbacks, and at its price."""

from __future__ import annotations

import json
from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.llms import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    CustomLLM,
    LLMMetadata,
)
from llama_index.llms.openai import OpenAI
from pydantic import PrivateAttr

from llama_index_smart import ChatJudge, Price, SmartLLM
from smart_engine import InvalidInputError


class Scripted(CustomLLM):
    """Answers by a script of the last message; a token is a letter."""

    model: str
    script: Any
    counts: bool = True
    _asked: list[str] = PrivateAttr(default_factory=list)

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name=self.model, is_chat_model=True)

    def complete(self, prompt: str, formatted: bool = False, **_) -> CompletionResponse:
        self._asked.append(prompt)
        said = self.script(prompt)
        if isinstance(said, Exception):
            raise said
        used = {"prompt_tokens": len(prompt), "completion_tokens": 1}
        told = used if self.counts else {}
        return CompletionResponse(text=said, additional_kwargs=told)

    def chat(self, messages, **_) -> ChatResponse:
        said = self.complete(messages[-1].content)
        message = ChatMessage(role="assistant", content=said.text)
        return ChatResponse(message=message, additional_kwargs=said.additional_kwargs)

    async def acomplete(self, prompt: str, formatted: bool = False, **_):
        return self.complete(prompt)

    def stream_complete(self, prompt: str, formatted: bool = False, **_):
        raise NotImplementedError


def says(text: str) -> str:
    """Judge by the last word."""
    answers = json.loads(text.split("\n")[-4])
    left, right = (answer.split()[-1] for answer in answers.values())
    return "Same." if left == right else "Different."


def smart_of(**judging) -> tuple[SmartLLM, Scripted]:
    """Return a smart LLM whose answers a judge compares."""
    told = {name: judging.pop(name) for name in ("script", "counts") if name in judging}
    judge = Scripted(model="judge", **{"script": says, **told})
    rule = ChatJudge(judge, **{"price": Price(1, 1), **judging})
    big = Scripted(model="big", script=lambda text: f"The answer: {text}")
    small = Scripted(model="small", script=lambda text: f"I say {text}")
    smart = SmartLLM(
        reference=big,
        candidates=[small],
        prices={"big": Price(1000, 1000), "small": Price(1, 1)},
        equivalence=rule,
    )
    return smart, rule.ask.args[0].model


def check_books(smart: SmartLLM, judge: Scripted, answers: list[Any]) -> None:
    """What was told of all items is what all models and the judge have cost."""
    costs = [answer.additional_kwargs["smart"]["cost"] for answer in answers]
    report, asked = smart.report(), judge._asked
    judged = report.spend["judge: judge"]
    assert judged.calls == len(asked) > 0
    assert judged.cost == pytest.approx((sum(map(len, asked)) + len(asked)) / 1e6)
    assert report.cost == pytest.approx(sum(costs))
    assert report.served["big"] < 300
    assert not any(name in text for text in asked for name in ("big", "small"))


@pytest.mark.parametrize("is_async", [False, True])
async def test_an_llm_judges_batches_and_is_billed(is_async):
    smart, judge = smart_of()
    items = [str(n) for n in range(400)]
    batch = smart.acomplete_batch if is_async else smart.complete_batch
    told = batch(items)
    check_books(smart, judge, await told if is_async else told)
    (certificate,) = smart.report().certificates
    assert certificate.equivalence == "ChatJudge('judge', instructions #5413ed85)"
    assert certificate.spend["judge: judge"].calls == len(judge._asked)


def test_an_llm_judges_single_items_and_is_billed():
    smart, judge = smart_of()
    check_books(smart, judge, [smart.complete(str(n)) for n in range(200)])


@pytest.mark.filterwarnings("ignore:ChatJudge")
@pytest.mark.filterwarnings("ignore:judge reported no usage")
@pytest.mark.parametrize(
    "judging", [{"script": lambda _: RuntimeError()}, {"counts": False}]
)
def test_a_judge_that_fails_costs_savings_and_never_an_answer(judging):
    smart, judge = smart_of(**judging)
    answers = smart.complete_batch([str(n) for n in range(60)])
    wrong = sum(a.text != f"The answer: {n}" for n, a in enumerate(answers))
    assert wrong <= 3  # so many may differ, whatever is said of them
    spend = smart.report().spend["judge: judge"]
    assert spend.failures == spend.calls == len(judge._asked) > 0


@pytest.mark.filterwarnings("ignore:judge reported no usage")
def test_the_usage_of_a_judge_is_estimated_if_that_is_allowed():
    smart, judge = smart_of(counts=False, estimate_usage=True)
    smart.complete_batch([str(n) for n in range(60)])
    spend = smart.report().spend["judge: judge"]
    assert (spend.calls, spend.failures) == (len(judge._asked), 0)
    assert spend.estimated == spend.cost > 0


def test_callbacks_of_a_judge_see_nothing():
    counter = TokenCountingHandler(tokenizer=str.split)
    watched = CallbackManager([counter])
    judge = Scripted(model="judge", script=says, callback_manager=watched)
    rule = ChatJudge(judge, price=Price(1, 1))
    assert rule.same("It is 5", "That makes 5")
    assert not rule.same("It is 5", "It is 6")
    assert not counter.llm_token_counts
    assert judge.callback_manager is watched


def test_a_judge_needs_a_model_and_a_price():
    with pytest.raises(InvalidInputError, match="LLM") as error:
        ChatJudge(7)
    assert error.value.field == "ChatJudge.model"
    local = Scripted(model="judge", script=says)
    with pytest.raises(InvalidInputError, match=r"add price=Price\(input=…"):
        ChatJudge(local)
    known = OpenAI(model="gpt-4o-mini-2024-07-18", api_key="none")
    assert ChatJudge(known).ask.args[0].price.input == 0.15
    free = ChatJudge(local, price=Price.free(), instructions="So?")
    assert free.instructions == "So?"
    assert not free.costs
    assert ChatJudge(local, price=Price(1, 1)).costs


def test_a_chat_model_of_langchain_judges():
    model = FakeListChatModel(name="judge", responses=["Same."])
    assert ChatJudge(model, price=Price.free()).same("It is 5", "Five")
