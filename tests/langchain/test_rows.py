"""Rows of tables are put to models: as in a batch, each by the model that is named."""

from __future__ import annotations

import pickle
import sys
from copy import copy

import pandas as pd
import pytest
from fakes import Foreign, Scripted, say
from langchain_core.messages import AIMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.runnables import RunnableLambda
from pools import KilledError, Threads, without_labels
from pydantic import BaseModel

from langchain_smart import (
    Price,
    RowCaller,
    SmartChatModel,
    SmartRunnable,
    smart_dataset,
)
from smart_engine.calls import Call, Failure
from smart_engine.equivalence.keys import ByKey
from smart_engine.errors import InvalidInputError, MissingExtraError
from smart_engine.runtime.blocks import drive_blocks
from smart_engine.serving.result_columns import from_columns
from smart_engine.serving.sessions import begin_session

PRICES = {"big": Price(1, 1), "small": Price(0.05, 0.05)}


def smart(script=say, kind=Scripted, **settings):
    big, small = (kind(name=name, script=script(name)) for name in PRICES)
    given = {"prices": PRICES, "seed": 3, "max_concurrency": 8, **settings}
    return SmartChatModel(reference=big, candidates=[small], **given)


def chains(**settings):
    def chain(name):
        model = Scripted(name=name, script=say(name))
        prompt = RunnableLambda(lambda row: f"Sort item {row['n']}")
        return prompt | model | RunnableLambda(lambda m: {"label": m.text})

    return SmartRunnable(
        reference={"long": chain("big")},
        candidates={"short": chain("small")},
        prices=PRICES,
        seed=3,
        **settings,
    )


ROWS = {"n": [1, 2, 31, 62], "kept": ["a", "b", "c", "d"]}


def test_each_row_is_answered_by_the_model_that_it_names():
    answer = RowCaller(smart(), prompt="Sort item {n}")
    made = answer({**ROWS, "model": ["big", "small", "big", "small"]})
    assert made["answer"] == ["yes 1", "yes 2", "yes 1", "no"]
    assert made["kept"] == ROWS["kept"]
    assert made["cost"][0] == pytest.approx(20 * made["cost"][1])
    assert made["input_tokens"][0] == len("Sort item 1")
    assert made["error"] == [None] * 4
    assert len(set(made["key"])) == 3


def test_a_frame_comes_back_as_a_frame():
    frame = pd.DataFrame(ROWS, index=[7, 8, 9, 10])
    made = RowCaller(smart(), prompt="Sort item {n}", model="small")(frame)
    assert made["answer"].tolist() == ["yes 1", "yes 2", "no", "no"]
    assert made.index.tolist() == [7, 8, 9, 10]
    assert list(frame.columns) == ["n", "kept"]


@pytest.mark.parametrize(
    "prompt",
    [
        "Sort item {n}",
        ChatPromptTemplate.from_messages([("user", "Sort item {n}")]),
        lambda row: f"Sort item {row['n']}",
    ],
)
def test_prompts_may_be_texts_templates_or_functions(prompt):
    made = RowCaller(smart(), prompt=prompt, model="big")(ROWS)
    assert made["answer"] == ["yes 1", "yes 2", "yes 1", "yes 2"]


def test_a_column_may_be_asked_as_it_is():
    table = {"text": ["item 4", [("user", "item 5")]]}
    made = RowCaller(smart(), column="text", model="big")(table)
    assert made["answer"] == ["yes 1", "yes 2"]


def test_a_row_that_fails_has_its_error_and_the_rest_is_answered():
    def script(name):
        def answer(text, kwargs):
            return RuntimeError("this one never") if "31" in text else "fine"

        return answer

    table = {"n": [1, 31, None, 4]}
    prompt = lambda row: f"Sort item {row['n'] + 0}"  # noqa: E731
    made = RowCaller(smart(script, max_retries=0), prompt=prompt, model="big")(table)
    assert made["answer"] == ["fine", None, None, "fine"]
    assert made["error"][1] == "RuntimeError: this one never"
    assert made["error"][2].startswith("TypeError: unsupported operand")


class Label(BaseModel):
    label: str


def test_objects_become_their_json_and_calls_of_tools_too():
    def script(name):
        def answer(text, kwargs):
            args = {"label": text[-1]}
            if text.endswith("2"):
                return '{"label": "2"}'
            call = {"name": "Label", "args": args, "id": "1", "type": "tool_call"}
            return AIMessage("", tool_calls=[call])

        return answer

    model = smart(script, kind=Foreign)
    bound = model.bind_tools([Label])
    made = RowCaller(bound, prompt="{n}", model="small")({"n": [1]})
    assert made["answer"] == ['[{"name": "Label", "args": {"label": "1"}}]']
    form = model.with_structured_output(Label)
    made = RowCaller(form, prompt="{n}", model="small")({"n": [1, 2]})
    assert made["answer"] == ['{"label": "1"}', '{"label": "2"}']
    assert made["error"] == [None, None]
    made = RowCaller(chains(), model="short")(ROWS)
    assert made["answer"][0] == '{"label": "yes 1"}'


def test_it_comes_to_another_process_as_it_was_given():
    given = RowCaller(smart_of_a_module, prompt="{n}")
    answer = pickle.loads(pickle.dumps(given))  # noqa: S301 - our own
    made = answer({"n": [5], "model": ["big"]})
    assert made["answer"] == ["yes 2"]


def smart_of_a_module():
    return smart()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": "{n}", "column": "n"}, "column='n': give a prompt or a column"),
        ({}, "prompt=None: give a prompt"),
        ({"prompt": 5}, "prompt='int': give a text"),
        ({"prompt": "{m}", "model": "big"}, "prompt='m': no such column; there are n"),
        ({"column": "m", "model": "big"}, "column='m': no such column; there are n"),
        ({"prompt": "{n}"}, "model=None: name a model"),
        ({"prompt": "{n}", "model": "huge"}, "model='huge': name one of the members"),
    ],
)
def test_what_cannot_be_used_is_said_with_the_way_out(arguments, message):
    with pytest.raises(InvalidInputError) as error:
        RowCaller(smart(), **arguments)({"n": [1]})
    assert message in str(error.value)


def test_only_a_smart_model_will_do():
    with pytest.raises(InvalidInputError, match="smart='Scripted': give a Smart"):
        RowCaller(Scripted(name="big", script=say("big")), prompt="{n}")
    with pytest.raises(InvalidInputError, match="none can be bound"):
        RowCaller(smart().bind(model="big"), prompt="{n}")


def test_workers_share_the_rates_and_the_calls_in_flight():
    limiter = InMemoryRateLimiter(requests_per_second=8)
    model = smart(rate_limiter=limiter)
    answer = RowCaller(lambda: model, prompt="{n}", workers=4)
    assert limiter.requests_per_second == 2
    assert answer.job().limit == 2


def test_a_stopped_caller_begins_no_further_call():
    answer = RowCaller(smart(), prompt="Sort item {n}", model="big")

    def script(text, kwargs):
        answer.stop()
        return "fine"

    answer.smart._members["big"].model.script = script
    made = answer.make([{"n": 1}] * 100, [Call(item, "big") for item in range(100)])
    assert 0 < len(made.answers) < 40


def blocks(model, rows, kill=lambda piece: False, **given):
    """Answer rows in blocks; return the session, and the answers by their calls."""
    caller = RowCaller(lambda: model, **given)
    answers = {}

    def make(piece, stopped):
        if kill(piece):
            raise KilledError("gone")
        at = [rows[call.item] for call in piece.calls]
        made = caller.make(at, piece.calls, piece.attempts)
        for call, answer in zip(piece.calls, made.answers, strict=True):
            answers[call] = answer
        return made.columns, made.error

    scope = model._scope(caller.task)
    session = begin_session(
        model._serving,
        len(rows),
        ByKey(caller.rule),
        caller.task,
        scope=scope,
        keep_answers=False,
    )
    inner = scope.record_inner_call
    drive_blocks(session, Threads(make), 50, record_inner_call=inner)
    return session, answers


def sums(spend):
    """What was spent, whose sums do not depend on the order of calls."""
    return {
        name: (each.calls, each.failures, each.input_tokens, round(each.cost, 9))
        for name, each in spend.items()
    }


def table(ledger):
    """Rows of a ledger without what is about time and order."""
    unlike = {"number", "at", "seconds", "batch", "certificate"}
    return sorted(
        repr({k: v for k, v in row._asdict().items() if k not in unlike})
        for row in ledger
    )


def test_chats_in_blocks_end_as_their_batch_does():
    rows = [{"n": item} for item in range(150)]
    one, other = smart(), smart()
    texts = [f"Sort item {row['n']}" for row in rows]
    told = one.batch(texts)
    session, answers = blocks(other, rows, prompt="Sort item {n}")
    assert session.certificate == without_labels(one.report().certificates[0])
    for served, message in zip(session.answers, told, strict=True):
        assert answers[served.item, served.tier] == message.text
    assert table(other.ledger()) == table(one.ledger())


def test_chains_in_blocks_end_as_their_batch_does_with_the_calls_within():
    rows = [{"n": item} for item in range(200)]
    one, other = chains(), chains()
    told = one.batch(rows)
    session, answers = blocks(other, rows)
    assert session.certificate == without_labels(one.report().certificates[0])
    assert sums(other.report().inside) == sums(one.report().inside)
    assert answers[0, "long"] in {None, '{"label": "yes 0"}'} or told[0]
    assert table(other.ledger()) == table(one.ledger())


def test_what_a_lost_worker_asked_is_booked_at_its_most():
    rows, lost = [{"n": item} for item in range(100)], []

    def kill(piece):
        gone = piece.number == 0
        lost.extend(piece.calls if gone else ())
        return gone

    model = smart(max_tokens=100)
    blocks(model, rows, kill, prompt="Sort item {n}")
    unknown = [row for row in model.ledger() if row.unknown]
    assert len(unknown) == len(lost) > 0
    assert {row.error for row in unknown} == {"WorkerLostError"}
    assert all(row.cost > 0 for row in unknown)


def test_a_free_model_costs_nothing_whoever_was_lost():
    free = dict.fromkeys(PRICES, Price.free())
    model = smart(prices=free)
    session, _ = blocks(model, [{"n": 1}] * 60, lambda p: p.number < 2, prompt="{n} 1")
    assert not [row for row in model.ledger() if row.unknown]
    assert not [r for r in session.answers if isinstance(r.error, Failure)]


def test_a_reading_that_has_no_key_ends_the_job_and_is_named():
    class Odd:
        keyed = True
        name = "Odd()"

        def parse(self, answer):
            return object()

        def same(self, left, right):
            return left == right

    answer = RowCaller(smart(equivalence=Odd()), prompt="{n} 1", model="big")
    with pytest.raises(InvalidInputError, match=r"object has no key.*read plain data"):
        answer(ROWS)
    made = answer.make([{"n": 1}], [Call(0, "big")])
    assert len(list(from_columns(made.columns))) == 1


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'smart-llm\[ray\]'"):
        smart_dataset(None, smart=smart(), column="n")


def test_a_budget_is_refused_where_nobody_sees_all_calls():
    answer = RowCaller(smart(budget_usd=1.0, max_tokens=1), prompt="Sort item {n}")
    with pytest.raises(InvalidInputError, match=r"budget_usd=1\.0: .* smart_dataset"):
        answer({**ROWS, "model": ["big"] * 4})


def test_errors_reach_other_processes_with_plain_data_alone():
    error = InvalidInputError("api_key", object(), "leave it out")
    assert str(copy(error)) == "api_key=<class 'object'>: leave it out"
    assert copy(InvalidInputError("n", 0, "more")).value == 0
