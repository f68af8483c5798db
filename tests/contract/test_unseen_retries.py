"""A model whose retries nothing turns off: it is asked, but beside no budget."""

from __future__ import annotations

import pytest
from fakes import Scripted
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata

from langchain_smart import Price, SmartChatModel
from llama_index_smart import SmartLLM
from smart_engine import InvalidInputError

PRICES = {"big": Price(1, 1), "small": Price(1, 1)}


class StubbornChat(Scripted):
    """A chat model of a provider that nobody knows."""

    max_retries: int = 2
    max_tokens: int = 8


class StubbornLLM(CustomLLM):
    """An LLM of a provider that nobody knows."""

    model: str
    max_tokens: int = 8
    max_retries: int = 2

    @property
    def metadata(self):
        return LLMMetadata(model_name=self.model)

    def complete(self, prompt, formatted=False, **kwargs):
        return CompletionResponse(text="yes")

    def stream_complete(self, prompt, formatted=False, **kwargs):
        raise NotImplementedError


def chat(**settings):
    big = StubbornChat(name="big", script=lambda *_: "yes", **settings)
    small = StubbornChat(name="small", script=lambda *_: "yes", max_retries=0)
    return {"reference": big, "candidates": [small], "prices": PRICES}


def llm(**settings):
    big = StubbornLLM(model="big", **settings)
    small = StubbornLLM(model="small", max_retries=0)
    return {"reference": big, "candidates": [small], "prices": PRICES}


@pytest.mark.parametrize(
    ("smart", "given"), [(SmartChatModel, chat), (SmartLLM, llm)], ids=["chat", "llm"]
)
def test_a_client_that_cannot_be_stopped_is_refused_beside_a_budget(smart, given):
    named = r"^budget_usd=1\.0: .* big \(Stubborn\w+\) .*: give it max_retries=0$"
    with pytest.raises(InvalidInputError, match=named):
        smart(**given(), budget_usd=1)
    smart(**given(max_retries=0), budget_usd=1)
    smart(**{**given(), "prices": dict.fromkeys(PRICES, Price.free())}, budget_usd=1)
    smart(**given())


@pytest.mark.parametrize(
    ("smart", "given"), [(SmartChatModel, chat), (SmartLLM, llm)], ids=["chat", "llm"]
)
def test_a_budget_that_is_set_later_is_checked_as_at_construction(smart, given):
    refused = pytest.raises(InvalidInputError, match="give it max_retries=0")
    made = smart(**given())
    with refused:
        made.budget_usd = 1.0
    assert made.budget_usd is None
    with refused:
        made.model_copy(update={"budget_usd": 1.0})
    with pytest.raises(InvalidInputError, match=r"confidence=95"):
        made.confidence = 95
    assert made.confidence == 0.95
    made = smart(**given(max_retries=0))
    made.budget_usd = 1.0
    assert made.budget_usd == 1


def test_it_is_asked_where_there_is_no_budget():
    assert SmartChatModel(**chat()).invoke("?").content == "yes"
    smart = SmartLLM(**llm(), estimate_usage=True)
    assert smart.complete("?").text == "yes"
