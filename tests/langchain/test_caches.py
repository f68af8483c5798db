"""A smart model is never cached; its members are, each from its own answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field
from typing_extensions import override

from langchain_smart import Price, SmartChatModel, SmartRunnable
from llama_index_smart import SmartLLM
from smart_engine.errors import InvalidInputError

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}
SECRET = "sk-not-to-be-seen"  # noqa: S105 - that is the test


class Bare(BaseChatModel):
    """A model of which LangChain's key shows only the API key."""

    answer: str
    base_url: str = "http://one"
    top_p: float = 1.0
    calls: list[str] = Field(default_factory=list)

    @property
    @override
    def _llm_type(self) -> str:
        return "bare"

    @property
    @override
    def _identifying_params(self) -> dict[str, Any]:
        return {"api_key": SECRET}

    @override
    def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> ChatResult:
        text = str(messages[-1].content)
        self.calls.append(text)
        usage = {"input_tokens": 9, "output_tokens": 1, "total_tokens": 10}
        wrong = self.name == "small" and text.startswith("hard")
        message = AIMessage("wrong" if wrong else self.answer, usage_metadata=usage)
        return ChatResult(generations=[ChatGeneration(message=message)])

    @override
    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools])


@pytest.fixture(params=["given", "global"])
def cache(request) -> Iterator[dict[str, Any]]:
    """What a smart model is given to use a cache."""
    kept = InMemoryCache()
    set_llm_cache(kept if request.param == "global" else None)
    yield {"cache": kept} if request.param == "given" else {}
    set_llm_cache(None)


def smart_of(*answers: str, **settings: Any) -> tuple[SmartChatModel, Bare, Bare]:
    big, small = map(model_of, PRICES, answers or ("yes", "yes"))
    terms = {"prices": PRICES, "seed": 1, "task": "t", **settings}
    return SmartChatModel(reference=big, candidates=[small], **terms), big, small


def model_of(name: str, answer: str, **settings: Any) -> Bare:
    return Bare(name=name, answer=answer, **settings)


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_a_repeated_question_counts_in_the_stream_each_time(cache, mode):
    smart, big, small = smart_of(**cache)
    for count in range(1, 31):
        answer = smart.invoke("?") if mode == "sync" else await smart.ainvoke("?")
        (state,) = smart.report().streams
        assert (answer.content, state.arrived) == ("yes", count)
    assert (len(big.calls), len(small.calls)) == (1, 1)
    outcomes = [entry.outcome for entry in smart.ledger().entries]
    assert outcomes.count("answered") == 2
    assert set(outcomes) == {"answered", "cached"}
    assert answer.response_metadata["smart"]["cost"] == 0


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_a_batch_reads_and_writes_it(cache, mode):
    smart, big, small = smart_of(**cache)
    items = [f"mail {number}" for number in range(20)]
    asked = []
    for _ in range(2):
        answers = smart.batch(items) if mode == "sync" else await smart.abatch(items)
        assert [answer.content for answer in answers] == ["yes"] * 20
        asked.append((len(big.calls), len(small.calls)))
    assert len(set(big.calls)) == len(big.calls)  # nobody is asked twice
    assert len(set(small.calls)) == len(small.calls) == asked[0][1]
    first, second = smart.report().certificates
    assert first.cost > 0
    assert first.cost + second.cost == pytest.approx(smart.report().cost)
    assert (second.cost == 0) == (asked[0] == asked[1])
    assert second.items == 20
    smart.invoke(big.calls[0], model="big")  # written by a batch, read by an item
    assert len(big.calls) == asked[1][0]


def test_members_do_not_read_each_others_answers(cache):
    smart, big, small = smart_of("yes", "no", **cache)
    for _ in range(2):
        assert smart.invoke("?", model="big").content == "yes"
        assert smart.invoke("?", model="small").content == "no"
    assert len(big.calls) == len(small.calls) == 1


@pytest.mark.parametrize("setting", [{"base_url": "http://two"}, {"top_p": 0.1}])
def test_nor_those_of_another_address_or_setting(cache, setting):
    for changed in ({}, setting):
        small = model_of("small", str(changed), **changed)
        terms = {"reference": model_of("big", "yes"), "prices": PRICES, **cache}
        smart = SmartChatModel(candidates=[small], **terms)
        for _ in range(2):
            assert smart.invoke("?", model="small").content == str(changed)
        assert len(small.calls) == 1


def test_nor_those_to_another_request(cache):
    smart, big, _ = smart_of(**cache, strategy="reference")

    def weather(place: str) -> str:
        """Return the weather of a place."""

    def height(place: str) -> str:
        """Return the height of a place."""

    requests = [
        smart,
        smart.bind(stop=["x"]),
        smart.bind_tools([weather]),
        smart.bind_tools([height]),
        smart.bind(response_format={"type": "json_object"}),
    ]
    for request in [*requests, *requests]:
        request.invoke("?")
    assert len(big.calls) == len(requests)


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_pieces_are_as_those_of_the_member(cache, mode):
    """A model that cannot stream answers from its cache, like any other verb."""
    smart, big, _ = smart_of(**cache)
    smart.invoke("?")
    for _ in range(2):
        if mode == "sync":
            chunks = [*smart.stream("?")]
        else:
            chunks = [chunk async for chunk in smart.astream("?")]
        assert "".join(str(chunk.content) for chunk in chunks) == "yes"
    assert len(big.calls) == 1
    assert smart.report().streams[0].arrived == 3


def test_what_it_answers_takes_nothing_from_a_budget(cache):
    terms = {"max_tokens": 1, "strategy": "reference", "budget_usd": 0.002}
    smart, big, _ = smart_of(**cache, **terms)
    for _ in range(60):
        smart.invoke("?")  # each would cost 0.00012 USD
    assert len(big.calls) == 1
    assert smart.report().cost == pytest.approx(0.00012)


def test_half_of_an_answer_from_it_is_not_free(cache):
    smart, big, small = smart_of(**cache)
    smart.invoke("?", model="small")
    answer = smart.invoke("?")  # the first of a stream: both are asked
    assert (len(big.calls), len(small.calls)) == (1, 1)
    assert answer.usage_metadata["total_tokens"] == 10
    assert "total_cost" not in answer.usage_metadata
    again = smart.invoke("?")
    assert again.usage_metadata["total_cost"] == 0


def test_a_members_own_setting_comes_first(cache):
    big = model_of("big", "yes", cache=False)
    small = model_of("small", "yes", cache=InMemoryCache())
    smart = SmartChatModel(reference=big, candidates=[small], prices=PRICES, **cache)
    for _ in range(2):
        smart.batch(["?"], model="big")
        smart.batch(["?"], model="small")
    assert (len(big.calls), len(small.calls)) == (2, 1)


def test_false_turns_the_global_cache_off():
    set_llm_cache(InMemoryCache())
    try:
        smart, big, _ = smart_of(cache=False, strategy="reference")
        for _ in range(2):
            smart.invoke("?")
        assert len(big.calls) == 2
    finally:
        set_llm_cache(None)


def test_keys_show_no_secret():
    cache = InMemoryCache()
    smart, _, _ = smart_of(cache=cache)
    smart.invoke("?", model="big")
    assert len(cache._cache) == 1
    assert SECRET not in repr(cache._cache) + repr(smart) + repr(smart._cached)


class Nameless(Bare):
    """A model of which LangChain's key shows nothing."""

    _identifying_params = property(lambda self: {})  # type: ignore[assignment]


def test_a_chain_has_no_cache_that_confuses_its_models(cache):
    models = [Nameless(name=name, answer=name, **cache) for name in PRICES]
    long, short = (model | StrOutputParser() for model in models)
    smart = SmartRunnable(
        reference={"long": long}, candidates={"short": short}, prices=PRICES
    )
    for ask in (
        lambda: smart.invoke("?"),
        lambda: smart.batch(["?"]),
        lambda: [*smart.stream("?")],
        lambda: asyncio.run(smart.ainvoke("?")),
        lambda: asyncio.run(smart.abatch(["?"])),
    ):
        with pytest.raises(InvalidInputError, match=r"cache=.*big and small apart"):
            ask()
    assert not models[0].calls + models[1].calls
    for model in models:
        model.cache = False
    assert smart.invoke("?") == "big"


def test_nor_has_llama_index(cache):
    big, small = (Nameless(name=name, answer=name, **cache) for name in PRICES)
    smart = SmartLLM(reference=big, candidates=[small], prices=PRICES)
    for _ in range(2):
        for name in PRICES:
            assert smart.complete("?", smart_model=name).text == name
            assert [*smart.stream_complete("?", smart_model=name)][-1].text == name
    assert (len(big.calls), len(small.calls)) == (1, 1)
    assert smart.report().spend["big"].calls == 4


def wrong_answers_to_repeated_questions(
    cache: dict[str, Any], seed: int, items: int
) -> int:
    """Ask each of 300 questions once, and from then on those on which `small` errs."""
    smart, _, _ = smart_of(**{**cache, "seed": seed})
    asked = [*(f"easy {n}" for n in range(290)), *(f"hard {n}" for n in range(9))]
    asked += [f"hard {n % 9}" for n in range(items - len(asked))]
    wrong = sum(smart.invoke(question).content == "wrong" for question in asked)
    (state,) = smart.report().streams
    assert state.arrived == items
    return wrong


def test_a_repeated_wrong_answer_is_found(cache):
    assert wrong_answers_to_repeated_questions(cache, 1, 600) <= 30


@pytest.mark.guarantee
@pytest.mark.timeout(0)
def test_repeated_questions_keep_the_promise():
    cache = {"cache": InMemoryCache()}
    wrong = [wrong_answers_to_repeated_questions(cache, n, 400) for n in range(300)]
    broken = sum(each > 20 for each in wrong)
    print(f"\n{broken} of {len(wrong)} streams broken, {max(wrong)} wrong at worst")
    assert broken <= 26  # 15 may be, give or take three standard deviations
