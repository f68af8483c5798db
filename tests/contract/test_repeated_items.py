"""Items of a batch that ask the same: one request, an answer for each of them."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

import pytest
from fakes import Scripted
from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.runnables import RunnableLambda
from langchain_openai import ChatOpenAI
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.llms.openai_like import OpenAILike
from loopback import Fault, serve

from langchain_smart import Price, SmartChatModel, SmartRunnable
from llama_index_smart import SmartLLM
from smart_engine.errors import BudgetExceededError, InvalidInputError

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.3)}
MIXED = [f"is {n % 20} odd?" for n in range(200)]


def script(model: str, text: str, attempt: int) -> str:
    del model, attempt
    return "yes" if int(text.split()[1]) % 2 else "no"


class LangChain:
    """Batches of the chat model, over HTTP."""

    def __init__(self, url: str, temperatures=(0, 0), **settings) -> None:
        def member(name, temperature):
            at = {"base_url": url, "api_key": "none", "max_retries": 0}
            return ChatOpenAI(model=name, temperature=temperature, max_tokens=5, **at)

        big, small = map(member, ("big", "small"), temperatures)
        self.smart = SmartChatModel(
            reference=big, candidates=[small], prices=PRICES, **settings
        )

    def batch(self, items, **how):
        return self.smart.batch(items, **how)

    async def abatch(self, items, **how):
        return await self.smart.abatch(items, **how)

    def text(self, answer) -> str:
        return answer.text

    def usage(self, answer) -> int:
        return answer.usage_metadata["total_tokens"]


class LlamaIndex(LangChain):
    """Batches of the LLM, over HTTP."""

    def __init__(self, url: str, temperatures=(0, 0), **settings) -> None:
        def member(name, temperature):
            at = {"api_base": url, "api_key": "none", "max_retries": 0}
            given = {} if temperature is None else {"temperature": temperature}
            return OpenAILike(
                model=name, max_tokens=5, is_chat_model=True, **given, **at
            )

        big, small = map(member, ("big", "small"), temperatures)
        self.smart = SmartLLM(
            reference=big, candidates=[small], prices=PRICES, **settings
        )

    def batch(self, items, **how):
        return self.smart.complete_batch(items, **how)

    async def abatch(self, items, **how):
        return await self.smart.acomplete_batch(items, **how)

    def usage(self, answer) -> int:
        return answer.additional_kwargs["total_tokens"]


ADAPTERS = pytest.mark.parametrize("adapter", [LangChain, LlamaIndex])


@pytest.fixture
def server():
    with serve(script) as served:
        yield served


def asked(server) -> Counter:
    """Return how often each model was asked."""
    counts: Counter = Counter()
    for (model, _), count in server.attempts.items():
        counts[model] += count
    return counts


@ADAPTERS
@pytest.mark.parametrize("verb", ["batch", "abatch"])
def test_a_thousand_equal_inputs_are_two_requests(server, adapter, verb):
    smart, items = adapter(server.url), ["is 7 odd?"] * 1000
    if verb == "batch":
        answers = smart.batch(items)
    else:
        answers = asyncio.run(smart.abatch(items))
    assert asked(server) == {"big": 1, "small": 1}
    assert {smart.text(answer) for answer in answers} == {"yes"}
    (certificate,) = smart.smart.report().certificates
    assert certificate.valid
    assert certificate.answered == 1000
    outcomes = smart.smart.ledger().sums("outcome")
    assert outcomes["answered"].calls == 2
    assert outcomes["cached"].cost == 0


@ADAPTERS
def test_each_item_has_the_answer_to_its_request_and_a_true_usage(server, adapter):
    smart = adapter(server.url)
    answers = smart.batch(MIXED)
    assert set(server.attempts.values()) == {1}
    assert [smart.text(answer) for answer in answers] == [
        script("", text, 1) for text in MIXED
    ]
    sent, said = (
        sum(counted.values()) for counted in (server.input_tokens, server.output_tokens)
    )
    for text, answer in zip(MIXED, answers, strict=True):
        assert smart.usage(answer) in {0, len(text) + len(smart.text(answer))}
    assert 0 < sum(map(smart.usage, answers)) <= sent + said
    (certificate,) = smart.smart.report().certificates
    bill = sum(
        server.input_tokens[name] * price.input
        + server.output_tokens[name] * price.output
        for name, price in PRICES.items()
    )
    assert certificate.cost == pytest.approx(bill / 1e6)


@ADAPTERS
@pytest.mark.parametrize(
    ("temperatures", "settings", "arguments", "shared"),
    [
        ((0, 0), {}, {}, True),
        ((0, 0), {"dedupe": False}, {}, False),
        ((0, 0.5), {}, {}, False),
        ((0, 0.5), {"dedupe": True}, {}, True),
        ((0, 0.5), {}, {"temperature": 0}, True),
        ((0, 0), {}, {"temperature": 0.5}, False),
        ((0, 0), {}, {"extra_body": {"temperature": 1}}, False),
    ],
)
def test_requests_are_shared_where_every_temperature_is_0_or_as_said(
    server, adapter, temperatures, settings, arguments, shared
):
    adapter(server.url, temperatures, **settings).batch(["is 7 odd?"] * 30, **arguments)
    assert (server.attempts["small", "is 7 odd?"] == 1) is shared
    assert (server.attempts["big", "is 7 odd?"] == 1) is shared


def test_a_temperature_that_is_not_known_shares_nothing(server):
    LangChain(server.url, (None, None)).batch(["is 7 odd?"] * 30)
    assert server.attempts["big", "is 7 odd?"] > 1


def test_the_smart_models_own_temperature_counts(server):
    smart = LangChain(server.url, (0.7, None), temperature=0)
    smart.batch(["is 7 odd?"] * 30)
    assert asked(server) == {"big": 1, "small": 1}


@ADAPTERS
def test_a_seed_makes_a_batch_with_equal_items_repeatable(server, adapter):
    seen = set()
    for _ in range(3):
        smart = adapter(server.url, seed=5)
        smart.batch(MIXED)
        (certificate,) = smart.smart.report().certificates
        seen.add(certificate.id)
    assert len(seen) == 1


@ADAPTERS
def test_a_failure_is_each_items_own(adapter):
    def failing(model, text, attempt):
        if model == "small" and attempt <= 2:
            return Fault("down", 503)
        if text == "is 4 odd?":
            return Fault("no", 400)
        return script(model, text, attempt)

    with serve(failing) as server:
        smart = adapter(server.url)
        answers = smart.batch(MIXED, return_exceptions=True)
        for text, answer in zip(MIXED, answers, strict=True):
            if text == "is 4 odd?":
                assert isinstance(answer, Exception)
            else:
                assert smart.text(answer) == script("", text, 1)
        assert server.attempts["big", "is 4 odd?"] == MIXED.count("is 4 odd?")
        (certificate,) = smart.smart.report().certificates
        assert certificate.unanswered == MIXED.count("is 4 odd?")


@ADAPTERS
def test_a_budget_for_two_calls_suffices_for_equal_items(server, adapter):
    smart = adapter(server.url, budget_usd=0.002)
    smart.batch(["is 7 odd?"] * 300)
    assert asked(server) == {"big": 1, "small": 1}
    (certificate,) = smart.smart.report().certificates
    assert certificate.valid


@ADAPTERS
def test_a_budget_may_end_among_equal_items(server, adapter):
    smart = adapter(server.url, budget_usd=0.002)
    answers = smart.batch([f"is {n % 40} odd?" for n in range(200)], **ERRORS)
    (certificate,) = smart.smart.report().certificates
    assert certificate.cost <= 0.002
    assert certificate.uncertified > 0
    errors = [answer for answer in answers if isinstance(answer, Exception)]
    assert errors
    assert all(isinstance(error, BudgetExceededError) for error in errors)


ERRORS = {"return_exceptions": True}


@pytest.mark.parametrize(
    "adapter", [LangChain, pytest.param(LlamaIndex, marks=pytest.mark.slow)]
)
def test_a_stored_batch_goes_on_and_asks_nothing_twice(adapter, tmp_path):
    down = threading.Event()

    def breaking(model, text, attempt):
        number = int(text.split()[1])
        if down.is_set() and model == "big" and number > 5:
            return Fault("down", 503)
        return script(model, text, attempt)

    with serve(breaking) as server:
        down.set()
        settings = {"store": str(tmp_path / "kept.db"), "seed": 0}
        adapter(server.url, **settings).batch(MIXED, **ERRORS)
        bought = dict(server.input_tokens)
        down.clear()
        smart = adapter(server.url, **settings)
        answers = smart.batch(MIXED)
        assert [smart.text(answer) for answer in answers] == [
            script("", text, 1) for text in MIXED
        ]
        (certificate,) = smart.smart.report().certificates
        assert certificate.cost == pytest.approx(smart.smart.report().cost)
        fresh = smart.smart.ledger().sums("outcome")["answered"]
        sent = sum(server.input_tokens.values()) - sum(bought.values())
        assert fresh.input_tokens == sent
        before = sum(server.attempts.values())
        adapter(server.url, **settings).batch(MIXED)
        assert sum(server.attempts.values()) == before


@ADAPTERS
def test_self_agreement_asks_twice(server, adapter):
    smart = adapter(server.url, dedupe=True)
    measured = smart.smart.self_agreement(["is 7 odd?"] * 5)
    assert measured.items == 5
    assert asked(server) == {"big": 10}


# -- callbacks -------------------------------------------------------------------------


class Runs(BaseCallbackHandler):
    """Notes which runs begin and end; it shows pieces, so members' are hidden."""

    def __init__(self) -> None:
        self.begun, self.ended = [], []

    def on_chat_model_start(self, serialized, messages, *, run_id, **kwargs):
        self.begun.append(run_id)

    def on_llm_new_token(self, token, **kwargs):
        pass

    def on_llm_end(self, response, *, run_id, **kwargs):
        self.ended.append(run_id)

    on_llm_error = on_llm_end


@pytest.mark.parametrize("verb", ["batch", "abatch"])
def test_each_item_is_a_run_of_its_own_in_langchain(server, verb):
    smart, runs, tokens = LangChain(server.url), Runs(), UsageMetadataCallbackHandler()
    config = {"callbacks": [runs, tokens]}
    if verb == "batch":
        answers = smart.batch(MIXED, config=config)
    else:
        answers = asyncio.run(smart.abatch(MIXED, config=config))
    assert len(set(runs.begun)) == len(MIXED)
    assert sorted(runs.begun) == sorted(runs.ended)
    assert {f"lc_run--{run}-0" for run in runs.begun} == {one.id for one in answers}
    counted = sum(usage["input_tokens"] for usage in tokens.usage_metadata.values())
    assert counted == sum(server.input_tokens.values())


def test_each_request_is_an_event_of_its_own_in_llama_index(server):
    counter = TokenCountingHandler(tokenizer=str.split)
    smart = LlamaIndex(server.url)
    smart.smart.callback_manager = CallbackManager([counter])
    smart.batch(MIXED)
    assert len(counter.llm_token_counts) == sum(server.requests.values())


@ADAPTERS
def test_an_answer_that_is_changed_changes_no_other(server, adapter):
    smart = adapter(server.url)
    first, *others = smart.batch(["is 7 odd?"] * 20)
    first.additional_kwargs["changed"] = True
    assert not any("changed" in other.additional_kwargs for other in others)


# -- chains ----------------------------------------------------------------------------


def chains(**settings):
    """Return a smart chain, and what its chains were called with."""
    seen = []

    def chain(name):
        def answer(given, config):
            user = (config.get("configurable") or {}).get("user")
            seen.append((name, str(given), user))
            return {"answer": [str(given), user]}

        return RunnableLambda(answer).with_config(run_name=name)

    free = {"big": Price.per_call(0.01), "small": Price.per_call(0.001)}
    smart = SmartRunnable(
        reference=chain("big"), candidates=[chain("small")], prices=free, **settings
    )
    return smart, seen


def test_chains_are_shared_only_if_that_is_said():
    smart, seen = chains()
    smart.batch(["a"] * 30)
    assert len(seen) > 30
    smart, seen = chains(dedupe=True)
    first, *others = smart.batch([{"mail": "a"}] * 30)
    assert len(seen) == 2
    assert all(other == first and other is not first for other in others)
    assert smart.report().cost == pytest.approx(0.011)


def test_chains_whose_configs_choose_otherwise_are_not_shared():
    smart, seen = chains(dedupe=True)
    configs = [{"configurable": {"user": n % 3}} for n in range(30)]
    answers = smart.batch(["a"] * 30, configs)
    assert len(seen) == 6
    assert [answer["answer"][1] for answer in answers] == [n % 3 for n in range(30)]


def test_an_input_that_cannot_be_identified_is_refused():
    smart, seen = chains(dedupe=True)
    with pytest.raises(InvalidInputError, match="dedupe"):
        smart.batch([object(), object()])
    assert seen == []


def test_tasks_share_nothing():
    smart = SmartChatModel(
        reference=Scripted(name="big", script=lambda text, given: "yes"),
        candidates=[Scripted(name="small", script=lambda text, given: "yes")],
        prices=PRICES,
        dedupe=True,
    )
    configs = [{"metadata": {"smart_task": f"task {n % 2}"}} for n in range(20)]
    smart.batch(["a"] * 20, configs)
    assert len(smart.reference.calls) == 2
