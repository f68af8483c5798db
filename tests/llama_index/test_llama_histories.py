"""Conversations that several LLMs answer: each is given the history it can take."""

from __future__ import annotations

import re
from typing import Any

import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CitationBlock,
    LLMMetadata,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.tools import FunctionTool

from llama_index_smart import Price, SmartLLM
from smart_engine.errors import BudgetExceededError

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}
USED = {"prompt_tokens": 20, "completion_tokens": 5}
RUNS = 8
OF_ANOTHER = "skip_thought_signature_validator"


def double(number: int) -> str:
    """Double a number."""
    return str(2 * number)


class ForeignReasoningError(Exception):
    """A provider's error: HTTP 400."""

    status_code = 400


def anthropic(mark: str) -> dict[str, Any]:
    return {"thought": {"signature": mark}}


def responses(mark: str) -> dict[str, Any]:
    return {"thought": {"id": f"rs_1 {mark}", "encrypted_content": mark}}


def gemini(mark: str) -> dict[str, Any]:
    return {"kwargs": {"thought_signatures": [mark]}}


PROVIDERS = {"anthropic": anthropic, "responses": responses, "gemini": gemini}


class Reasoning(FunctionCallingLLM):
    """Signs its reasoning, and refuses reasoning that another LLM has signed."""

    model: str
    provider: str = "anthropic"
    max_tokens: int = 10
    own: list[int] = []  # noqa: RUF012 - pydantic copies it
    sent: list[Any] = []  # noqa: RUF012

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(
            model_name=self.model,
            is_chat_model=True,
            is_function_calling_model=True,
            context_window=1_000_000,
        )

    def chat(self, messages, **kwargs):
        self.sent.append(messages)
        dump = repr([message.model_dump() for message in messages])
        signers = re.findall(r"signed by (\w+)", dump)
        if set(signers) - {self.model}:
            raise ForeignReasoningError("Invalid signature")
        assert "'smart'" not in dump
        if self.provider == "gemini" and messages[-1].role == "tool":
            (signature,) = messages[-2].additional_kwargs["thought_signatures"]
            assert signature in {OF_ANOTHER, f"signed by {self.model}"}
        self.own.append(len(signers))
        private = PROVIDERS[self.provider](f"signed by {self.model}")
        blocks: list[Any] = []
        if "thought" in private:
            thought = private["thought"]
            blocks += [ThinkingBlock(content="Hm.", additional_information=thought)]
        last = messages[-1]
        if last.role == "tool":
            calls = [b for b in messages[-2].blocks if isinstance(b, ToolCallBlock)]
            assert calls[0].tool_call_id == last.additional_kwargs["tool_call_id"]
            blocks += [TextBlock(text=f"It is {last.content}.")]
        else:
            number = int(last.content.rsplit(maxsplit=1)[-1])
            told = {"tool_name": "double", "tool_kwargs": {"number": number}}
            blocks += [ToolCallBlock(tool_call_id=f"c{number}", **told)]
        message = ChatMessage(
            role="assistant",
            blocks=blocks,
            additional_kwargs=private.get("kwargs", {}),
        )
        return ChatResponse(message=message, delta="", additional_kwargs=USED)

    async def achat(self, messages, **kwargs):
        return self.chat(messages, **kwargs)

    def stream_chat(self, messages, **kwargs):
        yield self.chat(messages, **kwargs)

    async def astream_chat(self, messages, **kwargs):
        async def pieces():
            yield self.chat(messages, **kwargs)

        return pieces()

    def complete(self, prompt, formatted=False, **kwargs):
        raise NotImplementedError

    acomplete = stream_complete = astream_complete = complete

    def _prepare_chat_with_tools(self, tools, user_msg=None, chat_history=None, **_):
        return {"messages": [*(chat_history or []), *([user_msg] if user_msg else [])]}

    def get_tool_calls_from_response(self, response, **_):
        raise NotImplementedError


def smart_of(provider="anthropic", **settings):
    big, small = (
        Reasoning(model=name, provider=provider, own=[], sent=[])
        for name in ("big", "small")
    )
    given = {"prices": PRICES, "max_disagreement": 0.2, **settings}
    return big, small, SmartLLM(reference=big, candidates=[small], **given)


@pytest.mark.parametrize(
    ("provider", "streaming"),
    [("anthropic", True), ("responses", False), ("gemini", True)],
)
async def test_no_conversation_of_reasoning_models_dies(provider, streaming):
    big, small, smart = smart_of(provider)
    tools = [FunctionTool.from_defaults(double)]
    agent = FunctionAgent(tools=tools, llm=smart, streaming=streaming)
    number = iter(range(1000))
    for _ in range(RUNS):
        memory = ChatMemoryBuffer.from_defaults()
        for n in (next(number) for _ in range(2)):
            said = await agent.run(f"Double {n}", memory=memory)
            assert str(said) == f"It is {2 * n}."
    spend = smart.report().spend
    assert spend["big"].failures == spend["small"].failures == 0
    assert spend["small"].calls > RUNS
    assert sum(small.own) > 0  # its own turns are given to it whole
    assert sum(big.own) > 0


def turn(author: str | None, thought: str = "Hm.", **kwargs: Any) -> ChatMessage:
    mark = {} if author is None else {"smart": {"model": author}}
    signed = {"signature": f"signed by {author}"}
    blocks = [
        ThinkingBlock(content=thought, additional_information=signed),
        TextBlock(text="Yes."),
    ]
    given = {**kwargs, **mark}
    return ChatMessage(role="assistant", blocks=blocks, additional_kwargs=given)


ASK = ChatMessage("Double 1")


def test_a_turn_of_another_keeps_what_was_said_and_called():
    _, small, smart = smart_of()
    call = ToolCallBlock(tool_call_id="c1", tool_name="double", tool_kwargs={})
    cited = CitationBlock(
        cited_content=TextBlock(text="Yes."),
        source="a",
        title="a",
        additional_location_info={},
    )
    said = turn("big", thought_signatures=["A"], tool_calls=["big's own"])
    said.blocks += [cited, call]
    result = ChatMessage("2", role="tool", additional_kwargs={"tool_call_id": "c1"})
    smart.chat([ASK, said, result], smart_model="small")
    kept = ChatMessage(role="assistant", blocks=[TextBlock(text="Yes."), call])
    kept.additional_kwargs["thought_signatures"] = [None, OF_ANOTHER]
    assert small.sent[0] == [ASK, kept, result]


def test_a_turn_without_a_mark_counts_as_the_references():
    big, small, smart = smart_of()
    said = turn(None)
    with pytest.raises(ForeignReasoningError):
        smart.chat([ASK, said, ASK], smart_model="big")
    assert big.sent[0][1] == said  # as it would get it alone
    smart.chat([ASK, said, ASK], smart_model="small")
    assert small.sent[0][1] == ChatMessage(role="assistant", content="Yes.")


def test_only_an_answer_with_private_parts_is_marked():
    _, _, smart = smart_of("gemini")
    answer = smart.chat([ASK], smart_model="small")
    assert answer.message.additional_kwargs["smart"] == {"model": "small"}
    restored = ChatMessage.model_validate_json(answer.message.model_dump_json())
    assert restored.additional_kwargs["smart"] == {"model": "small"}
    plain = ChatResponse(message=ChatMessage(role="assistant", content="Yes."))
    smart = SmartLLM(
        reference=Saying(model="big", said=plain),
        candidates=[Saying(model="small", said=plain)],
        prices={"big": Price.free(), "small": Price.free()},
    )
    assert smart.chat([ASK]).message == plain.message


class Saying(Reasoning):
    said: ChatResponse

    def chat(self, messages, **kwargs):
        return self.said


def test_a_budget_reserves_what_is_sent():
    prices = {"big": Price(1, 1), "small": Price(0.9, 0.9)}
    _, _, smart = smart_of(budget_usd=0.5, prices=prices)
    long = turn("small", thought="word " * 200_000)
    assert smart.chat([ASK, long, ASK], smart_model="big")
    with pytest.raises(BudgetExceededError):
        smart.chat([ASK, long, ASK], smart_model="small")
