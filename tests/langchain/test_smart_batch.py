"""Whole batches: every road into `batch`, one session, the same result."""

from __future__ import annotations

import pytest
from fakes import Scripted
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda

from langchain_smart import Price, SmartChatModel

FREE = Price.free()
PROMPT = ChatPromptTemplate.from_messages([("system", "Sort."), ("human", "It: {t}")])
ROADS = {
    "alone": lambda smart: smart,
    "with_config": lambda smart: smart.with_config(tags=["t"]),
    "bind": lambda smart: smart.bind(stop=["END"]),
    "retry": lambda smart: smart.with_retry(stop_after_attempt=2),
    "fallbacks": lambda smart: smart.with_fallbacks([RunnableLambda(lambda _: "x")]),
    "parser": lambda smart: smart | StrOutputParser(),
    "lambda in front": lambda smart: RunnableLambda(lambda text: text) | smart,
}


def texts(outputs):
    return [getattr(output, "content", output) for output in outputs]


def by_item(outputs):
    return [(o.content, o.response_metadata["smart"]["model"]) for o in outputs]


def free_pair(**settings):
    big = Scripted(name="big", script=lambda *_: "yes", **settings)
    small = Scripted(name="small", script=lambda *_: "yes", **settings)
    prices = {"big": FREE, "small": FREE}
    return big, small, {"reference": big, "candidates": [small], "prices": prices}


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize(
    "mode", [pytest.param("sync", marks=pytest.mark.slow), "async"]
)
async def test_every_road_hands_over_the_whole_batch(make, inputs, job, road, mode):
    smart = make()
    runnable = ROADS[road](smart)
    outputs = (
        runnable.batch(inputs) if mode == "sync" else await runnable.abatch(inputs)
    )
    assert len(smart.report().certificates) == 1
    certificate = smart.report().certificates[0]
    assert certificate.items == len(inputs)
    assert certificate.cost < 0.6 * certificate.reference_only_cost
    differing = sum(
        given != row.answers["big"]
        for given, row in zip(texts(outputs), job.rows, strict=True)
    )
    assert 0 < differing <= certificate.max_errors


async def test_behind_a_prompt_and_before_a_parser(make, inputs, job):
    smart = make()
    chain = PROMPT | smart | StrOutputParser()
    rows = [{"t": text} for text in inputs]
    assert chain.batch(rows) == await chain.abatch(rows)
    assert [c.items for c in smart.report().certificates] == [200, 200]
    assert PROMPT.pipe(smart).map().invoke(rows[:3])[0].content in {"spam", "ham"}
    assert smart.report().certificates[-1].items == 3


async def test_same_seed_same_result_whatever_the_concurrency(make, inputs):
    results = [
        by_item(make(seed=3).batch(inputs, {"max_concurrency": limit}))
        for limit in (1, 7, 64)
    ]
    results.append(by_item(await make(seed=3).abatch(inputs)))
    assert all(result == results[0] for result in results)
    assert by_item(make(seed=4).batch(inputs)) != results[0]


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("limit", [1, 5])
async def test_max_concurrency_is_kept_and_used(mode, limit):
    big, small, settings = free_pair(latency=0.002)
    small.script = big.script = lambda *_: "yes"
    smart = SmartChatModel(**settings)
    config = {"max_concurrency": limit}
    items = [f"i{n}" for n in range(100)]
    if mode == "sync":
        smart.batch(items, config)
    else:
        await smart.abatch(items, config)
    assert max(big.most_in_flight, small.most_in_flight) <= limit
    assert big.most_in_flight + small.most_in_flight >= limit


def test_bound_arguments_reach_every_member():
    big, small, settings = free_pair()
    SmartChatModel(**settings).bind(stop=["END"], temperature=0.5).batch(["a"] * 3)
    for model in (big, small):
        assert {c[1]["temperature"] for c in model.calls} == {0.5}
        assert all(c[1]["stop"] == ["END"] for c in model.calls)


def test_each_item_keeps_its_own_config(make, inputs):
    configs = [{"tags": [f"tag{n}"], "max_concurrency": 4} for n in range(5)]
    assert len(make().batch(inputs[:5], configs)) == 5


@pytest.mark.parametrize(
    "given",
    ["mail number 0001", [HumanMessage("mail number 0001")], PROMPT.invoke({"t": "x"})],
)
def test_every_kind_of_input(given):
    _, _, settings = free_pair()
    assert SmartChatModel(**settings).batch([given])[0].content == "yes"


async def test_an_empty_batch_is_empty(make):
    smart = make()
    assert smart.batch([]) == await smart.abatch([]) == []
    assert smart.report().cost == 0
    assert smart.report().certificates == ()


def test_answers_say_who_answered_and_what_it_cost(make, inputs, job):
    smart = make()
    outputs = smart.batch(inputs)
    certificate = smart.report().certificates[0]
    smarts = [output.response_metadata["smart"] for output in outputs]
    for smart_says in smarts:
        assert set(smart_says) == {
            "model",
            "role",
            "task",
            "cost",
            "saved",
            "certificate",
        }
    roles = {s["role"] for s in smarts}
    assert {"profiled", "applied"} <= roles <= {"profiled", "applied", "escalated"}
    assert {s["certificate"] for s in smarts} == {certificate.id}
    assert sum(s["cost"] for s in smarts) == pytest.approx(certificate.cost)
    assert sum(s["saved"] for s in smarts) == pytest.approx(certificate.saved)
    assert smart.report().cost == pytest.approx(certificate.cost)
    assert smart.report().saved == pytest.approx(certificate.saved)
    assert len({output.id for output in outputs}) == len(outputs)
    assert {o.response_metadata["model_name"] for o in outputs} == {
        s["model"] for s in smarts
    }
    for name in ("big", "small", "tiny", "saved"):
        assert name in str(smart.report())


def test_costs_are_tokens_times_price(make, inputs, job):
    smart = make(strategy="reference")
    smart.batch(inputs)
    tokens = sum(row.tokens["big"][0] for row in job.rows)
    expected = (tokens * 10 + len(inputs) * 30) / 1e6
    assert smart.report().cost == pytest.approx(expected)


def test_a_members_own_message_is_left_alone():
    message = {}

    def script(text, _):

        message[text] = AIMessage(content="yes")
        return message[text]

    big = Scripted(name="big", script=script)
    small = Scripted(name="small", script=lambda *_: "yes")
    prices = {"big": FREE, "small": FREE}
    smart = SmartChatModel(reference=big, candidates=[small], prices=prices)
    smart.batch(["a", "b"])
    assert all("smart" not in m.response_metadata for m in message.values())


async def test_single_calls_may_be_the_references_alone(make, inputs, job):
    smart = make(strategy="reference")
    for answer in (
        smart.invoke(inputs[0]),
        await smart.ainvoke(inputs[0]),
        smart.stream(inputs[0]),
    ):
        pieces = [answer] if isinstance(answer, AIMessage) else list(answer)
        assert "".join(p.content for p in pieces) == job.rows[0].answers["big"]
        assert pieces[-1].response_metadata["smart"]["role"] == "reference"
    spend = smart.report().spend
    assert spend["big"].calls == 3
    assert spend["small"].calls == 0
    assert smart.report().cost == pytest.approx(3 * (20 * 10 + 30) / 1e6)


async def test_as_completed_is_one_session_too(make, inputs):
    smart = make()
    whole = by_item(smart.batch(inputs))
    some = dict(smart.batch_as_completed(inputs))
    assert by_item(some[n] for n in range(len(inputs))) == whole
    bound = smart.bind(stop=["END"])
    some = {n: answer async for n, answer in bound.abatch_as_completed(inputs)}
    assert by_item(some[n] for n in range(len(inputs))) == whole
    assert [c.items for c in smart.report().certificates] == [200] * 3


def test_two_batches_at_once_keep_their_books_apart(make, inputs):
    from concurrent.futures import ThreadPoolExecutor

    smart = make()
    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(lambda _: by_item(smart.batch(inputs)), range(4)))
    assert all(run == runs[0] for run in runs)
    report = smart.report()
    assert len(report.certificates) == 4
    assert report.cost == pytest.approx(sum(c.cost for c in report.certificates))
