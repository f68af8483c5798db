"""Any chat model judges: blind, out of sight, and at its price."""

from __future__ import annotations

import asyncio
import json

import pytest
from fakes import Scripted
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_openai import ChatOpenAI

from langchain_smart import ChatJudge, Price, SmartChatModel
from smart_engine import InvalidInputError


def says(text: str, _: object) -> str:
    """Judge by the last word."""
    answers = json.loads(text.split("\n")[-4])
    left, right = (answer.split()[-1] for answer in answers.values())
    return "Same." if left == right else "Different."


def smart_of(**judging) -> tuple[SmartChatModel, Scripted]:
    """Return a smart model whose answers a judge compares."""
    judge = Scripted(name="judge", script=says)
    rule = ChatJudge(judge, **{"price": Price(1, 1), **judging})
    smart = SmartChatModel(
        reference=Scripted(name="big", script=lambda text, _: f"The answer: {text}"),
        candidates=[Scripted(name="small", script=lambda text, _: f"I say {text}")],
        prices={"big": Price(1000, 1000), "small": Price(1, 1)},
        equivalence=rule,
    )
    return smart, judge


def check_books(smart: SmartChatModel, judge: Scripted, costs: list[float]) -> None:
    """What was told of all items is what all models and the judge have cost."""
    report = smart.report()
    judged = report.spend["judge: judge"]
    assert judged.calls == len(judge.calls) > 0
    tokens = sum(len(text) for text, _ in judge.calls) + len(judge.calls)
    assert judged.cost == pytest.approx(tokens / 1e6)
    assert report.cost == pytest.approx(sum(costs))
    assert report.served["big"] < 300
    for text, _ in judge.calls:
        assert "big" not in text
        assert "small" not in text


async def test_a_chat_model_judges_batches_and_is_billed():
    for thread in (False, True):
        smart, judge = smart_of()
        items = [str(n) for n in range(150)]
        with get_usage_metadata_callback():
            if thread:
                answers = await asyncio.to_thread(smart.batch, items)
            else:
                answers = await smart.abatch(items)
        costs = [a.response_metadata["smart"]["cost"] for a in answers]
        check_books(smart, judge, costs)
        (certificate,) = smart.report().certificates
        assert certificate.equivalence == "ChatJudge('judge', instructions #5413ed85)"
        assert certificate.spend["judge: judge"].calls == len(judge.calls)


def test_a_chat_model_judges_single_items_and_is_billed():
    smart, judge = smart_of()
    answers = [smart.invoke(str(n)) for n in range(200)]
    check_books(smart, judge, [a.response_metadata["smart"]["cost"] for a in answers])


@pytest.mark.filterwarnings("ignore:ChatJudge")
@pytest.mark.filterwarnings("ignore:judge reported no usage")
def test_a_judge_that_fails_costs_savings_and_never_an_answer():
    for script, usage in ((lambda *_: RuntimeError(), True), (says, False)):
        smart, judge = smart_of()
        judge.script, judge.usage = script, usage
        answers = smart.batch([str(n) for n in range(60)])
        wrong = sum(a.text != f"The answer: {n}" for n, a in enumerate(answers))
        assert wrong <= 3  # so many may differ, whatever is said of them
        spend = smart.report().spend["judge: judge"]
        assert spend.failures == spend.calls == len(judge.calls) > 0


def test_a_judge_needs_a_model_and_a_price():
    with pytest.raises(InvalidInputError, match="chat model") as error:
        ChatJudge(7)
    assert error.value.field == "ChatJudge.model"
    local = Scripted(name="judge", script=says)
    with pytest.raises(InvalidInputError, match=r"add price=Price\(input=…"):
        ChatJudge(local)
    known = ChatOpenAI(model="gpt-4o-mini-2024-07-18", api_key="none")
    assert ChatJudge(known).ask.args[0].price.input == 0.15
    assert (
        ChatJudge(local, price=Price.free(), instructions="So?").instructions == "So?"
    )
