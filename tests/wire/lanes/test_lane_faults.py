"""What may go wrong with a provider's batches, and that it costs no answer."""

from __future__ import annotations

import os
import signal
from collections import Counter
from dataclasses import replace
from queue import Empty

import pytest
from batch_loopback import Plan, serve_batches
from lane_models import (
    ITEMS,
    agreeing,
    answered,
    assert_ledger_is_the_bill,
    smart_at,
)
from loopback import Fault

from smart_engine.errors import StoreError
from smart_engine.runtime.lanes.carrier import Limits
from smart_engine.runtime.lanes.dispatcher import LaneError, Pace
from smart_engine.runtime.lanes.openai_form import OpenAIBatches

MODES = ["sync", "async"]


def by_number(state, count=1):
    """Return what ends the first batches in a state, and completes the others."""
    return lambda number: state if number < count else "completed"


def once(chosen):
    """Return what is true the first time that it is asked about a chosen text."""
    seen = Counter()

    def first(body):
        text = body["messages"][-1]["content"]
        seen[text] += 1
        return int(text.split()[1]) % chosen == 0 and seen[text] == 1

    return first


FAULTS = {
    "expired": {"end": by_number("expired")},
    "cancelled": {"end": by_number("cancelled")},
    "failed": {"end": by_number("failed")},
    "missing rows": {"missing": once(7)},
    "busy": {"refuse": lambda n: Fault("busy", 429) if n < 2 else None},
    "broken": {"refuse": lambda n: Fault("broken", 503) if n == 1 else None},
    "unknown at times": {"looks": ("unknown", "in_progress") * 2},
    "lost reply": {"lose": frozenset({0, 2})},
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_that_passes_costs_nothing(fault, mode):
    with serve_batches(agreeing, Plan(**FAULTS[fault])) as server:
        smart = smart_at(server, strategy="reference")
        answers = await answered(smart, mode)
        assert [a.content for a in answers] == ["yes"] * 60
        assert set(server.batched.attempts.values()) == {1}
        assert_ledger_is_the_bill(smart, server)
        assert server.requests.total() == 0


class Clock:
    """A clock of dispatchers that goes on when they wait."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        module = "smart_engine.runtime.lanes.dispatcher"
        monkeypatch.setattr("smart_engine.runtime.lanes.members.PACE", Pace())
        monkeypatch.setattr(f"{module}.time", self)
        monkeypatch.setattr(f"{module}.Dispatcher._next", lambda its: self.next(its))

    def monotonic(self):
        return self.now

    def time(self):
        return 1e9 + self.now

    def next(self, dispatcher):
        due = [batch.due for batch in dispatcher._open.values()]
        self.now = max(self.now, min(due, default=0.0))
        try:
            return dispatcher._sent.get(block=not due) or []
        except Empty:
            return []


@pytest.mark.parametrize("left", ["reply lost", "killed"])
def test_what_the_list_shows_a_minute_later_is_not_bought_twice(
    left, monkeypatch, tmp_path
):
    clock, made, submit = Clock(monkeypatch), {}, OpenAIBatches.submit

    def kill(self, *args):
        monkeypatch.setattr(OpenAIBatches, "submit", submit)
        submit(self, *args)
        raise SystemExit

    def note(call, done):
        if done and call == "POST /v1/batches":
            made.setdefault(len(made), clock.now)

    plan = Plan(listed=lambda number: clock.now > made[number] + 60)
    if left == "reply lost":
        plan = replace(plan, lose=frozenset({0}))
    with serve_batches(agreeing, plan) as server:
        server.api.on_call = note
        keeping = {"store": tmp_path / "answers.db", "strategy": "reference"}
        if left == "killed":
            monkeypatch.setattr(OpenAIBatches, "submit", kill)
            with pytest.raises(SystemExit):
                smart_at(server, **keeping).batch(ITEMS)
        answers = smart_at(server, **keeping).batch(ITEMS)
        assert [a.content for a in answers] == ["yes"] * 60
        assert len(server.api.batches) == 1


def test_a_batch_that_was_refused_is_submitted_anew_without_a_search():
    plan = Plan(refuse=lambda n: Fault("busy", 429) if n < 3 else None)
    with serve_batches(agreeing, plan) as server:
        smart_at(server, strategy="reference").batch(ITEMS)
        assert "GET /v1/batches" not in server.api.calls


def test_a_file_is_uploaded_once_however_often_its_batch_is_refused():
    plan = Plan(refuse=lambda n: Fault("busy", 429) if n < 3 else None)
    with serve_batches(agreeing, plan) as server:
        smart = smart_at(server, strategy="reference")
        assert [a.content for a in smart.batch(ITEMS)] == ["yes"] * 60
        assert server.api.calls.count("POST /v1/batches") == 4
        assert server.api.calls.count("POST /v1/files") == 1


@pytest.mark.parametrize("mode", MODES)
async def test_what_a_batch_cost_that_the_provider_deleted_is_unknown(mode):
    with serve_batches(agreeing, Plan(deleted=frozenset({0}))) as server:
        smart = smart_at(server, strategy="reference", own={"max_tokens": 50})
        told = r"no longer has the batch batch_0 of big .*: 60 of its requests"
        with pytest.warns(UserWarning, match=told):
            answers = await answered(smart, mode)
        assert [a.content for a in answers] == ["yes"] * 60
        assert set(server.batched.attempts.values()) == {2}
        spend = smart.report().spend["big"]
        assert (spend.calls, spend.failures) == (120, 60)
        assert spend.unknown > 0
        billed = server.batched.input_tokens["big"] * 5
        billed += server.batched.output_tokens["big"] * 15
        assert spend.cost - spend.unknown == pytest.approx(billed / 2 / 1e6)


async def test_a_deleted_batch_that_may_not_be_tried_again_says_so():
    with serve_batches(agreeing, Plan(deleted=frozenset({0}))) as server:
        smart = smart_at(
            server, {"max_tokens": 50}, strategy="reference", max_retries=0
        )
        with pytest.warns(UserWarning, match="no longer has the batch"):
            first, *_ = await answered(smart, "async", return_exceptions=True)
        assert "no longer has the batch batch_0 of big" in str(first)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("file", ["output_file_id", "error_file_id"])
async def test_rows_of_a_deleted_result_file_alone_are_bought_anew(file, mode):
    def script(model, text, attempt):
        return Fault("too long", 400) if text in {"item 3", "item 4"} else "yes"

    with serve_batches(script, Plan(deleted_files={0: file})) as server:
        smart = smart_at(server, {"max_tokens": 50}, strategy="reference")
        lost = 58 if file == "output_file_id" else 2
        told = rf"no longer has all results of batch_0 of big .*: {lost} of its"
        with pytest.warns(UserWarning, match=told):
            answers = await answered(smart, mode, return_exceptions=True)
        errors = [n for n, a in enumerate(answers) if isinstance(a, Exception)]
        assert errors == [3, 4]
        assert "too long" in str(answers[3])
        assert [len(b.rows) for b in server.api.batches.values()] == [60, lost]
        assert smart.report().spend["big"].unknown > 0


@pytest.mark.parametrize("mode", MODES)
async def test_a_failed_row_is_tried_in_the_next_batch(mode):
    def script(model, text, attempt):
        if model == "big" and int(text.split()[1]) % 7 == 0 and attempt == 1:
            return Fault("busy", 429)
        return "yes"

    with serve_batches(script) as server:
        smart = smart_at(server, strategy="reference")
        answers = await answered(smart, mode)
        assert [a.content for a in answers] == ["yes"] * 60
        assert [len(b.rows) for b in server.api.batches.values()] == [60, 9]
        assert_ledger_is_the_bill(smart, server)


@pytest.mark.parametrize("mode", MODES)
async def test_a_row_that_always_fails_is_its_items_error(mode):
    def script(model, text, attempt):
        wrong = {"item 3": Fault("too long", 400), "item 4": Fault("boom", 500)}
        return wrong.get(str(text), "yes")

    with serve_batches(script) as server:
        smart = smart_at(server, strategy="reference", max_retries=1)
        answers = await answered(smart, mode, return_exceptions=True)
        errors = [n for n, a in enumerate(answers) if isinstance(a, Exception)]
        assert errors == [3, 4]
        assert "too long" in str(answers[3])
        tried = server.batched.attempts
        assert (tried["big", "item 3"], tried["big", "item 4"]) == (1, 2)
        assert [len(b.rows) for b in server.api.batches.values()] == [60, 1]


@pytest.mark.parametrize("mode", MODES)
async def test_a_candidates_failed_rows_escalate(mode):
    def script(model, text, attempt):
        wrong = model == "small" and int(text.split()[1]) in {3, 4, 30}
        return Fault("too long", 400) if wrong else "yes"

    with serve_batches(script) as server:
        smart = smart_at(server)
        answers = await answered(smart, mode)
        assert [a.content for a in answers] == ["yes"] * 60
        by = [answers[n].response_metadata["smart"]["model"] for n in (3, 4, 30)]
        assert by == ["big"] * 3
        assert_ledger_is_the_bill(smart, server)


@pytest.mark.parametrize("limits", [{"rows": 7}, {"size": 1000}], ids=["rows", "size"])
async def test_a_job_that_is_too_large_is_split(limits, monkeypatch):
    own = {"rows": 50_000, "size": 200_000_000, **limits}
    monkeypatch.setattr(OpenAIBatches, "limits", Limits(**own))
    with serve_batches(agreeing, **limits) as server:
        smart = smart_at(server, strategy="reference")
        items = [*ITEMS, "item 7 " + 2000 * "x"] if "size" in limits else ITEMS
        answers = await answered(smart, "async", items, return_exceptions=True)
        assert [a.content for a in answers[:60]] == ["yes"] * 60
        assert len(server.api.batches) > 8
        assert_ledger_is_the_bill(smart, server)
        if "size" in limits:
            assert "do not fit into a batch" in str(answers[60])


async def test_what_is_too_much_at_once_is_sent_in_parts():
    with serve_batches(agreeing, Plan(full=lambda rows: rows > 20)) as server:
        smart = smart_at(server, strategy="reference")
        answers = await answered(smart, "async")
        assert [a.content for a in answers] == ["yes"] * 60
        first, *refused = (
            len(b.rows) for b in server.api.batches.values() if b.seen["errors"]
        )
        assert first == 60
        assert set(refused) == {30}
        assert_ledger_is_the_bill(smart, server)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("status", [404, 503])
async def test_a_provider_without_batches_is_named(mode, status, monkeypatch):
    pace = Pace(first=0.001, longest=0.001, unlisted=0.001, patience=0.02)
    monkeypatch.setattr("smart_engine.runtime.lanes.members.PACE", pace)
    plan = Plan(refuse=lambda n: Fault("none", status))
    with serve_batches(agreeing, plan) as server:
        smart = smart_at(server, strategy="reference")
        with pytest.raises(LaneError, match=r"batches of big .* 'live'"):
            await answered(smart, mode)
        assert smart.report().cost == 0


def test_auto_buys_nothing_live_that_is_in_a_batch(tmp_path, monkeypatch):
    def interrupt(api, name):
        if len(api.calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return look(api, name)

    with serve_batches(agreeing, Plan(looks=("in_progress",) * 1000)) as server:
        look = type(server.api).look
        monkeypatch.setattr(type(server.api), "look", interrupt)
        terms = {"strategy": "reference", "store": tmp_path / "answers.db"}
        smart = smart_at(server, lane="auto", **terms)
        monkeypatch.setattr("smart_engine.runtime.lanes.dispatcher.WORTH_A_BATCH", 60)
        with pytest.raises(KeyboardInterrupt):
            smart.batch(ITEMS)
        (batch,) = server.api.batches.values()
        batch.looks.clear()
        monkeypatch.setattr("smart_engine.runtime.lanes.dispatcher.WORTH_A_BATCH", 61)
        again = smart_at(server, lane="auto", **terms)
        assert [a.content for a in again.batch(ITEMS)] == ["yes"] * 60
        assert len(server.api.batches) == 1
        assert server.requests.total() == 0


def failing(*_):
    raise StoreError("the disk is full")


@pytest.mark.filterwarnings("ignore:the batch goes on, but cannot be taken up")
@pytest.mark.parametrize("stored", ["stored", "not stored", "store that fails"])
def test_ctrl_c_leaves_batches_that_can_be_taken_up(stored, tmp_path, monkeypatch):
    looks = []
    if stored == "store that fails":
        monkeypatch.setattr(
            "smart_engine.store.submissions.SqlSubmissions.save", failing
        )

    def interrupt(api, name):
        looks.append(name)
        if len(looks) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return look(api, name)

    with serve_batches(agreeing, Plan(looks=("in_progress",) * 1000)) as server:
        look = type(server.api).look
        monkeypatch.setattr(type(server.api), "look", interrupt)
        store = {} if stored == "not stored" else {"store": tmp_path / "answers.db"}
        smart = smart_at(server, strategy="reference", **store)
        with pytest.raises(KeyboardInterrupt) as caught:
            smart.batch(ITEMS)
        (batch,) = server.api.batches.values()
        (note,) = caught.value.__notes__
        assert batch.seen["id"] in note
        spend = smart.report().spend["big"]
        if stored == "stored":
            assert batch.seen["status"] == "in_progress"
            assert spend.calls == 0
            batch.looks.clear()
            again = smart_at(server, strategy="reference", **store)
            assert [a.content for a in again.batch(ITEMS)] == ["yes"] * 60
            assert len(server.api.batches) == 1
            assert_ledger_is_the_bill(again, server)
        else:
            assert batch.seen["status"] == "cancelled"
            assert (spend.calls, spend.failures) == (60, 60)
            assert spend.unknown == spend.cost
