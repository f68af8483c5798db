"""The examples run as their users run them, without a key and without a network."""

from __future__ import annotations

import json
import os
import re
import runpy
import sys
from pathlib import Path

import pytest
from loopback import serve

from smart_engine import Certificate, verify

HERE = Path(__file__).parents[1] / "examples"
SIZES = pytest.mark.parametrize(
    "items", [100, pytest.param(300, marks=pytest.mark.slow)]
)


@pytest.fixture
def ended(monkeypatch):
    """Run an example; return its exit code, or what it says instead of one."""

    def main(name: str, *arguments: str) -> int | str | None:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        monkeypatch.syspath_prepend(HERE)
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(HERE / name), run_name="__main__")
        return ended.value.code

    return main


@pytest.fixture
def run(ended, capsys):
    """Run an example; return what it prints."""

    def main(name: str, *arguments: str) -> str:
        assert ended(name, *arguments) == 0
        return capsys.readouterr().out

    return main


@pytest.mark.slow
def test_the_demo(run, tmp_path):
    page = tmp_path / "report.html"
    shown = run("demo.py", "--latency=0", f"--page={page}")
    assert page.read_text(encoding="utf-8").startswith("<!")
    kept = re.findall(
        r"([\d,]+) answers \(.*\) really differ .*, where (\d+) may", shown
    )
    assert [may for _, may in kept] == ["262", "525"]
    assert all(int(differ) <= int(may) for differ, may in kept)
    assert re.findall(r"at most (\d+) of 5250 answers", shown) == ["262", "525"]
    money = re.findall(r"cost ([\d.]+) USD; gpt-4.5\S+ alone about ([\d.]+) USD", shown)
    assert len(money) == 2
    assert all(float(cost) < 0.5 * float(alone) for cost, alone in money)
    right = re.findall(
        r"alone is right on ([\d.]+)%, these answers on ([\d.]+)%", shown
    )
    assert len(right) == 2
    assert all(abs(float(one) - float(other)) < 5 for one, other in right)
    for size in ("250", "1,000", "5,250"):
        assert re.search(rf"│ +{size} │( +\d+% │){{4}}", shown)
    for task in ("tickets", "reviews", "orders"):
        (row,) = re.findall(rf"│ {task} +│ +\d+ │.*%.*│ +(\d+) │ +(\d+) │", shown)
        assert int(row[0]) <= int(row[1])


def promise(items: int, *, shared: bool = False) -> str:
    """Return what is promised of a job; of few items, with its task's other jobs."""
    may = items // 20
    return f"at most {may} of {'all ' if shared and may < 12 else ''}{items} answers"


def saved(shown: str) -> float:
    return float(re.findall(r"saved (-?[\d.]+) USD", shown)[0])


def test_rows_are_answered_in_a_data_engine(run):  # others: tests/on_ray
    shown = run("data_engines.py", "--engine", "pandas").splitlines()
    assert shown[1].split() == ["Win", "a", "prize", "now!", "spam"]


@pytest.mark.slow
def test_choosing_how_much_may_differ(run):
    shown = run("choosing_delta.py", "--trials", "2")
    rows = re.findall(
        r"^ +(\d+)% +([\d.]+) +[\d.]+% +(?:-?[\d.]+% +){2}([\d.]+)%",
        shown,
        re.MULTILINE,
    )
    assert [int(allowed) for allowed, _, _ in rows] == [1, 2, 5, 10, 20]
    costs = [float(cost) for _, cost, _ in rows]
    assert costs[-1] < costs[0]
    assert all(float(differ) <= int(allowed) for allowed, _, differ in rows)
    again = re.findall(
        r"^ +(\d+)% +(-?\d+)% +(-?\d+)% +(-?\d+)% +([\d,]+|no size)$",
        shown,
        re.MULTILINE,
    )
    assert [int(allowed) for allowed, *_ in again] == [1, 2, 5, 10, 20]
    assert all(
        int(least) <= int(mean) <= int(most) for _, mean, least, most, _ in again
    )
    assert int(again[-1][1]) > int(again[0][1])
    assert int(again[-1][4].replace(",", "")) < 420


@pytest.mark.slow
def test_a_report_page(run, tmp_path):
    page, pictures = tmp_path / "report.html", tmp_path / "pictures"
    run(
        *("report_page.py", "--singles", "100"),
        *("--page", str(page), "--pictures", str(pictures)),
    )
    shown = page.read_text(encoding="utf-8")
    assert "in 1 batch and 1 stream" in shown
    assert shown.count("<svg") == 5
    written = {path.name: path.stat().st_size for path in pictures.iterdir()}
    assert written.keys() == {
        f"{k}.svg"
        for k in ("cost", "items", "evidence", "stream", "outlook", "savings")
    }
    assert max(written.values()) < 100_000


@SIZES
def test_lcel_classification(run, tmp_path, items):
    path = tmp_path / "tickets.json"
    given = ("--items", str(items), "--certificate", str(path))
    shown = run("lcel_classification.py", *given)
    assert saved(shown) > 0
    assert promise(items) in shown
    certificate = Certificate.model_validate_json(path.read_text(encoding="utf-8"))
    assert certificate.items == items
    assert all(check.holds for check in verify(certificate))


@SIZES
def test_structured_extraction(run, items):
    shown = run("structured_extraction.py", "--items", str(items))
    assert saved(shown) > 0
    assert shown.startswith("Order(customer='Dr Lindt', euros=63.06, due=")
    assert promise(items) in shown


@pytest.mark.slow
def test_an_agent(run):
    shown = run("agent.py", "--items", "60")
    assert "What does the red lamp cost?\n  15\n" in shown
    assert saved(shown) > 0
    assert "after every answer, at most 0.1 of the answers so far differ" in shown


@pytest.mark.slow
def test_a_service_in_shadow_mode(run):
    shown = run("fastapi_shadow.py", "--items", "120")
    answered, report = re.fullmatch(
        r"((?:.+: .+\n){3})(\[.*)", shown, re.DOTALL
    ).groups()
    assert answered.startswith("yes: Lovely film, thank you! (no. 0)")
    (task,) = json.loads(report)
    assert task["answered"] == 120
    assert task["would_have_saved_usd"] > 0
    assert "after every answer, at most 0.1 of the answers" in task["promise"]


def test_what_the_service_needs_is_named(ended, monkeypatch):
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert "pip install fastapi" in ended("fastapi_shadow.py")


@pytest.mark.slow
def test_a_job_that_is_cut_off_and_goes_on(run, tmp_path):
    kept = ("--items", "260", "--store", str(tmp_path / "night.db"))
    shown = run("nightly_job.py", *kept)
    first, second = shown.split("Second night")
    bought = re.findall(r"answered: +(\d+ calls, [\d.]+) USD", first)
    assert re.findall(r"restored: +(\d+ calls, [\d.]+) USD", second) == bought
    assert "Nothing is claimed: the budget ended" in first
    assert re.search(r"answered: +[1-9]\d* calls", second)
    assert "With probability at least 0.95, at most 13 of 260 answers" in second
    again = run("nightly_job.py", *kept, "--budget", "1").split("Second night")[1]
    assert "answered" not in again


def test_a_key_is_needed_only_to_ask_openai(ended, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    few = ("structured_extraction.py", "--items", "3")
    assert ended(*few) == 0
    assert "OPENAI_API_KEY" not in os.environ
    assert "needs OPENAI_API_KEY" in ended(*few, "--live")


def test_with_a_key_openai_is_asked_by_the_same_code(run, monkeypatch, tmp_path):
    key, path = "sk-of-a-user", tmp_path / "tickets.json"
    with serve(lambda model, text, attempt: "billing") as server:
        for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE"):
            monkeypatch.setenv(name, server.url)
        monkeypatch.setenv("OPENAI_API_KEY", key)
        few = ("--live", "--items", "5", "--certificate", str(path))
        shown = run("lcel_classification.py", *few)
    assert server.requests["gpt-5"] >= 1
    assert key not in shown + path.read_text(encoding="utf-8")
    assert os.environ["OPENAI_API_KEY"] == key


def test_every_example_is_told_of():
    told = (HERE / "README.md").read_text(encoding="utf-8")
    programs = {path.name for path in HERE.glob("*.py")}
    assert {name for name in programs if f"`{name}`" not in told} == set()


@pytest.mark.slow
def test_a_query_engine(run):
    shown = run("llama_index_query_engine.py", "--items", "300")
    question, answer = shown.splitlines()[:2]
    assert question == "What is the warranty of the Alder desk lamp?"
    assert re.fullmatch(r"  It is \d years\.", answer)
    assert saved(shown) > 0
    assert "after every answer, at most 0.1 of the answers so far differ" in shown


@SIZES
def test_a_nightly_extraction(run, tmp_path, items):
    path = tmp_path / "night.json"
    given = ("--items", str(items), "--certificate", str(path))
    shown = run("llama_index_nightly_extraction.py", *given)
    assert items < 240 or saved(shown) > 0  # the first of a task's jobs learns
    assert promise(items, shared=True) in shown
    certificate = Certificate.model_validate_json(path.read_text(encoding="utf-8"))
    assert certificate.task == "invoices"
    assert all(check.holds for check in verify(certificate))


@pytest.mark.parametrize("asked", [200, pytest.param(600, marks=pytest.mark.slow)])
def test_free_text_with_an_embedding_and_a_judge(run, asked):
    shown = run("bring_your_own_equivalence.py", "--questions", str(asked))
    assert "differs from itself on 0 of 20 items" in shown
    assert re.search(r"embedding: words 1 +\d+", shown)
    assert re.search(r"judge: scripted +\d+", shown)
    assert "Similar(words 1, threshold=0.5) & Judge('scripted', instruct" in shown
    alone, together = re.findall(r"about ([\d.]+) USD.* cost ([\d.]+) USD", shown)[0]
    assert float(together) < 0.7 * float(alone)
