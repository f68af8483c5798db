"""A smart model within another: refused as a member, booked whole within a chain."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from fakes import Scripted
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import RunnableLambda
from llama_index.core.llms.mock import MockLLM

from langchain_smart import Price, SmartChatModel, SmartRunnable
from llama_index_smart import SmartLLM
from llama_index_smart.langchain_llm import LangChainLLM
from smart_engine.errors import InvalidInputError

PRICES = {"big": Price(10, 30), "small": Price(1, 3)}
ITEMS = [f"item {n}" for n in range(16)]


def chat(name, fails=0):
    """Return a model of which every `fails`th call fails."""
    calls = []

    def script(*_):
        calls.append(name)
        return ValueError(name) if fails and len(calls) % fails == 0 else "yes"

    return Scripted(name=name, script=script)


def smart_chat(fails=0, other_fails=0, **settings):
    members = {"reference": chat("big", fails)}
    members["candidates"] = [chat("small", other_fails)]
    return SmartChatModel(**members, prices=PRICES, task="inner", **settings)


class Other(MockLLM):
    """Another LLM, named by its class."""

    @classmethod
    def class_name(cls) -> str:
        return "Other"


def smart_llm():
    prices = {name: Price.free() for name in ("MockLLM", "Other")}
    return SmartLLM(reference=MockLLM(), candidates=[Other()], prices=prices)


@pytest.mark.parametrize("field", ["reference", "candidates"])
@pytest.mark.parametrize(
    ("outer", "plain", "inner"),
    [
        (SmartChatModel, lambda: chat("big"), smart_chat),
        (SmartLLM, MockLLM, smart_llm),
        (SmartLLM, MockLLM, smart_chat),
        (SmartLLM, MockLLM, lambda: LangChainLLM(model=smart_chat())),
    ],
    ids=["LangChain", "LlamaIndex", "LangChain's in LlamaIndex", "wrapped"],
)
def test_a_smart_model_is_no_member_of_another(outer, plain, inner, field):
    members = {"reference": plain(), "candidates": [plain()]}
    members[field] = [inner()] if field == "candidates" else inner()
    with pytest.raises(InvalidInputError, match="its candidates here") as error:
        outer(**members, prices={})
    assert error.value.field == field
    assert error.value.value in {"SmartChatModel", "SmartLLM"}


def ask_all(smart, verb):
    if verb == "batch":
        smart.batch(ITEMS, return_exceptions=True)
    elif verb == "abatch":
        asyncio.run(smart.abatch(ITEMS, return_exceptions=True))
    for item in ITEMS:
        with suppress(ValueError):
            if verb == "invoke":
                smart.invoke(item)
            elif verb == "ainvoke":
                asyncio.run(smart.ainvoke(item))
            elif verb == "stream":
                list(smart.stream(item))


def parsed(model):
    return model | StrOutputParser()


def several(model):
    """Return a chain that puts a batch to its model."""
    ask = RunnableLambda(lambda text: [text, f"{text} again"])
    return ask | model.map() | RunnableLambda(lambda said: said[0].content)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("verb", "chain"),
    [
        *((verb, parsed) for verb in ("invoke", "ainvoke", "stream", "batch")),
        *((verb, several) for verb in ("invoke", "abatch")),
    ],
)
@pytest.mark.parametrize(
    "settings",
    [{}, {"fails": 3}, {"fails": 3, "other_fails": 2}, {"mode": "shadow", "fails": 5}],
    ids=str,
)
def test_all_that_a_smart_model_in_a_chain_spends_is_booked(verb, settings, chain):
    inner = smart_chat(**settings)
    smart = SmartRunnable(
        reference={"long": chat("big") | StrOutputParser()},
        candidates={"short": chain(inner)},
        prices={"big": PRICES["big"]},
        max_disagreement=0.2,
        task="outer",
    )
    ask_all(smart, verb)
    spend = smart.report().spend["short"]
    calls = sum(each.calls for each in inner.report().spend.values())
    assert calls > 5
    assert spend.cost == pytest.approx(inner.report().cost)
