"""Chains as tiers: one session a batch, real money, one answer shown."""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest
from fakes import Scripted
from langchain.agents import create_agent
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import (
    BaseCallbackHandler,
    UsageMetadataCallbackHandler,
    get_usage_metadata_callback,
)
from langchain_core.globals import set_llm_cache
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import JsonOutputParser, StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import (
    ConfigurableField,
    RunnableBranch,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)
from langchain_core.tools import tool
from langchain_core.tracers.base import BaseTracer
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, MessagesState, StateGraph
from loopback import Broken, Calls, Fault, Odd, serve
from pydantic import BaseModel

from langchain_smart import Price, SmartChatModel, SmartRunnable
from smart_engine.errors import InvalidInputError
from smart_engine.serving.members import UnpricedError

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4), "tiny": Price(0.01, 0.04)}
LONG = ChatPromptTemplate.from_template("With ten examples and much advice: {t}")
SHORT = ChatPromptTemplate.from_template("{t}")
AGAIN = ChatPromptTemplate.from_template("Check: {said} of {t}")
ITEMS = [f"item {n}" for n in range(60)]
MANY = [f"item {n}" for n in range(200)]
SIZES = pytest.mark.parametrize(
    ("items", "share"),
    [
        pytest.param(ITEMS[:40], 0.4, id="40"),
        pytest.param(MANY, 0.1, id="200", marks=pytest.mark.slow),
    ],
)
"""How many items, and which share of them may differ: with few, more must."""

VERBS = ["invoke", "ainvoke", "stream", "astream", "batch", "abatch"]
BY_CALL = {"long": Price.per_call(1), "short": Price.per_call(0.01)}
FREE = {"big": Price.free(), "small": Price.free()}


def mostly_yes(model, text, attempt):
    number = int(text.split()[-1])
    return "no" if model == "tiny" and number % 40 == 0 else "yes"


def openai(server, name, **settings):
    at = {"base_url": server.url, "api_key": "none", "timeout": 20}
    return ChatOpenAI(model=name, stream_usage=True, max_retries=0, **at, **settings)


def chains(server, **settings):
    """Two models in the reference, two others in the candidate."""
    big, small, tiny = (openai(server, name, **settings) for name in PRICES)
    first = RunnablePassthrough.assign(said=LONG | small | StrOutputParser())
    long = first | AGAIN | big | StrOutputParser()
    first = RunnablePassthrough.assign(said=SHORT | small | StrOutputParser())
    short = first | AGAIN | tiny | StrOutputParser()
    return long, short


def smart_at(server, **settings) -> SmartRunnable:
    long, short = chains(server)
    given = {"prices": PRICES, "max_disagreement": 0.1, "max_concurrency": 16}
    return SmartRunnable(
        reference={"long": long}, candidates={"short": short}, **(given | settings)
    )


def scripted(script=lambda *_: "yes", name="big", **settings):
    return Scripted(name=name, script=script, **settings)


def smart_of(reference, candidate, **settings) -> SmartRunnable:
    given = {"prices": FREE, "max_disagreement": 0.1}
    return SmartRunnable(
        reference={"long": reference},
        candidates={"short": candidate},
        **(given | settings),
    )


async def run(runnable, verb, inputs, config=None) -> list[Any]:
    if verb == "batch":
        return await asyncio.to_thread(runnable.batch, inputs, config)
    if verb == "abatch":
        return await runnable.abatch(inputs, config)
    if verb == "invoke":
        return [runnable.invoke(given, config) for given in inputs]
    if verb == "ainvoke":
        return [await runnable.ainvoke(given, config) for given in inputs]
    if verb == "stream":
        return [joined(list(runnable.stream(given, config))) for given in inputs]
    return [
        joined([piece async for piece in runnable.astream(given, config)])
        for given in inputs
    ]


def joined(pieces):
    whole = pieces[0]
    for piece in pieces[1:]:
        whole += piece
    return whole


def assert_ledger_is_the_bill(smart, server) -> None:
    report = smart.report()
    bill = 0.0
    for name, spend in report.inside.items():
        assert spend.input_tokens == server.input_tokens[name]
        assert spend.output_tokens == server.output_tokens[name]
        charged = spend.input_tokens * PRICES[name].input
        charged += spend.output_tokens * PRICES[name].output
        assert spend.cost == pytest.approx(charged / 1e6)
        bill += spend.cost
    assert report.cost == pytest.approx(bill)
    for field in ("input_tokens", "output_tokens"):
        by_tier = sum(getattr(spend, field) for spend in report.spend.values())
        assert by_tier == sum(getattr(server, field).values())


# -- money ---------------------------------------------------------------------


@SIZES
@pytest.mark.parametrize("verb", VERBS)
async def test_the_ledger_is_the_servers_bill(verb, items, share):
    inputs = [{"t": t} for t in (items if "batch" in verb else items[:100])]
    with serve(mostly_yes) as server:
        smart = smart_at(server, max_disagreement=share)
        said = await run(smart, verb, inputs)
        assert_ledger_is_the_bill(smart, server)
        assert sum(answer != "yes" for answer in said) <= len(inputs) * share
        report = smart.report()
        assert set(report.inside) == {"big", "small", "tiny"}
        assert server.requests["big"] == report.spend["long"].calls < len(inputs)
        assert report.saved > 0
        if "batch" in verb:
            (certificate,) = report.certificates
            assert certificate.items == len(items)
            assert list(certificate.spend) == ["long", "short"]


@pytest.mark.parametrize("verb", VERBS)
async def test_what_a_tier_used_before_it_failed_is_booked(verb):
    def script(model, text, attempt):
        if model == "tiny" and int(text.split()[-1]) % 3 == 0:
            return Fault("boom")
        return "yes"

    inputs = [{"t": item} for item in ITEMS[:16]]
    with serve(script) as server:
        smart = smart_at(server, max_disagreement=0.3)
        assert await run(smart, verb, inputs) == ["yes"] * 16
        assert_ledger_is_the_bill(smart, server)
        report = smart.report()
        assert report.spend["short"].failures == report.inside["tiny"].failures > 0


@pytest.mark.parametrize("verb", ["batch", "abatch", "invoke"])
async def test_a_cached_reply_costs_nothing(verb):
    inputs = [{"t": item} for item in ITEMS[:20]]
    with serve(mostly_yes) as server:
        set_llm_cache(InMemoryCache())
        try:
            smart = smart_at(server)
            await run(smart, verb, inputs)
            await run(smart, verb, inputs)
        finally:
            set_llm_cache(None)
        assert_ledger_is_the_bill(smart, server)
        assert max(server.attempts.values()) == 1
        assert smart.report().inside["small"].calls > server.requests["small"]


@pytest.mark.parametrize("verb", VERBS)
async def test_what_no_model_reports_is_estimated_if_allowed_and_marked(verb):
    def silent(model, text, attempt):
        return Odd("yes", usage=None) if model == "tiny" else "yes"

    with serve(silent) as server:
        given = [{"t": item} for item in ITEMS[:10]]
        wary = smart_at(server, mode="shadow")
        with pytest.warns(UserWarning, match="tiny reported no usage"):
            await run(wary, verb, given[:3])
        assert {e.outcome for e in entries_of(wary, "short")} == {"failed"}
        smart = smart_at(server, mode="shadow", estimate_usage=True)
        with pytest.warns(UserWarning, match="tiny"):
            await run(smart, verb, given)
    report = smart.report()
    marked = {e.model for e in smart.ledger().entries if e.estimated}
    assert marked == {"tiny", "short"}
    tiny = report.inside["tiny"]
    assert tiny.cost == tiny.estimated > 0
    assert 5 < tiny.input_tokens / 10 < 20  # of some twenty letters
    assert report.estimated == report.spend["short"].cost
    assert report.spend["long"].estimated == 0
    assert "is estimated" in str(report)


def entries_of(smart, model):
    return [entry for entry in smart.ledger().entries if entry.model == model]


def test_an_estimate_keeps_to_the_budget():
    def silent(model, text, attempt):
        return Odd(" " * 4000 + "yes", usage=None)

    with serve(silent) as server:
        long, short = chains(server, max_tokens=5)
        smart = SmartRunnable(
            reference={"long": long},
            candidates={"short": short},
            prices=PRICES,
            budget_usd=0.3,
            estimate_usage=True,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            smart.batch([{"t": item} for item in ITEMS[:60]], return_exceptions=True)
    assert 0.15 < smart.report().cost <= 0.3
    assert smart.report().estimated == pytest.approx(smart.report().cost)


def test_what_a_chain_had_used_before_it_broke_off_is_estimated():
    def script(model, text, attempt):
        return Broken("yes, and so on")

    with serve(script) as server:
        model = openai(server, "small", streaming=True)
        smart = smart_of(
            SHORT | model | StrOutputParser(),
            SHORT | model | StrOutputParser(),
            prices={"small": PRICES["small"]},
            estimate_usage=True,
        )
        with pytest.warns(UserWarning, match="estimated"), suppress(Exception):
            list(smart.stream({"t": "item 1"}))
    broken = [e for e in smart.ledger().entries if e.role == "inside"]
    assert {e.outcome for e in broken} == {"failed"}
    assert any(e.estimated and e.cost > 0 for e in broken)


def test_what_costs_money_beside_models_is_told_by_the_call():
    prices = {"big": Price(10, 30), "short": Price.per_call(0.002)}
    short = RunnableLambda(lambda _: "yes")
    smart = smart_of(scripted() | StrOutputParser(), short, prices=prices)
    smart.batch(ITEMS)
    spend = smart.report().spend["short"]
    assert spend.calls > 0
    assert spend.cost == pytest.approx(0.002 * spend.calls)


def test_a_smart_model_in_a_chain_keeps_its_own_prices():
    big, small = scripted(), scripted(name="small")
    inner = SmartChatModel(
        reference=big, candidates=[small], prices={"big": PRICES["big"]} | {
            "small": PRICES["small"]
        },
    )  # fmt: skip
    smart = smart_of(scripted() | StrOutputParser(), inner | StrOutputParser(),
                     prices={"big": PRICES["big"]})  # fmt: skip
    for item in ITEMS[:30]:
        smart.invoke(item)
    spend = smart.report().spend["short"]
    assert spend.calls > 10
    assert spend.cost == pytest.approx(inner.report().cost)


# -- prices and names ----------------------------------------------------------


NESTED = [
    lambda model: SHORT | model | StrOutputParser(),
    lambda model: RunnableParallel(a=model.with_retry()),
    lambda model: model.bind(stop=["x"]).with_config(tags=["t"]),
    lambda model: RunnablePassthrough.assign(a=model),
    lambda model: RunnableBranch((lambda _: True, model), lambda _: "no"),
    lambda model: scripted(name="small").with_fallbacks([model]),
    lambda model: RunnableLambda(lambda given: model.invoke(given)),
    lambda model: model.map(),
    lambda model: {"a": model} | RunnableLambda(str),
]


@pytest.mark.parametrize("make", NESTED)
def test_a_model_without_a_price_is_found_at_construction(make):
    with pytest.raises(UnpricedError, match=r"big.*Price\.free\(\)"):
        smart_of(make(scripted()), str, prices={"small": Price.free()})


def test_a_bound_models_name_counts():
    with serve(mostly_yes) as server:
        with pytest.raises(UnpricedError, match="tiny"):
            smart_of(openai(server, "other").bind(model="tiny"), str)
        bound = openai(server, "other").bind(model="tiny") | StrOutputParser()
        prices = {"tiny": PRICES["tiny"], "short": Price.free()}
        smart = smart_of(bound, lambda _: "yes", prices=prices, strategy="reference")
        smart.batch(ITEMS[:3])
        assert smart.report().inside["tiny"].input_tokens == 18


class Hidden:
    """Makes a model only when it is called."""

    def __call__(self, given, config):
        return scripted(name="hidden").invoke(given, config).content


@pytest.mark.parametrize("tier", ["reference", "candidate"])
@pytest.mark.parametrize("verb", VERBS)
async def test_a_model_without_a_price_is_found_at_the_call(verb, tier):
    hidden, plain = RunnableLambda(Hidden()), scripted() | StrOutputParser()
    pair = (hidden, plain) if tier == "reference" else (plain, hidden)
    smart = smart_of(*pair)
    with pytest.raises(UnpricedError, match="'hidden': Price"):
        await run(smart, verb, ITEMS[:60])
    assert sum(spend.failures for spend in smart.report().spend.values()) >= 1


@pytest.mark.parametrize("verb", VERBS)
async def test_a_function_needs_a_price_too(verb):
    smart = smart_of(scripted() | StrOutputParser(), RunnableLambda(lambda _: "yes"))
    with pytest.raises(UnpricedError, match=r"'short': Price.free\(\)"):
        await run(smart, verb, ITEMS[:60])
    free = {**FREE, "short": Price.free()}
    smart = smart_of(scripted() | StrOutputParser(), lambda _: "yes", prices=free)
    assert await run(smart, verb, ITEMS[:60]) == ["yes"] * 60


def test_a_chain_that_skips_its_model_costs_nothing_then():
    branch = RunnableBranch((lambda t: "1" in t, scripted()), lambda _: "yes")
    smart = smart_of(branch | StrOutputParser(), scripted() | StrOutputParser())
    assert smart.batch(ITEMS[:50]) == ["yes"] * 50


def test_a_chain_has_no_price_per_token():
    prices = {**FREE, "short": Price(1, 1)}
    with pytest.raises(InvalidInputError, match=r"short.*per_call"):
        smart_of(scripted() | StrOutputParser(), scripted() | str, prices=prices)


def test_names():
    chain, model = scripted() | StrOutputParser(), scripted(name="small")
    named = chain.with_config(run_name="a").with_retry()
    smart = SmartRunnable(
        reference=named,
        candidates=[model, RunnableLambda(lambda _: "yes", name="f"), {"g": str}],
        prices={**FREE, "f": Price.free(), "g": Price.free()},
    )
    assert list(smart.report().spend) == ["a", "small", "f", "g"]
    with pytest.raises(InvalidInputError, match=r"RunnableSequence.*two chains"):
        SmartRunnable(reference=chain, candidates=[chain], prices=FREE)
    with pytest.raises(InvalidInputError, match=r"candidates='a'.*two chains"):
        SmartRunnable(reference=named, candidates={"a": chain}, prices=FREE)


@pytest.mark.parametrize("candidates", [[], {}, "small", None])
def test_there_must_be_a_candidate(candidates):
    with pytest.raises(InvalidInputError, match="candidates"):
        SmartRunnable(reference=scripted(), candidates=candidates, prices=FREE)


@pytest.mark.parametrize(
    "wrong", [{"reference": "big"}, {"mode": "?"}, {"confidence": 2}, {"typo": 1}]
)
def test_bad_settings_are_errors_of_ours(wrong):
    with pytest.raises(InvalidInputError, match=next(iter(wrong))):
        SmartRunnable(
            **{"reference": scripted(), "candidates": {"s": scripted()}} | wrong,
            prices=FREE,
        )


# -- when answers are the same ---------------------------------------------------


class Point(BaseModel):
    x: int
    note: str = ""


def told(*content):
    return RunnableLambda(lambda _: content[0])


SAME = [
    ("Yes.", " yes "),
    (AIMessage("Yes.", id="1"), AIMessage("yes", id="2")),
    ({"a": 1, "b": [2]}, {"b": [2.0], "a": 1}),
    (Point(x=1), {"x": 1, "note": ""}),
    ([1, 2], (1, 2)),
    ({"messages": [AIMessage("a", id="1")]}, {"messages": [AIMessage("a", id="2")]}),
    (None, None),
]
DIFFERENT = [
    ("yes", "no"),
    ("yes", {"yes": 1}),
    (AIMessage("yes"), AIMessage("no")),
    (Point(x=1), Point(x=2)),
    ({"messages": [AIMessage("a")]}, {"messages": [AIMessage("b")]}),
]


@pytest.mark.parametrize(("pair", "same"), [
    *((pair, True) for pair in SAME), *((pair, False) for pair in DIFFERENT)
])  # fmt: skip
def test_outputs_are_compared_by_what_they_are(pair, same):
    pair = told(pair[0]), told(pair[1])
    smart = smart_of(*pair, prices=BY_CALL, max_disagreement=0.2)
    said = smart.batch(ITEMS)
    by = smart.report().served
    assert (by["short"] > 30) is same
    assert same or said.count(pair[0].invoke("")) >= 48


def test_a_function_gets_the_answers_as_they_are():
    seen = []

    def close(left, right):
        seen.append((left, right))
        return abs(left.x - right.x) <= 1

    points = told(Point(x=1)), told(Point(x=2))
    smart = smart_of(*points, prices=BY_CALL, equivalence=close, max_disagreement=0.2)
    smart.batch(ITEMS)
    assert smart.report().served["short"] > 30
    assert {type(answer) for pair in seen for answer in pair} == {Point}


# -- who sees what ----------------------------------------------------------------


class Collector(BaseTracer):
    def __init__(self):
        super().__init__()
        self.roots = []

    def _persist_run(self, run):
        self.roots.append(run)


def runs_of(run):
    return [run, *(below for child in run.child_runs for below in runs_of(child))]


@pytest.mark.parametrize("verb", VERBS)
async def test_tracers_see_every_tier_below_the_item(verb):
    with serve(mostly_yes) as server:
        smart, tracer = smart_at(server).with_config(run_name="sorter"), Collector()
        config = {"callbacks": [tracer], "tags": ["mine"], "metadata": {"m": 1}}
        await run(smart, verb, [{"t": item} for item in ITEMS[:10]], config)
        asked: Counter[str] = Counter()
        tiers: Counter[str] = Counter()
        assert len(tracer.roots) == 10
        for root in tracer.roots:
            assert root.name == "sorter"
            assert root.outputs is not None
            tiers.update(child.name for child in root.child_runs)
            for below in runs_of(root):
                assert "mine" in below.tags
                assert below.extra["metadata"]["m"] == 1
                if below.run_type == "llm":
                    asked[below.extra["metadata"]["ls_model_name"]] += 1
        assert asked == server.requests
        spend = smart.bound.report().spend.items()
        assert tiers == {name: part.calls for name, part in spend if part.calls}


@pytest.mark.parametrize("verb", VERBS)
async def test_token_counters_count_what_was_spent_once(verb):
    handler = UsageMetadataCallbackHandler()
    with serve(mostly_yes) as server:
        smart = smart_at(server)
        with get_usage_metadata_callback() as ambient:
            inputs = [{"t": item} for item in ITEMS[:10]]
            await run(smart, verb, inputs, {"callbacks": [handler]})
        billed = sum(server.input_tokens.values()) + sum(server.output_tokens.values())
        for counter in (handler, ambient):
            counted = counter.usage_metadata.values()
            assert sum(usage["total_tokens"] for usage in counted) == billed


class Typewriter(BaseCallbackHandler):
    """Shows tokens as they come, and counts tokens at the end."""

    def __init__(self):
        self.shown, self.ends = "", 0
        self.lock = threading.Lock()

    def on_llm_new_token(self, token, **_):
        with self.lock:
            self.shown += token

    def on_llm_end(self, response, **_):
        with self.lock:
            self.ends += 1


def by_tier(model, text, attempt):
    return {"big": "reference", "tiny": "candidate", "small": "s"}[model]


@pytest.mark.parametrize("verb", VERBS)
async def test_a_typewriter_is_told_no_token_of_an_answer_that_is_withdrawn(verb):
    with serve(by_tier) as server:
        long, short = (
            SHORT | openai(server, name, streaming=True) | StrOutputParser()
            for name in ("big", "tiny")
        )
        smart = smart_of(long, short, prices=PRICES, max_disagreement=0.01)
        writer = Typewriter()
        said = await run(smart, verb, [{"t": i} for i in ITEMS[:12]], {
            "callbacks": [writer]
        })  # fmt: skip
        assert said == ["reference"] * 12
        expected = "reference" * 12 if "stream" in verb else ""
        assert writer.shown == expected
        assert writer.ends == sum(server.requests.values())
        assert server.requests["tiny"] > 0


@pytest.mark.parametrize("inside", ["alone", "chain"])
async def test_astream_events_shows_one_answer(inside):
    with serve(by_tier) as server:
        smart = smart_at(server)
        chain = smart | RunnableLambda(str) if inside == "chain" else smart
        for item in ITEMS[:12]:
            tokens, out, models = "", "", Counter()
            async for event in chain.astream_events({"t": item}, version="v2"):
                own = event["name"] == "SmartRunnable"
                if event["event"] == "on_chat_model_stream":
                    models[event["metadata"]["ls_model_name"]] += 1
                    if event["metadata"]["ls_model_name"] == "big":
                        tokens += event["data"]["chunk"].content
                if event["event"] == "on_chain_stream" and own:
                    out += event["data"]["chunk"]
            assert out == tokens == "reference"
            assert "tiny" not in models
        assert server.requests["tiny"] > 0
        assert_ledger_is_the_bill(smart, server)


@pytest.mark.parametrize("verb", ["invoke", "ainvoke", "stream"])
async def test_langgraph_shows_the_tokens_of_one_answer(verb):
    with serve(by_tier) as server:
        long, short = (
            RunnableLambda(lambda state: state["messages"]) | openai(server, name)
            for name in ("big", "tiny")
        )
        smart = smart_of(long, short, prices=PRICES)

        def node(state):
            if verb == "invoke":
                return {"messages": [smart.invoke(state)]}
            return {"messages": [joined(list(smart.stream(state)))]}

        async def anode(state):
            return {"messages": [await smart.ainvoke(state)]}

        builder = StateGraph(MessagesState)
        builder.add_node("answer", anode if verb == "ainvoke" else node)
        builder.add_edge(START, "answer").add_edge("answer", END)
        graph = builder.compile()
        for item in ITEMS[:12]:
            given = {"messages": [("user", item)]}
            parts = [
                part.content
                async for part, _ in graph.astream(given, stream_mode="messages")
            ]
            assert "".join(parts) == "reference"
            assert len(parts) > 5
        assert server.requests["tiny"] > 0
        assert_ledger_is_the_bill(smart, server)


@pytest.mark.parametrize("verb", ["ainvoke", "astream"])
async def test_what_was_shown_is_not_withdrawn_where_its_tier_fails_later(verb):
    failing = False

    def stumble(message):
        if failing:
            raise ValueError("stumbled")
        return message.content

    with serve(lambda *_: "yes") as server:
        long = SHORT | openai(server, "big") | StrOutputParser()
        short = SHORT | openai(server, "tiny") | RunnableLambda(stumble)
        smart = smart_of(long, short, prices=PRICES, max_disagreement=0.4)

        async def call(given, config):
            return await smart.ainvoke(given, config)

        watched = smart if verb == "astream" else RunnableLambda(call)
        failed = 0
        for number, item in enumerate(ITEMS):
            failing = number >= 40
            seen, error = [], None
            try:
                async for event in watched.astream_events({"t": item}, version="v2"):
                    if event["event"] == "on_chat_model_end":
                        seen.append(event["metadata"]["ls_model_name"])
            except ValueError as raised:
                error = raised
            assert len(seen) == 1
            assert error is None or seen == ["tiny"]
            failed += error is not None
        assert failed > 0
        assert_ledger_is_the_bill(smart, server)
        (stream,) = smart.report().streams
        assert stream.in_flight == 0


@pytest.mark.parametrize("verb", ["stream", "astream"])
async def test_an_answer_comes_piece_by_piece(verb):
    with serve(mostly_yes) as server:
        smart = smart_of(
            openai(server, "big"),
            openai(server, "tiny"),
            prices=PRICES,
            max_disagreement=0.4,
        )
        chain = SHORT | smart | StrOutputParser()
        counts = []
        for item in ITEMS[:30]:
            if verb == "stream":
                pieces = list(chain.stream({"t": item}))
            else:
                pieces = [piece async for piece in chain.astream({"t": item})]
            assert "".join(pieces) in {"yes", "no"}
            counts.append(len([piece for piece in pieces if piece]))
        assert min(counts) >= 2
        assert smart.report().served["short"] > 0


@pytest.mark.parametrize("verb", ["stream", "astream"])
async def test_a_stream_that_is_broken_off_closes_its_item(verb):
    with serve(mostly_yes) as server:
        smart = smart_at(server)
        for item in ITEMS[:8]:
            if verb == "stream":
                stream = smart.stream({"t": item})
                next(stream)
                stream.close()
            else:
                astream = smart.astream({"t": item})
                await anext(astream)
                await astream.aclose()
        (stream,) = smart.report().streams
        assert stream.in_flight == 0


def test_a_chain_that_yields_nothing_escalates():
    def nothing(inputs):
        for _ in inputs:
            yield from ()

    from langchain_core.runnables import RunnableGenerator

    free = {"long": Price.free(), "short": Price.free()}
    smart = smart_of(told("yes"), RunnableGenerator(nothing), prices=free)
    assert [list(smart.stream(item)) for item in ITEMS] == [["yes"]] * 60


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_agents_are_tiers(mode):
    @tool
    def add(number: int) -> str:
        """Add a hundred to a number."""
        return str(number + 100)

    def script(model, text, attempt):
        if text.body["messages"][-1]["role"] == "tool":
            return f"It is {text}."
        return Calls([("add", {"number": int(text.split()[-1])})])

    with serve(script) as server:
        long, short = (
            create_agent(openai(server, name), [add]) for name in ("big", "tiny")
        )
        smart = smart_of(long, short, prices=PRICES, max_disagreement=0.3)
        inputs = [{"messages": [("human", item)]} for item in ITEMS[:40]]
        states = await run(smart, "batch" if mode == "sync" else "abatch", inputs)
        for number, state in enumerate(states):
            assert state["messages"][-1].content == f"It is {number + 100}."
        assert_ledger_is_the_bill(smart, server)
        report = smart.report()
        assert report.served["short"] > 20
        assert report.inside["tiny"].calls == 2 * report.spend["short"].calls
        assert "inside, tiny: " in str(report)


# -- as any runnable ---------------------------------------------------------------


WRAPPED = [
    lambda smart: smart.with_retry(),
    lambda smart: smart.with_fallbacks([RunnableLambda(lambda _: "?")]),
    lambda smart: smart.with_config(tags=["x"]),
    lambda smart: smart.bind(),
    lambda smart: RunnablePassthrough() | smart | StrOutputParser(),
]


@pytest.mark.parametrize("wrap", WRAPPED)
@pytest.mark.parametrize("verb", ["batch", "abatch"])
async def test_a_batch_stays_one_session(wrap, verb):
    smart = smart_of(scripted() | StrOutputParser(), scripted() | StrOutputParser())
    assert await run(wrap(smart), verb, ITEMS) == ["yes"] * 60
    (certificate,) = smart.report().certificates
    assert certificate.items == 60
    assert certificate.task == "SmartRunnable"


async def test_parallel_and_other_per_item_roads_are_streams():
    smart = smart_of(scripted() | StrOutputParser(), scripted() | StrOutputParser())
    parallel = RunnableParallel(a=smart, b=RunnableLambda(str))
    assert parallel.invoke("x") == {"a": "yes", "b": "x"}
    assert (await parallel.ainvoke("x")) == {"a": "yes", "b": "x"}
    (stream,) = smart.report().streams
    assert stream.answered == 2


async def test_batch_as_completed():
    smart = smart_of(scripted() | StrOutputParser(), scripted() | StrOutputParser())
    assert list(smart.batch_as_completed(ITEMS)) == [(n, "yes") for n in range(60)]
    said = [pair async for pair in smart.abatch_as_completed(ITEMS)]
    assert said == [(n, "yes") for n in range(60)]
    assert len(smart.report().certificates) == 2


@pytest.mark.parametrize("verb", ["batch", "abatch"])
async def test_exceptions_are_returned_in_place(verb):
    def script(text, _):
        return ValueError("boom") if text == "item 5" else "yes"

    chain = scripted(script) | StrOutputParser()
    smart = smart_of(chain, scripted() | StrOutputParser(), strategy="reference")
    with pytest.raises(ValueError, match="boom") as caught:
        await run(smart, verb, ITEMS[:10])
    assert caught.value.smart_results.count("yes") == 9
    kept = {"return_exceptions": True}
    if verb == "batch":
        said = smart.batch(ITEMS[:10], **kept)
    else:
        said = await smart.abatch(ITEMS[:10], **kept)
    assert [n for n, answer in enumerate(said) if answer != "yes"] == [5]


@pytest.mark.parametrize("verb", ["batch", "abatch"])
async def test_max_concurrency_is_honoured(verb):
    big, small = scripted(latency=0.01), scripted(latency=0.01, name="small")
    smart = smart_of(big | StrOutputParser(), small | StrOutputParser())
    await run(smart, verb, ITEMS, {"max_concurrency": 3})
    assert max(big.most_in_flight, small.most_in_flight) == 3


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("place", ["bound", "configurable", "metadata", "own"])
async def test_tasks_have_names(verb, place):
    smart = smart_of(
        scripted() | StrOutputParser(), scripted() | StrOutputParser(), task="own"
    )
    named, config = smart, None
    if place == "bound":
        named = smart.bind(smart_task="bound")
    elif place != "own":
        config = {place: {"smart_task": place}}
    await run(named, verb, ITEMS[:3], config)
    report = smart.report()
    tasks = [c.task for c in report.certificates] + [s.task for s in report.streams]
    assert tasks == [place]


def test_a_batch_of_two_tasks_is_two_sessions():
    smart = smart_of(scripted() | StrOutputParser(), scripted() | StrOutputParser())
    configs = [{"metadata": {"smart_task": "ab"[n % 2]}} for n in range(60)]
    smart.batch(ITEMS, configs)
    assert sorted(c.task for c in smart.report().certificates) == ["a", "b"]


def test_configurable_fields_share_the_books():
    smart = smart_of(scripted() | StrOutputParser(), scripted() | StrOutputParser())
    field = ConfigurableField(id="strategy")
    chosen = smart.configurable_fields(strategy=field)
    config = {"configurable": {"strategy": "reference"}}
    chosen.batch(ITEMS, config)
    assert smart.report().spend["long"].calls == 60
    assert smart.report().certificates[0].strategy == "reference"


@pytest.mark.parametrize("verb", VERBS)
async def test_shadow_asks_everybody_and_hands_out_the_reference(verb):
    smart = smart_of(
        scripted(lambda *_: "a") | StrOutputParser(),
        scripted(lambda *_: "b", name="small") | StrOutputParser(),
        mode="shadow",
    )
    assert await run(smart, verb, ITEMS[:10]) == ["a"] * 10
    spend = smart.report().spend
    assert spend["long"].calls == spend["short"].calls == 10
    assert smart.report().shadows[0].answered == 10


def test_arguments_go_to_the_tiers():
    big = scripted(lambda _, kwargs: str(kwargs["stop"]))
    smart = smart_of(big, scripted(name="small"), strategy="reference")
    assert smart.bind(stop=["x"]).invoke("?").content == "['x']"


def test_it_takes_and_gives_what_the_reference_does():
    chain = SHORT | scripted() | JsonOutputParser(pydantic_object=Point)
    smart = smart_of(chain, chain)
    assert smart.get_input_jsonschema()["properties"].keys() == {"t"}
    assert smart.get_output_jsonschema() == chain.get_output_jsonschema()
    assert (smart | RunnableLambda(str)).get_graph().nodes


async def test_a_cancelled_batch_books_what_tiers_had_used():
    with serve(mostly_yes) as server:
        long, short = chains(server)

        waiting = []

        async def wait(said):
            waiting.append(said)
            await asyncio.Event().wait()  # until it is cancelled

        slow = RunnableLambda(str, afunc=wait)
        smart = SmartRunnable(
            reference={"long": long | slow},
            candidates={"short": short | slow},
            prices=PRICES,
            strategy="reference",
            max_concurrency=8,
        )
        running = asyncio.create_task(smart.abatch([{"t": item} for item in ITEMS]))
        while len(waiting) < 8:
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert_ledger_is_the_bill(smart, server)
        assert sum(spend.calls for spend in smart.report().inside.values()) == 16
