"""`budget_usd` is never exceeded, by the server's own bill; what was bought is kept."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from langchain_openai import ChatOpenAI
from loopback import Odd, serve
from openai import LengthFinishReasonError
from pydantic import BaseModel

from langchain_smart import Price, SmartChatModel
from smart_engine.errors import BudgetExceededError, InvalidInputError

PRICES = {"big": Price(100, 300), "small": Price(1, 3)}
ITEMS = [f"mail number {n}" for n in range(80)]
BUDGET = 0.12  # the reference alone costs about .0024 an item


def smart_at(server, **settings) -> SmartChatModel:
    big, small = (
        ChatOpenAI(model=name, base_url=server.url, api_key="none", timeout=30)
        for name in PRICES
    )
    told = {"budget_usd": BUDGET, "max_tokens": 8, "prices": PRICES}
    told |= {"reference": big, "candidates": [small], **settings}
    return SmartChatModel(**told)


def bill(server) -> float:
    return sum(
        (server.input_tokens[m] * p.input + server.output_tokens[m] * p.output) / 1e6
        for m, p in PRICES.items()
    )


def assert_kept(smart, server) -> None:
    assert bill(server) <= BUDGET
    assert smart.report().cost == pytest.approx(bill(server))


async def answers_of(smart, verb):
    if verb == "batch":
        return smart.batch(ITEMS, return_exceptions=True)
    return await smart.abatch(ITEMS, return_exceptions=True)


@pytest.mark.parametrize("verb", ["batch", "abatch"])
@pytest.mark.parametrize("mode", ["serve", "strict"])
async def test_a_batch_ends_with_what_was_bought(verb, mode):
    with serve(lambda model, text, attempt: "yes") as server:
        smart = smart_at(server, mode=mode, max_disagreement=0.02)
        answers = await answers_of(smart, verb)
        assert_kept(smart, server)
        assert bill(server) > BUDGET / 2
    (certificate,) = smart.report().certificates
    assert not certificate.valid
    said = [a for a in answers if not isinstance(a, BaseException)]
    errors = [a for a in answers if isinstance(a, BaseException)]
    assert all(isinstance(error, BudgetExceededError) for error in errors)
    roles = {a.response_metadata["smart"]["role"] for a in said}
    assert ("uncertified" in roles) == (mode == "serve")
    assert len(errors) == certificate.unanswered
    assert certificate.uncertified > 0


async def test_the_tasks_of_a_batch_share_its_budget():
    configs = [{"metadata": {"smart_task": f"task {n % 3}"}} for n in range(len(ITEMS))]
    with serve(lambda model, text, attempt: "yes") as server:
        smart = smart_at(server, max_disagreement=0.02)
        smart.batch(ITEMS, configs, return_exceptions=True)
        assert_kept(smart, server)
        before = bill(server)
        await smart.abatch(ITEMS, configs, return_exceptions=True)
        assert bill(server) - before <= BUDGET  # a batch, a budget


def test_the_error_of_a_batch_carries_all_answers():
    with serve(lambda model, text, attempt: "yes") as server:
        smart = smart_at(server, mode="strict", max_disagreement=0.02)
        with pytest.raises(BudgetExceededError, match="raise budget_usd") as caught:
            smart.batch(ITEMS)
        assert (
            sum(
                a.__class__ is not BudgetExceededError
                for a in caught.value.smart_results
            )
            > 10
        )


def test_a_stream_that_32_threads_use_keeps_to_it():
    def ask(item):
        try:
            if int(item.split()[-1]) % 2:
                return smart.invoke(item)
            chunks = list(smart.stream(item))
            whole = chunks[0]
            for chunk in chunks[1:]:
                whole += chunk
        except BudgetExceededError as error:
            return error
        return whole

    with serve(lambda model, text, attempt: "yes", latency=0.005) as server:
        smart = smart_at(server, task="mails")
        with ThreadPoolExecutor(32) as pool:
            answers = list(pool.map(ask, ITEMS))
        assert_kept(smart, server)
    said = [a for a in answers if not isinstance(a, BaseException)]
    roles = [a.response_metadata["smart"]["role"] for a in said]
    assert "uncertified" in roles
    (state,) = smart.report().streams
    assert state.answered == len(roles)
    assert state.roles["uncertified"] == roles.count("uncertified")
    assert not state.valid


def test_answers_that_are_not_read_to_their_end_are_counted():
    with serve(lambda *_: "yes, yes", piece=1) as server:
        smart = smart_at(server, task="mails", mode="strict")
        with pytest.raises(BudgetExceededError):  # noqa: PT012
            for item in ITEMS:
                next(smart.stream(item))
        assert BUDGET / 2 < bill(server) <= BUDGET
    (spend,) = (s for o, s in smart.ledger().sums("outcome").items() if o != "answered")
    assert spend.cost == pytest.approx(spend.unknown)  # nobody told what they cost
    assert bill(server) <= smart.report().cost <= BUDGET * (1 + 1e-9)


@pytest.mark.filterwarnings("ignore:big reported no usage", "ignore:small reported no")
def test_answers_without_a_usage_are_counted():
    with serve(lambda *_: Odd("yes", usage=None)) as server:
        smart = smart_at(server, task="mails", mode="strict")
        smart.batch(ITEMS, return_exceptions=True)
        assert server.requests["big"] * 8 * 300e-6 < BUDGET
        report = smart.report()
        assert report.cost == pytest.approx(report.unknown)
        assert BUDGET / 2 < report.cost <= BUDGET * (1 + 1e-9)


def test_an_answer_that_was_billed_is_not_asked_for_again():
    class Found(BaseModel):
        x: int

    def cut_off(model, text, attempt):
        used = {"prompt_tokens": 100, "completion_tokens": 8, "total_tokens": 108}
        return Odd('{"x": 1', "length", used)

    with serve(cut_off) as server:
        told = {"max_retries": 3, "strategy": "reference", "budget_usd": 2}
        smart = smart_at(server, task="mails", **told)
        asked = smart.with_structured_output(Found, method="json_schema")
        assert any(asked.batch(ITEMS[:4], return_exceptions=True))
        with pytest.raises(LengthFinishReasonError):
            asked.invoke(ITEMS[4])
        assert sum(server.requests.values()) == 5
        assert smart.report().spend["big"].failures == 5


def test_answers_that_come_too_late_are_counted():
    with serve(lambda *_: "yes", latency=0.3) as server:
        patience = httpx.Timeout(60, read=0.1)
        at = {"base_url": server.url, "api_key": "none", "timeout": patience}
        big, small = (ChatOpenAI(model=n, max_retries=0, **at) for n in PRICES)
        told = {"reference": big, "candidates": [small], "strategy": "reference"}
        smart_at(server, **told).batch(ITEMS, return_exceptions=True)
        while server.in_flight:
            time.sleep(0.01)
        assert BUDGET / 4 < bill(server) <= BUDGET


def test_a_strict_stream_raises():
    with serve(lambda model, text, attempt: "yes") as server:
        smart = smart_at(server, mode="strict", budget_usd=0.03)
        smart.invoke(ITEMS[0])
        with pytest.raises(BudgetExceededError):  # noqa: PT012
            for item in ITEMS:
                smart.invoke(item)
        assert bill(server) <= 0.03


def test_a_budget_needs_answers_of_limited_length():
    with serve(lambda *_: "yes") as server:
        with pytest.raises(InvalidInputError, match="set max_tokens"):
            smart_at(server, max_tokens=None)
        smart = smart_at(
            server, max_tokens=None, prices=dict.fromkeys(PRICES, Price.free())
        )
        assert smart.invoke("mail").content == "yes"


@pytest.mark.parametrize("verb", ["batch", "abatch"])
async def test_a_model_that_ignores_its_limit_is_named_once(verb):
    usage = {"prompt_tokens": 9, "completion_tokens": 900, "total_tokens": 909}
    with serve(lambda *_: Odd("yes", usage=usage)) as server:
        smart = smart_at(server, task="mails")
        with pytest.warns(UserWarning, match="small ignores max_tokens") as warned:
            await answers_of(smart, verb)
    said = [str(each.message) for each in warned if "ignores" in str(each.message)]
    assert sorted(text.split()[0] for text in said) == ["big", "small"]
