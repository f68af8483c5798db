"""The project's own recorded data: what it promises to hold, and how it is recorded."""

from __future__ import annotations

import gzip
import json
import runpy
import sys
from pathlib import Path

import pytest
from loopback import Verdict, serve

from smart_engine import Trace, agree
from smart_engine.errors import UnparseableAnswerError

EXAMPLES = Path(__file__).parents[1] / "examples"
DATA = EXAMPLES / "data"
NAMES = ("tickets", "reviews", "orders")


@pytest.fixture
def tasks(monkeypatch):
    """Return the tasks by name."""
    monkeypatch.syspath_prepend(EXAMPLES)
    from recorded_tasks import TASKS

    return TASKS


@pytest.fixture(scope="module")
def traces():
    return {name: Trace.read(DATA / f"{name}.jsonl.gz") for name in NAMES}


def test_a_thousand_inputs_each_once(tasks, traces):
    assert tuple(tasks) == NAMES
    texts = [row.input for trace in traces.values() for row in trace.rows]
    assert len(texts) >= 1000
    assert len({" ".join(text.lower().split()) for text in texts}) == len(texts)
    assert all(3 <= len(text.split()) <= 40 for text in texts)
    for name, trace in traces.items():
        assert [(row.gold, row.input) for row in trace.rows] == tasks[name].inputs()


def test_all_three_models_answered_every_item(traces):
    for trace in traces.values():
        models = {trace.reference, *trace.candidates}
        assert len(models) == 3
        assert models == set(trace.prices)
        assert all(trace.prices[model].input > 0 for model in models)
        for row in trace.rows:
            assert set(row.answers) == models
            assert set(row.tokens) == set(row.confidence) == models
            assert all(asked > 0 and said > 0 for asked, said in row.tokens.values())
            assert all(0 < sure <= 1 for sure in row.confidence.values())


def test_it_is_small():
    assert sum(path.stat().st_size for path in DATA.iterdir()) < 1_000_000


@pytest.mark.parametrize("name", NAMES)
def test_the_stated_figures_are_those_of_the_rows(name, tasks, traces):
    rule, trace = tasks[name].equivalence, traces[name]
    stated = json.loads((DATA / f"{name}.models.json").read_text(encoding="utf-8"))
    assert stated["items"] == len(trace.rows)
    for model, share in stated["agreement_with_reference"].items():
        same = [
            agree(rule, row.answers[model], row.answers[trace.reference])
            for row in trace.rows
        ]
        assert sum(same) / len(same) == pytest.approx(share, abs=5e-4)
    unread = [
        row for row in trace.rows if not reads(rule, row.answers[trace.reference])
    ]
    assert len(unread) == stated["unreadable_answers_of_the_reference"]


def reads(rule, answer):
    try:
        rule.parse(answer)
    except UnparseableAnswerError:
        return False
    return True


def test_a_stopped_recording_goes_on_where_it_stood(tasks, tmp_path, monkeypatch):
    texts = [text for _, text in tasks["orders"].inputs()]
    half = {"answers": {"big": "{}"}, "tokens": {"big": [9, 1]}}
    known = [
        {"item_id": f"orders-{n:03d}", "input": text, **half}
        for n, text in enumerate(texts, start=1)
        if n not in {2, 5, 7}
    ]
    loose = tmp_path / "orders.jsonl"
    loose.write_text("".join(json.dumps(row) + "\n" for row in known), encoding="utf-8")
    with serve(
        lambda model, text, _: Verdict(f"{model}: {text}", (-0.1, -0.3))
    ) as server:
        given = ["record_answers.py", "orders", "--into", str(tmp_path)]
        given += ["--model", f"big={server.url}", "--model", f"small={server.url}"]
        monkeypatch.setattr(sys, "argv", given)
        runpy.run_path(str(EXAMPLES / "record_answers.py"), run_name="__main__")
    assert server.requests == {"big": 3, "small": 3}
    assert not loose.exists()
    lines = gzip.decompress((tmp_path / "orders.jsonl.gz").read_bytes()).splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["input"] for row in rows] == texts
    fresh = rows[4]
    assert fresh["answers"]["small"] == f"small: {texts[4]}"
    assert fresh["tokens"]["small"] == [len(texts[4]), len(f"small: {texts[4]}")]
    assert fresh["confidence"] == {"big": 0.8187, "small": 0.8187}
