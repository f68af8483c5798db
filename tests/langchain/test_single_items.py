"""One item at a time: candidates serve, the promise holds after every answer."""

from __future__ import annotations

import asyncio
import random
import threading

import pytest
from fakes import Scripted
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk

from langchain_smart import Label, Price, SmartChatModel
from smart_engine import InvalidInputError

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}
SYNC_AND_ASYNC = pytest.mark.parametrize("mode", ["sync", "async"])
JOBS = pytest.mark.parametrize(
    ("items", "share", "served", "saved"),
    [
        pytest.param(200, 0.2, 0.45, 0.4, id="200"),
        pytest.param(1000, 0.05, 0.45, 0.4, id="1000", marks=pytest.mark.slow),
    ],
)
"""How many items, which share may differ, and which shares are served and saved."""


class Speaking(Scripted):
    """Says the words of its script one by one; an exception among them is raised."""

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        text = str(messages[-1].text)
        self._enter(text, kwargs)
        said = self.script(text, kwargs)
        words = said.split() if isinstance(said, str) else said
        usage = {"input_tokens": len(text), "output_tokens": len(words)}
        for place, word in enumerate(words, 1):
            if isinstance(word, BaseException):
                raise word
            last = {**usage, "total_tokens": sum(usage.values())}
            message = AIMessageChunk(
                content=word, usage_metadata=last if place == len(words) else None
            )
            yield ChatGenerationChunk(message=message)


def smart_of(big, small, kind=Scripted, latency=0.0, **settings) -> SmartChatModel:
    """A smart model over two scripts."""
    models = [
        kind(name=name, script=script, latency=latency)
        for name, script in (("big", big), ("small", small))
    ]
    return SmartChatModel(
        reference=models[0], candidates=models[1:], prices=PRICES, **settings
    )


def until_served(smart, text="warm up") -> None:
    """Ask until the candidate has served a few items."""
    for _ in range(400):
        smart.invoke(text)
        (state,) = smart.report().streams
        if state.served["small"] > 5:
            return
    raise AssertionError("the candidate never serves")


async def pieces_of(mode, smart, text):
    if mode == "sync":
        return list(smart.stream(text))
    return [piece async for piece in smart.astream(text)]


@JOBS
@SYNC_AND_ASYNC
async def test_single_items_save_and_keep_the_promise_after_every_answer(
    mode, items, share, served, saved
):
    wrong = set(random.Random(1).sample(range(items), items // 100))

    def small(text, _):
        return "no" if int(text) in wrong else "yes"

    smart = smart_of(lambda *_: "yes", small, max_disagreement=share)
    missed, roles = 0, set()
    for count in range(1, items + 1):
        text = str(count - 1)
        said = smart.invoke(text) if mode == "sync" else await smart.ainvoke(text)
        missed += said.content != "yes"
        assert missed <= share * count
        told = said.response_metadata["smart"]
        roles.add((told["model"], told["role"]))
        assert told["certificate"] is None
    report = smart.report()
    (state,) = report.streams
    assert {("big", "profiled"), ("small", "applied")} <= roles
    assert state.answered == items
    assert missed <= state.possible_misses <= state.allowed == share * items
    assert state.served["small"] > served * items
    assert report.served == state.served
    assert report.saved == pytest.approx(state.saved)
    assert report.saved > saved * items * state.reference_cost
    assert report.cost == pytest.approx(state.cost)


@SYNC_AND_ASYNC
async def test_a_candidates_answer_is_shown_as_it_comes(mode):
    smart = smart_of(
        lambda *_: "the right answer",
        lambda *_: "the right answer",
        kind=Speaking,
        max_disagreement=0.2,
    )
    until_served(smart)
    served = 0
    for _ in range(60):
        pieces = await pieces_of(mode, smart, "?")
        first, *_, last = pieces
        words = [piece.content for piece in pieces if piece.content]
        assert words == ["the", "right", "answer"]
        assert first.response_metadata["smart"]["model"] in {"big", "small"}
        assert last.response_metadata["smart"]["cost"] > 0
        served += first.response_metadata["smart"]["model"] == "small"
    assert served > 2
    assert smart.report().streams[0].in_flight == 0


@SYNC_AND_ASYNC
async def test_what_was_shown_is_never_followed_by_another_answer(mode):
    bad = {"on": False}
    smart = smart_of(
        lambda *_: "spam",
        lambda *_: "who knows" if bad["on"] else "spam",
        kind=Speaking,
        max_disagreement=0.2,
        equivalence=Label(["spam", "ham"]),
    )
    until_served(smart)
    bad["on"] = True
    shown = set()
    for _ in range(60):
        said = "".join(p.content for p in await pieces_of(mode, smart, "?"))
        shown.add(said)
    assert shown == {"spam", "whoknows"}
    (state,) = smart.report().streams
    assert state.found > 0 or state.audits == state.answered - state.served["small"]
    # Whole answers that cannot be read escalate instead.
    assert all(smart.invoke("?").content == "spam" for _ in range(5))


@SYNC_AND_ASYNC
async def test_a_candidate_that_fails_before_its_first_word_escalates(mode):
    bad = {"on": False}
    smart = smart_of(
        lambda *_: "yes",
        lambda *_: [RuntimeError("busy")] if bad["on"] else "yes",
        kind=Speaking,
        max_disagreement=0.2,
    )
    until_served(smart)
    bad["on"] = True
    roles = set()
    for _ in range(20):
        pieces = await pieces_of(mode, smart, "?")
        assert "".join(piece.content for piece in pieces) == "yes"
        roles.add(pieces[-1].response_metadata["smart"]["role"])
    assert "escalated" in roles
    assert smart.report().spend["small"].failures > 0


@SYNC_AND_ASYNC
async def test_a_candidate_that_breaks_off_is_the_callers_error(mode):
    bad = {"on": False}
    smart = smart_of(
        lambda *_: "yes",
        lambda *_: ["y", RuntimeError("cut off")] if bad["on"] else "yes",
        kind=Speaking,
        max_disagreement=0.2,
    )
    until_served(smart)
    bad["on"] = True
    errors = []
    for _ in range(20):
        try:
            await pieces_of(mode, smart, "?")
        except RuntimeError as error:
            errors.append(str(error))
    assert set(errors) == {"cut off"}
    (state,) = smart.report().streams
    assert (state.abandoned, state.in_flight) == (len(errors), 0)
    assert smart.invoke("?").content == "yes"


@SYNC_AND_ASYNC
async def test_reference_and_candidate_answer_side_by_side(mode):
    steps = []
    threads, tasks = threading.Barrier(2, timeout=60), asyncio.Barrier(2)

    class Met(Scripted):
        """Answers when the other has begun."""

        def _generate(self, *given, **settings):
            steps.append("begins")
            threads.wait()
            steps.append("ends")
            return super()._generate(*given, **settings)

        async def _agenerate(self, *given, **settings):
            steps.append("begins")
            await tasks.wait()
            steps.append("ends")
            return await super()._agenerate(*given, **settings)

    smart = smart_of(lambda *_: "yes", lambda *_: "yes", Met)
    said = smart.invoke("?") if mode == "sync" else await smart.ainvoke("?")
    assert said.response_metadata["smart"]["role"] == "profiled"
    assert steps == ["begins", "begins", "ends", "ends"]
    assert said.usage_metadata["input_tokens"] == 1


async def test_a_call_that_is_cancelled_leaves_nothing_open():
    smart = smart_of(lambda *_: "yes", lambda *_: "yes", latency=60)
    call = asyncio.create_task(smart.ainvoke("?"))
    while not (smart.reference.calls and smart.candidates[0].calls):
        await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    (state,) = smart.report().streams
    assert (state.abandoned, state.in_flight, state.answered) == (1, 0, 0)
    assert smart.report().spend["big"].calls == 1


def test_a_reference_that_fails_is_the_callers_error():
    smart = smart_of(lambda *_: RuntimeError("down"), lambda *_: "yes")
    for _ in range(3):
        with pytest.raises(RuntimeError, match="down"):
            smart.invoke("?")
    (state,) = smart.report().streams
    assert (state.unanswered, state.in_flight) == (3, 0)
    assert smart.report().spend["big"].failures == 3


def test_every_task_has_a_stream_of_its_own():
    smart = smart_of(lambda *_: "yes", lambda *_: "yes")
    for task in ("sort", "sort", "rank"):
        smart.bind(smart_task=task).invoke("?")
    stricter = smart.model_copy(update={"max_disagreement": 0.01})
    stricter.bind(smart_task="sort").invoke("?")
    states = smart.report().streams
    assert [(s.task, s.answered) for s in states] == [
        ("sort", 2),
        ("rank", 1),
        ("sort", 1),
    ]
    assert [s.max_disagreement for s in states] == [0.05, 0.05, 0.01]
    assert sum(smart.report().served.values()) == 4
    smart.batch(["?"] * 3, {"metadata": {"smart_task": "sort"}})
    assert smart.report().certificates[0].task == "sort"


@pytest.mark.parametrize(
    ("items", "share"),
    [
        pytest.param(200, 0.15, id="200"),
        pytest.param(600, 0.05, id="600", marks=pytest.mark.slow),
    ],
)
@SYNC_AND_ASYNC
async def test_in_shadow_the_reference_answers_and_the_report_says_what_was_missed(
    mode, items, share
):
    wrong = set(random.Random(2).sample(range(items), items // 100))

    def small(text, _):
        return "no" if int(text) in wrong else "yes"

    settings = {"max_disagreement": share}
    smart = smart_of(lambda *_: "yes", small, mode="shadow", **settings)
    texts = [str(number) for number in range(items)]
    half = items // 2
    said = [smart.invoke(text) for text in texts[:half]]
    if mode == "sync":
        said += smart.batch(texts[half:], {"max_concurrency": 1})
    else:
        said += await smart.abatch(texts[half:], {"max_concurrency": 1})
    assert {answer.content for answer in said} == {"yes"}
    roles = {answer.response_metadata["smart"]["role"] for answer in said}
    assert roles == {"shadow"}
    report = smart.report()
    assert report.saved == 0
    assert {name: spend.calls for name, spend in report.spend.items()} == {
        "big": items,
        "small": items,
    }
    (shadow,) = report.shadows
    assert shadow.answered == items
    assert shadow.served["small"] > items / 4
    assert shadow.saved > 0.2 * items * shadow.reference_cost
    assert "would have been saved" in str(report)
    # It stands where a stream stands that serves.
    served = smart_of(lambda *_: "yes", small, **settings)
    for text in texts:
        served.invoke(text)
    (state,) = served.report().streams
    assert (state.served, state.found) == (shadow.served, shadow.found)


def test_an_unknown_mode_is_refused():
    with pytest.raises(InvalidInputError, match="mode='dry'"):
        smart_of(lambda *_: "yes", lambda *_: "yes", mode="dry")
