"""`smart run --lane batch`, `smart jobs` and `smart cancel`, as a user types them."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from batch_loopback import Plan, serve_batches

runner = pytest.importorskip("typer.testing").CliRunner(
    env={"COLUMNS": "400", "NO_COLOR": "1"}
)

from smart_engine.cli.app import app  # noqa: E402
from smart_engine.cli.terminal import Code  # noqa: E402


def say(model, text, attempt):
    number = int(text.split()[-1])
    return "other" if model == "small" and number % 50 == 7 else f"yes {number % 2}"


@pytest.fixture
def mails(tmp_path) -> Path:
    path = tmp_path / "mails.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["mail"], *([f"mail {n}"] for n in range(60))])
    return path


@pytest.fixture(autouse=True)
def _key(monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hush")


def run(server, mails: Path, *more: str) -> list[str]:
    options = {
        "--reference": "openai:big",
        "--candidate": "openai:small",
        "--prompt": "{mail}",
        "--base-url": server.url,
        "--max-disagreement": "0.2",
        "--lane": "batch",
        "--seed": "3",
    }
    words = [word for pair in options.items() for word in pair]
    prices = ["--price", "big=10,30/5,15", "--price", "small=0.1,0.4/0.05,0.2"]
    out = mails.with_name("out.csv")
    return ["run", str(mails), str(out), *words, *prices, *more]


def test_a_run_by_batches_costs_half(mails):
    with serve_batches(say) as server:
        done = runner.invoke(app, run(server, mails, "--json"))
        assert done.exit_code == Code.DONE, done.output
        facts = json.loads(done.stdout)
        assert server.requests.total() == 0
        bill = {"big": (5, 15), "small": (0.05, 0.2)}
        read, written = server.batched.input_tokens, server.batched.output_tokens
        cost = sum(read[n] * p[0] + written[n] * p[1] for n, p in bill.items())
        assert facts["cost"] == pytest.approx(cost / 1e6)
        listed = runner.invoke(app, ["jobs", f"{mails}.answers.db", "--json"])
        jobs = [json.loads(line) for line in listed.stdout.splitlines()]
        assert len(jobs) == len(server.api.batches)
        assert {job["state"] for job in jobs} == {"completed"}
        assert sum(job["requests"] for job in jobs) == server.batched.requests.total()
        assert "completed" in runner.invoke(app, ["jobs", f"{mails}.answers.db"]).stdout


@pytest.mark.slow
def test_an_interrupted_run_is_listed_cancelled_and_taken_up(mails, monkeypatch):
    """A first interrupt leaves the batch; the same command reads what it answered."""
    with serve_batches(say, Plan(looks=("in_progress",) * 10_000)) as server:
        command = [sys.executable, "-m", "smart_engine", *run(server, mails)]
        command += ["--strategy", "reference"]
        look, interrupts = type(server.api).look, []

        def looked(api, name):
            if not interrupts:
                interrupts.append(name)
                os.kill(job.pid, signal.SIGINT)
            return look(api, name)

        monkeypatch.setattr(type(server.api), "look", looked)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, **pipes) as job:
            _, told = job.communicate(timeout=100)
        assert job.returncode == Code.INTERRUPTED, told
        assert "batches go on (batch_0)" in told
        store = f"{mails}.answers.db"
        (listed,) = runner.invoke(app, ["jobs", store, "--json"]).stdout.splitlines()
        assert json.loads(listed)["state"] == "in_progress"
        unknown = runner.invoke(app, ["cancel", store, "batch_7"])
        assert unknown.exit_code == Code.UNUSABLE
        assert "batch_0: cancelled" in runner.invoke(app, ["cancel", store]).stdout
        assert server.batched.requests.total() == 30
        server.api.plan = Plan()
        again = runner.invoke(app, [*run(server, mails), "--strategy", "reference"])
        assert again.exit_code == Code.DONE, again.output
        assert set(server.batched.attempts.values()) == {1}
        assert server.batched.requests.total() == 60


def test_a_store_without_batches_and_a_provider_without_a_key(mails, monkeypatch):
    missing = runner.invoke(app, ["jobs", str(mails.with_name("none.db"))])
    assert missing.exit_code == Code.UNUSABLE
    with serve_batches(say) as server:
        live = run(server, mails, "--lane", "live")
        assert runner.invoke(app, live).exit_code == Code.DONE
        store = f"{mails}.answers.db"
        assert "no batches" in runner.invoke(app, ["jobs", store]).stdout
        by_batch = [*run(server, mails, "--force"), "--seed", "4"]
        assert runner.invoke(app, by_batch).exit_code == Code.DONE
        monkeypatch.delenv("OPENAI_API_KEY")
        told = runner.invoke(app, ["jobs", store]).stdout
        assert "unknown" in told
        assert "OPENAI_API_KEY" in told
