"""The examples run as their users run them, without a key and without a network."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

from smart_engine import Certificate, verify

HERE = Path(__file__).parents[1] / "examples"


@pytest.fixture
def run(monkeypatch, capsys):
    """Run an example; return what it prints."""

    def main(name: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        monkeypatch.syspath_prepend(HERE)
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(HERE / name), run_name="__main__")
        assert not ended.value.code
        return capsys.readouterr().out

    return main


def test_the_demo(run):
    shown = run("demo.py", "--latency", "0", "--max-disagreement", "0.1")
    for task in ("tickets", "reviews", "orders"):
        assert re.search(rf"\d+ {task} in [\d.]+ s", shown)
    kept = re.findall(r"(\d+) answers really differ .*, where (\d+) may", shown)
    assert len(kept) == 3
    assert all(int(differ) <= int(may) for differ, may in kept)
    promised = re.findall(r"With probability at least 0\.95, at most (\d+) of", shown)
    assert promised == [may for _, may in kept]


def test_choosing_how_much_may_differ(run):
    shown = run("choosing_delta.py", "--trials", "2")
    rows = re.findall(
        r"^ +(\d+)% +([\d.]+) +[\d.]+% +-?[\d.]+% +([\d.]+)%", shown, re.MULTILINE
    )
    assert [int(allowed) for allowed, _, _ in rows] == [1, 2, 5, 10, 20]
    costs = [float(cost) for _, cost, _ in rows]
    assert costs[-1] < costs[0]
    assert all(float(differ) <= int(allowed) for allowed, _, differ in rows)


def test_a_report_page(run, tmp_path):
    page, pictures = tmp_path / "report.html", tmp_path / "pictures"
    run(
        *("report_page.py", "--singles", "100"),
        *("--page", str(page), "--pictures", str(pictures)),
    )
    shown = page.read_text(encoding="utf-8")
    assert "in 1 batch and 1 stream" in shown
    assert shown.count("<svg") == 4
    written = {path.name: path.stat().st_size for path in pictures.iterdir()}
    assert written.keys() == {
        f"{k}.svg" for k in ("cost", "items", "evidence", "stream")
    }
    assert max(written.values()) < 100_000


def test_a_query_engine(run):
    shown = run("llama_index_query_engine.py", "--questions", "300")
    question, answer = shown.splitlines()[:2]
    assert question == "What is the warranty of the Alder desk lamp?"
    assert re.fullmatch(r"  It is \d years\.", answer)
    assert float(re.findall(r"saved (-?[\d.]+) USD", shown)[0]) > 0
    assert "after every answer, at most 0.1 of the answers so far differ" in shown


def test_a_nightly_extraction(run, tmp_path):
    path = tmp_path / "night.json"
    shown = run("llama_index_nightly_extraction.py", "--certificate", str(path))
    assert float(re.findall(r"saved (-?[\d.]+) USD", shown)[0]) > 0
    assert "at most 100 of 2000 answers (0.05 of all) differ from big's" in shown
    certificate = Certificate.model_validate_json(path.read_text(encoding="utf-8"))
    assert certificate.task == "invoices"
    assert certificate.cost < 0.5 * certificate.reference_only_cost
    assert all(check.holds for check in verify(certificate))


def test_free_text_with_an_embedding_and_a_judge(run):
    shown = run("bring_your_own_equivalence.py", "--questions", "600")
    assert "differs from itself on 0 of 20 items" in shown
    assert re.search(r"embedding: words 1 +\d+", shown)
    assert re.search(r"judge: scripted +\d+", shown)
    assert "Similar(words 1, threshold=0.5) & Judge('scripted', instruct" in shown
    alone, together = re.findall(r"about ([\d.]+) USD.* cost ([\d.]+) USD", shown)[0]
    assert float(together) < 0.7 * float(alone)
