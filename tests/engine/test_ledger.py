"""Every call in one row, every sum out of the same rows, whatever happens to calls."""

from __future__ import annotations

import csv
import io
import json
import math
import subprocess
import sys
import warnings
from collections import Counter
from contextlib import nullcontext, suppress
from dataclasses import replace

import numpy as np
import pytest
from fuzzing import FEWER
from hypothesis import given
from hypothesis import strategies as st
from items import admitted

from smart_engine import Guarantee, Judge, Label, Price, Spend, Usage
from smart_engine.calls import Failure, Outcome, Timing
from smart_engine.errors import InvalidInputError
from smart_engine.money.ledger import Entry, LedgerEntries, LedgerScope
from smart_engine.money.spending import spend_of
from smart_engine.serving.books import Books
from smart_engine.serving.config import ServingConfig
from smart_engine.serving.routing import single_item
from smart_engine.serving.sessions import begin_session

NAMES = ("big", "small", "tiny")
PRICES = dict(zip(NAMES, (Price(10, 30), Price(1, 3), Price(0.1, 0.3)), strict=True))
SECRET = "sk-very-secret"  # noqa: S105 - that is the test

Row = tuple[str, int | None, int, str]


class World:
    """Whatever calls may bring, by chance; keeps what a bill would say."""

    def __init__(self, seed: int, rows: int = 100_000, task: str = "sorting") -> None:
        self.rng = np.random.default_rng(seed)
        self.books = Books(nullcontext, NAMES, rows)
        self.bill: list[tuple[Row, Outcome | Failure]] = []
        self.task = task
        rule = Label(["spam", "ham"])
        if seed % 2:
            rule |= Judge(self.judge, "owl")
        self.terms = ServingConfig(NAMES, Guarantee(0.2, 0.9), rule, seed=seed % 7)

    def judge(self, text: str) -> Outcome | Failure:
        """Judge as a call would: dear, and sometimes not at all."""
        luck = self.rng.random()
        if luck < 0.1:
            return Failure(TimeoutError(SECRET), cost=0.25)
        return Outcome("same", 0.125, Usage(len(text), 1, estimated=luck < 0.2))

    def result_of(self, name: str) -> Outcome | Failure:
        luck = self.rng.random()
        usage = Usage(int(self.rng.integers(1, 99)), 3, cache_read=1, reasoning=2)
        if self.rng.random() < 0.2:
            usage = replace(usage, estimated=True)
        cost = PRICES[name].cost(usage)
        timing = Timing(1e9 + luck, luck)
        if luck < 0.05:
            return Failure(ConnectionError(SECRET), timing=timing, unknown=5 * luck)
        if luck < 0.1:
            return Failure(RuntimeError(SECRET), cost, usage, timing)
        if luck < 0.12:
            return Failure(KeyboardInterrupt(), timing=timing)
        if luck < 0.2:
            return Outcome("what?", cost, usage, timing=timing)
        if luck < 0.3:
            return Outcome("spam", cost, Usage(), cached=True, timing=timing)
        said = "spam" if luck < 0.8 else "ham"
        if luck > 0.9:
            reset = Failure(ConnectionError(SECRET), timing=timing, unknown=luck)
            earlier = (reset, Failure(ConnectionRefusedError(SECRET), timing=timing))
            return Outcome(said, cost, usage, timing=timing, earlier=earlier)
        return Outcome(said, cost, usage, restored=luck > 0.75, timing=timing)

    def note(self, row: Row, result: Outcome | Failure) -> Outcome | Failure:
        self.bill += [(row, attempt) for attempt in result.earlier]
        self.bill.append((row, result._replace(earlier=())))
        return result

    def batch(self, items: int, *, ends: bool = True) -> None:
        scope = self.books.batch("big", self.task)
        session = begin_session(
            self.terms, items, self.terms.rule, self.task, scope=scope
        )
        while calls := session.next_calls():
            for call in calls:
                result = self.note(
                    (self.task, scope.batch, *call), self.result_of(call.tier)
                )
                session.record(call, result)
            if not ends:
                return
        self.books.end_batch(scope, session.certificate)
        marked = math.fsum(served.estimated for served in session.answers)
        assert marked == pytest.approx(session.certificate.estimated)
        now = session.progress()
        assert (now.spent, now.estimated) == pytest.approx(
            (session.certificate.cost, session.certificate.estimated)
        )

    def item(self, number: int, model: str | None, *, left: bool = False) -> float:
        """Answer one item, or leave it half done; return what it is said to cost."""
        rule, task = self.terms.rule, self.task
        item = single_item(
            self.terms, self.books, rule, task, lambda _: None, model=model
        )
        with suppress(Exception, KeyboardInterrupt), admitted(item):
            while calls := item.next_calls():
                for call in calls:
                    result = self.note(
                        (task, None, number, call.tier), self.result_of(call.tier)
                    )
                    item.record(call, result)
                if left:
                    raise KeyboardInterrupt
            item.settle()
        told = item.mark
        assert 0 <= told.get("estimated", 0) <= told.get("cost", 0) * (1 + 1e-9)
        return told.get("cost", 0.0)


def summed(spends: list[Spend]) -> Spend:
    return sum(spends, Spend())


def entries_spend(entries: list[Entry]) -> Spend:
    return Spend(
        calls=len(entries),
        failures=sum(entry.error is not None for entry in entries),
        cost=math.fsum(entry.cost for entry in entries),
        input_tokens=sum(entry.input_tokens for entry in entries),
        output_tokens=sum(entry.output_tokens for entry in entries),
        estimated=math.fsum(entry.cost for entry in entries if entry.estimated),
        unknown=math.fsum(entry.cost for entry in entries if entry.unknown),
    )


def same(left: Spend, right: Spend) -> bool:
    return left.model_dump() == pytest.approx(right.model_dump(), rel=1e-9, abs=1e-12)


worlds = given(
    seed=st.integers(0, 10_000),
    steps=st.lists(st.integers(0, 5), min_size=1, max_size=12),
)


@FEWER
@worlds
@pytest.mark.filterwarnings("ignore:.*the answers count as different")
@pytest.mark.filterwarnings("ignore:.*reported no usage")
def test_rows_sums_reports_and_certificates_say_the_same(seed, steps):
    world, singles, told = World(seed), 0, []
    for step in steps:
        if step < 2:
            world.batch(20 * step, ends=seed % 3 > 0)
            continue
        told.append(world.item(singles, "small" if step == 5 else None, left=step == 4))
        singles += 1
    ledger, report = world.books.ledger(), world.books.report()
    entries = list(ledger)
    assert len(ledger) == len(entries) == len(ledger.entries)
    assert ledger.dropped == 0
    assert [entry.number for entry in entries] == list(range(len(entries)))

    # One row a call, none twice, with its result.
    asked = [e for e in entries if e.role in {"reference", "candidate"}]
    rows = Counter((e.task, e.batch, e.item, e.model) for e in asked)
    assert rows == Counter(row for row, _ in world.bill)
    by_model = ledger.sums()
    for name in NAMES:
        mine = [b for row, b in world.bill if row[3] == name]
        said = by_model.get(name, Spend())
        paid = summed([spend_of(result) for result in mine])
        assert said.cost == pytest.approx(paid.cost)
        assert (said.calls, said.input_tokens) == (paid.calls, paid.input_tokens)
        assert said.failures >= paid.failures  # some answers could not be read
    for entry in asked:
        assert (entry.role == "reference") == (entry.model == "big")
        assert entry.at is not None
        assert (entry.error is not None) == (
            entry.outcome in {"unreadable", "failed", "cancelled"}
            or (entry.outcome == "restored" and entry.error == "UnparseableAnswerError")
        )

    # Every way of summing sums to the same; the report is one of them.
    total = entries_spend(entries)
    for by in ("model", "role", "task", "outcome"):
        assert same(summed(list(ledger.sums(by).values())), total)
        for name, spend in ledger.sums(by).items():
            assert same(
                spend, entries_spend([e for e in entries if getattr(e, by) == name])
            )
    assert report.cost == pytest.approx(total.cost)
    assert report.estimated == pytest.approx(total.estimated)
    assert {n: s for n, s in report.spend.items() if s.calls} == by_model
    paid_before = [e.cost for e in entries if e.outcome == "restored"]
    assert report.restored == pytest.approx(math.fsum(paid_before))

    # Certificates and streams, which count for themselves, agree with the rows.
    for certificate in report.certificates:
        mine = [e for e in entries if e.certificate == certificate.id]
        for name, spend in certificate.spend.items():
            assert same(spend, entries_spend([e for e in mine if e.model == name]))
    named = {number for (_, batch, number, _), _ in world.bill if batch is None}
    items = [e for e in entries if e.batch is None]
    assert {e.item for e in items if e.role != "judge"} == named
    if 5 not in steps:
        for name, spend in (report.streams[0].spend if report.streams else {}).items():
            assert same(spend, entries_spend([e for e in items if e.model == name]))
    assert 4 in steps or sum(told) <= entries_spend(items).cost + 1e-9


@FEWER
@worlds
@pytest.mark.filterwarnings("ignore:.*the answers count as different")
@pytest.mark.filterwarnings("ignore:.*reported no usage")
def test_dropped_rows_stay_in_every_sum(seed, steps):
    worlds = [World(seed), World(seed, rows=7), World(seed, rows=0)]
    for world in worlds:
        for step in steps:
            world.item(0, None) if step else world.batch(15)
    whole, short, none = (world.books.ledger() for world in worlds)
    assert short.entries == whole.entries[-7:]
    assert short.dropped == len(whole.entries) - len(short.entries)
    assert (none.entries, none.dropped) == ((), len(whole.entries))
    for by in ("model", "role", "task", "outcome", "inside"):
        assert short.sums(by) == none.sums(by) == whole.sums(by)
    reports = [world.books.report() for world in worlds]
    assert reports[0] == reports[1] == reports[2]


def test_a_model_is_named_once_when_its_usage_is_estimated_first():
    books = Books(nullcontext, NAMES)
    scope, _ = books.item("big", "task")
    guessed, exact = Usage(9, 1, estimated=True), Usage(9, 1)
    calls = {
        "big": [exact, guessed, guessed],
        "small": [guessed],
        "tiny": [exact, exact],
    }
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for name, usages in calls.items():
            for usage in usages:
                scope.record_call(0, name, Outcome("yes", 0.5, usage))
        scope.record_inner_call(0, "within", Failure(TimeoutError(), 0.5, guessed))
        scope.record_judge_calls(0, [("judge: owl", Outcome("same", 0.5, guessed))] * 2)
        scope.record_call(0, "tiny", Outcome("yes", 0.5, guessed, cached=True))
    names = [str(warning.message).partition(" reported")[0] for warning in seen]
    assert names == ["big", "small", "within", "judge: owl"]


def test_what_is_asked_within_chains_is_told_apart_and_counted_once():
    entries = LedgerEntries()
    scope = LedgerScope(entries, "long", "a task")
    scope.record_inner_call(0, "gpt", Outcome(None, 0.5, Usage(7, 1)))
    scope.record_inner_call(0, "gpt", Failure(TimeoutError()))
    scope.record_call(0, "long", Outcome("yes", 0.5, Usage(7, 1)))
    ledger = entries.ledger()
    assert [e.role for e in ledger.entries] == ["inside", "inside", "reference"]
    assert [e.outcome for e in ledger.entries] == ["answered", "failed", "answered"]
    whole = Spend(calls=1, cost=0.5, input_tokens=7, output_tokens=1)
    assert ledger.sums("role") == {"reference": whole}
    assert ledger.sums("inside") == {"gpt": whole + Spend(calls=1, failures=1)}


def test_sums_are_asked_for_by_a_name_that_is_known():
    with pytest.raises(InvalidInputError, match=r"by='colour'.*model, role, task"):
        LedgerEntries().ledger().sums("colour")
    with pytest.raises(InvalidInputError, match="rows=-1"):
        Books(nullcontext, NAMES, -1)


NUMBERS = {"at", "cost", "seconds", "unknown", *Usage.__slots__}


def read_csv(text: str) -> list[Entry]:
    """Read what `to_csv` wrote."""
    head, *lines = csv.reader(io.StringIO(text, newline=""))
    assert tuple(head) == Entry._fields
    return [entry_of(dict(zip(head, line, strict=True))) for line in lines]


def entry_of(row: dict[str, str]) -> Entry:
    def value(name: str, text: str) -> object:
        if name in {"number", "item", "batch"}:
            return int(text) if text else None
        if name in NUMBERS:
            return float(text) if text else None
        return text if text or name in {"task", "model"} else None

    return Entry(**{name: value(name, text) for name, text in row.items()})


names = st.text(max_size=20) | st.sampled_from(
    ['a,"b"\n', "=1+1", "\r\n", "äß\u2028", "\x00", '{"a": 1}', "', ;--", "a\rb"]
)


@FEWER
@given(seed=st.integers(0, 99), task=names, model=names)
@pytest.mark.filterwarnings("ignore:.*the answers count as different")
@pytest.mark.filterwarnings("ignore:.*reported no usage")
def test_exports_read_back_to_the_same_rows(seed, task, model):
    world = World(seed, task=task)
    world.batch(10)
    world.item(0, None)
    scope, number = world.books.item("big", task)
    scope.record_call(number, model, Outcome("yes", 0.1))
    ledger = world.books.ledger()
    lines = ledger.to_jsonl().splitlines()
    assert tuple(Entry(**json.loads(line)) for line in lines) == ledger.entries
    assert tuple(read_csv(ledger.to_csv())) == ledger.entries


@pytest.mark.filterwarnings("ignore:.*the answers count as different")
@pytest.mark.filterwarnings("ignore:.*reported no usage")
def test_a_frame_has_the_rows_with_moments_and_numbers():
    world = World(5)
    world.batch(30)
    world.item(0, None)
    scope, number = world.books.item("big", "task")
    scope.record_call(number, "big", Outcome("yes", 0.1))  # nobody knows when
    ledger = world.books.ledger()
    frame = ledger.to_frame()
    assert list(frame.columns) == list(Entry._fields)
    assert frame["cost"].sum() == pytest.approx(world.books.report().cost)
    assert frame["model"].tolist() == [entry.model for entry in ledger.entries]
    counted = frame.groupby("role")["number"].count().to_dict()
    assert counted == {role: s.calls for role, s in ledger.sums("role").items()}
    assert frame["batch"].isna().sum() == sum(e.batch is None for e in ledger.entries)
    known = frame["at"].dropna()
    assert known.dt.tz is not None
    assert known.dt.year.unique().tolist() == [2001]


def test_an_empty_ledger_is_written_too():
    ledger = LedgerEntries().ledger()
    frame = ledger.to_frame()
    assert (list(frame.columns), len(frame)) == (list(Entry._fields), 0)
    assert ledger.to_jsonl() == ""
    assert read_csv(ledger.to_csv()) == []
    assert repr(ledger) == "<Ledger of 0 rows, 0 dropped>"


def test_no_message_of_an_error_gets_into_a_ledger():
    world = World(3)
    world.batch(60)
    for number in range(30):
        world.item(number, None)
    ledger = world.books.ledger()
    assert {"ConnectionError", "RuntimeError"} <= {e.error for e in ledger.entries}
    for text in (ledger.to_jsonl(), ledger.to_csv(), repr(ledger), str(ledger.entries)):
        assert SECRET not in text


def test_a_ledger_is_a_snapshot():
    world = World(2)
    world.batch(30)
    before = world.books.ledger()
    rows, sums = before.to_csv(), before.sums()
    world.batch(30)
    assert (before.to_csv(), before.sums()) == (rows, sums)
    assert len(world.books.ledger().entries) > len(before.entries)


def test_without_pandas_the_way_out_is_named():
    code = """
import sys
sys.modules["pandas"] = None
from smart_engine.money.ledger import LedgerEntries
from smart_engine import MissingExtraError
ledger = LedgerEntries().ledger()
assert ledger.to_csv() and ledger.to_jsonl() == ""
try:
    ledger.to_frame()
except MissingExtraError as error:
    print(error)
"""
    run = [sys.executable, "-c", code]
    told = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert "pip install 'smart-llm[frames]'" in told
