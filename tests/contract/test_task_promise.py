"""One promise over the batches of a task, through both adapters and a store."""

from __future__ import annotations

import asyncio
import warnings
from typing import Any

import pytest
from fakes import Scripted, say
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import RunnableLambda
from llama_index.core.prompts import RichPromptTemplate

from langchain_smart import Price, SmartChatModel, SmartRunnable
from llama_index_smart import SmartLLM
from smart_engine import Exact, InvalidInputError, verify
from smart_engine.store.store import read_profiles

ADAPTERS = [SmartChatModel, SmartLLM]
both = pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda made: made.__name__)
chat_first, index_first = (
    pytest.mark.parametrize(
        "adapter",
        [first, pytest.param(second, marks=pytest.mark.slow)],
        ids=lambda made: made.__name__,
    )
    for first, second in (ADAPTERS, ADAPTERS[::-1])
)
"""One by default, and both in `make verify-quick`: the work is the runtime's."""
NIGHTS = 3
BIG = say("big")


def make(adapter, big=BIG, **settings: Any) -> Any:
    members = [
        Scripted(name="big", script=big),
        Scripted(name="small", script=say("small")),
    ]
    given = {"candidates": [members[1]], "promise": "task", "task": "nightly"}
    terms = {**given, "seed": 0, **settings}
    return adapter(
        reference=members[0],
        prices={"big": Price(10, 10), "small": Price(0.4, 0.4)},
        max_disagreement=0.1,
        **terms,
    )


def items(night: int, size: int = 100) -> list[str]:
    return [f"night {night}, item {size * night + n}" for n in range(size)]


def ask(smart: Any, texts: list[str], **how: Any) -> list[Any]:
    if isinstance(smart, SmartLLM):
        return smart.complete_batch(texts, **how)
    return smart.batch(texts, **how)


def last(smart: Any) -> Any:
    """Return the certificate of the last batch."""
    return smart.report().certificates[-1]


def asked(smart: Any) -> int:
    """Return how often the reference was asked for the last batch."""
    return last(smart).spend["big"].calls


@both
def test_later_batches_of_a_task_need_fewer_answers_of_the_reference(adapter) -> None:
    smart, calls = make(adapter), []
    for night in range(NIGHTS):
        ask(smart, items(night))
        calls.append(asked(smart))
    record = last(smart)
    assert record.promise.jobs == NIGHTS
    assert record.promise.answers == record.promise.allowed * 10 == 100 * NIGHTS
    assert calls[-1] < 0.6 * calls[0]
    assert all(check.holds for check in verify(record))
    counted = "all 300 answers of 'nightly' so far, in 3 jobs under this promise"
    assert counted in record.claim
    apart = make(adapter, promise="batch")
    ask(apart, items(2))
    assert calls[-1] < asked(apart)


@both
def test_small_batches_of_a_named_task_share_a_promise_by_default(adapter) -> None:
    smart = make(adapter, promise=None)
    with pytest.warns(UserWarning, match="fewer than 12 answers may differ"):
        ask(smart, items(100, 100))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is said once
        for size in (120, 119):
            ask(smart, items(size, size))
    small, large, last_one = smart.report().certificates
    assert small.promise.answers == 100
    assert large.promise is None
    assert "at most 12 of 120 answers" in large.claim
    assert last_one.promise.answers == 219
    assert "all 219 answers of 'nightly' so far, in 2 jobs" in last_one.claim
    for record in (small, large, last_one):
        assert all(check.holds for check in verify(record))
    shown = " ".join(smart.report().to_markdown().split())
    assert shown.count("2 of the batches keep a promise together") == 1


@both
@pytest.mark.parametrize("chosen", [{"promise": "batch"}, {"task": None}])
def test_small_batches_keep_their_own_where_none_is_to_be_shared(
    adapter, chosen
) -> None:
    smart = make(adapter, **{"promise": None, **chosen})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ask(smart, items(0))
    assert last(smart).promise is None
    assert "keep a promise together" not in smart.report().to_markdown()


@index_first
def test_processes_share_the_promise_of_a_task_by_a_store(adapter, tmp_path) -> None:
    for night in range(NIGHTS):
        smart = make(adapter, store=tmp_path / "nights.db", seed=None)
        ask(smart, items(night))
        assert last(smart).promise.jobs == night + 1
        assert last(smart).promise.answers == 100 * (night + 1)


@chat_first
def test_batches_of_both_kinds_teach_their_task_and_a_store_tells_of_it(
    adapter, tmp_path
) -> None:
    place = tmp_path / "nights.db"
    for promise, size in (("task", 100), ("task", 100), ("batch", 150)):
        smart = make(adapter, store=place, seed=None, promise=promise)
        ask(smart, items(size, size) if promise == "batch" else items(1, size))
    (known,) = read_profiles(place)
    assert (known.task, known.kind, known.equivalence) == (
        "nightly",
        "jobs",
        "Normalized()",
    )
    assert (known.jobs, known.open_jobs, known.apart) == (1, 0, 1)
    assert (known.answers, known.allowed, known.unresolved) == (100, 10, 0)
    assert known.possible <= known.allowed
    big, small = known.models
    assert (big.name, big.role, small.name) == ("big", "reference", "small")
    assert small.compared == known.policies[0].items > known.audits
    assert small.mean_cost < big.mean_cost / 10
    assert known.policies[0].policy == known.serves == "small"
    assert not small.hopeless


@pytest.mark.sparing
@index_first
def test_what_is_hopeless_for_one_batch_is_not_tried_by_the_next(
    adapter, tmp_path
) -> None:
    calls = []
    for night in range(2):
        smart = make(
            adapter,
            store=tmp_path / "nights.db",
            seed=None,
            promise="batch",
            candidates=[Scripted(name="small", script=lambda text, kwargs: "never")],
        )
        ask(smart, items(night, 200))
        calls.append(last(smart).spend["small"].calls)
    assert calls[0] > calls[1] == 0


@chat_first
def test_the_same_batch_again_buys_and_counts_nothing_twice(adapter, tmp_path) -> None:
    first, again = (make(adapter, store=tmp_path / "one.db", seed=None) for _ in "ab")
    texts = items(1) + items(2)
    answers = [answer.text for answer in ask(first, texts)]
    assert [answer.text for answer in ask(again, texts)] == answers
    assert again.reference.calls == again.candidates[0].calls == []
    assert last(again).promise.answers == last(first).promise.answers == 200
    assert last(again).promise.jobs == 1


@index_first
def test_a_batch_that_was_cut_off_goes_on_with_its_audits(adapter, tmp_path) -> None:
    def breaks(text: str, kwargs: dict[str, Any]) -> Any:
        if len(cut.reference.calls) > 30:
            raise KeyboardInterrupt
        return BIG(text, kwargs)

    terms = {"store": tmp_path / "cut.db", "seed": None, "max_concurrency": 4}
    ask(make(adapter, **terms), items(0))
    cut = make(adapter, breaks, **terms)
    with pytest.raises(KeyboardInterrupt):
        ask(cut, items(1))
    resumed = make(adapter, **terms)
    ask(resumed, items(1))
    bought = [text for text, _ in cut.reference.calls[:30]]
    assert not {text for text, _ in resumed.reference.calls} & set(bought)
    assert last(resumed).promise.unresolved == 0
    assert last(resumed).promise.answers == 200


@chat_first
def test_all_that_a_batch_had_bought_when_it_was_cut_off_is_used(
    adapter, tmp_path
) -> None:
    terms = {"store": tmp_path / "cut.db", "max_concurrency": 4}
    whole = make(adapter)
    ask(whole, items(0))
    cut = make(adapter, lambda text, kwargs: stop(text, kwargs), **terms)
    half = asked(whole) // 2

    def stop(text: str, kwargs: dict[str, Any]) -> Any:
        if len(cut.reference.calls) > half:
            raise KeyboardInterrupt
        return BIG(text, kwargs)

    with pytest.raises(KeyboardInterrupt):
        ask(cut, items(0))
    resumed = make(adapter, **terms)
    ask(resumed, items(0))
    spent = last(resumed).spend
    for model, before, now in (
        ("big", cut.reference, resumed.reference),
        ("small", cut.candidates[0], resumed.candidates[0]),
    ):
        bought = {text for text, _ in before.calls} | {text for text, _ in now.calls}
        assert spent[model].calls == len(bought)


@both
def test_items_without_an_answer_leave_the_promise_to_the_others(adapter) -> None:
    def fails(text: str, kwargs: dict[str, Any]) -> Any:
        number = int(text.rsplit(maxsplit=1)[-1])
        return ValueError("no") if number % 5 == 0 else BIG(text, kwargs)

    smart = make(adapter, fails)
    given = 0
    for night in range(NIGHTS):
        answers = ask(smart, items(night), return_exceptions=True)
        given += sum(not isinstance(answer, Exception) for answer in answers)
    assert last(smart).promise.answers == given < 100 * NIGHTS
    assert all(check.holds for check in verify(last(smart)))


@both
def test_asynchronous_batches_share_the_promise_with_the_others(adapter) -> None:
    smart = make(adapter)
    ask(smart, items(0))
    verb = smart.acomplete_batch if adapter is SmartLLM else smart.abatch
    asyncio.run(verb(items(1)))
    assert last(smart).promise.answers == 200


@both
def test_a_pool_has_one_promise_whatever_the_rules_of_its_tasks(adapter) -> None:
    pool: dict[str, Any] = {"pool": ["mail", "chat"]}
    mail: dict[str, Any] = {"equivalence": Exact()}
    smart = make(adapter, task=None, tasks={"texts": pool, "mail": mail})
    for night, (task, stop) in enumerate({"mail": ["."], "chat": ["!"]}.items()):
        ask(smart, items(night), smart_task=task, stop=stop)
    assert last(smart).promise.jobs == 2
    assert last(smart).promise.answers == 200
    assert last(smart).task == "texts"


@both
def test_gathered_calls_of_a_task_without_a_name_are_named_at_once(adapter) -> None:
    smart = make(adapter, task=None)
    verb = smart.complete if adapter is SmartLLM else smart.invoke
    with (
        smart.batching(),
        pytest.raises(InvalidInputError, match="name the task"),
    ):
        verb("item 1")


def test_gathered_calls_of_a_template_share_the_promise_of_its_task() -> None:
    smart = make(SmartLLM, task=None)
    night = RichPromptTemplate("night item {{n}}")
    night.metadata["prompt_type"] = "night"

    async def main(first: int) -> None:
        numbers = range(first, first + 60)
        await asyncio.gather(*(smart.apredict(night, n=n) for n in numbers))

    for first in (0, 60):
        with smart.batching(gather_ms=400, max_items=60):
            asyncio.run(main(first))
    assert [each.task for each in smart.report().certificates] == ["night", "night"]
    assert last(smart).promise.answers == 120


@both
def test_a_promise_over_a_task_needs_its_name_and_an_audit(adapter) -> None:
    with pytest.raises(InvalidInputError, match="promise='task': name the task"):
        ask(make(adapter, task=None), items(0))
    with pytest.raises(InvalidInputError, match="proves each batch by itself"):
        make(adapter, strategy="mix")
    with pytest.raises(InvalidInputError, match="promise"):
        make(adapter, promise="job")


class Sealed:
    """An answer that no store can keep."""

    def __init__(self, text: str) -> None:
        self.text = text


def test_a_batch_whose_answers_no_store_keeps_counts_as_another_one(tmp_path) -> None:
    turned_bad: list[int] = []

    def chain(name: str) -> Any:
        def answer(text: str, kwargs: dict[str, Any]) -> str:
            return "no" if turned_bad and name == "small" else "yes"

        model = Scripted(name=name, script=answer)
        return model | StrOutputParser() | RunnableLambda(Sealed)

    smart = SmartRunnable(
        reference={"long": chain("big")},
        candidates={"short": chain("small")},
        prices={"big": Price(10, 10), "small": Price(0.4, 0.4)},
        max_disagreement=0.1,
        promise="task",
        task="nightly",
        version="1",
        store=tmp_path / "nights.db",
        equivalence=lambda left, right: left.text == right.text,
        seed=1,
    )
    with pytest.warns(UserWarning, match="will buy some answers again"):
        smart.batch(items(0))
    turned_bad.append(1)
    with pytest.warns(UserWarning, match="will buy some answers again"):
        answers = smart.batch(items(0))
    assert last(smart).promise.jobs == 2
    wrong = sum(answer.text == "no" for answer in answers)
    assert wrong <= last(smart).promise.allowed == 20


@both
def test_a_named_batch_with_limited_waves_keeps_its_own_promise(adapter) -> None:
    smart = make(adapter, promise=None, max_rounds=6)
    ask(smart, items(0))
    assert last(smart).promise is None
    assert last(smart).valid
