"""Single calls made at once in `batching()` have a batch's price and promise."""

from __future__ import annotations

import asyncio
import operator
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Annotated, Any, TypedDict

import pytest
from fakes import Scripted
from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import (
    RunnableBranch,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send
from llama_index.core.async_utils import run_jobs
from llama_index.core.evaluation import BatchEvalRunner, CorrectnessEvaluator
from llama_index.core.extractors import KeywordExtractor
from llama_index.core.schema import TextNode

from langchain_smart import Price, SmartChatModel, SmartMiddleware, SmartRunnable
from llama_index_smart import SmartLLM
from smart_engine.errors import BudgetExceededError, InvalidInputError

PRICES = {"big": Price(10, 30), "small": Price(0.5, 1.5)}
N = 30
"""Items: with `max_disagreement=0.25` seven of them may differ."""

ALL: dict[str, Any] = {"gather_ms": 3000, "max_items": N}
"""Waits for all items, and no longer."""


def number(text: str) -> int:
    return int("".join(filter(str.isdigit, text.rsplit("number", 1)[-1])))


def say(name: str):
    def answer(text: str, kwargs: dict[str, Any]) -> str:
        wrong = name == "small" and number(text) % 31 == 0
        return "no" if wrong else f"yes {number(text) % 3}"

    return answer


class LangChain:
    """Calls of the chat model."""

    kind: Any = SmartChatModel

    def __init__(self, script=say, **settings) -> None:
        self.big = Scripted(name="big", script=script("big"))
        self.small = Scripted(name="small", script=script("small"))
        self.smart = self.make(**{"max_disagreement": 0.25, "seed": 3, **settings})

    def make(self, **settings) -> Any:
        members = {"reference": self.big, "candidates": [self.small]}
        return self.kind(**{"prices": PRICES, **members, **settings})

    def ask(self, text: str) -> Any:
        return self.smart.invoke(text)

    async def aask(self, text: str) -> Any:
        return await self.smart.ainvoke(text)

    def batch(self, texts: list[str], **how) -> list[Any]:
        return self.smart.batch(texts, **how)

    def text(self, answer: Any) -> str:
        return answer.text

    @property
    def calls(self) -> int:
        return len(self.big.calls) + len(self.small.calls)

    @property
    def sizes(self) -> list[int]:
        """Number of items of each batch."""
        return sorted(each.items for each in self.smart.report().certificates)


class Chains(LangChain):
    """Calls of a chain."""

    def make(self, **settings) -> Any:
        return SmartRunnable(
            reference={"long": self.big | StrOutputParser()},
            candidates={"short": self.small | StrOutputParser()},
            prices=PRICES,
            **settings,
        )

    def text(self, answer: Any) -> str:
        return answer


class LlamaIndex(LangChain):
    """Calls of the LLM."""

    kind: Any = SmartLLM

    def ask(self, text: str) -> Any:
        return self.smart.complete(text)

    async def aask(self, text: str) -> Any:
        return await self.smart.acomplete(text)

    def batch(self, texts: list[str], **how) -> list[Any]:
        return self.smart.complete_batch(texts, **how)


ADAPTERS = pytest.mark.parametrize("adapter", [LangChain, Chains, LlamaIndex])
VERBS = pytest.mark.parametrize("verb", ["threads", "tasks"])


def questions(count: int = N) -> list[str]:
    """Return what is asked, in the order in which a gathered batch has it."""
    return sorted(f"is it number {n}" for n in range(count))


def at_once(one: LangChain, verb: str, texts: list[str]) -> list[Any]:
    """Ask about all texts at once; return answers and exceptions."""
    if verb == "tasks":

        async def ask_all() -> list[Any]:
            return await asyncio.gather(*map(one.aask, texts), return_exceptions=True)

        return asyncio.run(ask_all())

    def ask(text: str) -> Any:
        try:
            return one.ask(text)
        except Exception as error:  # noqa: BLE001 - it is the result
            return error

    with ThreadPoolExecutor(len(texts)) as pool:
        made = [pool.submit(copy_context().run, ask, text) for text in texts]
    return [future.result() for future in made]


@VERBS
@ADAPTERS
def test_calls_made_at_once_are_the_batch_of_their_items(adapter, verb):
    control, one = adapter(), adapter()
    expected = [*map(control.text, control.batch(questions()))]
    with one.smart.batching(**ALL):
        answers = at_once(one, verb, questions()[::-1])[::-1]
    assert [*map(one.text, answers)] == expected
    assert one.sizes == [N]
    (found,), (known,) = (each.smart.report().certificates for each in (one, control))
    assert found.valid
    assert found.cost == pytest.approx(known.cost)
    assert sorted(one.small.calls[0][1]) == sorted(control.small.calls[0][1])
    assert one.calls == control.calls
    assert not one.smart.report().streams


@VERBS
def test_a_full_group_waits_no_longer(verb):
    one = LangChain()
    with one.smart.batching(gather_ms=86_400_000, max_items=N):
        at_once(one, verb, questions())
    assert one.sizes == [N]


@VERBS
@ADAPTERS
def test_without_the_block_and_in_too_small_groups_they_are_the_stream(adapter, verb):
    one = adapter()
    at_once(one, verb, questions())
    with one.smart.batching(gather_ms=20):
        at_once(one, verb, questions(19))
    assert one.sizes == []
    (stream,) = one.smart.report().streams
    assert stream.answered == N + 19


@ADAPTERS
def test_calls_made_one_after_the_other_are_answered_in_the_stream(adapter):
    one = adapter()
    with one.smart.batching(gather_ms=20):
        answers = [one.text(one.ask(text)) for text in questions(8)]
    assert answers == [say("big")(text, {}) for text in questions(8)]
    assert one.smart.report().streams[0].answered == 8


@pytest.mark.parametrize(
    ("adapter", "verb"), [(LangChain, "threads"), (LlamaIndex, "tasks")]
)
def test_what_needs_an_earlier_answer_is_gathered_after_it(adapter, verb):
    one = adapter()
    ask, aask = one.ask, one.aask

    def twice(text: str) -> Any:
        return ask(f"{text}{len(one.text(ask(text)))}")

    async def atwice(text: str) -> Any:
        return await aask(f"{text}{len(one.text(await aask(text)))}")

    one.ask, one.aask = twice, atwice
    with one.smart.batching(**ALL):
        at_once(one, verb, questions())
    assert one.sizes == [N, N]


def say_and_set(began: threading.Event, name: str):
    """Return what a model says, and sets an event when it is asked."""

    def answer(text, kwargs):
        began.set()
        return say(name)(text, kwargs)

    return answer


@ADAPTERS
def test_who_leaves_early_is_no_part_of_it_and_who_leaves_late_ends_nothing(adapter):
    began = threading.Event()
    script = partial(say_and_set, began)

    async def main(one: LangChain) -> list[Any]:
        tasks = [asyncio.create_task(one.aask(text)) for text in questions()]
        await asyncio.sleep(0)
        for task in tasks[:5]:
            task.cancel()
        await asyncio.to_thread(began.wait)
        for task in tasks[5:10]:
            task.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    one = adapter(script)
    for model in (one.big, one.small):
        model.latency = 0.005  # so that some call is made after they left
    with one.smart.batching(gather_ms=60):
        answers = asyncio.run(main(one))
    gone = [isinstance(answer, asyncio.CancelledError) for answer in answers]
    assert gone == [True] * 10 + [False] * (N - 10)
    (certificate,) = one.smart.report().certificates
    assert certificate.items == certificate.answered == N - 5


@ADAPTERS
def test_a_call_made_again_right_after_its_timeout_is_answered(adapter):
    async def main(one: LangChain) -> Any:
        try:
            async with asyncio.timeout(0.02):
                await one.aask("is it number 1")
        except TimeoutError:
            return await one.aask("is it number 1")

    one = adapter(gather_ms=80)
    assert one.text(asyncio.run(main(one))) == "yes 1"


@ADAPTERS
def test_when_all_have_left_nothing_more_is_bought(adapter):
    began = threading.Event()
    script = partial(say_and_set, began)

    async def main(one: LangChain) -> int:
        tasks = [asyncio.create_task(one.aask(text)) for text in questions()]
        await asyncio.to_thread(began.wait)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)
        return one.calls

    one = adapter(script, max_concurrency=4)
    for model in (one.big, one.small):
        model.latency = 0.005
    with one.smart.batching(**ALL):
        made = asyncio.run(main(one))
    assert made == one.calls < N
    rows = one.smart.ledger().sums("outcome")
    booked = sum(row.calls for row in rows.values())
    # A call cancelled between the framework's callbacks and the model is booked, too.
    cancelled = rows["cancelled"].calls if "cancelled" in rows else 0
    assert made <= booked <= made + cancelled
    assert one.sizes == []


def test_what_has_no_text_that_identifies_it_is_gathered_too():
    def chain(name: str) -> Any:
        return RunnableLambda(lambda given: type(given).__name__, name=name)

    prices = {"long": Price.per_call(1), "short": Price.per_call(0.1)}
    given = {"reference": chain("long"), "candidates": [chain("short")]}
    smart = SmartRunnable(**given, prices=prices, max_disagreement=0.25)

    async def main() -> list[str]:
        return await asyncio.gather(*(smart.ainvoke(object()) for _ in range(N)))

    with smart.batching(**ALL):
        assert asyncio.run(main()) == ["object"] * N
    assert smart.report().certificates[0].items == N


@pytest.mark.parametrize("adapter", [LangChain, LlamaIndex])
def test_a_block_left_by_ctrl_c_makes_no_further_call(adapter):
    began = threading.Event()
    script = partial(say_and_set, began)

    def ask(text: str) -> Any:
        try:
            return one.ask(text)
        except BaseException as error:  # noqa: BLE001 - it is the result
            return error

    one = adapter(script, max_concurrency=2)
    for model in (one.big, one.small):
        model.latency = 0.01

    def main(pool: ThreadPoolExecutor) -> None:
        with one.smart.batching(**ALL):
            for text in questions():
                made.append(pool.submit(copy_context().run, ask, text))
            began.wait()
            raise KeyboardInterrupt

    made: list[Any] = []
    with ThreadPoolExecutor(N) as pool, pytest.raises(KeyboardInterrupt):
        main(pool)
    assert {type(future.result()) for future in made} == {KeyboardInterrupt}
    assert one.calls < N
    rows = one.smart.ledger().sums("outcome").values()
    assert sum(row.calls for row in rows) == one.calls


@VERBS
@ADAPTERS
def test_an_error_is_its_own_callers(adapter, verb):
    def script(name):
        def answer(text, kwargs):
            failed = name == "big" and number(text) == 7
            return LookupError("seven") if failed else say(name)(text, kwargs)

        return answer

    one = adapter(script, max_disagreement=0.2, confidence=0.999)
    with one.smart.batching(**ALL):
        answers = at_once(one, verb, questions())
    errors = {
        text: answer
        for text, answer in zip(questions(), answers, strict=True)
        if isinstance(answer, BaseException)
    }
    assert [*errors] == ["is it number 7"]
    assert isinstance(errors["is it number 7"], LookupError)
    assert one.sizes == [N]


@VERBS
@ADAPTERS
def test_calls_are_made_where_their_caller_is(adapter, verb):
    tenant: ContextVar[int] = ContextVar("tenant", default=-1)
    strangers = []

    def script(name):
        def answer(text, kwargs):
            if tenant.get() != number(text):
                strangers.append((text, tenant.get()))
            return say(name)(text, kwargs)

        return answer

    one = adapter(script)
    ask, aask = one.ask, one.aask

    def ask_as_tenant(text: str) -> Any:
        tenant.set(number(text))
        return ask(text)

    async def aask_as_tenant(text: str) -> Any:
        tenant.set(number(text))
        return await aask(text)

    one.ask, one.aask = ask_as_tenant, aask_as_tenant
    with one.smart.batching(**ALL):
        at_once(one, verb, questions())
    assert one.sizes == [N]
    assert strangers == []


@pytest.mark.parametrize("kind", [LangChain, Chains])
@pytest.mark.parametrize("verb", ["invoke", "ainvoke"])
def test_each_callers_handler_sees_its_own_run_alone(kind, verb):
    class Handler(BaseCallbackHandler):
        def __init__(self) -> None:
            self.ended = []

        def on_llm_end(self, response, *, parent_run_id=None, **kwargs) -> None:
            if parent_run_id is None:
                self.ended.append(response.generations[0][0].message.text)

        def on_chain_end(self, outputs, *, parent_run_id=None, **kwargs) -> None:
            if parent_run_id is None:
                self.ended.append(outputs)

    one, handlers = kind(), {text: Handler() for text in questions()}

    def ask(text: str) -> Any:
        return one.smart.invoke(text, {"callbacks": [handlers[text]]})

    async def aask(text: str) -> Any:
        return await one.smart.ainvoke(text, {"callbacks": [handlers[text]]})

    one.ask, one.aask = ask, aask
    with one.smart.batching(**ALL):
        answers = at_once(one, "threads" if verb == "invoke" else "tasks", questions())
    assert one.sizes == [N]
    seen = [handler.ended for handler in handlers.values()]
    assert seen == [[one.text(answer)] for answer in answers]


@pytest.mark.parametrize("adapter", [LangChain, LlamaIndex])
def test_the_batches_of_a_block_share_one_budget(adapter):
    prices = {"big": Price.per_call(1.0), "small": Price.per_call(0.1)}

    def hopeless(name):
        return lambda text, kwargs: f"{name} {text}"

    def spent(one: LangChain) -> float:
        return sum(spend.cost for spend in one.smart.report().spend.values())

    one = adapter(hopeless, budget_usd=40.0, prices=prices, mode="strict")
    with one.smart.batching(**ALL):
        answers = at_once(one, "threads", questions())
        assert 30 <= spent(one) <= 40
        answers += at_once(one, "threads", questions())
    assert 38 < spent(one) <= 40
    refused = [each for each in answers if isinstance(each, BudgetExceededError)]
    assert 0 < len(refused) < N
    with one.smart.batching(**ALL):
        at_once(one, "threads", questions())
    assert spent(one) >= 68


@ADAPTERS
def test_the_same_items_in_another_order_are_the_same_batch_for_a_store(
    adapter, tmp_path
):
    settings = {"store": str(tmp_path / "answers.db"), "seed": None}
    if adapter is Chains:
        settings["version"] = "1"
    first, second = adapter(**settings), adapter(**settings)
    for one in (first, second):
        texts = questions()
        random.Random(one is first).shuffle(texts)
        with one.smart.batching(**ALL):
            at_once(one, "tasks", texts)
    assert first.sizes == second.sizes == [N]
    assert first.calls > second.calls == 0


@ADAPTERS
def test_gather_ms_gathers_without_a_block(adapter):
    one = adapter(gather_ms=400.0)
    at_once(one, "threads", questions())
    assert one.sizes == [N]
    at_once(adapter(gather_ms=400.0, mode="shadow"), "tasks", questions(3))


def test_tasks_settings_and_named_models_are_not_mixed():
    one = LangChain()

    async def ask(text: str) -> Any:
        half = number(text) % 2
        asked = [("system", f"task {half}"), ("human", text)]
        if text == "is it number 3":
            return await one.smart.ainvoke(asked, model="small")
        return await one.smart.ainvoke(asked, stop=None if half else ["end"])

    one.aask = ask
    with one.smart.batching(**ALL):
        answers = at_once(one, "tasks", [*questions(2 * N), "is it number 61"])
    assert one.sizes == [N, N]
    tasks = {each.task for each in one.smart.report().certificates}
    assert len(tasks) == 2
    roles = [each.response_metadata["smart"]["role"] for each in answers]
    assert roles.count("named") == 1


# -- what frameworks make of one item --------------------------------------------------


def chain(one: LangChain) -> Any:
    prompt = ChatPromptTemplate.from_template("is it number {n}")
    return prompt | one.smart | StrOutputParser()


def send_graph(one: LangChain) -> Any:
    class State(TypedDict):
        numbers: list[int]
        answers: Annotated[list[str], operator.add]

    def ask(state: Any) -> Any:
        return {"answers": [chain(one).invoke(state)]}

    async def aask(state: Any) -> Any:
        return {"answers": [await chain(one).ainvoke(state)]}

    graph = StateGraph(State)
    graph.add_node("ask", RunnableLambda(ask, aask))
    each = lambda state: [Send("ask", {"n": n}) for n in state["numbers"]]  # noqa: E731
    graph.add_conditional_edges(START, each, ["ask"])
    graph.add_edge("ask", END)
    return graph.compile()


def in_lambda(one: LangChain) -> Any:
    async def aask(item: Any) -> str:
        return await chain(one).ainvoke(item)

    return RunnableLambda(lambda item: chain(one).invoke(item), aask)


SHAPES = {
    "assign": lambda one: RunnablePassthrough.assign(answer=chain(one)),
    "parallel": lambda one: RunnableParallel(answer=chain(one), item=lambda item: item),
    "branch": lambda one: RunnableBranch((lambda item: True, chain(one)), chain(one)),
    "lambda": in_lambda,
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("verb", ["batch", "abatch"])
def test_a_batch_of_any_chain_is_one_batch(shape, verb):
    one, items = LangChain(), [{"n": n} for n in range(N)]
    runnable = SHAPES[shape](one)
    with one.smart.batching(**ALL):
        if verb == "batch":
            answers = runnable.batch(items)
        else:
            answers = asyncio.run(runnable.abatch(items))
    if shape in ("assign", "parallel"):
        answers = [answer["answer"] for answer in answers]
    assert one.sizes == [N]
    wrong = [n for n in range(N) if answers[n] != f"yes {n % 3}"]
    assert len(wrong) <= one.smart.report().certificates[0].max_errors
    assert max(one.big.most_in_flight, one.small.most_in_flight) <= 32


@pytest.mark.parametrize("verb", ["invoke", "ainvoke"])
def test_what_a_graph_sends_is_one_batch(verb):
    one, state = LangChain(), {"numbers": [*range(N)], "answers": []}
    with one.smart.batching(**ALL):
        if verb == "invoke":
            answers = send_graph(one).invoke(state)["answers"]
        else:
            answers = asyncio.run(send_graph(one).ainvoke(state))["answers"]
    assert one.sizes == [N]
    assert len(answers) == N


def test_the_smart_models_own_limit_holds_however_many_threads_wait():
    one = LangChain(max_concurrency=3)
    for model in (one.big, one.small):
        model.latency = 0.002
    with one.smart.batching(**ALL):
        RunnableParallel(answer=chain(one)).batch([{"n": n} for n in range(N)])
        chain(one).batch([{"n": n} for n in range(N)])
    assert one.sizes == [N, N]
    assert max(one.big.most_in_flight, one.small.most_in_flight) <= 3


def test_agents_that_run_at_once_are_answered_turn_by_turn():
    big, small = (Scripted(name=name, script=say(name)) for name in PRICES)
    smart = SmartMiddleware([small], prices=PRICES, max_disagreement=0.25, seed=3)
    agent = create_agent(big, middleware=[smart])
    asked = [{"messages": [("user", text)]} for text in questions()]
    with smart.batching(**ALL):
        states = agent.batch(asked)
    assert [each.items for each in smart.report().certificates] == [N]
    assert all(state["messages"][-1].text for state in states)


def test_the_middlewares_own_gather_ms_is_that_of_its_block(monkeypatch):
    waits = list[float]()

    def wait(futures: Any, seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("smart_engine.runtime.gathering.wait", wait)
    one = LangChain()
    settings = {"candidates": [one.small], "prices": PRICES, "gather_ms": 40}
    smart = SmartMiddleware(**settings, max_disagreement=0.25)
    agent = create_agent(one.big, middleware=[smart])
    with smart.batching():
        agent.invoke({"messages": "is it number 1"})
    assert sum(waits) == pytest.approx(0.04)


def test_jobs_of_llama_index_are_one_batch_with_enough_workers():
    one = LlamaIndex()

    async def run(workers: int) -> None:
        await run_jobs([*map(one.aask, questions())], workers=workers)

    with one.smart.batching(**ALL):
        asyncio.run(run(N))
    assert one.sizes == [N]


def test_an_extractor_is_one_batch_with_enough_workers():
    one = LlamaIndex()
    nodes = [TextNode(text=f"number {n}") for n in range(N)]
    extractor = KeywordExtractor(llm=one.smart, num_workers=N, show_progress=False)
    with one.smart.batching(**ALL):
        found = asyncio.run(extractor.aextract(nodes))
    assert one.sizes == [N]
    assert len(found) == N


def test_an_evaluation_is_one_batch_with_enough_workers():
    def script(name):
        return lambda text, kwargs: f"4.0\n{say(name)(text, kwargs)}"

    one = LlamaIndex(script)
    judge = CorrectnessEvaluator(llm=one.smart)
    runner = BatchEvalRunner({"correctness": judge}, workers=N)
    with one.smart.batching(**ALL):
        results = asyncio.run(
            runner.aevaluate_response_strs(
                queries=["which?"] * N, response_strs=questions(), reference=["x"] * N
            )
        )
    assert one.sizes == [N]
    assert all(result.score == 4.0 for result in results["correctness"])


@pytest.mark.parametrize("adapter", [LangChain, LlamaIndex])
@pytest.mark.parametrize("wrong", [{"gather_ms": 0}, {"max_items": 0}])
def test_what_cannot_be_used_is_named(adapter, wrong):
    one = adapter()
    with (
        pytest.raises(InvalidInputError, match=next(iter(wrong))),
        one.smart.batching(**wrong),
    ):
        pass
    with pytest.raises(InvalidInputError, match="gather_ms"):
        adapter(gather_ms=-1.0)
