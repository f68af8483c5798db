"""Models that report no usage, over real HTTP: estimated if allowed, marked everywhere.

Both adapters, sync and async, every verb; budgets hold, and no wire is opened to count.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import socket
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import llama_index.core
import pytest
from fakes import Scripted
from faults import TERMS, Adapter, LangChain, LlamaIndex, good_answer
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_openai import ChatOpenAI
from llama_index.core import set_global_tokenizer
from llama_index.core.base.llms.types import (
    ChatResponse,
    CompletionResponse,
    DocumentBlock,
    TextBlock,
    ThinkingBlock,
)
from llama_index.core.llms import ChatMessage
from llama_index.core.llms.mock import MockLLM
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from loopback import Broken, Fault, Odd, Server, serve

from langchain_smart import ChatJudge, Price, SmartChatModel
from langchain_smart.chat import cost as lc_cost
from langchain_smart.chat.request import Request
from langchain_smart.chat.tools import Tools
from llama_index_smart import SmartLLM
from llama_index_smart import cost as li_cost
from llama_index_smart.request import Ask
from smart_engine.amounts import usd
from smart_engine.errors import BudgetExceededError, InvalidInputError
from smart_engine.money.pricing import Usage
from smart_engine.offline.traces import read_certificate
from smart_engine.serving.books import Books
from smart_engine.serving.members import Member, MissingUsageError

ADAPTERS = (LangChain, LlamaIndex)
both = pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda a: a.__name__)
either = pytest.mark.parametrize("mode", ["sync", "async"])
ITEMS = [f"item {n} | nobody | none" for n in range(4)]
SAYS = "reported no usage that can be priced"
NULL = {"prompt_tokens": None}


def silent(model: str, text: Any, attempt: int) -> Odd:
    """Answer well, and say nothing of the usage."""
    return Odd(good_answer(text.body), usage=None)


@contextmanager
def asked(
    adapter: type[Adapter], script: Callable[..., Any], **settings: Any
) -> Iterator[tuple[Adapter, Server]]:
    """Yield an adapter whose models a script plays."""
    with ExitStack() as stack:
        server = stack.enter_context(serve(script))
        sync = stack.enter_context(httpx.Client())
        settings = {"estimate_usage": True, **settings}
        yield adapter(server.url, sync, httpx.AsyncClient(), **settings), server


def ask_all(
    adapter: Adapter, verbs: Sequence[str], mode: str, items: Sequence[str] = ITEMS
) -> dict[str, list[Any]]:
    """Put items to verbs, one after the other, in one event loop if in any."""

    async def in_turn() -> dict[str, list[Any]]:
        return {verb: await adapter.aask(verb, [*items]) for verb in verbs}

    if mode == "async":
        return asyncio.run(in_turn())
    return {verb: adapter.ask(verb, [*items]) for verb in verbs}


def check_marks(smart: Any, of: set[str]) -> None:
    """All sums of what is estimated are those of the ledger's marked rows."""
    entries, report = smart.ledger().entries, smart.report()
    assert {e.model for e in entries if e.estimated} == of
    marked = {
        name: sum(e.cost for e in entries if e.estimated and e.model == name)
        for name in report.spend
    }
    assert {n: s.estimated for n, s in report.spend.items()} == pytest.approx(marked)
    assert report.estimated == pytest.approx(sum(marked.values()))
    records = sum(record.estimated for record in (*report.records, *report.shadows))
    assert records == pytest.approx(report.estimated)


@both
@either
def test_every_verb_is_answered_and_marked(adapter, mode):
    with asked(adapter, silent) as (one, server):
        with pytest.warns(UserWarning, match=SAYS) as told:
            came = ask_all(one, one.verbs, mode)
        report, entries = one.smart.report(), one.smart.ledger().entries
        assert len(entries) == sum(server.requests.values())
    said = [str(w.message) for w in told if SAYS in str(w.message)]
    assert sorted(text.split()[0] for text in said) == ["big", "small"]
    for entry in entries:
        assert entry.estimated
        price = TERMS["prices"][entry.model]
        used = Usage(entry.input_tokens, entry.output_tokens)
        assert entry.cost == pytest.approx(price.cost(used))
        assert 5 < used.input_tokens < 150
        assert 1 <= used.output_tokens < 40
    assert report.estimated == pytest.approx(report.cost)
    check_marks(one.smart, {"big", "small"})
    for verb, answers in came.items():
        right = "Verdict(yes)" if verb == "tools" else "yes"
        assert [answer.text for answer in answers] == [right] * len(ITEMS)
        costs = [answer.told.get("cost") for answer in answers]
        assert [answer.told.get("estimated") for answer in answers] == costs
        assert all(costs) or (adapter, verb) == (LlamaIndex, "object")


CANNOT_BE = [
    None,
    {"prompt_tokens": -7},
    {"prompt_tokens": 1e400},
    {"prompt_tokens": "many"},
    NULL,
    {"prompt_tokens_details": {"cached_tokens": 9999}},
]


@both
def test_what_cannot_be_true_is_estimated_too(adapter):
    """Only what was not told is estimated: the other model's costs are no guess."""
    items = [f"item {n} | nobody | none" for n in range(len(CANNOT_BE))]

    def script(model, text, attempt):
        usage = CANNOT_BE[int(text.split()[1])]
        return Odd("yes", usage=usage) if model == "small" else "yes"

    with asked(adapter, script) as (one, server):
        with pytest.warns(UserWarning, match=SAYS):
            answers = one.ask("batch", items)
        report = one.smart.report()
        check_marks(one.smart, {"small"})
    assert {answer.text for answer in answers} == {"yes"}
    assert report.spend["big"].input_tokens == server.input_tokens["big"]
    assert 0 < report.estimated == report.spend["small"].cost < report.cost
    assert report.spend["small"].calls == len(items)
    assert report.spend["small"].failures == 0
    for answer in answers:
        assert 0 < answer.told["estimated"] <= answer.told["cost"]


@both
def test_it_is_a_failed_call_unless_it_is_allowed(adapter):
    with asked(adapter, silent, estimate_usage=False) as (one, _):
        with pytest.warns(UserWarning, match="allow estimate_usage=True"):
            (answer,) = one.ask("whole", ITEMS[:1])
        entries = one.smart.ledger().entries
    assert isinstance(answer.error, MissingUsageError)
    assert {(e.outcome, e.cost, e.estimated) for e in entries} == {("failed", 0, False)}


@both
@pytest.mark.filterwarnings(f"ignore:.*{SAYS}")
def test_who_reads_nothing_has_not_counted(adapter):
    with asked(adapter, lambda *_: Odd("yes", usage=NULL), estimate_usage=False) as (
        one,
        _,
    ):
        (answer,) = one.ask("whole", ITEMS[:1])
    assert isinstance(answer.error, MissingUsageError)


@both
@pytest.mark.parametrize("price", [Price.free(), Price.per_call(0.25)])
def test_a_price_that_asks_for_no_tokens_needs_none(adapter, price):
    prices = {"big": price, "small": Price.free()}
    settings: dict[str, Any] = {"estimate_usage": False, "budget_usd": 10.0}
    with asked(adapter, silent, prices=prices, **settings) as (one, _):
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            answers = one.ask("batch", ITEMS)
        report = one.smart.report()
    assert {answer.text for answer in answers} == {"yes"}
    assert report.cost == price.call * report.spend["big"].calls
    assert report.estimated == 0


# -- answers that break off ------------------------------------------------------------


@both
@either
@pytest.mark.parametrize("allowed", [True, False])
@pytest.mark.filterwarnings(f"ignore:.*{SAYS}")
def test_what_was_seen_of_a_broken_answer_is_estimated(adapter, mode, allowed):
    long = "yes and " * 40

    def script(model, text, attempt):
        return Broken(long)

    with asked(adapter, script, estimate_usage=allowed) as (one, _):
        (answer,) = ask_all(one, ["pieces"], mode, ITEMS[:1])["pieces"]
        entries = {e.model: e for e in one.smart.ledger().entries}
        check_marks(one.smart, {"big"} if allowed else set())
    assert answer.error is not None
    assert 0 < len(answer.shown) < len(long)
    broken = entries["big"]
    assert broken.outcome == "failed"
    assert broken.estimated == allowed
    assert (broken.cost > 0) == allowed
    if allowed:
        half = len(answer.shown) / 4
        assert 0.8 * half < broken.output_tokens < 1.2 * half + 5
    # The other was asked as well, whole: nothing is known to be billed.
    assert all(e.cost == 0 for name, e in entries.items() if name != "big")


@both
@either
def test_what_fails_before_anything_is_seen_costs_nothing(adapter, mode):
    with asked(adapter, lambda *_: Fault("boom", 500)) as (one, _):
        ask_all(one, ("whole", "pieces", "batch"), mode, ITEMS[:1])
        assert {(e.cost, e.estimated) for e in one.smart.ledger().entries} == {(0, 0)}


@either
@pytest.mark.filterwarnings(f"ignore:.*{SAYS}")
def test_whoever_leaves_in_the_middle_has_had_it_counted(mode):
    with asked(LangChain, lambda *_: Odd("yes " * 50, usage=None)) as (one, _):
        if mode == "sync":
            pieces = one.smart.stream(ITEMS[0])
            for _ in range(9):
                next(pieces)
            pieces.close()
        else:

            async def left() -> None:
                pieces = one.smart.astream(ITEMS[0])
                for _ in range(9):
                    await anext(pieces)
                await pieces.aclose()

            asyncio.run(left())
        (entry,) = [e for e in one.smart.ledger().entries if e.model == "big"]
        assert entry.outcome == "cancelled"
        assert 0 < entry.output_tokens < 20
        assert entry.estimated
        marked = {e.model for e in one.smart.ledger().entries if e.estimated}
        check_marks(one.smart, marked)  # the other may have been asked to its end


@pytest.mark.filterwarnings(f"ignore:.*{SAYS}")
def test_an_object_that_its_class_refuses_was_said_all_the_same():
    def script(model, text, attempt):
        return Odd('{"label": "y', finish="length", usage=None)

    with asked(LangChain, script) as (one, _):
        (answer,) = one.ask("object", ITEMS[:1])
        entries = one.smart.ledger().entries
    assert answer.error is not None
    assert {(e.outcome, e.estimated, e.cost > 0) for e in entries} == {
        ("failed", True, True)
    }


# -- budgets ---------------------------------------------------------------------------

NASTY = {
    "nothing": "",
    "spaces": " " * 5000,
    "newlines": "\n" * 999,
    "emoji": "👨‍👩‍👧‍👦🏳️‍🌈" * 99,
    "CJK": "漢字仮名交じり文" * 99,
    "controls": "\x00\x07\u2028" * 99,
    "half a pair": "\ud83d" * 9,
    "special": "<|endoftext|>" * 99,
    "one word": "a" * 5000,
    "combining": "e\u0301\u0323" * 99,
}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "f", "parameters": {}}},
    {"type": "function", "function": {"name": "漢字", "description": "😀" * 50}},
]


class Model:
    """Something that has a limit, or none."""

    def __init__(self, max_tokens: int | None) -> None:
        self.max_tokens, self.profile = max_tokens, None


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_langchain_estimates_no_more_than_a_budget_sets_aside(text):
    price = Price(3, 15, above={10: Price(6, 22.5)})
    member: Any = Member("m", Model(7), price)
    sent = [
        [HumanMessage(text)],
        [SystemMessage(text), HumanMessage([text, text])],
        [ToolMessage(text, tool_call_id="c" * 400), AIMessage("", name="n")],
        [AIMessage(text, tool_calls=[{"name": "f", "args": {"x": text}, "id": "1"}])],
        [],
    ]
    said = [
        None,
        AIMessage(text),
        AIMessage("", additional_kwargs={"refusal": text}),
        AIMessage("", invalid_tool_calls=[{"name": "f", "args": text, "id": "1"}]),
    ]
    for messages in sent:
        for tools in (None, Tools([], {}), Tools(TOOLS, {})):
            request = Request({}, tools)
            most = lc_cost.worst_case(member, messages, request)
            for answer in said:
                usage = lc_cost.estimated(messages, request, member, answer)
                assert usage.problem is None
                assert usage.output_tokens <= 7
                assert price.cost(usage) <= most


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_llama_index_estimates_no_more_than_a_budget_sets_aside(text):
    price = Price(3, 15, above={10: Price(6, 22.5)})
    member: Any = Member("m", Model(7), price)
    tools = [FunctionTool.from_defaults(lambda x: x, "f", description="d" * 2000)]
    asks = [
        Ask(prompt=text),
        Ask(messages=[ChatMessage(text)], tools=tools),
        Ask(
            messages=[ChatMessage(blocks=[TextBlock(text=text), TextBlock(text=text)])]
        ),
        Ask(messages=[], tools=[]),
    ]
    said: list[Any] = [
        CompletionResponse(text=text),
        ChatResponse(message=ChatMessage(text, role="assistant")),
        ChatResponse(message=ChatMessage(blocks=[ThinkingBlock(content=text)])),
    ]
    for each in asks:
        most = li_cost.worst_case(member, each)
        for answer in said:
            usage = li_cost.estimated(each, member, answer)
            assert usage.problem is None
            assert usage.output_tokens <= 7
            assert price.cost(usage) <= most


def test_without_a_limit_all_that_was_said_counts():
    member: Any = Member("m", Model(None), Price(1, 1))
    asked_for, said = [HumanMessage("Go on.")], AIMessage("na " * 400)
    usage = lc_cost.estimated(asked_for, Request({}), member, said)
    assert 290 < usage.output_tokens < 310
    limited = Request({"max_tokens": 9})
    usage = lc_cost.estimated(asked_for, limited, member, said)
    assert usage.output_tokens == 9
    response = CompletionResponse(text="na " * 400)
    assert li_cost.estimated(Ask(prompt="Go on."), member, response) == Usage(
        3, 401, estimated=True
    )


def test_what_is_sent_beside_messages_counts_too():
    """Also as callbacks of a chain are told it: prompts, and lists of tools."""
    alone = lc_cost.counted(["one", "two"], None, None)
    beside = lc_cost.counted(["one", "two", TOOLS[:2]], None, None)
    assert 0 < alone.input_tokens < beside.input_tokens - 40
    assert alone.output_tokens == 0
    tool = FunctionTool.from_defaults(lambda x: x, "f", description="what it is for")
    member: Any = Member("m", MockLLM(), Price(1, 1))
    said = CompletionResponse(text="")
    message = ChatMessage(blocks=[TextBlock(text="see"), DocumentBlock(data=b"x")])
    read = [
        li_cost.estimated(each, member, said).input_tokens
        for each in (
            Ask(messages=[ChatMessage("see")]),
            Ask(messages=[ChatMessage("see")], tools=[tool]),
            Ask(messages=[message]),
        )
    ]
    assert read[0] < read[1] - 20
    assert read[0] < read[2] - 50


@both
@pytest.mark.filterwarnings(f"ignore:.*{SAYS}")
def test_a_budget_holds_on_estimates(adapter):
    items = [f"{'😀 ' * (n % 7)}item {n} | nobody | none" for n in range(40)]
    told = {"budget_usd": 0.004, "strategy": "reference", "estimate_usage": True}
    at = {"api_key": "none", "max_tokens": 4}
    with serve(silent) as server:
        if adapter is LangChain:
            big, small = (
                ChatOpenAI(model=name, base_url=server.url, **at)
                for name in ("big", "small")
            )
            kind: Any = SmartChatModel
        else:
            big, small = (
                OpenAILike(model=name, api_base=server.url, is_chat_model=True, **at)
                for name in ("big", "small")
            )
            kind = SmartLLM
        smart = kind(reference=big, candidates=[small], **{**TERMS, **told})
        batch = smart.batch if adapter is LangChain else smart.complete_batch
        answers = batch(items, return_exceptions=True)
        report = smart.report()
    assert 0.002 < report.cost <= 0.004
    assert report.estimated == pytest.approx(report.cost)
    assert any(isinstance(answer, BudgetExceededError) for answer in answers)


def test_no_wire_is_opened_to_count(monkeypatch, tmp_path):
    """Not even if the environment names a place for tokenizers where there is none."""

    def refuse(*_: Any) -> None:
        raise AssertionError("a wire was opened")

    known = llama_index.core.global_tokenizer
    monkeypatch.setattr(llama_index.core, "global_tokenizer", None)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    import tiktoken.registry

    monkeypatch.setattr(tiktoken.registry, "ENCODINGS", {})
    member: Any = Member("m", MockLLM(), Price(1, 1))
    try:
        said = CompletionResponse(text="Yes, it is.")
        assert li_cost.estimated(Ask(prompt="Is it?"), member, said) == Usage(
            3, 5, estimated=True
        )
    finally:
        set_global_tokenizer(known)
    assert os.environ["TIKTOKEN_CACHE_DIR"] == str(tmp_path)
    assert not list(tmp_path.iterdir())


# -- where it is said ------------------------------------------------------------------


@pytest.mark.filterwarnings(f"ignore:.*{SAYS}")
def test_every_form_of_a_report_says_it(tmp_path):
    def script(model, text, attempt):
        return Odd("yes", usage=None) if model == "small" else "yes"

    with asked(LangChain, script) as (one, _):
        one.ask("batch", ITEMS)
        one.ask("whole", ITEMS[:2])
        smart = one.smart
    report = smart.report()
    check_marks(smart, {"small"})
    forms = [str(report), report.to_markdown(), report._repr_html_()]
    console = pytest.importorskip("rich.console").Console(file=io.StringIO(), width=200)
    console.print(report)
    forms.append(console.file.getvalue())
    amount = usd(report.estimated)
    for form in forms:
        assert f"{amount}&nbsp;USD" in form or f"{amount} USD" in form
        assert "estimated: models" in form or "of it estimated" in form
    assert json.loads(report.to_json())["estimated"] == report.estimated
    (certificate,) = report.certificates
    assert 0 < certificate.estimated == certificate.spend["small"].cost
    path = tmp_path / "certificate.json"
    path.write_text(certificate.model_dump_json())
    assert read_certificate(path) == certificate
    # One of an older version, which knows of no estimates.
    plain = json.loads(path.read_text())
    for spend in plain["spend"].values():
        del spend["estimated"]
    path.write_text(json.dumps(plain))
    old = read_certificate(path)
    assert (old.estimated, old.cost) == (0, certificate.cost)
    rows = list(csv.DictReader(io.StringIO(smart.ledger().to_csv())))
    assert {row["estimated"] for row in rows if row["model"] == "small"} == {"1"}
    assert {row["estimated"] for row in rows if row["model"] == "big"} == {"0"}
    lines = [json.loads(line) for line in smart.ledger().to_jsonl().splitlines()]
    assert [line["estimated"] for line in lines] == [
        r["model"] == "small" for r in rows
    ]
    frame = smart.ledger().to_frame()
    assert frame[frame["estimated"]]["cost"].sum() == pytest.approx(report.estimated)


@both
def test_where_nothing_is_estimated_nothing_is_said(adapter):
    with asked(adapter, lambda *_: "yes") as (one, _):
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            answers = one.ask("batch", ITEMS)
        report = one.smart.report()
    assert not any("estimated" in answer.told for answer in answers)
    assert report.estimated == 0
    for form in (str(report), report.to_markdown()):
        assert "of it estimated" not in form
        assert "models reported no usage" not in form


@both
@pytest.mark.parametrize("verb", ["batch", "whole"])
@pytest.mark.filterwarnings(f"ignore:.*{SAYS}")
def test_what_is_kept_keeps_its_mark(adapter, verb, tmp_path):
    """A batch that goes on, and a stream elsewhere, know what was estimated."""
    settings = {"store": tmp_path / "answers.db", "task": "t", "promise": "batch"}
    with asked(adapter, silent, **settings) as (one, server):
        answers = one.ask(verb, ITEMS)
        first, asked_for = one.smart.report(), sum(server.requests.values())
        one.smart = one.smart.model_copy(
            update={"books": Books(threading.Lock, ["big", "small"])}
        )
        repeated = one.ask(verb, ITEMS)
        again, entries = one.smart.report(), one.smart.ledger().entries
        asked_again = sum(server.requests.values()) - asked_for
    assert first.estimated == pytest.approx(first.cost)
    if verb == "whole":
        (before,), (after,) = first.streams, again.streams
        assert after.answered == 2 * before.answered == 2 * len(ITEMS)
        assert after.estimated == pytest.approx(after.cost)
        assert after.cost > before.cost > 0
        return
    assert asked_again == 0
    assert again.certificates == first.certificates
    assert again.estimated == again.restored == first.estimated
    assert all(entry.estimated for entry in entries)
    costs = [answer.told["estimated"] for answer in answers]
    assert [answer.told["estimated"] for answer in repeated] == costs


@pytest.mark.filterwarnings(f"ignore:.*{SAYS}")
def test_a_judge_is_estimated_where_it_is_allowed():
    def script(model, text, attempt):
        if model == "judge":
            return Odd("same", usage=None)
        return f"{model} heard {text}"

    with serve(script) as server:
        members = {
            name: ChatOpenAI(model=name, base_url=server.url, api_key="none")
            for name in ("big", "small", "judge")
        }
        for allowed in (True, False):
            rule = ChatJudge(
                members["judge"], price=Price(2, 2), estimate_usage=allowed
            )
            smart = SmartChatModel(
                reference=members["big"],
                candidates=[members["small"]],
                prices=TERMS["prices"],
                equivalence=rule,
            )
            items = [f"item {n}" for n in range(5)]
            answers = smart.batch(items) + [smart.invoke(item) for item in items]
            judged = smart.report().spend["judge: judge"]
            assert (judged.failures == judged.calls) != allowed
            if not allowed:
                continue
            assert judged.estimated == judged.cost > 0
            check_marks(smart, {"judge: judge"})
            told = [answer.response_metadata["smart"] for answer in answers]
            assert any(0 < smart.get("estimated", 0) < smart["cost"] for smart in told)


def test_what_a_cache_answers_is_no_estimate():
    from langchain_core.caches import InMemoryCache
    from langchain_core.globals import set_llm_cache

    with serve(silent) as server:
        big, small = (
            ChatOpenAI(
                model=name,
                base_url=server.url,
                api_key="none",
                cache=InMemoryCache(),
            )
            for name in ("big", "small")
        )
        smart = SmartChatModel(
            reference=big,
            candidates=[small],
            prices=TERMS["prices"],
            estimate_usage=True,
            strategy="reference",
        )
        with pytest.warns(UserWarning, match=SAYS):
            smart.batch(ITEMS)
        before = smart.report()
        answers = smart.batch(ITEMS)
        after = smart.report()
        assert server.requests["big"] == len(ITEMS)
    assert after.cost == before.cost == before.estimated == after.estimated
    # What they would have cost is known for plans, and paid by nobody.
    assert after.certificates[1].reference_only_cost == pytest.approx(before.cost)
    assert {a.response_metadata["smart"]["cost"] for a in answers} == {0}
    assert not any("estimated" in a.response_metadata["smart"] for a in answers)
    outcomes = [e.outcome for e in smart.ledger().entries]
    assert outcomes == ["answered"] * len(ITEMS) + ["cached"] * len(ITEMS)
    set_llm_cache(None)


def test_usage_metadata_stays_what_providers_reported():
    def script(model, text, attempt):
        return "yes" if model == "big" else Odd("yes", usage=None)

    with asked(LangChain, script) as (one, server):
        with pytest.warns(UserWarning, match=SAYS):
            answers = one.smart.batch(ITEMS)
        pieces = list(one.smart.stream(ITEMS[0]))
        told = [a.usage_metadata for a in (*answers, *pieces) if a.usage_metadata]
        sent = sum(usage["input_tokens"] for usage in told)
        assert sent == server.input_tokens["big"]
    said = pytest.warns(UserWarning, match=SAYS)
    with asked(LlamaIndex, silent) as (one, _), said:
        response = one.smart.complete(ITEMS[0])
    assert set(response.additional_kwargs) == {"smart"}


def test_a_langchain_model_is_limited_by_its_profile_in_both_adapters():
    profile = {"max_output_tokens": 5}
    big, small = (
        Scripted(name=name, script=lambda *_: "yes", profile=profile)
        for name in ("big", "small")
    )
    given = {"prices": {"big": Price(10, 30), "small": Price(1, 3)}, "budget_usd": 1.0}
    for smart in (SmartChatModel, SmartLLM):
        smart(reference=big, candidates=[small], **given)
        with pytest.warns(UserWarning, match="allows no call of big: its answer may"):
            smart(reference=big, candidates=[small], **{**given, "budget_usd": 1e-5})
        unlimited = small.model_copy(update={"profile": None})
        with pytest.raises(InvalidInputError, match="set max_tokens"):
            smart(reference=big, candidates=[unlimited], **given)
