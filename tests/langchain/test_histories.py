"""Conversations that several models answer: each is given the history it can take."""

from __future__ import annotations

import re
from itertools import count
from typing import Any

import pytest
from fakes import Scripted
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import RunnableBinding
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver

from langchain_smart import Price, SmartChatModel, SmartMiddleware
from smart_engine.errors import BudgetExceededError

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}
RUNS = 8


@tool
def double(number: int) -> str:
    """Double a number."""
    return str(2 * number)


class ForeignReasoningError(Exception):
    """A provider's error: HTTP 400."""

    status_code = 400


def anthropic(mark: str, text: str) -> dict[str, Any]:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": mark}
    hidden = {"type": "redacted_thinking", "data": mark}
    return {"content": [thought, hidden, {"type": "text", "text": text}]}


def gemini(mark: str, text: str) -> dict[str, Any]:
    said = {"type": "text", "text": text, "extras": {"signature": mark}}
    kept = {"__gemini_function_call_thought_signatures__": {"1": mark}}
    return {"content": [said], "additional_kwargs": kept}


def deepseek(mark: str, text: str) -> dict[str, Any]:
    return {"content": text, "additional_kwargs": {"reasoning_content": mark}}


def standard(mark: str, text: str) -> dict[str, Any]:
    thought = {"type": "reasoning", "reasoning": "Hm.", "extras": {"signature": mark}}
    content = [thought, {"type": "text", "text": text}]
    return {"content": content, "response_metadata": {"output_version": "v1"}}


PROVIDERS = {
    "anthropic": anthropic,
    "google_genai": gemini,
    "deepseek": deepseek,
    "v1": standard,
}


class Reasoning(Scripted):
    """Signs its reasoning, and refuses reasoning that another model has signed."""

    script: Any = None
    provider: str
    own: list[int] = []  # noqa: RUF012 - pydantic copies it
    sent: list[Any] = []  # noqa: RUF012

    def bind_tools(self, tools: Any, **kwargs: Any) -> RunnableBinding:
        return self.bind(tools=tools, **kwargs)

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        self._enter(str(messages[-1].text), kwargs)
        self.sent.append(messages)
        return self._answer(self._said(messages), kwargs)

    async def _agenerate(self, messages, stop=None, run_manager=None, **kwargs):
        return self._generate(messages, stop, **kwargs)

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        message = self._generate(messages, stop, **kwargs).generations[0].message
        fields = {name: value for name, value in message if name != "type"}
        yield ChatGenerationChunk(message=AIMessageChunk(**fields))

    def _answer(self, said, kwargs):
        self.script = lambda *_: said
        return super()._answer("x" * 20, kwargs)

    def _said(self, messages) -> AIMessage | ForeignReasoningError:
        signers = re.findall(
            r"signed by (\w+)", repr([m.model_dump() for m in messages])
        )
        if set(signers) - {self.name}:
            return ForeignReasoningError("Invalid signature")
        self.own.append(len(signers))
        last, mark = messages[-1], f"signed by {self.name}"
        if isinstance(last, ToolMessage):
            assert messages[-2].tool_calls[0]["id"] == last.tool_call_id
            fields = PROVIDERS[self.provider](mark, f"It is {last.text}.")
        else:
            number = int(str(last.text).rsplit(maxsplit=1)[-1])
            call = {"name": "double", "args": {"number": number}, "id": f"c{number}"}
            fields = PROVIDERS[self.provider](mark, "I look.") | {"tool_calls": [call]}
        told = fields.setdefault("response_metadata", {})
        told["model_provider"] = self.provider
        return AIMessage(**fields)


def models(provider: str) -> tuple[Reasoning, Reasoning]:
    return tuple(
        Reasoning(name=name, provider=provider, own=[], sent=[])
        for name in ("big", "small")
    )


def smart_of(big, small, **settings) -> SmartChatModel:
    given = {"prices": PRICES, "max_disagreement": 0.2, **settings}
    return SmartChatModel(reference=big, candidates=[small], **given)


@pytest.mark.parametrize(
    ("provider", "mode"),
    [
        *((name, "smart model") for name in PROVIDERS),
        ("anthropic", "middleware"),
        ("google_genai", "stream"),
    ],
)
def test_no_conversation_of_reasoning_models_dies(provider, mode):
    big, small = models(provider)
    if mode == "middleware":
        smart = SmartMiddleware([small], prices=PRICES, max_disagreement=0.2)
        made = {"model": big, "middleware": [smart]}
    else:
        smart = smart_of(big, small, streaming=mode == "stream")
        made = {"model": smart}
    agent = create_agent(**made, tools=[double], checkpointer=InMemorySaver())
    number = count()
    for run in range(RUNS):
        thread = {"configurable": {"thread_id": run}}
        for n in (next(number) for _ in range(2)):
            asked = {"messages": [HumanMessage(f"Double {n}")]}
            said = agent.invoke(asked, thread)["messages"][-1]
            assert said.text == f"It is {2 * n}."
    spend = smart.report().spend
    assert spend["big"].failures == spend["small"].failures == 0
    assert spend["small"].calls > RUNS
    assert sum(small.own) > 0  # its own turns are given to it whole
    assert sum(big.own) > 0


def thinking(author: str | None, text: str = "Yes.", thought: str = "Hm.") -> AIMessage:
    mark = {} if author is None else {"smart": {"model": author}}
    block = {
        "type": "thinking",
        "thinking": thought,
        "signature": f"signed by {author}",
    }
    content = [block, {"type": "text", "text": text}]
    return AIMessage(content, response_metadata={"model_provider": "anthropic", **mark})


def answering(provider="anthropic"):
    big, small = models(provider)
    return big, small, smart_of(big, small)


def test_a_turn_of_another_keeps_what_was_said_and_called():
    _, small, smart = answering("deepseek")
    call = {"name": "double", "args": {"number": 1}, "id": "call_1"}
    made = {"name": "double", "arguments": '{"number": 1}', "call_id": "call_1"}
    turn = AIMessage(
        [
            {"type": "reasoning", "id": "rs_1", "encrypted_content": "gAAA"},
            {"type": "text", "text": "Yes.", "id": "msg_1", "annotations": []},
            {
                "type": "image_generation_call",
                "id": "ig_1",
                "result": "aGk=",
                "output_format": "png",
            },
            {"type": "function_call", "id": "fc_1", **made},
        ],
        tool_calls=[call],
        name="agent",
        id="msg_1",
        response_metadata={
            "id": "resp_1",
            "model_provider": "openai",
            "smart": {"model": "big"},
        },
    )
    result = ToolMessage("2", tool_call_id="call_1")
    smart.invoke([HumanMessage("Well?"), turn, result], model="small")
    _, given, answered = small.sent[0]
    said = [
        {"type": "text", "text": "Yes."},
        {"type": "image", "base64": "aGk=", "mime_type": "image/png"},
    ]
    assert given == AIMessage(said, name="agent", tool_calls=[call])
    assert answered == result


def test_a_turn_without_a_mark_counts_as_the_references():
    big, small, smart = answering()
    turn = thinking(None)
    history = [HumanMessage("Double 1"), turn, HumanMessage("Double 2")]
    with pytest.raises(ForeignReasoningError):
        smart.invoke(history, model="big")
    assert big.sent[0][1] == turn  # as it would get it alone
    smart.invoke(history, model="small")
    assert small.sent[0][1] == AIMessage("Yes.")


def test_the_same_texts_by_another_model_are_another_item():
    big, small = models("anthropic")
    smart = smart_of(big, small, dedupe=True, strategy="reference")
    ask = HumanMessage("Double 1")
    histories = [[ask, thinking(each), ask] for each in ("big", "big", "small")]
    smart.batch(histories)
    assert len(big.sent) == 2


@pytest.mark.filterwarnings("ignore:small is priced no lower")
def test_a_budget_reserves_what_is_sent():
    big, small = models("anthropic")
    prices = {"big": Price(1, 1), "small": Price(1, 1)}
    smart = smart_of(big, small, budget_usd=0.5, max_tokens=10, prices=prices)
    ask = HumanMessage("Double 1")
    long = thinking("small", thought="word " * 200_000)
    assert smart.invoke([ask, thinking("big"), ask], model="big").tool_calls
    assert smart.invoke([ask, long, ask], model="big").tool_calls
    with pytest.raises(BudgetExceededError):
        smart.invoke([ask, long, ask], model="small")
