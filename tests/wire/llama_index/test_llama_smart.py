"""What a smart LLM promises: savings, money to the token, one answer, no secret."""

from __future__ import annotations

import asyncio
import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy

import pytest
from langchain_openai import ChatOpenAI
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.llm import LLMChatEndEvent
from llama_index.core.llms import ChatMessage, CustomLLM, ImageBlock, MockLLM
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from loopback import Calls, Fault, Odd, Verdict, serve
from pydantic import BaseModel

from llama_index_smart import Label, Normalized, Price, SmartLLM
from smart_engine.errors import BudgetExceededError, InvalidInputError

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}
SECRET = "sk-hush"  # noqa: S105


def plain(server, name="big", **settings) -> OpenAILike:
    told = {"is_chat_model": True, "is_function_calling_model": True, **settings}
    return OpenAILike(
        model=name, api_base=server.url, api_key=SECRET, max_retries=0, **told
    )


def smart_at(server, small=None, **settings) -> SmartLLM:
    settings = {"prices": PRICES, **settings}
    members = {"reference": plain(server), "candidates": [plain(server, "small")]}
    return SmartLLM(**{**members, **settings})


def user(text: str) -> list[ChatMessage]:
    return [ChatMessage(content=text)]


def label(model, text, attempt):
    """`small` differs from `big` on one item in fifty."""
    number = int(text.split()[-1])
    right = ("spam", "ham")[number % 2]
    wrong = ("ham", "spam")[number % 2]
    return wrong if model == "small" and number % 50 == 0 else right


def assert_ledger_is_the_bill(smart, server) -> None:
    for name, spend in smart.report().spend.items():
        assert spend.calls == server.requests[name]
        assert spend.input_tokens == server.input_tokens[name]
        assert spend.output_tokens == server.output_tokens[name]


# -- single items --------------------------------------------------------------


@pytest.mark.parametrize(
    ("items", "share"),
    [
        pytest.param(100, 0.4, id="100"),
        pytest.param(400, 0.2, id="400", marks=pytest.mark.slow),
    ],
)
def test_a_stream_saves_and_keeps_its_promise(items, share):
    with serve(label) as server:
        smart = smart_at(server, max_disagreement=share)
        answers = [smart.chat(user(f"mail {n}")) for n in range(items)]
        assert_ledger_is_the_bill(smart, server)
    wrong = sum(
        a.message.content != label("big", f"{n}", 1) for n, a in enumerate(answers)
    )
    assert wrong <= share * items
    report = smart.report()
    (stream,) = report.streams
    assert stream.answered == items
    assert report.saved > 0.3 * (report.saved + report.cost)
    told = [answer.additional_kwargs["smart"] for answer in answers]
    assert {t["role"] for t in told} >= {"applied", "profiled"}
    assert sum(t["cost"] for t in told) == pytest.approx(report.cost)
    assert {t["model"] for t in told} == {"big", "small"}


def test_the_reference_answers_where_the_candidate_fails():
    def script(model, text, attempt):
        number = int(text.split()[-1])
        if model == "small" and number % 3 == 0:
            return Fault("overloaded", 503)
        return label("big", text, attempt)

    with serve(script) as server:
        smart = smart_at(server, max_disagreement=0.4)
        answers = [smart.chat(user(f"mail {n}")) for n in range(60)]
        assert [a.message.content for a in answers] == [
            label("big", f"{n}", 1) for n in range(60)
        ]
        roles = [answer.additional_kwargs["smart"]["role"] for answer in answers]
        assert "escalated" in roles
        spend = smart.report().spend["small"]
        assert spend.calls == server.requests["small"]
        assert spend.failures > 0


def test_where_the_reference_fails_the_error_is_the_callers():
    def script(model, text, attempt):
        return Fault("no such luck", 400) if model == "big" else "yes"

    with serve(script) as server:
        smart = smart_at(server)
        with pytest.raises(Exception, match="no such luck"):
            smart.chat(user("mail 1"))
        with pytest.raises(Exception, match="no such luck"):
            list(smart.stream_chat(user("mail 1")))
        assert smart.report().spend["big"].failures == 2


def test_a_shadow_hands_out_the_references_answers():
    with serve(lambda model, text, attempt: model) as server:
        smart = smart_at(server, mode="shadow")
        answers = [smart.chat(user(f"mail {n}")) for n in range(20)]
        assert {a.message.content for a in answers} == {"big"}
        assert server.requests["small"] == 20
        (shadow,) = smart.report().shadows
        assert shadow.answered == 20


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_shadow_answers_a_batch_item_by_item(is_async):
    def script(model, text, attempt):
        return Fault("broken", 400) if text == "mail 7" else model

    with serve(script) as server:
        smart = smart_at(server, mode="shadow", task="mail", signals=None)
        batch = smart.acomplete_batch if is_async else smart.complete_batch
        told = batch(ITEMS[:20], return_exceptions=True, max_concurrency=4)
        results = await told if is_async else told
        assert isinstance(results.pop(7), Exception)
        assert {answer.text for answer in results} == {"big"}
        marks = [answer.additional_kwargs["smart"] for answer in results]
        assert {mark["role"] for mark in marks} == {"shadow"}
        assert server.requests == {"big": 20, "small": 20}
        (shadow,) = smart.report().shadows
        assert (shadow.task, shadow.answered) == ("mail", 19)
        assert not smart.report().certificates
        assert_ledger_is_the_bill(smart, server)
        with pytest.raises(Exception, match="broken") as caught:
            smart.complete_batch(ITEMS[:20])
        assert len(caught.value.smart_results) == 20


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_named_member_answers_a_batch_item_by_item(is_async):
    with serve(lambda model, text, attempt: f"{model} to {text}") as server:
        smart = smart_at(server)
        items = [user(item) for item in ITEMS[:20]]
        batch = smart.achat_batch if is_async else smart.chat_batch
        told = batch(items, smart_model="small", smart_task="mail")
        answers = await told if is_async else told
        texts = [answer.message.content for answer in answers]
        assert texts == [f"small to {item}" for item in ITEMS[:20]]
        marks = [answer.additional_kwargs["smart"] for answer in answers]
        assert {(mark["role"], mark["task"]) for mark in marks} == {("named", "mail")}
        assert server.requests == {"small": 20}
        assert_ledger_is_the_bill(smart, server)
        with pytest.raises(InvalidInputError, match="name one of the members"):
            smart.chat_batch(items, smart_model="huge")


def test_a_named_member_answers():
    with serve(lambda model, text, attempt: model) as server:
        smart = smart_at(server)
        assert smart.complete("it", smart_model="small").text == "small"
        assert server.requests["big"] == 0
        with pytest.raises(InvalidInputError, match="name one of the members"):
            smart.complete("it", smart_model="huge")


def test_a_stream_shows_one_answer_while_the_candidate_runs_beside_it():
    with serve(lambda model, text, attempt: f"I am {model}") as server:
        smart = smart_at(server)
        for _ in range(5):
            pieces = list(smart.stream_chat(user("who?")))
            assert "".join(piece.delta for piece in pieces) == "I am big"
            assert not any("prompt_tokens" in p.additional_kwargs for p in pieces[:-1])
            assert pieces[-1].additional_kwargs["smart"]["role"] in {
                "profiled",
                "reference",
            }
        assert_ledger_is_the_bill(smart, server)


def test_a_stream_that_is_broken_off_closes_its_item():
    with serve(lambda model, text, attempt: "a long answer") as server:
        smart = smart_at(server)
        pieces = smart.stream_chat(user("go"))
        next(pieces)
        pieces.close()
        (stream,) = smart.report().streams
        assert (stream.in_flight, stream.abandoned, stream.answered) == (0, 0, 1)


async def test_an_async_stream_that_is_broken_off_closes_its_item():
    with serve(lambda model, text, attempt: "a long answer") as server:
        smart = smart_at(server)
        pieces = await smart.astream_chat(user("go"))
        await anext(pieces)
        await pieces.aclose()
        (stream,) = smart.report().streams
        assert (stream.in_flight, stream.abandoned, stream.answered) == (0, 0, 1)


def test_logprobs_are_confidence():
    from llama_index_smart.cost import outcome

    with serve(lambda *_: Verdict("ham", (-0.1, -0.3))) as server:
        sure = plain(server, logprobs=True, top_logprobs=1)
        smart = smart_at(server, candidates=[plain(server, "small")], reference=sure)
        member = smart._members["big"]
        brought = outcome(member, member.model.chat(user("mail 1")))
        assert brought.confidence == pytest.approx(0.8187, abs=1e-3)


def test_a_model_that_tells_no_usage_is_an_error_that_says_what_to_do():
    class Silent(CustomLLM):
        @property
        def metadata(self):
            return MockLLM().metadata.model_copy(update={"model_name": "big"})

        def complete(self, prompt, formatted=False, **kwargs):
            from llama_index.core.llms import CompletionResponse

            return CompletionResponse(text="yes")

        def stream_complete(self, prompt, formatted=False, **kwargs):
            raise NotImplementedError

    smart = SmartLLM(
        reference=Silent(),
        candidates=[MockLLM()],
        prices={**PRICES, "MockLLM": Price.free()},
    )
    with (
        pytest.warns(UserWarning, match=r"Price\.free"),
        pytest.raises(Exception, match="its cost is unknown"),
    ):
        smart.complete("it")


# -- batches -------------------------------------------------------------------

ITEMS = [f"mail {n}" for n in range(60)]
MANY = [f"mail {n}" for n in range(300)]


@pytest.mark.parametrize(
    ("items", "share"),
    [
        pytest.param(ITEMS, 0.2, id="60"),
        pytest.param(MANY, 0.1, id="300", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("strategy", ["audit", "mix", "efficient", "exhaustive"])
def test_a_batch_is_one_session(strategy, items, share):
    with serve(label) as server:
        smart = smart_at(server, max_disagreement=share, strategy=strategy)
        answers = smart.complete_batch(items)
        assert_ledger_is_the_bill(smart, server)
    wrong = sum(
        a.text != label("big", item, 1) for a, item in zip(answers, items, strict=True)
    )
    assert wrong <= share * len(items)
    (certificate,) = smart.report().certificates
    assert certificate.items == len(items)
    assert certificate.valid
    told = [answer.additional_kwargs["smart"] for answer in answers]
    assert {t["certificate"] for t in told} == {certificate.id}
    assert sum(t["cost"] for t in told) == pytest.approx(certificate.cost)


async def test_sync_and_async_batches_decide_the_same():
    with serve(label) as server:
        first, second = (smart_at(server, max_disagreement=0.2) for _ in range(2))
        items = [user(item) for item in ITEMS]
        answers = first.chat_batch(items)
        others = await second.achat_batch(items)
    assert [a.message.content for a in answers] == [b.message.content for b in others]
    assert first.report().certificates == second.report().certificates


async def test_a_failed_item_keeps_the_others():
    def script(model, text, attempt):
        bad = text == "mail 7"
        return Fault("broken", 400) if bad else label(model, text, attempt)

    with serve(script) as server:
        smart = smart_at(server, strategy="reference")
        results = smart.complete_batch(ITEMS[:20], return_exceptions=True)
        assert [isinstance(r, Exception) for r in results].count(True) == 1
        with pytest.raises(Exception, match="broken") as caught:
            await smart.acomplete_batch(ITEMS[:20])
        assert len(caught.value.smart_results) == 20


async def test_a_batch_that_is_cancelled_keeps_its_books():
    with serve(label, latency=0.02) as server:
        smart = smart_at(server, max_concurrency=4)
        job = asyncio.create_task(smart.acomplete_batch(MANY))
        while sum(server.output_tokens.values()) < 40:
            await asyncio.sleep(0.01)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        spend = smart.report().spend
        assert 0 < sum(s.calls - s.failures for s in spend.values()) < 300


def test_an_empty_batch_is_empty_and_bad_items_are_named():
    with serve(label) as server:
        smart = smart_at(server)
        assert smart.complete_batch([]) == []
        with pytest.raises(InvalidInputError, match="items"):
            smart.chat_batch(["mail 1"])
        with pytest.raises(InvalidInputError, match="put a single one in brackets"):
            smart.complete_batch("mail 1")
        with pytest.raises(InvalidInputError, match="use chat_batch"):
            smart.complete_batch([user("mail 1")])
        with pytest.raises(InvalidInputError, match="max_concurrency"):
            smart.complete_batch(ITEMS, max_concurrency=0)
        assert not server.requests


def test_a_batch_with_tools_compares_calls():
    def pick(city: str) -> str:
        """Pick a city."""
        return city

    def script(model, text, attempt):
        city = "Oslo" if model == "big" or text != "city 3" else "Rome"
        return Calls([("pick", {"city": city})])

    tool = FunctionTool.from_defaults(pick)
    with serve(script) as server:
        smart = smart_at(server, max_disagreement=0.2)
        items = [user(f"city {n}") for n in range(60)]
        answers = smart.chat_batch(items, smart_tools=[tool])
        called = [smart.get_tool_calls_from_response(a)[0].tool_kwargs for a in answers]
        assert called.count({"city": "Oslo"}) >= 59
    (certificate,) = smart.report().certificates
    assert certificate.equivalence.startswith("same tool calls")


# -- budgets and stores ---------------------------------------------------------


@pytest.mark.parametrize("mode", ["serve", "strict"])
def test_a_budget_holds(mode):
    with serve(label) as server:
        members = {
            "reference": plain(server, max_tokens=8),
            "candidates": [plain(server, "small", max_tokens=8)],
        }
        told = {"budget_usd": 0.004, "mode": mode, "max_disagreement": 0.01}
        smart = smart_at(server, **members, **told)
        results = smart.complete_batch(ITEMS, return_exceptions=True)
        assert 0.002 < smart.report().cost <= 0.004
        assert any(isinstance(r, BudgetExceededError) for r in results)
        with pytest.raises(BudgetExceededError):  # noqa: PT012
            for _ in range(100):
                smart.complete("mail 1", smart_model="big")
        assert_ledger_is_the_bill(smart, server)
        with pytest.raises(InvalidInputError, match="set max_tokens"):
            smart_at(server, budget_usd=1)


def test_a_budget_sets_aside_all_choices_and_refuses_what_has_no_bound():
    def say_all(model, text, attempt):
        said = text.body["max_tokens"] * text.body["n"]
        told = {"prompt_tokens": len(text), "completion_tokens": said}
        return Odd("yes", usage={**told, "total_tokens": len(text) + said})

    with serve(say_all) as server:
        own = {"max_tokens": 8, "additional_kwargs": {"n": 9}}
        big, small = plain(server, **own), plain(server, "small", **own)
        smart = smart_at(server, reference=big, candidates=[small], budget_usd=0.02)
        picture = [ChatMessage(blocks=[ImageBlock(url="http://example.org/a.png")])]
        for ask in (smart.chat, lambda one: smart.chat_batch([user("mail 1"), one])):
            with pytest.raises(InvalidInputError, match="no budget would hold"):
                ask(picture)
        assert not server.bodies
        smart.complete_batch(MANY, return_exceptions=True)
        assert 0.01 < smart.report().cost <= 0.02


@pytest.mark.parametrize(
    "own",
    [
        {"web_search_options": {}, "plugins": [{"id": "web"}]},
        {"extra_body": {"tools": [{"type": "web_search"}]}},
        {"max_tokens": 0},
    ],
    ids=str,
)
def test_within_a_budget_a_setting_without_a_bound_is_refused(own):
    with serve(label) as server:
        for name in PRICES:
            others = [plain(server, other, max_tokens=8) for other in PRICES]
            others = [one for one in others if one.model != name]
            odd = plain(server, name, max_tokens=8, additional_kwargs=own)
            members = {"reference": odd, "candidates": others}
            with pytest.raises(InvalidInputError, match="no budget would hold"):
                smart_at(server, **members, budget_usd=1)
            smart_at(server, **members)
        big, small = (plain(server, name, max_tokens=8) for name in PRICES)
        smart = smart_at(server, reference=big, candidates=[small], budget_usd=1)
        with pytest.raises(InvalidInputError, match="search"):
            smart.complete("mail 1", web_search_options={"search": "web"})
        assert not server.bodies


def test_a_budget_knows_the_limit_of_a_langchain_model():
    with serve(label) as server:
        at = {"base_url": server.url, "api_key": SECRET, "max_tokens": 8}
        members = [ChatOpenAI(model=name, **at) for name in PRICES]
        told = {"reference": members[0], "candidates": members[1:]}
        smart = smart_at(server, **told, budget_usd=0.004)
        smart.complete_batch(ITEMS, return_exceptions=True)
        assert 0.002 < smart.report().cost <= 0.004


@pytest.mark.parametrize("verb", ["chat", "complete", "tools"])
def test_a_batch_is_resumed_from_its_store(verb, tmp_path):
    def pick(n: int) -> int:
        """Pick a number."""
        return n

    def script(model, text, attempt):
        if text.body.get("tools"):
            return Calls([("pick", {"n": int(text.split()[-1]) % 3})])
        return label(model, text, attempt)

    def batch(smart):
        if verb == "complete":
            return [r.text for r in smart.complete_batch(ITEMS)]
        tools = {"smart_tools": [FunctionTool.from_defaults(pick)]}
        told = tools if verb == "tools" else {}
        answers = smart.chat_batch([user(item) for item in ITEMS], **told)
        if verb == "chat":
            return [answer.message.content for answer in answers]
        return [smart.get_tool_calls_from_response(a)[0].tool_kwargs for a in answers]

    with serve(script) as server:
        store = tmp_path / "answers.db"
        first, second = (smart_at(server, store=store) for _ in range(2))
        answers = batch(first)
        bought = sum(server.requests.values())
        assert batch(second) == answers
        assert sum(server.requests.values()) == bought
        assert first.report().certificates == second.report().certificates
        assert second.report().restored == pytest.approx(first.report().cost)
        assert b"mail 7" not in store.read_bytes()


def test_items_that_no_json_knows_have_a_store_all_the_same(tmp_path):
    items = [
        [ChatMessage("mail 1", additional_kwargs={"by": object})],
        [ChatMessage("mail 2 \ud83d")],
    ]
    with serve(label) as server:
        for _ in range(2):
            smart = smart_at(server, store=tmp_path / "answers.db")
            answers = smart.chat_batch(items, return_exceptions=True)
            assert answers[0].message.content == "ham"
            assert isinstance(answers[1], UnicodeEncodeError)  # its client's
        assert smart.report().restored > 0


# -- tasks ---------------------------------------------------------------------


def tasks(smart) -> set[str]:
    return {stream.task for stream in smart.report().streams}


def test_each_prompt_template_is_a_task():
    with serve(lambda *_: "yes") as server:
        smart = smart_at(server)
        for what in ("a", "b"):
            smart.predict(PromptTemplate("is {what} good?"), what=what)
            list(smart.stream(PromptTemplate("is {what} bad?"), what=what))
        assert len(tasks(smart)) == 2
        smart.complete("anything", smart_task="mine")
        assert "mine" in tasks(smart)
        smart.chat([ChatMessage(role="system", content="judge"), *user("a")])
        smart.chat([ChatMessage(role="system", content="judge"), *user("b")])
        smart.chat([ChatMessage(role="system", content="cook"), *user("b")])
        assert len(tasks(smart)) == 5


async def test_each_class_of_objects_is_a_task():
    class City(BaseModel):
        """A city."""

        name: str

    class Person(City):
        """A person."""

    def script(model, text, attempt):
        return Calls([(text.body["tools"][0]["function"]["name"], {"name": "Paris"})])

    with serve(script) as server:
        smart = smart_at(server)
        for n in range(3):
            for wanted in (City, Person):
                llm = smart.as_structured_llm(wanted)
                assert llm.chat(user(f"mail {n}")).raw == wanted(name="Paris")
                assert (await llm.achat(user(f"mail {n}"))).raw.name == "Paris"
                assert list(llm.stream_chat(user(f"mail {n}")))[-1].raw.name == "Paris"
                pieces = await llm.astream_chat(user(f"mail {n}"))
                assert [piece async for piece in pieces][-1].raw.name == "Paris"
        assert [stream.answered for stream in smart.report().streams] == [12, 12]


async def test_a_name_in_the_constructor_names_all():
    with serve(lambda *_: "yes") as server:
        smart = smart_at(server, task="all")
        await smart.apredict(PromptTemplate("is {what} good?"), what="it")
        await smart.acomplete("it")
        smart.complete_batch(["it"])
        assert tasks(smart) == {"all"}
        assert smart.report().certificates[0].task == "all"


async def test_tasks_of_concurrent_prompts_are_not_mixed_up():
    with serve(lambda *_: "yes", latency=0.01) as server:
        smart = smart_at(server)
        prompts = [PromptTemplate(f"prompt {n % 4}: {{what}}") for n in range(40)]
        await asyncio.gather(*(smart.apredict(p, what="it") for p in prompts))
        states = smart.report().streams
        assert sorted(state.answered for state in states) == [10] * 4


# -- many at once --------------------------------------------------------------


def test_32_threads():
    def ask(n):
        item = user(f"mail {n}")
        if n % 3:
            return smart.chat(item).message.content
        return "".join(piece.delta for piece in smart.stream_chat(item))

    with serve(lambda model, text, attempt: f"to {text}") as server:
        smart = smart_at(server)
        with ThreadPoolExecutor(32) as pool:
            answers = list(pool.map(ask, range(96)))
        assert answers == [f"to mail {n}" for n in range(96)]
        assert_ledger_is_the_bill(smart, server)


@pytest.mark.parametrize("calls", [60, pytest.param(200, marks=pytest.mark.slow)])
async def test_concurrent_async_calls(calls):
    async def ask(n):
        item = user(f"mail {n}")
        if n % 3:
            return (await smart.achat(item)).message.content
        return "".join([p.delta async for p in await smart.astream_chat(item)])

    with serve(lambda model, text, attempt: f"to {text}") as server:
        smart = smart_at(server)
        answers = await asyncio.gather(*(ask(n) for n in range(calls)))
        assert answers == [f"to mail {n}" for n in range(calls)]
        assert_ledger_is_the_bill(smart, server)


# -- who watches ---------------------------------------------------------------


def test_callbacks_count_each_token_once():
    counter = TokenCountingHandler(tokenizer=str.split)
    with serve(lambda *_: "yes") as server:
        given = plain(server, callback_manager=CallbackManager([counter]))
        smart = smart_at(server, reference=given)
        smart.callback_manager = CallbackManager([counter])
        smart.chat(user("mail 1"))
        list(smart.stream_chat(user("mail 1")))
        smart.complete_batch(["mail 1", "mail 2"])
        events = counter.llm_token_counts
        assert len(events) == sum(server.requests.values())
        sent = sum(server.input_tokens.values())
        assert counter.prompt_llm_token_count == sent
        assert counter.completion_llm_token_count == sum(server.output_tokens.values())
        assert given.callback_manager.handlers == [counter]


def test_instrumentation_sees_each_call_once():
    seen = []

    class Watcher(BaseEventHandler):
        def handle(self, event, **kwargs):
            if isinstance(event, LLMChatEndEvent):
                seen.append(event.response.raw.model)

    dispatcher = get_dispatcher()
    watcher = Watcher()
    dispatcher.add_event_handler(watcher)
    try:
        with serve(lambda *_: "yes") as server:
            smart = smart_at(server)
            smart.chat(user("mail 1"))
            assert len(seen) == sum(server.requests.values())
    finally:
        dispatcher.event_handlers.remove(watcher)


# -- written down --------------------------------------------------------------


def test_nothing_written_down_holds_a_secret():
    with serve(lambda *_: "yes") as server:
        smart = smart_at(server)
        smart.chat(user("mail 1"))
        written = [
            repr(smart),
            str(smart),
            smart.to_json(),
            json.dumps(smart.to_payload()),
        ]
        written += [smart.report().model_dump_json(), smart.model_dump_json()]
        for text in written:
            assert SECRET not in text


def test_a_stored_smart_llm_is_loaded_with_its_models():
    with serve(lambda *_: "yes") as server:
        smart = smart_at(server, max_disagreement=0.1, seed=7, task="it")
        data = json.loads(smart.to_json())
        with pytest.raises(InvalidInputError, match="holds no models"):
            SmartLLM.from_dict(data)
        members = {"reference": smart.reference, "candidates": smart.candidates}
        again = SmartLLM.from_dict(data, **members)
        assert again.to_dict() == smart.to_dict()
        assert (again.max_disagreement, again.seed, again.task) == (0.1, 7, "it")
        labelled = smart_at(server, equivalence=Label(["yes", "no"]))
        with pytest.raises(InvalidInputError, match="equivalence"):
            SmartLLM.from_json(labelled.to_json(), **members)
        told = {"equivalence": Label(["yes", "no"]), **members}
        assert SmartLLM.from_dict(labelled.to_dict(), **told).equivalence == Label(
            ["yes", "no"]
        )


def test_pickles_and_copies():
    with serve(lambda *_: "yes") as server:
        smart = smart_at(server, max_disagreement=0.1)
        smart.chat(user("mail 1"))
        copy = deepcopy(smart)
        copy.chat(user("mail 2"))
        assert smart.report().streams[0].answered == 2  # one promise, one set of books
        loaded = pickle.loads(pickle.dumps(smart))  # noqa: S301
        assert loaded.report().cost == 0
        assert loaded.chat(user("mail 1")).message.content == "yes"
        assert loaded.max_disagreement == 0.1
        with pytest.raises(InvalidInputError, match="cannot be pickled"):
            pickle.dumps(smart_at(server, equivalence=lambda a, b: a == b))


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"reference": "gpt-5"}, "reference"),
        ({"candidates": []}, "candidates"),
        ({"candidates": ["gpt-5"]}, "candidates"),
        ({"prices": {}}, "prices"),
        ({"mode": "wild"}, "mode"),
        ({"strategy": "magic"}, "strategy"),
        ({"confidence": 95}, "confidence"),
        ({"max_disagreement": 0}, "max_disagreement"),
        ({"max_concurrency": 0}, "max_concurrency"),
        ({"seed": -1}, "seed"),
        ({"equivalence": 3}, "equivalence"),
        ({"max_disagrement": 0.1}, "max_disagrement"),
        ({"max_disagreement": "much"}, "max_disagreement"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_what_cannot_be_used_is_an_error_at_construction(settings, field):
    with serve(lambda *_: "yes") as server:
        with pytest.raises(InvalidInputError) as caught:
            smart_at(server, **settings)
        assert caught.value.field == field
        assert SECRET not in str(caught.value)


def test_members_cannot_be_exchanged_without_a_word():
    with serve(lambda *_: "yes") as server:
        smart = smart_at(server)
        with pytest.raises(ValueError, match="frozen"):
            smart.reference = plain(server, "huge")
        with pytest.raises(ValueError, match="frozen"):
            smart.candidates = [plain(server, "huge")]


def test_the_metadata_is_what_all_can_do():
    with serve(lambda *_: "yes") as server:
        small = plain(
            server, "small", context_window=1000, is_function_calling_model=False
        )
        with pytest.warns(UserWarning, match="small takes 1,000 tokens"):
            table = smart_at(server, candidates=[small]).metadata
        assert table.context_window == plain(server, "big").metadata.context_window
        assert not table.is_function_calling_model
        assert table.is_chat_model


def test_the_default_equivalence_is_of_normalized_texts():
    with serve(lambda model, *_: "Yes." if model == "big" else "yes") as server:
        smart = smart_at(server)
        assert smart.equivalence == Normalized()
        for n in range(30):
            smart.chat(user(f"mail {n}"))
        assert smart.report().streams[0].found == 0


def test_a_server_that_counts_nothing_is_not_taken_for_a_cache():
    nothing = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    with serve(lambda *_: Odd("yes", usage=nothing)) as server:
        smart = smart_at(server, strategy="reference")
        with (
            pytest.warns(UserWarning, match="no input tokens"),
            pytest.raises(Exception, match="no input tokens"),
        ):
            smart.complete("?")
        assert [row.outcome for row in smart.ledger().entries] == ["failed"]
