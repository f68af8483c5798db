"""LLMs without a price are looked up, where their class and address tell who serves."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from langchain_openai import ChatOpenAI
from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.llms.mock import MockLLM
from llama_index.llms.openai import OpenAI
from llama_index.llms.openai_like import OpenAILike

from llama_index_smart import Price, SmartLLM
from llama_index_smart.cost import outcome
from llama_index_smart.members import read_model
from smart_engine import InvalidInputError
from smart_engine.serving.members import Member, MissingUsageError, find_member


def price_of(model):
    """Return the list price of an LLM."""
    return find_member(read_model("reference", model), {}).price


def served(integration, name, address):
    """Return an LLM of some integration, which nobody asks."""
    module = f"llama_index.llms.{integration}.base"
    kind = type("Served", (OpenAILike,), {"__module__": module})
    return kind(model=name, api_base=address, api_key="none")


@pytest.mark.parametrize(
    ("integration", "name", "address"),
    [
        (
            "google_genai",
            "gemini-2.5-flash",
            "https://generativelanguage.googleapis.com",
        ),
        ("groq", "llama-3.3-70b-versatile", "https://api.groq.com/openai/v1"),
        ("mistralai", "mistral-large-latest", "https://api.mistral.ai"),
        ("deepseek", "deepseek-v3.2", "https://api.deepseek.com"),
        ("bedrock", "amazon.nova-lite-v1:0", None),
        ("bedrock_converse", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", None),
        ("openai_like", "gpt-4o", "https://api.openai.com/v1"),
    ],
)
def test_providers_are_known_by_their_classes(integration, name, address):
    if address:
        assert price_of(served(integration, name, address)).input > 0
    with pytest.raises(InvalidInputError, match=r"leads to 10\.0\.0\.9:1, where"):
        price_of(served(integration, name, "http://10.0.0.9:1/v1"))


def test_ollama_on_this_machine_is_free():
    here, away = "http://localhost:11434", "http://gpu.example.org:11434"
    assert price_of(served("ollama", "llama3.2", here)) == Price.free()
    with pytest.raises(InvalidInputError, match=r"at gpu\.example\.org:11434, is free"):
        price_of(served("ollama", "llama3.2", away))
    with pytest.raises(InvalidInputError, match="no price is known: add"):
        price_of(MockLLM())


def test_langchains_models_are_known_too():
    listed = price_of(OpenAI(model="gpt-4o", api_key="none"))
    at = {"model": "gpt-4o", "api_key": "none"}
    assert price_of(ChatOpenAI(**at)) == listed
    with pytest.raises(InvalidInputError, match=r"leads to 10\.0\.0\.9, where"):
        price_of(ChatOpenAI(**at, base_url="http://10.0.0.9/v1"))


def test_a_model_that_asks_for_a_tier_needs_the_price_of_it():
    flex = {"api_key": "none", "additional_kwargs": {"service_tier": "flex"}}
    listed = price_of(OpenAI(model="gpt-5", **flex))
    assert listed.at("flex").input == listed.input / 2
    with pytest.raises(InvalidInputError, match=r"tiers=\{'flex': Price\(…\)\}"):
        SmartLLM(
            reference=OpenAI(model="gpt-5", **flex),
            candidates=[OpenAI(model="gpt-4o", api_key="none")],
            prices={"gpt-5": Price(1, 2)},
        )
    with pytest.raises(InvalidInputError, match="did you mean 'gpt-4o'"):
        SmartLLM(
            reference=OpenAI(model="gpt-5", api_key="none"),
            candidates=[OpenAI(model="gpt-4o", api_key="none")],
            prices={"gtp-4o": Price(1, 2)},
        )


PRICE = Price(2, 8, tiers={"flex": Price(1, 4)})
USED = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}


def reply(usage=None, **raw):
    raw = SimpleNamespace(usage={**USED, **(usage or {})}, **raw)
    return ChatResponse(message=ChatMessage("x"), raw=raw)


@pytest.mark.parametrize(
    ("response", "cost"),
    [
        (reply(), 2800),
        (reply(service_tier="default"), 2800),
        (reply(service_tier="flex"), 1400),
        (reply({"service_tier": "flex"}), 1400),
        (reply({"service_tier": "batch"}), 2800),
    ],
)
def test_the_tier_that_a_reply_reports_is_billed(response, cost):
    result = outcome(Member("m", MockLLM(), PRICE), response)
    assert result.cost == pytest.approx(cost / 1e6)


def test_a_tier_whose_price_is_unknown_is_never_guessed():
    with pytest.warns(UserWarning, match="m was served at the tier 'priority'"):
        failed = outcome(Member("m", MockLLM(), PRICE), reply(service_tier="priority"))
    assert isinstance(failed.error, MissingUsageError)
