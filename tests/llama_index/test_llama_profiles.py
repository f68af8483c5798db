"""Streams of LlamaIndex programs in a store: shared, and good for the same only."""

from __future__ import annotations

import warnings

import pytest
from langchain_openai import ChatOpenAI
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.llms.openai import OpenAI
from llama_index.llms.openai_like import OpenAILike
from loopback import serve

from llama_index_smart import Price, SmartLLM
from llama_index_smart.members import identity_of
from smart_engine import InvalidInputError

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}
SUMMARY = PromptTemplate("Sum up: {text}")
BRIEFLY = PromptTemplate("Sum up briefly: {text}")


@pytest.fixture(scope="module")
def server():
    with serve(lambda *_: "yes") as server:
        yield server


def smart_at(server, store, member=None, **settings) -> SmartLLM:
    at = {"api_base": server.url, "api_key": "none", "is_chat_model": True}
    at |= member or {}
    big, small = (OpenAILike(model=name, **at) for name in PRICES)
    terms = {"prices": PRICES, "store": store, **settings}
    return SmartLLM(reference=big, candidates=[small], **terms)


def arrived(smart) -> int:
    (state,) = smart.report().streams
    return state.arrived


def test_two_programs_share_the_stream_of_a_template(server, place):
    first, second = smart_at(server, place), smart_at(server, place)
    for turn in range(10):
        assert (first, second)[turn % 2].predict(SUMMARY, text=f"text {turn}") == "yes"
    assert first.report().streams == second.report().streams
    (state,) = first.report().streams
    assert state.answered == 10
    both = first.report().cost + second.report().cost
    assert state.cost == pytest.approx(both)


def system(smart, said="Be kind."):
    return smart.chat([ChatMessage(said, role="system"), ChatMessage("Well?")])


CHANGES = {
    "models": ({"member": {"temperature": 0.9}}, system),
    "guarantee": ({"max_disagreement": 0.1}, system),
    "prompt": ({}, lambda smart: system(smart, "Be brief.")),
    "prompt, by a template": ({}, lambda smart: smart.predict(SUMMARY, text="?")),
}


@pytest.mark.parametrize("what", CHANGES)
def test_only_the_same_goes_on(server, tmp_path, what):
    settings, after = CHANGES[what]
    file = tmp_path / "answers.db"
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for count in (1, 2):
            smart = smart_at(server, file, task="mail")
            system(smart)
            assert arrived(smart) == count
    smart = smart_at(server, file, task="mail", **settings)
    part = what.split(",")[0]
    with pytest.warns(UserWarning, match=rf"the store knows task 'mail'.*{part}\b"):
        after(smart)
    assert arrived(smart) == 1


LISTED = {name: Price(1, 1) for name in ("gpt-4o", "o4-mini")}
SETTINGS = {
    "reasoning_effort": (OpenAI, {"reasoning_effort": "low"}, False),
    "additional_kwargs": (OpenAI, {"additional_kwargs": {"seed": 1}}, False),
    "api_base": (OpenAI, {"api_base": "http://127.0.0.1:9/v1"}, False),
    "api_key": (OpenAI, {"api_key": "another"}, True),
    "timeout": (OpenAI, {"timeout": 3.0}, True),
    "of LangChain": (ChatOpenAI, {"reasoning_effort": "low"}, False),
    "address of LangChain": (ChatOpenAI, {"base_url": "http://127.0.0.1:9"}, False),
    "key of LangChain": (ChatOpenAI, {"api_key": "another"}, True),
}


@pytest.mark.parametrize("what", SETTINGS)
def test_every_setting_that_may_change_an_answer_tells_models_apart(what):
    kind, changed, same = SETTINGS[what]

    def told(**settings):
        given = {"model": "o4-mini", "api_key": "none", **settings}
        members = {"reference": kind(model="gpt-4o", api_key="none")}
        smart = SmartLLM(candidates=[kind(**given)], prices=LISTED, **members)
        return identity_of(smart._members["o4-mini"])

    assert (told() == told(**changed)) is same
    assert told() == told()


def test_another_template_is_another_task(server, tmp_path):
    for count in (1, 2):
        smart = smart_at(server, tmp_path / "answers.db")
        smart.predict(SUMMARY, text="a")
        smart.predict(BRIEFLY, text="a")
        assert [state.arrived for state in smart.report().streams] == [count, count]


def test_a_model_that_its_class_does_not_know_is_named():
    shown = "^SmartLLM='…': Unknown model 'local'"
    with pytest.raises(InvalidInputError, match=shown):
        SmartLLM(
            reference=OpenAI(model="local"), candidates=[OpenAI(model="gpt-5-mini")]
        )
