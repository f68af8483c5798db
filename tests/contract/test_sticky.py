"""A conversation that the reference began stays with it; others go on as before."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fakes import Scripted, say
from langchain_core.messages import HumanMessage
from llama_index.core.llms import ChatMessage

from langchain_smart import Price, SmartChatModel
from llama_index_smart import SmartLLM

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}
both = pytest.mark.parametrize(
    "adapter", [SmartChatModel, SmartLLM], ids=lambda made: made.__name__
)


class Plain:
    """LangChain's verbs for one turn of a chat."""

    human = staticmethod(HumanMessage)
    said = staticmethod(lambda answer: answer)
    author = staticmethod(lambda answer: answer.response_metadata["smart"]["model"])
    verbs = ("invoke", "ainvoke")


class Llama:
    """LlamaIndex's."""

    human = staticmethod(lambda text: ChatMessage(role="user", content=text))
    said = staticmethod(lambda answer: answer.message)
    author = staticmethod(lambda answer: answer.additional_kwargs["smart"]["model"])
    verbs = ("chat", "achat")


def talk(adapter, turns: int, verb: int, **settings: Any) -> tuple[Any, list[Any]]:
    """Return the smart object, and per conversation who answered each turn."""
    big, small = (Scripted(name=name, script=say("big")) for name in PRICES)
    smart = adapter(
        reference=big, candidates=[small], prices=PRICES, seed=1, **settings
    )
    form = Plain if adapter is SmartChatModel else Llama
    ask = getattr(smart, form.verbs[verb])

    async def converse(number: int) -> list[str]:
        history, authors = [], []
        for turn in range(turns):
            history.append(form.human(f"conversation {number}, turn {turn}"))
            answer = ask(list(history))
            answer = await answer if verb else answer
            history.append(form.said(answer))
            authors.append(form.author(answer))
        return authors

    async def all_of_them() -> list[list[str]]:
        return [await converse(number) for number in range(80)]

    return smart, asyncio.run(all_of_them())


@both
@pytest.mark.parametrize("verb", [0, 1], ids=["sync", "async"])
def test_what_the_reference_began_stays_with_it(adapter, verb):
    how = {"max_disagreement": 0.2, "task": "talk"}
    smart, sticky = talk(adapter, 3, verb, sticky=True, **how)
    begun = [authors for authors in sticky if authors[0] == "big"]
    others = [authors for authors in sticky if authors[0] == "small"]
    assert begun
    assert others
    assert all(authors == ["big"] * 3 for authors in begun)
    assert any("big" in authors for authors in others)  # an audit's answer
    later = [author for authors in others for author in authors[1:]]
    assert later.count("small") > len(later) / 2
    (stream,) = smart.report().streams
    assert stream.answered == 3 * 80 - 2 * len(begun)
    assert stream.possible_misses <= stream.allowed


@both
def test_else_a_conversation_changes_its_model(adapter):
    _, free = talk(adapter, 3, 0, max_disagreement=0.2, task="talk")
    assert any(authors[0] == "big" and "small" in authors for authors in free)


@both
def test_so_it_does_among_gathered_calls(adapter):
    big, small = (Scripted(name=name, script=say("big")) for name in PRICES)
    given = {"reference": big, "candidates": [small], "prices": PRICES, "seed": 1}
    how = {"max_disagreement": 0.25, "task": "talk", "promise": "batch"}
    smart = adapter(**given, **how, sticky=True)
    form = Plain if adapter is SmartChatModel else Llama
    ask = getattr(smart, form.verbs[1])

    async def converse(number: int) -> list[str]:
        opening = form.human(f"conversation {number}")
        first = await ask([opening])
        history = [opening, form.said(first), form.human(f"turn {number}")]
        return [form.author(first), form.author(await ask(history))]

    async def all_of_them() -> list[list[str]]:
        return await asyncio.gather(*map(converse, range(40)))

    with smart.batching(gather_ms=200, max_items=40):
        authors = asyncio.run(all_of_them())
    assert smart.report().certificates[0].items == 40
    assert {second for first, second in authors if first == "big"} == {"big"}
    assert ["small", "small"] in authors
