"""What messages report is billed by kind; models without a price are looked up."""

from __future__ import annotations

import pickle

import pytest
from fakes import Scripted
from langchain_core.language_models.llms import BaseLLM
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import Generation, LLMResult
from langchain_core.runnables import RunnableLambda
from langchain_openai import AzureChatOpenAI, ChatOpenAI

from langchain_smart import Price, SmartChatModel, SmartRunnable
from langchain_smart.chat.cost import outcome
from langchain_smart.chat.members import read_model
from smart_engine import Failure, InvalidInputError, Usage
from smart_engine.serving.members import Member

RATES = Price(
    input=3,
    output=15,
    cache_read=0.3,
    cache_write=3.75,
    cache_write_1h=6,
    input_audio=32,
    output_audio=64,
    reasoning=20,
)


def openai(name: str = "gpt-4o-2024-08-06", **settings) -> ChatOpenAI:
    """Return a model that nobody asks."""
    return ChatOpenAI(model=name, api_key="none", **settings)


def reporting(asked=None, said=None, tokens=(1000, 100)) -> AIMessage:
    """Return a message with such a usage report."""
    usage = {"input_tokens": tokens[0], "output_tokens": tokens[1]}
    usage["total_tokens"] = sum(tokens)
    if asked is not None:
        usage["input_token_details"] = asked
    if said is not None:
        usage["output_token_details"] = said
    return AIMessage("x", usage_metadata=usage)


@pytest.mark.parametrize(
    ("asked", "said", "cost"),
    [
        (None, None, 3000 + 1500),
        ({}, {}, 3000 + 1500),
        ({"cache_read": 600}, None, 1200 + 180 + 1500),
        ({"cache_creation": 600}, None, 1200 + 2250 + 1500),
        ({"audio": 10, "other": 7}, None, 2970 + 320 + 1500),
        # OpenAI's service tiers have names of their own.
        ({"priority_cache_read": 600, "priority": 400}, None, 1200 + 180 + 1500),
        ({"flex_cache_creation": 600, "flex": 1000}, None, 1200 + 2250 + 1500),
        (None, {"flex_reasoning": 90, "flex": 10}, 3000 + 150 + 1800),
        (None, {"reasoning": 90}, 3000 + 150 + 1800),
        (None, {"audio": 90}, 3000 + 150 + 5760),
        # Written for an hour, told apart, in one figure or in both.
        (
            {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200},
            None,
            2100 + 375 + 1200 + 1500,
        ),
        (
            {
                "cache_creation": 300,
                "ephemeral_5m_input_tokens": 100,
                "ephemeral_1h_input_tokens": 200,
            },
            None,
            2100 + 375 + 1200 + 1500,
        ),
    ],
    ids=str,
)
def test_what_a_message_reports_is_billed_by_kind(asked, said, cost) -> None:
    brought = outcome(Member("m", None, RATES), reporting(asked, said))
    assert brought.cost == pytest.approx(cost / 1e6, rel=1e-12)
    assert (brought.usage.input_tokens, brought.usage.output_tokens) == (1000, 100)


@pytest.mark.parametrize(
    ("asked", "said", "tokens"),
    [
        ({"cache_read": 1001}, None, (1000, 100)),
        ({"cache_read": -1}, None, (1000, 100)),
        ({"audio": 1001}, None, (1000, 100)),
        (None, {"reasoning": 101}, (1000, 100)),
        (None, None, (-1, 1)),
    ],
    ids=str,
)
def test_an_absurd_report_fails_its_call(asked, said, tokens) -> None:
    message = reporting(asked, said, tokens)
    with pytest.warns(UserWarning, match="reported no usage that can be priced"):
        assert isinstance(outcome(Member("m", None, RATES), message), Failure)


def test_models_without_a_price_are_looked_up_and_keep_it() -> None:
    smart = SmartChatModel(
        reference=openai(),
        candidates=[openai("gpt-4o-mini-2024-07-18"), Scripted(script=lambda *_: "x")],
        prices={"scripted": Price.free()},
    )
    assert smart.prices["gpt-4o-2024-08-06"] == Price(2.5, 10, cache_read=1.25)
    assert smart.prices["gpt-4o-mini-2024-07-18"].input == 0.15
    assert smart.prices["scripted"] == Price.free()
    usage = Usage(1_000_000, cache_read=1_000_000)
    assert smart.prices["gpt-4o-2024-08-06"].cost(usage) == pytest.approx(1.25)
    again = SmartChatModel(
        reference=openai(), candidates=[openai("gpt-4o-mini")], prices=smart.prices
    )
    assert pickle.loads(pickle.dumps(again.prices)) == again.prices  # noqa: S301


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (openai("gpt-99"), "the price list has no 'gpt-99' of 'openai'"),
        (
            openai(base_url="http://127.0.0.1:9/v1"),
            "no price is known, and its base URL leads to 127.0.0.1:9, .*: add prices",
        ),
        (Scripted(name="local", script=lambda *_: "x"), "no price is known: add"),
    ],
)
def test_what_is_not_known_for_sure_is_an_error(model, named) -> None:
    with pytest.raises(InvalidInputError, match=named) as error:
        SmartChatModel(reference=openai(), candidates=[model])
    assert error.value.field == "prices"


def test_whoever_serves_a_model_is_told_by_it() -> None:
    assert read_model("reference", openai()).provider == "openai"
    home = "https://api.openai.com/v1"
    assert read_model("reference", openai(base_url=home)).provider == "openai"
    other = "https://example.org/v1"
    assert read_model("reference", openai(base_url=other)).provider is None
    azure = AzureChatOpenAI(
        model="gpt-4o",
        azure_deployment="mine",
        azure_endpoint="https://example.org",
        api_key="none",
        api_version="2024-10-21",
    )
    assert read_model("reference", azure).provider == "azure"


def test_a_model_is_elsewhere_wherever_its_client_asks(monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "https://example.org/v1")
    assert read_model("reference", openai()).provider is None
    monkeypatch.setenv("OPENAI_BASE_URL", "https://eu.api.openai.com/v1")
    assert read_model("reference", openai()).provider is None  # regions may cost more
    monkeypatch.setenv("OPENAI_BASE_URL", "https://api.openai.com/v1")
    assert read_model("reference", openai()).provider == "openai"


@pytest.mark.parametrize(
    ("settings", "listed"),
    [
        ({"service_tier": "auto"}, True),
        ({"service_tier": "default"}, True),
        ({"service_tier": "priority"}, False),
        ({"service_tier": "flex"}, False),
        ({"extra_body": {"service_tier": "flex"}}, False),
    ],
)
def test_another_service_tier_has_another_price(settings, listed) -> None:
    provider = read_model("reference", openai(**settings)).provider
    assert provider == ("openai" if listed else None)


def test_a_price_is_found_under_the_string_that_named_the_model(monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    smart = SmartChatModel(
        reference="openai:gpt-4o",
        candidates=["openai:gpt-4o-mini"],
        prices={"openai:gpt-4o": Price(1, 2), "gpt-4o-mini": Price(3, 4)},
    )
    assert smart.prices["gpt-4o"] == Price(1, 2)
    assert smart.prices["gpt-4o-mini"] == Price(3, 4)


def test_a_model_in_a_chain_is_looked_up_too():
    def chain(model):
        return RunnableLambda(str) | model | StrOutputParser()

    smart = SmartRunnable(
        reference={"long": chain(openai())},
        candidates={"short": chain(openai("x").bind(model="gpt-4o-mini"))},
    )
    listed = [list(tier.prices) for tier in smart._members.values()]
    assert listed == [["gpt-4o-2024-08-06"], ["gpt-4o-mini"]]
    with pytest.raises(InvalidInputError, match=r"no-such-model.*no price is known"):
        SmartRunnable(reference=chain(openai()), candidates=[openai("no-such-model")])


class Texts(BaseLLM):
    """A model of texts, which counts its thoughts in the total only."""

    name: str = "texts"

    def _generate(self, prompts, stop=None, run_manager=None, **kwargs) -> LLMResult:
        used = {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 31}
        return LLMResult(
            generations=[[Generation(text="x")]], llm_output={"token_usage": used}
        )

    @property
    def _llm_type(self) -> str:
        return "texts"


def test_a_total_larger_than_its_parts_holds_in_chains_too() -> None:
    prices = {"texts": Price(1, 2)}
    chains = {"reference": {"long": Texts()}, "candidates": {"short": Texts()}}
    smart = SmartRunnable(**chains, prices=prices)
    assert smart.invoke("x") == "x"
    inner = [each for each in smart.ledger().entries if each.role == "inside"]
    assert {(each.output_tokens, each.cost) for each in inner} == {(21, 52e-6)}
