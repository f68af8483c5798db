"""What messages report is billed by kind; models without a price are looked up."""

from __future__ import annotations

import pickle
import sys

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
from smart_engine.serving.members import Member, MissingUsageError, find_member

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


PLAIN = Price(2, 8)


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
    listed = smart.prices["gpt-4o-2024-08-06"]
    assert (listed.input, listed.output, listed.cache_read) == (2.5, 10, 1.25)
    assert smart.prices["gpt-4o-mini-2024-07-18"].input == 0.15
    assert smart.prices["scripted"] == Price.free()
    usage = Usage(1_000_000, cache_read=1_000_000)
    assert smart.prices["gpt-4o-2024-08-06"].cost(usage) == pytest.approx(1.25)
    del smart.prices["scripted"]
    again = SmartChatModel(
        reference=openai(),
        candidates=[openai("gpt-4o-mini-2024-07-18")],
        prices=smart.prices,
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


def price_of(model):
    """Return the list price of a model."""
    return find_member(read_model("reference", model), {}).price


def test_an_address_that_is_not_the_providers_has_no_list_price(monkeypatch) -> None:
    at_home = price_of(openai())
    assert price_of(openai(base_url="https://api.openai.com/v1")) == at_home
    elsewhere = ["https://example.org/v1", "https://api.openai.com.example.org/v1"]
    elsewhere += ["https://eu.api.openai.com/v1"]  # regions may cost more
    for address in elsewhere:
        host = address.split("/")[2]
        named = f"its base URL leads to {host}, where OpenAI's list prices may not"
        with pytest.raises(InvalidInputError, match=named):
            price_of(openai(base_url=address))
        monkeypatch.setenv("OPENAI_BASE_URL", address)
        with pytest.raises(InvalidInputError, match=named):
            price_of(openai())
    with pytest.raises(InvalidInputError) as error:
        price_of(openai(base_url="https://me:hush@example.org/v1"))
    assert "hush" not in str(error.value)


def test_without_the_list_the_error_has_both_ways_out(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    ways = r"\(pip install 'smart-llm\[prices\]'\): add prices=\{"
    with pytest.raises(InvalidInputError, match=ways):
        price_of(openai())


def azure(endpoint):
    return AzureChatOpenAI(
        model="gpt-4o",
        azure_deployment="mine",
        azure_endpoint=endpoint,
        api_key="none",
        api_version="2024-10-21",
    )


def test_azure_is_asked_at_its_own_addresses() -> None:
    assert read_model("reference", azure("https://example.org")).provider == "azure"
    with pytest.raises(InvalidInputError, match=r"example\.org, where .*Azure"):
        price_of(azure("https://example.org"))


class Served(Scripted):
    """A model of some provider, as its integration would tell."""

    provider: str
    base_url: str | None = None

    def _get_ls_params(self, stop=None, **kwargs):
        return {"ls_provider": self.provider, "ls_model_name": self.name}


def served(provider, name, address=None):
    return Served(script=lambda *_: "x", provider=provider, name=name, base_url=address)


@pytest.mark.parametrize(
    ("provider", "name", "address"),
    [
        (
            "google_genai",
            "gemini-2.5-flash",
            "https://generativelanguage.googleapis.com",
        ),
        ("google_genai", "models/gemini-2.5-flash", None),
        ("groq", "llama-3.3-70b-versatile", "https://api.groq.com"),
        ("mistral", "mistral-large-latest", "https://api.mistral.ai/v1"),
        ("mistralai", "mistral-large-latest", None),
        ("deepseek", "deepseek-v3.2", "https://api.deepseek.com/v1"),
        ("xai", "grok-4", "https://api.x.ai/v1/"),
        (
            "amazon_bedrock",
            "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "https://bedrock-runtime.us-east-1.amazonaws.com",
        ),
        ("anthropic", "claude-sonnet-4-5", "https://api.anthropic.com"),
    ],
)
def test_providers_are_known_by_their_classes(provider, name, address) -> None:
    assert price_of(served(provider, name, address)).input > 0
    with pytest.raises(
        InvalidInputError, match=r"its base URL leads to 10\.0\.0\.9:1,"
    ):
        price_of(served(provider, name, "http://10.0.0.9:1/v1"))


def test_a_class_that_is_only_named_like_a_provider_has_no_list_price() -> None:
    with pytest.raises(InvalidInputError, match="no 'gpt-4o' of 'myopenaigateway'"):
        price_of(served("myopenaigateway", "gpt-4o"))


@pytest.mark.parametrize(
    ("name", "address", "free"),
    [
        ("llama3.2", "http://localhost:11434", True),
        ("llama3.2", "http://127.0.0.1:11434/", True),
        ("llama3.2", "127.0.0.1:11434", True),
        ("llama3.2", "http://gpu.example.org:11434", False),
        ("llama3.2", "http://localhost.example.org", False),
        ("llama3.2", None, False),
        ("gpt-oss:120b-cloud", "http://localhost:11434", False),
    ],
)
def test_ollama_on_this_machine_is_free(name, address, free) -> None:
    model = served("ollama", name, address)
    if free:
        assert price_of(model) == Price.free()
    else:
        with pytest.raises(InvalidInputError, match="on this machine"):
            price_of(model)


FLEX = Price(2, 8, tiers={"flex": Price(1, 4)})


@pytest.mark.parametrize(
    "settings",
    [
        {"service_tier": "flex"},
        {"extra_body": {"service_tier": "flex"}},
    ],
)
def test_a_model_that_asks_for_a_tier_needs_the_price_of_it(settings) -> None:
    def smart(price):
        prices = {"mine": price, "gpt-4o-mini": PLAIN}
        members = {"reference": openai("mine", **settings)}
        members["candidates"] = [openai("gpt-4o-mini")]
        return SmartChatModel(**members, prices=prices)

    assert smart(FLEX).prices["mine"] == FLEX
    assert smart(Price.free()).prices["mine"] == Price.free()
    with pytest.raises(InvalidInputError, match=r"tiers=\{'flex': Price\(…\)\}"):
        smart(PLAIN)
    listed = price_of(openai("gpt-5", **settings))
    assert listed.at("flex").input == listed.input / 2
    standard = ["auto", "default", None]
    assert {price_of(openai("gpt-5", service_tier=tier)) for tier in standard}
    with pytest.raises(InvalidInputError, match="'scale'"):
        price_of(openai("gpt-5", service_tier="scale"))


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


# -- service tiers, by what the reply reports ----------------------------------------


def at_tier(**metadata) -> AIMessage:
    message = reporting()
    message.response_metadata = metadata
    return message


@pytest.mark.parametrize(
    ("metadata", "cost"),
    [
        ({}, 2000 + 800),
        ({"service_tier": "default"}, 2000 + 800),
        ({"service_tier": "flex"}, 1000 + 400),
        ({"service_tier": "batch"}, 2000 + 800),  # never dearer than the standard
        ({"usage": {"service_tier": "standard"}}, 2000 + 800),
        ({"usage": {"service_tier": "flex"}}, 1000 + 400),
        ({"serviceTier": {"type": "flex"}}, 1000 + 400),
    ],
)
def test_the_tier_that_a_reply_reports_is_billed(metadata, cost) -> None:
    result = outcome(Member("m", None, FLEX), at_tier(**metadata))
    assert result.cost == pytest.approx(cost / 1e6)


@pytest.mark.parametrize("tier", ["priority", "fast", "scale"])
@pytest.mark.parametrize("price", [PLAIN, FLEX])
def test_a_tier_whose_price_is_unknown_is_never_guessed(tier, price) -> None:
    named = rf"m was served at the tier '{tier}'.*tiers=\{{'{tier}': Price"
    with pytest.warns(UserWarning, match=named):
        failed = outcome(
            Member("m", None, price), at_tier(service_tier=tier), lambda: Usage(1, 1)
        )
    assert isinstance(failed.error, MissingUsageError)
    free = outcome(Member("m", None, Price.per_call(1)), at_tier(service_tier=tier))
    assert free.cost == 1
