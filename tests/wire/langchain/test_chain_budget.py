"""`budget_usd` of whole chains: held by the server's own bill, model by model."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fakes import Scripted
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_core.tracers.base import BaseTracer
from langchain_openai import ChatOpenAI
from loopback import Fault, serve

from langchain_smart import Price, SmartChatModel, SmartRunnable
from smart_engine.errors import BudgetExceededError, InvalidInputError
from smart_engine.serving.members import UnpricedError

PRICES = {"big": Price(100, 300), "small": Price(1, 3)}
LONG = ChatPromptTemplate.from_template("With ten examples and much advice: {t}")
AGAIN = ChatPromptTemplate.from_template("Check: {said} of {t}")
ITEMS = [f"mail number {n}" for n in range(60)]
BATCHES = ["batch", "abatch"]
VERBS = ["invoke", "ainvoke", "stream", "astream", *BATCHES]


def openai(server, name, **settings):
    at = {"base_url": server.url, "api_key": "none", "timeout": 30, "max_retries": 0}
    return ChatOpenAI(
        model=name, stream_usage=True, **{"max_tokens": 8, **at, **settings}
    )


def smart_at(server, budget, wrap=lambda chain: chain, **settings) -> SmartRunnable:
    """Two calls in either tier: with a long prompt, and to check what was said."""
    big, small = (openai(server, name) for name in PRICES)
    first = RunnablePassthrough.assign(said=LONG | small | StrOutputParser())
    told = {"prices": PRICES, "max_disagreement": 0.02, "max_concurrency": 16}
    return SmartRunnable(
        reference={"long": wrap(first | AGAIN | big | StrOutputParser())},
        candidates={"short": wrap(first | AGAIN | small | StrOutputParser())},
        budget_usd=budget,
        **(told | settings),
    )


def bill(server, fees=0.0) -> float:
    return fees + sum(
        (server.input_tokens[m] * p.input + server.output_tokens[m] * p.output) / 1e6
        for m, p in PRICES.items()
    )


def yes(model, text, attempt):
    return "yes"


async def answers_of(smart, verb, items=ITEMS) -> list[Any]:
    if verb == "batch":
        return await asyncio.to_thread(smart.batch, items, return_exceptions=True)
    if verb == "abatch":
        return await smart.abatch(items, return_exceptions=True)
    return [await one(smart, verb, item) for item in items]


async def one(smart, verb, item) -> Any:
    try:
        if verb == "invoke":
            return smart.invoke(item)
        if verb == "ainvoke":
            return await smart.ainvoke(item)
        if verb == "stream":
            return "".join(smart.stream(item))
        return "".join([piece async for piece in smart.astream(item)])
    except BudgetExceededError as error:
        return error


def given(item) -> dict[str, str]:
    return {"t": item}


ASKED = [given(item) for item in ITEMS]


# -- it holds --------------------------------------------------------------------


@pytest.mark.parametrize("verb", BATCHES)
@pytest.mark.parametrize("mode", ["serve", "strict"])
async def test_a_batch_ends_with_what_was_bought(verb, mode):
    budget = 0.06
    with serve(yes) as server:
        smart = smart_at(server, budget, mode=mode)
        answers = await answers_of(smart, verb, ASKED)
        assert budget / 2 < bill(server) <= budget
        report = smart.report()
        assert report.cost == pytest.approx(bill(server))
        assert sum(spend.calls for spend in report.inside.values()) == sum(
            server.requests.values()
        )
    (certificate,) = report.certificates
    assert not certificate.valid
    errors = [a for a in answers if isinstance(a, BaseException)]
    assert all(isinstance(error, BudgetExceededError) for error in errors)
    assert set(answers) - set(errors) == {"yes"}
    assert len(errors) == certificate.unanswered
    assert certificate.uncertified > 0
    assert (certificate.uncertified == len(errors)) == (mode == "strict")


@pytest.mark.slow
@pytest.mark.parametrize("verb", BATCHES)
async def test_an_ample_budget_changes_nothing(verb):
    with serve(yes) as server:
        free = smart_at(server, None, max_disagreement=0.2)
        capped = smart_at(server, 100.0, max_disagreement=0.2)
        answers = await answers_of(free, verb, ASKED[:50])
        assert await answers_of(capped, verb, ASKED[:50]) == answers
    (left,), (right,) = free.report().certificates, capped.report().certificates
    assert left == right
    assert right.valid
    assert right.served["short"] > 0


@pytest.mark.parametrize("verb", ["invoke", "ainvoke", "stream", "astream"])
@pytest.mark.parametrize("mode", ["serve", "strict"])
async def test_a_stream_keeps_to_it(verb, mode):
    budget = 0.02
    with serve(yes) as server:
        smart = smart_at(server, budget, mode=mode, task="mails")
        answers = await answers_of(smart, verb, ASKED[:24])
        assert budget / 2 < bill(server) <= budget
        report = smart.report()
        assert report.cost == pytest.approx(bill(server))
    errors = [a for a in answers if isinstance(a, BudgetExceededError)]
    assert set(answers) - set(errors) <= {"yes"}
    assert errors or mode == "serve"
    (state,) = report.streams
    assert state.answered == len(answers) - len(errors)
    assert (state.roles["uncertified"] > 0) == (mode == "serve")
    assert state.valid == (mode == "strict")


def test_a_stream_that_16_threads_use_keeps_to_it():
    def ask(item):
        try:
            return smart.invoke(item)
        except BudgetExceededError as error:
            return error

    budget = 0.03
    with serve(yes, latency=0.005) as server:
        smart = smart_at(server, budget, task="mails")
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(ask, ASKED))
        assert budget / 2 < bill(server) <= budget
        assert smart.report().cost == pytest.approx(bill(server))
    assert len(answers) == len(ASKED)
    errors = [a for a in answers if isinstance(a, BudgetExceededError)]
    (state,) = smart.report().streams
    assert state.answered == len(answers) - len(errors)
    assert state.roles["uncertified"] > 0
    assert not state.valid


@pytest.mark.parametrize("verb", ["batch", "ainvoke"])
async def test_what_costs_money_beside_models_is_set_aside_first(verb):
    fees = {"long": Price.per_call(0.01), "short": Price.per_call(0.001)}
    with serve(yes) as server:
        smart = smart_at(server, 0.05, prices=PRICES | fees, task="mails")
        await answers_of(smart, verb, ASKED)
        spend = smart.report().spend
        made = dict.fromkeys(fees, 0.0)
        for entry in smart.ledger().entries:
            if entry.role != "inside" and entry.cost:
                made[entry.model] += fees[entry.model].call
        assert 0.025 < bill(server, sum(made.values())) <= 0.05
        assert sum(s.cost for s in spend.values()) == pytest.approx(
            bill(server, sum(made.values()))
        )


@pytest.mark.parametrize("verb", ["batch", "abatch", "invoke", "ainvoke"])
async def test_no_other_way_through_the_chain_is_taken_where_the_budget_ends(verb):
    def wrap(chain):
        instead = RunnableLambda(lambda _: "never mind", name="instead")
        return chain.with_fallbacks([instead])

    with serve(yes) as server:
        smart = smart_at(server, 0.01, wrap, mode="strict", task="mails")
        answers = await answers_of(smart, verb, ASKED[:30])
        assert bill(server) <= 0.01
    assert "never mind" not in answers
    assert any(isinstance(answer, BudgetExceededError) for answer in answers)


def test_the_tasks_of_a_batch_share_its_budget():
    tasks = [{"metadata": {"smart_task": f"task {n % 3}"}} for n in range(60)]
    with serve(yes) as server:
        smart = smart_at(server, 0.06)
        smart.batch(ASKED, tasks, return_exceptions=True)
        assert 0.03 < bill(server) <= 0.06
    assert len(smart.report().certificates) == 3


async def test_calls_side_by_side_in_one_chain_share_its_allowance():
    with serve(yes) as server:
        big, small = (openai(server, name) for name in PRICES)
        both = {"one": LONG | big | StrOutputParser(), "two": LONG | big}
        wide = RunnablePassthrough.assign(**both) | (lambda done: done["one"])
        smart = SmartRunnable(
            reference={"wide": wide},
            candidates={"narrow": LONG | small | StrOutputParser()},
            prices=PRICES,
            budget_usd=0.05,
            max_disagreement=0.02,
        )
        await answers_of(smart, "abatch", ASKED)
        await answers_of(smart, "batch", ASKED)
        assert bill(server) <= 2 * 0.05
        assert smart.report().cost == pytest.approx(bill(server))


def test_a_failed_run_gives_back_what_it_set_aside():
    def script(model, text, attempt):
        return Fault("status", 500) if model == "small" else "yes"

    with serve(script) as server:
        smart = SmartRunnable(
            reference={"a": LONG | openai(server, "big") | StrOutputParser()},
            candidates={"b": LONG | openai(server, "small") | StrOutputParser()},
            prices=PRICES,
            budget_usd=1.0,
        )
        assert smart.batch(ASKED) == ["yes"] * len(ASKED)
        assert smart.report().certificates[0].valid


# -- what is told ----------------------------------------------------------------


class Runs(BaseTracer):
    """Counts runs that began, and those that ended."""

    def __init__(self):
        super().__init__()
        self.begun = self.ended = 0

    def _persist_run(self, run):
        pass

    def _on_llm_start(self, run):
        self.begun += 1

    _on_chat_model_start = _on_llm_start

    def _on_llm_end(self, run):
        self.ended += 1

    _on_llm_error = _on_llm_end


def test_a_run_that_is_refused_is_no_run():
    tracer = Runs()
    with serve(yes) as server:
        smart = smart_at(server, 0.01)
        smart.batch(ASKED, {"callbacks": [tracer]}, return_exceptions=True)
        assert tracer.begun == tracer.ended == sum(server.requests.values())


@pytest.mark.parametrize("problem", ["no price", "no limit"])
async def test_what_can_cost_nobody_knows_what_is_not_even_asked(problem):
    priced = {} if problem == "no price" else {"hidden": Price(1, 3)}
    limit = {"max_tokens": 8 if problem == "no price" else None}
    with serve(yes) as server:
        hidden = {"model": openai(server, "hidden", **limit)}
        smart = SmartRunnable(
            reference={"a": LONG | openai(server, "big") | StrOutputParser()},
            candidates={"b": lambda asked: hidden["model"].invoke(asked["t"]).text},
            prices=PRICES | priced,
            budget_usd=1.0,
        )
        with pytest.raises(UnpricedError, match="hidden"):
            smart.batch(ASKED)
        assert not server.requests["hidden"]


def test_answers_must_be_limited():
    with serve(yes) as server:
        endless = openai(server, "small", max_tokens=None)
        tiers = {
            "reference": {"a": LONG | openai(server, "big")},
            "candidates": {"b": LONG | endless},
        }
        with pytest.raises(InvalidInputError, match=r"small.*max_tokens"):
            SmartRunnable(**tiers, prices=PRICES, budget_usd=1.0)
        tiers["candidates"] = {"b": LONG | endless.bind(max_tokens=5)}
        assert SmartRunnable(**tiers, prices=PRICES, budget_usd=1.0)


def test_a_smart_model_within_a_chain_has_its_own_budget():
    big, small = (Scripted(name=name, script=lambda *_: "yes") for name in PRICES)
    inner = SmartChatModel(reference=big, candidates=[small], prices=PRICES)
    with pytest.raises(InvalidInputError, match="of its own"):
        SmartRunnable(
            reference={"a": LONG | inner},
            candidates={"b": small.bind(max_tokens=3)},
            prices=PRICES,
            budget_usd=1.0,
        )


# -- retries of clients ----------------------------------------------------------


def test_a_client_that_tries_again_by_itself_is_refused_beside_a_budget():
    with serve(yes) as server:
        retrying = openai(server, "big", max_retries=2)
        told = {"reference": {"long": LONG | retrying}}
        told |= {"candidates": [openai(server, "small")]}
        refused = (
            r"^budget_usd=1.0: .* big \(ChatOpenAI\) .* again by itself, .*: give it "
            r"max_retries=0, and \.with_retry\(\)"
        )
        with pytest.raises(InvalidInputError, match=refused):
            SmartRunnable(**told, prices=PRICES, budget_usd=1)
        SmartRunnable(**told, prices=PRICES)
        free = {**PRICES, "big": Price.free()}
        SmartRunnable(**told, prices=free, budget_usd=1)


@pytest.mark.parametrize("verb", ["invoke", "ainvoke", "batch"])
async def test_attempts_of_with_retry_are_booked_one_by_one(verb):
    def busy(model, text, attempt):
        return Fault("busy", 429) if attempt == 1 else "yes"

    with serve(busy) as server:
        patient = openai(server, "big").with_retry(wait_exponential_jitter=False)
        smart = SmartRunnable(
            reference={"long": LONG | patient | StrOutputParser()},
            candidates={"short": openai(server, "small") | StrOutputParser()},
            prices=PRICES,
            budget_usd=1,
            strategy="reference",
        )
        item = {"t": "mail 1"}
        if verb == "ainvoke":
            assert await smart.ainvoke(item) == "yes"
        elif verb == "batch":
            assert smart.batch([item]) == ["yes"]
        else:
            assert smart.invoke(item) == "yes"
        assert server.requests == {"big": 2}
        assert smart.report().cost == pytest.approx(bill(server))
        runs = smart.report().inside["big"]
        assert (runs.calls, runs.failures) == (2, 1)


SEARCH = {"web_search_options": {"search_context_size": "high"}}


def test_a_search_in_a_chain_is_refused_before_it_is_made():
    with serve(yes) as server:
        big, small = (openai(server, name) for name in PRICES)
        searching = {"small": small.bind(**SEARCH)}
        told = {"reference": {"long": big}, "prices": PRICES, "budget_usd": 1}
        with pytest.raises(InvalidInputError, match="web_search_options"):
            SmartRunnable(candidates={"short": searching["small"]}, **told)
        hidden = RunnableLambda(lambda text: searching["small"].invoke(text))
        smart = SmartRunnable(candidates={"short": hidden}, **told)
        with pytest.raises(UnpricedError, match="web_search_options"):
            smart.invoke("a text")
        assert "small" not in server.requests
