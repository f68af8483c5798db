"""Agents over OpenAI's Responses API, which knows only what each model has reasoned."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai import OpenAIResponses
from loopback import Reply, Server

from langchain_smart import Price, SmartChatModel
from llama_index_smart import SmartLLM

PRICES = {"gpt-5": Price(10, 30), "gpt-5-nano": Price(0.1, 0.4)}


RUNS = 8


def double(number: int) -> str:
    """Double a number."""
    return str(2 * number)


class Responses(Server):
    """Refuses items that it has not given to the model that sends them."""

    refused = 0

    def reply(self, body: dict[str, Any]) -> Reply:
        model, items = body["model"], body["input"]
        items = [{"content": items}] if isinstance(items, str) else items
        with self.lock:
            self.bodies.append(body)
            self.requests[model] += 1
            number = self.requests[model]
        ids = [item["id"] for item in items if item.get("id")]
        ids += [item.get("encrypted_content") for item in items]
        ids += [body.get("previous_response_id")]
        if not all(each.endswith(f" of {model}") for each in ids if each):
            self.refused += 1
            error = {"message": "The encrypted content could not be verified."}
            return Reply([json.dumps({"error": error}).encode()], 400)
        return Reply([json.dumps(_response(model, number, items)).encode()])


def _response(model: str, number: int, items: list[Any]) -> dict[str, Any]:
    mark = f"{number} of {model}"
    last, reasoning = items[-1], {"type": "reasoning", "id": f"rs_{mark}"}
    reasoning |= {"summary": [{"type": "summary_text", "text": "Hm."}]}
    reasoning |= {"encrypted_content": f"gAAA {mark}"}
    if last.get("type") == "function_call_output":
        said = {"type": "output_text", "text": f"It is {last['output']}."}
        content = [{**said, "annotations": []}]
        made = {"type": "message", "id": f"msg_{mark}", "role": "assistant"}
        made |= {"status": "completed", "content": content}
    else:
        text = last["content"]
        text = text if isinstance(text, str) else text[0]["text"]
        arguments = json.dumps({"number": int(text.split()[-1])})
        made = {"type": "function_call", "id": f"fc_{mark}", "name": "double"}
        made |= {"call_id": f"call_{number}_{model}", "arguments": arguments}
    told = {"input_tokens": 20, "output_tokens": 5, "total_tokens": 25}
    told["input_tokens_details"] = {"cached_tokens": 0}
    told["output_tokens_details"] = {"reasoning_tokens": 3}
    settings = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
    return {
        "id": f"resp_{mark}",
        "object": "response",
        "created_at": 0,
        "status": "completed",
        "model": model,
        "output": [reasoning, made],
        "usage": told,
        **settings,
    }


@contextmanager
def serve():
    server = Responses(lambda *_: "")
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def chat_agent(server, **settings: Any):
    big, small = (
        ChatOpenAI(
            model=name,
            base_url=server.url,
            api_key="none",
            use_responses_api=True,
            **settings,
        )
        for name in PRICES
    )
    smart = SmartChatModel(
        reference=big, candidates=[small], prices=PRICES, max_disagreement=0.2
    )
    saver = InMemorySaver()
    agent = create_agent(smart, tools=[tool(double)], checkpointer=saver)

    def ask(run: int, text: str) -> str:
        thread = {"configurable": {"thread_id": run}}
        return agent.invoke({"messages": [("user", text)]}, thread)["messages"][-1].text

    return smart, ask


def llama_agent(server, **settings: Any):
    big, small = (
        OpenAIResponses(model=name, api_base=server.url, api_key="none", **settings)
        for name in PRICES
    )
    smart = SmartLLM(
        reference=big, candidates=[small], prices=PRICES, max_disagreement=0.2
    )
    tools = [FunctionTool.from_defaults(double)]
    chats: dict[int, list[ChatMessage]] = {}

    def ask(run: int, text: str) -> str:
        chat = chats.setdefault(run, [])
        chat.append(ChatMessage(text))
        while True:
            said = smart.chat_with_tools(tools, chat_history=chat)
            chat.append(said.message)
            calls = smart.get_tool_calls_from_response(said, False)
            if not calls:
                return said.message.content
            result = {"tool_call_id": calls[0].tool_id}
            text = double(**calls[0].tool_kwargs)
            chat.append(ChatMessage(text, role="tool", additional_kwargs=result))

    return smart, ask


@pytest.mark.parametrize(
    ("agent", "settings"),
    [
        pytest.param(chat_agent, {"output_version": "responses/v1"}, id="blocks"),
        pytest.param(chat_agent, {}, id="v0", marks=pytest.mark.slow),
        pytest.param(chat_agent, {"use_previous_response_id": True}, id="stored"),
        pytest.param(llama_agent, {"store": True}, id="LlamaIndex"),
    ],
)
def test_no_agent_dies_of_what_another_model_has_reasoned(agent, settings):
    with serve() as server:
        smart, ask = agent(server, **settings)
        for n in range(2 * RUNS):
            assert ask(n // 2, f"Double {n}") == f"It is {2 * n}."
        spend = smart.report().spend
    assert server.refused == 0
    assert {name: each.calls for name, each in spend.items()} == server.requests
    assert spend["gpt-5-nano"].failures == 0
    assert spend["gpt-5-nano"].calls > RUNS
    own = [body for body in server.bodies if " of gpt-5-nano" in json.dumps(body)]
    assert any(body["model"] == "gpt-5-nano" for body in own)
    assert not any("logprobs" in json.dumps(body) for body in server.bodies)
