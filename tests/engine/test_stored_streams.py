"""Streams in a store: shared by who opens them, good for their profile, never lost."""

from __future__ import annotations

import json
import sqlite3
import threading
import warnings
from contextlib import closing, contextmanager, nullcontext, suppress

import pytest
import sqlalchemy
from fuzzing import FEWER
from hypothesis import given
from hypothesis import strategies as st
from items import admitted

from smart_engine import (
    BudgetExceededError,
    Call,
    Exact,
    Failure,
    Guarantee,
    Label,
    Normalized,
    Outcome,
    Store,
    StoreError,
)
from smart_engine.row import RowText
from smart_engine.serving.books import Books
from smart_engine.serving.config import ServingConfig
from smart_engine.serving.item import SingleItem
from smart_engine.serving.profile import Persistence, Profile
from smart_engine.serving.routing import single_item

pytestmark = pytest.mark.filterwarnings("error:.*(stream|budget)")  # unless expected
MODELS = ("big", "small")
COSTS = {"big": 1.0, "small": 0.01}
HIDDEN = "the very secret prompt"


def worst(call):
    """Return what a call costs at most."""
    return 2 * COSTS[call.tier]


class Worker:
    """A process, as far as the engine knows: terms, books, and a store it opened."""

    def __init__(self, profiles, task="mail", rule=None, **told) -> None:
        self.settings = {"models": "1", "prompt": HIDDEN}
        self.settings |= {k: told.pop(k) for k in list(told) if k in self.settings}
        self.profiles = profiles
        rule = rule or Normalized()
        guarantee = told.pop("guarantee", Guarantee(0.2, 0.9))
        self.terms = ServingConfig(
            MODELS, guarantee, rule, **{"min_saving": 0.0, **told}
        )
        self.books = Books(threading.Lock, MODELS)
        self.task = task

    def item(self) -> SingleItem:
        keeping = Persistence(
            self.profiles,
            lambda: [(name, self.settings["models"]) for name in MODELS],
            lambda: self.settings["prompt"],
        )
        return single_item(
            self.terms,
            self.books,
            self.terms.rule,
            self.task,
            worst,
            persistence=keeping,
        )

    def answer(self, says=lambda call: "yes"):
        item = self.item()
        with admitted(item):
            while calls := item.next_calls():
                for call in calls:
                    item.record(call, bring(call, says(call)))
            return item.settle(), item.mark

    def state(self):
        report = self.books.report()
        (state,) = report.streams or report.shadows
        return state


def bring(call: Call, said) -> Outcome | Failure:
    if isinstance(said, Exception):
        return Failure(said, COSTS[call.tier])
    return Outcome(said, COSTS[call.tier])


@pytest.fixture
def file(tmp_path) -> str:
    return str(tmp_path / "answers.db")


# -- one stream for all ------------------------------------------------------------


def test_workers_share_a_stream_and_who_comes_later_goes_on_with_it(place) -> None:
    first, second = Worker(Store(place)), Worker(Store(place))
    for turn in range(60):
        assert (first, second)[turn % 2].answer()[0] == "yes"
    assert first.state() == second.state()
    assert first.state().answered == 60
    spent = first.books.report().cost + second.books.report().cost
    assert first.state().cost == pytest.approx(spent)
    later = Worker(Store(place))
    later.answer()
    assert later.state().arrived == 61
    assert later.state().history[:10] == first.state().history[:10]
    assert later.books.report().cost < later.state().cost


def test_with_and_without_a_store_the_same_is_decided(file) -> None:
    def run(profiles) -> list:
        worker = Worker(profiles)
        keeping = None if profiles is None else worker.item()
        del keeping
        told = []
        for _ in range(80):
            told.append(worker.answer()[1])
        return [*told, worker.state()]

    stored = run(Store(file))
    worker = Worker(None)
    worker.item = lambda: single_item(
        worker.terms,  # type: ignore[method-assign]
        worker.books,
        worker.terms.rule,
        "mail",
        worst,
    )
    plain = [worker.answer()[1] for _ in range(80)]
    assert stored == [*plain, worker.state()]
    assert stored[-1].served["small"] > 5


def test_threads_of_several_workers_lose_nothing(place) -> None:
    workers = [Worker(Store(place)) for _ in range(2)]
    failed = []

    def work(worker: Worker) -> None:
        try:
            for _ in range(8):
                worker.answer()
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=work, args=(w,)) for w in workers * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed
    state = workers[0].state()
    assert (state.arrived, state.answered, state.unresolved) == (32, 32, 0)
    assert state.cost == pytest.approx(sum(w.books.report().cost for w in workers))


def test_a_killed_worker_loses_nothing_that_it_recorded(place) -> None:
    killed, left = Worker(Store(place)), Worker(Store(place))
    for _ in range(10):
        killed.answer()
    item = killed.item()
    item.arrive(shown=False)
    first, *_ = item.next_calls()
    item.record(first, Outcome("yes", 0.25))
    del killed, item  # without a word
    before = left.answer()[1]
    state = left.state()
    assert state.arrived == 12
    assert state.answered == 11
    assert state.cost == pytest.approx(before["cost"] + 0.25 + 10 * 1.01)


def test_shadows_are_kept_apart(file) -> None:
    Worker(Store(file)).answer()
    shadow = Worker(Store(file), mode="shadow")
    assert shadow.answer()[1]["role"] == "shadow"
    assert shadow.state().arrived == 1
    again = Worker(Store(file), mode="shadow")
    again.answer()
    assert again.state().arrived == 2


# -- profiles ----------------------------------------------------------------------


CHANGES = {
    "models": ({"models": "2"}, r"models \(other settings of big and small\):"),
    "prompt": ({"prompt": "Be brief."}, "prompt:"),
    "equivalence": ({"rule": Exact()}, r"equivalence \(Normalized\(\).* → Exact\(\)"),
    "guarantee": (
        {"guarantee": Guarantee(0.1, 0.9)},
        r"guarantee \(0.2, 0.9 → 0.1, 0.9\)",
    ),
    "seed": ({"seed": 1}, r"seed \(0 → 1\)"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_whatever_else_begins_anew_and_says_why(file, what) -> None:
    changed, why = CHANGES[what]
    for _ in range(3):
        Worker(Store(file)).answer()
    worker = Worker(Store(file), **changed)
    with pytest.warns(UserWarning, match=rf"task 'mail' with another setting, {why}"):
        worker.answer()
    assert worker.state().arrived == 1
    worker.answer()  # it says so once, and
    again = Worker(Store(file), **changed)
    again.answer()  # never of a stream that goes on
    assert again.state().arrived == 3
    old = Worker(Store(file))
    old.answer()
    assert old.state().arrived == 4


def test_another_task_is_no_news(file) -> None:
    Worker(Store(file)).answer()
    other = Worker(Store(file), task="else", prompt="else")
    other.answer()
    assert other.state().arrived == 1


def test_no_prompt_and_no_answer_is_in_the_file(tmp_path) -> None:
    worker = Worker(Store(tmp_path / "answers.db"))
    for _ in range(20):
        worker.answer(lambda _: "the very secret answer")
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"mail" in kept
    assert b"secret" not in kept


# -- budgets -----------------------------------------------------------------------


def test_a_budget_holds_for_all_workers_together(place) -> None:
    told = {"budget_usd": 10.0, "mode": "strict"}
    workers = [Worker(Store(place), **told) for _ in range(2)]
    answered = 0
    with suppress(BudgetExceededError):
        for turn in range(40):
            workers[turn % 2].answer()
            answered += 1
    spent = sum(worker.books.report().cost for worker in workers)
    assert 5 < answered < 40
    assert spent <= 10.0 < spent + 2.02
    with pytest.raises(BudgetExceededError):
        Worker(Store(place), **told).answer()


def test_what_a_killed_worker_had_set_aside_stays_so(file) -> None:
    told = {"budget_usd": 5.0, "mode": "strict"}
    item = Worker(Store(file), **told).item()
    item.arrive(shown=False)
    assert len(item.next_calls()) == 2  # 2.02 USD at most
    left = Worker(Store(file), **told)
    left.answer()
    with pytest.raises(BudgetExceededError, match=r"1\.97 USD are left"):
        left.answer()


# -- what may go wrong ---------------------------------------------------------------


class Shaky:
    """Rows in memory that fails when it is told to: before, or while writing."""

    def __init__(self) -> None:
        self.kept = {"state": "", "budget": ""}
        self.fails: list[str] = []

    def row(self, profile, column):
        shaky = self

        class StreamRow:
            @contextmanager
            def locked(self, *, durable):
                now = shaky.fails.pop(0) if shaky.fails else ""
                if now == "read":
                    raise StoreError("the store cannot be used: gone")
                row = RowText(shaky.kept[column])
                yield row
                if now == "write":
                    raise StoreError("the store cannot be used: gone")
                shaky.kept[column] = row.text
                if now == "after":
                    raise StoreError("the store cannot be used: gone")

        return StreamRow()


@pytest.mark.parametrize("how", ["read", "write", "after"])
@pytest.mark.parametrize("step", range(4))
def test_where_the_store_fails_the_item_is_answered_all_the_same(how, step) -> None:
    shaky = Shaky()
    worker = Worker(shaky)
    for _ in range(30):
        worker.answer()
    for _ in range(12):
        spent = worker.books.report().cost
        shaky.fails = [""] * step + [how]
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            said, told = worker.answer()
        failed, shaky.fails = not shaky.fails, []
        assert said == "yes"
        assert told["role"] in {"applied", "profiled", "reference"}
        assert told["cost"] == pytest.approx(worker.books.report().cost - spent)
        assert failed == any(
            "goes on without its stream" in str(w.message) for w in seen
        )
        state = worker.state()
        assert state.answered <= state.arrived
        assert state.possible_misses <= state.allowed
        assert state.in_flight == 0
    # A second worker has come just as far: nobody is ahead of what is kept.
    again = Worker(shaky)
    again.answer()
    assert worker.state() == again.state()


def test_a_served_answer_that_could_not_be_written_still_counts_as_a_miss() -> None:
    shaky = Shaky()
    worker = Worker(shaky)
    while True:
        item = worker.item()
        item.arrive(shown=False)
        calls = item.next_calls()
        if [call.tier for call in calls] == ["small"]:
            break
        for call in calls:
            item.record(call, bring(call, "yes"))
        item.settle()
    before = json.loads(shaky.kept["state"])
    shaky.fails = ["read"]
    with pytest.warns(UserWarning, match="goes on without its stream"):
        item.record(calls[0], bring(calls[0], "yes"))
    assert item.next_calls() == []
    assert (item.settle(), item.mark["role"]) == ("yes", "applied")
    assert json.loads(shaky.kept["state"]) == before


@FEWER
@given(st.text(max_size=40) | st.just('{"format": 1}') | st.just("[1, 2]"))
def test_a_spoilt_row_is_told_and_the_reference_answers(text) -> None:
    shaky = Shaky()
    shaky.kept["state"] = text or "?"
    worker = Worker(shaky)
    with pytest.warns(UserWarning, match="cannot be read: it is damaged"):
        _, told = worker.answer()
    assert told["role"] == "reference"
    assert shaky.kept["state"] == (text or "?")


SPOILT = ["x", "[1]", "[NaN, 0]", '{"a": 1}', "[1, null]", "[-9, 0]", "[0, -9]"]


@pytest.mark.parametrize("text", [*SPOILT, f"[{10**400}, 0]", "[" * 10**5], ids=len)
def test_a_spoilt_budget_spends_nothing(text) -> None:
    shaky = Shaky()
    shaky.kept["budget"] = text
    worker = Worker(shaky, budget_usd=10.0)
    with pytest.raises(StoreError, match="a budget in the store cannot be read"):
        worker.answer()
    assert worker.books.report().cost == 0


def test_a_store_that_was_set_back_is_refused() -> None:
    shaky = Shaky()
    worker = Worker(shaky)
    worker.answer()
    backup = shaky.kept["state"]
    worker.answer()
    shaky.kept["state"] = backup
    with pytest.warns(UserWarning, match="no audit may be drawn twice"):
        worker.answer()


def test_a_row_that_was_removed_is_not_begun_again_in_use(file) -> None:
    worker = Worker(Store(file))
    worker.answer()
    with sqlite3.connect(file) as connection:
        connection.execute("delete from smart_streams_1")
    with pytest.warns(UserWarning, match="removed from the store in use"):
        worker.answer()


@pytest.mark.parametrize("error", [KeyboardInterrupt, StoreError])
def test_a_first_step_that_is_broken_off_is_taken_again(place, error) -> None:
    kept = Store(place).row(Profile("mail", "serve", {"seed": "0"}), "state")
    with suppress(error), kept.locked(durable=True) as row:
        row.text = "half a step"
        raise error
    for text in ("", "a step"):
        with kept.locked(durable=True) as row:
            assert row.text == text
            row.text = "a step"


@pytest.mark.parametrize("task", ["mail \ud83d", "mail \0"])
def test_a_task_whose_name_cannot_be_stored_is_told(task, stores) -> None:
    worker = Worker(Store(stores("postgres")), task=task)
    with pytest.warns(UserWarning, match="the store cannot be used"):
        assert worker.answer()[1]["role"] == "reference"


def test_an_interrupt_leaves_no_lock_behind(file) -> None:
    store = Store(file)
    kept = store.row(Profile("mail", "serve", {"seed": "0"}), "state")
    with kept.locked(durable=True) as row:
        row.text = "a step"

    def interrupt(connection, cursor, statement, *_) -> None:
        if statement.startswith("SELECT"):
            raise KeyboardInterrupt

    sqlalchemy.event.listen(store._engine, "after_cursor_execute", interrupt)
    with pytest.raises(KeyboardInterrupt) as caught, kept.locked(durable=True):
        pass
    assert caught.tb  # it keeps alive whatever was at work
    with closing(sqlite3.connect(file, timeout=0)) as other:
        other.execute("begin immediate")


@pytest.mark.parametrize("parts", ["7", "[]", "{", "[" * 10**5], ids=len)
def test_a_spoilt_profile_is_told_and_the_reference_answers(file, parts) -> None:
    Worker(Store(file)).answer()
    with sqlite3.connect(file) as connection:
        change = "update smart_streams_1 set parts = ?, checksum = null"
        connection.execute(change, (parts,))
    with pytest.warns(UserWarning, match="a profile in the store cannot be read"):
        _, told = Worker(Store(file), seed=1).answer()
    assert told["role"] == "reference"


STREAM = ["task = 'mall'", "parts = replace(parts, '#', '$')"]
STREAM += ["state = replace(state, '\"arrived\":1', '\"arrived\":9')"]
STREAM += ["purse = replace(purse, '1', '0')", "checksum = '#'"]


@pytest.mark.parametrize("change", STREAM)
def test_a_stream_that_is_damaged_is_used_no_more(file, change) -> None:
    Worker(Store(file), budget_usd=9.0).answer()
    with sqlite3.connect(file) as connection:
        before = connection.execute("select * from smart_streams_1").fetchall()
        connection.execute(f"update smart_streams_1 set {change}")  # noqa: S608
        assert connection.execute("select * from smart_streams_1").fetchall() != before
    problem = f"a stream in sqlite:///{file} is damaged"
    with pytest.warns(UserWarning, match=problem):
        assert Worker(Store(file)).answer()[1]["role"] == "reference"
    worker = Worker(Store(file), budget_usd=9.0)
    with pytest.warns(UserWarning, match=problem), pytest.raises(StoreError):
        worker.answer()
    assert not worker.books.ledger().entries


def test_steps_wait_for_a_store_and_for_nothing_else(file) -> None:
    assert Worker(Store(file)).item().waits
    assert Worker(Store(file), mode="shadow").item().waits
    assert Worker(Store(file), budget_usd=9.0).item().waits
    books = Books(nullcontext, MODELS)
    terms = ServingConfig(MODELS, Guarantee(), Label(["a", "b"]))
    assert not single_item(terms, books, terms.rule, "mail", worst).waits
