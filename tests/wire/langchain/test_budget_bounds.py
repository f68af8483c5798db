"""What a budget sets aside for a call is never less than what the server bills."""

from __future__ import annotations

from contextlib import suppress

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from loopback import Odd, serve

from langchain_smart import Price, SmartChatModel
from smart_engine.errors import BudgetExceededError, InvalidInputError

PRICES = {"big": Price(100, 300), "small": Price(1, 3)}
ITEMS = [f"mail number {n}" for n in range(40)]
BUDGET = 0.12
LIMITS = ("max_completion_tokens", "max_tokens")


def used(body) -> tuple[int, int]:
    """Return what a request uses where every answer is as long as it may be."""
    limit = next(body[name] for name in LIMITS if body.get(name))
    sent = sum(len(str(message)) // 2 for message in body["messages"])
    # Anthropic documents up to 530 tokens that it puts before tools.
    tools = len(str(body["tools"])) // 2 + 530 if body.get("tools") else 0
    return sent + tools, limit * (body.get("n") or 1)


def say_all(model, text, attempt) -> Odd:
    sent, said = used(text.body)
    told = {"prompt_tokens": sent, "completion_tokens": said}
    return Odd("yes", usage={**told, "total_tokens": sent + said})


def bill(server) -> float:
    total = 0.0
    for body in server.bodies:
        (sent, said), price = used(body), PRICES[body["model"]]
        total += (sent * price.input + said * price.output) / 1e6
    return total


def smart_at(server, own=None, **settings) -> SmartChatModel:
    big, small = (
        ChatOpenAI(model=name, base_url=server.url, api_key="none", **own or {})
        for name in PRICES
    )
    told = {"budget_usd": BUDGET, "max_tokens": 8, "prices": PRICES, "task": "mails"}
    told |= {"max_disagreement": 0.02, **settings}
    return SmartChatModel(reference=big, candidates=[small], **told)


def ask(smart, verb, items=ITEMS, **arguments) -> None:
    """Ask about all items; the budget ends before they do."""
    if verb == "batch":
        smart.batch(items, return_exceptions=True, **arguments)
        return
    with suppress(BudgetExceededError):
        for item in items:
            smart.invoke(item, **arguments)


@pytest.mark.filterwarnings("ignore:Parameters:UserWarning")
@pytest.mark.parametrize(
    ("verb", "own", "limit", "arguments"),
    [
        ("batch", {"n": 4}, 8, {}),
        ("invoke", {}, 8, {"n": 4}),
        ("batch", {"model_kwargs": {"n": 4}}, 8, {}),
        ("invoke", {"extra_body": {"n": 4}}, 8, {}),
        ("batch", {"max_tokens": 8}, None, {"max_completion_tokens": 60}),
        ("invoke", {"max_tokens": 8}, None, {"max_completion_tokens": 60}),
        ("batch", {"extra_body": {"max_completion_tokens": 60}}, 8, {}),
    ],
    ids=str,
)
def test_all_that_may_be_answered_is_set_aside(verb, own, limit, arguments) -> None:
    with serve(say_all) as server:
        smart = smart_at(server, own, max_tokens=limit)
        ask(smart, verb, **arguments)
        assert 0.5 * BUDGET < bill(server) <= BUDGET
        assert smart.report().cost == pytest.approx(bill(server))


@tool
def look(at: str) -> str:
    """Look."""
    return at


@pytest.mark.parametrize("verb", ["batch", "invoke"])
def test_what_stands_before_tools_is_set_aside(verb) -> None:
    with serve(say_all) as server:
        smart = smart_at(server, budget_usd=0.5)
        bound = smart.bind_tools([look]).kwargs
        ask(smart, verb, **bound)
        assert 0.25 < bill(server) <= 0.5


def test_all_of_a_history_is_set_aside() -> None:
    broken = {"name": "look", "args": "x" * 3000, "id": "1", "error": None}
    past = AIMessage("", invalid_tool_calls=[{**broken, "type": "invalid_tool_call"}])
    items = [[HumanMessage(item), past, HumanMessage("And now?")] for item in ITEMS]
    with serve(say_all) as server:
        ask(smart_at(server, budget_usd=2), "batch", items)
        assert 1 < bill(server) <= 2


PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
SOUND = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
NESTED = {"type": "tool_result", "tool_use_id": "1", "content": [PICTURE]}
WITHIN = {"type": "tool_result", "tool_use_id": "1", "content": PICTURE}
OUTPUT = {"type": "function_call_output", "call_id": "1", "output": [PICTURE]}
UPLOAD = {"type": "container_upload", "file_id": "file_1"}
NO_TYPE = {"image_url": {"url": "https://example.org/a.png"}, "text": "x"}
PARTS = [PICTURE, SOUND, NESTED, WITHIN, OUTPUT, UPLOAD, NO_TYPE]


@pytest.mark.parametrize("part", PARTS, ids=str)
async def test_what_has_no_bound_is_refused_before_anything_is_spent(part) -> None:
    shown = [HumanMessage([{"type": "text", "text": "What is it?"}, part])]
    with serve(say_all) as server:
        smart = smart_at(server)
        for refused in (
            lambda: smart.batch(["a text", shown], return_exceptions=True),
            lambda: smart.invoke(shown),
        ):
            with pytest.raises(InvalidInputError, match="no budget would hold"):
                refused()
        with pytest.raises(InvalidInputError, match="no budget would hold"):
            await smart.ainvoke(shown)
        search = smart.bind_tools([{"type": "web_search"}])
        with pytest.raises(InvalidInputError, match="or run tools here"):
            search.invoke("a text")
        assert not server.bodies
        smart.invoke("a text")  # nothing of the budget is held by what was refused
        free = dict.fromkeys(PRICES, Price.free())
        smart_at(server, prices=free).invoke(shown)
        smart_at(server, budget_usd=None).batch([shown])


SEARCH = {"web_search_options": {"search_context_size": "high"}}


@pytest.mark.parametrize(
    "own",
    [
        {"model_kwargs": SEARCH},
        {"extra_body": SEARCH},
        {"extra_body": {"plugins": [{"id": "web"}]}},
        {"extra_body": {"tools": [{"type": "web_search"}]}},
        {"max_tokens": 0},
    ],
    ids=str,
)
def test_a_model_whose_settings_have_no_bound_is_refused_at_construction(own) -> None:
    with serve(say_all) as server:
        with pytest.raises(InvalidInputError, match="no budget would hold"):
            smart_at(server, own, max_tokens=None)
        smart_at(server, own, budget_usd=None)


@pytest.mark.parametrize("verb", ["batch", "invoke"])
def test_a_call_whose_settings_have_no_bound_is_refused(verb) -> None:
    with serve(say_all) as server:
        smart = smart_at(server)
        asked = ["a text"] if verb == "batch" else "a text"
        for bound in (smart, smart.bind_tools([look], **SEARCH)):
            settings = SEARCH if bound is smart else {}
            with pytest.raises(InvalidInputError, match="web_search_options"):
                getattr(bound, verb)(asked, **settings)
        assert not server.bodies
        smart.invoke([HumanMessage([{"text": "a text without a type"}])])
