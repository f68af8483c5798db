"""`smart run` and `smart estimate` over HTTP, as a user types them."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from loopback import Fault, Odd, serve

from smart_engine import Price

runner = pytest.importorskip("typer.testing").CliRunner(
    env={"COLUMNS": "400", "NO_COLOR": "1"}
)
pytest.importorskip("rich")

from smart_engine.cli.app import app  # noqa: E402
from smart_engine.cli.terminal import Code  # noqa: E402
from smart_engine.equivalence.shorthand import SHORTHANDS  # noqa: E402

ROWS = 60
PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}


def say(model, text, attempt):
    number = int(text.split()[-1])
    if model == "small" and number % 50 == 7:
        return "I would not know"
    return "Spam." if number % 2 else "ham"


@pytest.fixture
def server():
    with serve(lambda *asked: server.script(*asked)) as server:
        server.script = say
        yield server


@pytest.fixture
def mails(tmp_path) -> Path:
    path = tmp_path / "mails.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "the mail", "note"])
        for number in range(ROWS):
            writer.writerow([f"m{number}", f"mail {number}", "one,\ntwo"])
    return path


@pytest.fixture
def tenants(tmp_path) -> Path:
    path = tmp_path / "tenants.jsonl"
    rows = [
        {"the mail": f"mail {number}", "tenant": ["a", 7][number % 2]}
        for number in range(3 * ROWS)
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def test_a_column_names_the_slices_of_a_table(server, tenants, tmp_path) -> None:
    certificate = tmp_path / "certificate.json"
    sliced = [tenants, *job(server), "--slice", "tenant"]
    expected = smart("estimate", *sliced, "--items", 30, "--json")
    assert expected.exit_code == 0, expected.output
    result = smart(
        *("run", tenants, tmp_path / "out.jsonl", *sliced[1:]),
        *("--certificate", certificate, "--json"),
    )
    assert result.exit_code == 0, result.output
    record = json.loads(certificate.read_text())
    sizes = {each["name"]: each["items"] for each in record["slices"]}
    assert sizes == {"a": 3 * ROWS / 2, "7": 3 * ROWS / 2}
    assert record["served"]["small"] > ROWS
    assert bought_once(server)
    assert smart("verify", certificate).exit_code == 0


def test_a_row_outside_of_any_slice_is_named(server, mails, tmp_path) -> None:
    result = smart("run", mails, tmp_path / "out.csv", *job(server), "--slice", "shop")
    assert result.exit_code != 0
    assert "mails.csv, line 2 has no value in it" in " ".join(result.output.split())
    assert not server.bodies


@pytest.fixture(autouse=True)
def _key(monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hush")


def job(server) -> list[str]:
    """Return the options that most tests share."""
    options = {
        "--reference": "openai:big",
        "--candidate": "openai:small",
        "--prompt": "Spam or ham? {{one word}} {the mail}",
        "--equivalence": "label:spam,ham",
        "--base-url": server.url,
        "--max-tokens": "20",
        "--max-disagreement": "0.2",
        "--max-concurrency": "8",
    }
    words = [word for pair in options.items() for word in pair]
    return [*words, "--price", "big=10,30", "--price", "small=0.1,0.4"]


def smart(*words: object):
    """Run the command in this process; it never shows a key."""
    result = runner.invoke(app, [str(word) for word in words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert "sk-hush" not in result.output
    return result


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def charge(server, model: str) -> float:
    """Return what the server would charge for a model."""
    price = PRICES[model]
    sent, said = server.input_tokens[model], server.output_tokens[model]
    return (price.input * sent + price.output * said) / 1e6


def bill(server) -> float:
    """Return what the server would charge in all."""
    return sum(charge(server, model) for model in PRICES)


def kept_for(result) -> float:
    """Return what the answers had cost that a command says are kept."""
    return float(re.findall(r"answers for ([\d.]+) USD are kept in", result.stderr)[0])


def bought_once(server) -> bool:
    return max(server.attempts.values()) == 1


def test_a_table_is_answered_and_the_claim_can_be_checked(server, mails, tmp_path):
    out, certificate = tmp_path / "out.csv", tmp_path / "certificate.json"
    words = [mails, out, *job(server), "--certificate", certificate, "--json"]
    result = smart("run", *words)
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed["cost"] == pytest.approx(bill(server))
    assert printed["served"]["big"] + printed["served"]["small"] == ROWS
    assert 0 < printed["saved"] < printed["reference_only_cost"]

    rows = read(out)
    given = [{**row, "note": "one,\ntwo"} for row in read(mails)]
    assert [{name: row[name] for name in given[0]} for row in rows] == given
    assert list(rows[0])[-5:-1] == ["answer", "smart_model", "smart_role", "smart_cost"]
    assert sum(float(row["smart_cost"]) for row in rows) == pytest.approx(bill(server))
    for number, row in enumerate(rows):
        right = say("big", f"{number}", 1)
        assert row["answer"] == right  # what cannot be read escalates
        assert row["smart_error"] == ""
    assert server.bodies[0]["messages"][0]["content"].startswith(
        "Spam or ham? {one word} mail "
    )

    assert json.loads(certificate.read_text())["task"] == "mails"
    assert smart("verify", certificate).exit_code == 0
    shown = smart("report", certificate)
    assert shown.exit_code == 0
    assert printed["claim"] in " ".join(shown.stdout.split())

    refused = smart("run", *words)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "--force" in refused.stderr
    again = smart("run", *words, "--force")
    assert json.loads(again.stdout)["paid_in_earlier_runs"] == pytest.approx(
        printed["cost"]
    )
    assert bought_once(server)
    plain = smart("run", *words[:-1], "--force", "--progress")
    assert f"{ROWS}/{ROWS}" in plain.stderr
    assert printed["claim"] in " ".join(plain.stdout.split())


@pytest.mark.parametrize("option", [["--temperature", "0"], ["--dedupe"]])
def test_rows_that_make_the_same_prompt_are_asked_once(server, tmp_path, option):
    mails, out = tmp_path / "mails.csv", tmp_path / "out.csv"
    numbers = [row % 12 for row in range(ROWS)]
    lines = ["the mail", *(f"mail {number}" for number in numbers)]
    mails.write_text("\n".join(lines) + "\n")
    words = [*job(server), *option, "--json"]
    assert smart("estimate", mails, *words, "--items", 40).exit_code == 0
    result = smart("run", mails, out, *words)
    assert result.exit_code == 0, result.output
    assert bought_once(server)
    assert 0 < json.loads(result.stdout)["cost"] <= bill(server)
    answers = [row["answer"] for row in read(out)]
    assert answers == [say("big", f"{number}", 1) for number in numbers]


def test_objects_come_out_as_they_went_in(server, tmp_path):
    path, out = tmp_path / "mails.jsonl", tmp_path / "out.jsonl"
    rows = [
        {"the mail": {"größe": [1, None], "n": f" {number} "}, "cut": "\ud800"}
        for number in range(20)
    ]
    path.write_text("\n\n".join(json.dumps(row) for row in rows))
    server.script = lambda model, text, attempt: f"ham, {model} \u2028"
    result = smart("run", path, out, *job(server), "--system", "Be brief.")
    assert result.exit_code == 0, result.output
    content = out.read_text(encoding="utf-8")
    printed = [json.loads(line) for line in content.split("\n") if line]
    assert [{name: row[name] for name in rows[0]} for row in printed] == rows
    assert {row["answer"] for row in printed} <= {
        "ham, big \u2028",
        "ham, small \u2028",
    }
    messages = server.bodies[0]["messages"]
    assert messages[0] == {"role": "system", "content": "Be brief."}
    assert '{"größe": [1, null]' in messages[1]["content"]


def test_a_job_that_could_not_save_what_is_asked_pays_the_reference_alone(
    server, mails, tmp_path
):
    words = [*job(server), "--min-saving", 0.99, "--json"]
    result = smart("run", mails, tmp_path / "out.csv", *words)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["served"] == {"big": ROWS, "small": 0}


def test_what_an_estimate_bought_a_run_does_not_buy_again(server, mails, tmp_path):
    result = smart("estimate", mails, *job(server), "--items", 40, "--json")
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert server.requests == {"big": 40, "small": 40}
    assert printed["sample_cost"] == pytest.approx(bill(server))
    assert (printed["items"], printed["sampled"]) == (ROWS, 40)
    asked = {text for _, text in server.attempts}
    odd = sum(int(text.split()[-1]) % 50 == 7 for text in asked)
    assert (printed["differing"], printed["failed"]) == (
        {"small": 0},
        {"big": 0, "small": odd},
    )
    for figure in ("audits", "certifying", "cost", "reference_only", "saved"):
        assert (
            printed[figure]["low"] <= printed[figure]["mean"] <= printed[figure]["high"]
        )
    alone = bill(server) / 40 * ROWS
    assert printed["reference_only"]["mean"] == pytest.approx(alone, rel=0.05)

    assert printed["pays_from"] <= ROWS
    assert printed["choices"] == []
    also = ("--also", 0.2, "--also", 0.01)
    table = smart("estimate", mails, *job(server), "--items", 45, *also)
    assert f"45 of {ROWS} rows asked" in table.stdout
    assert "USD to certify" in table.stdout
    assert re.search(r"Expected to save \d+ % \(\d+ % to \d+ %\)", table.stdout)
    assert "Jobs of other sizes would save, by rows: 50: " in table.stdout
    assert re.search(r"It pays from about \d+ rows on", table.stdout)
    assert re.search(r"20 % +. +\d+ % \(\d+ % to \d+ %\) +. +\d+ ", table.stdout)
    assert server.requests == {"big": 45, "small": 45}

    result = smart("run", mails, tmp_path / "out.csv", *job(server), "--json")
    assert bought_once(server)
    assert json.loads(result.stdout)["paid_in_earlier_runs"] > 0


@pytest.mark.slow
def test_an_estimate_shows_batches_beside_live_calls(server, mails) -> None:
    words = [*job(server), "--price", "big=10,30/5,15", "--items", 20]
    printed = json.loads(smart("estimate", mails, *words, "--json").stdout)
    by_batch = printed["by_batch"]
    alone = printed["reference_only"]["mean"]
    assert by_batch["reference_only"]["mean"] == pytest.approx(alone / 2)
    assert by_batch["cost"]["mean"] < printed["cost"]["mean"]
    assert 0 < by_batch["rounds"]["mean"] <= by_batch["rounds"]["high"]
    assert by_batch["rounds"]["high"] <= by_batch["max_rounds"]
    assert printed["rounds"]["mean"] > 0
    shown = smart("estimate", mails, *words).stdout
    assert "--lane batch" in shown
    assert re.search(r"waves of calls +. +\d+ \(\d+ to \d+\)", shown)
    live = smart("estimate", mails, *job(server), "--items", 20)
    assert "--lane batch" not in live.stdout


def test_usage_is_estimated_if_the_option_says_so(server, mails, tmp_path):
    server.script = lambda model, text, attempt: (
        "ham" if model == "small" else Odd("ham", usage=None)
    )
    mails.write_text("".join(mails.open().readlines()[:13]))
    out, store = tmp_path / "out.csv", f"{mails}.answers.db"
    words = [*job(server), "--min-saving", 0]
    refused = smart("estimate", mails, *words, "--items", 4)
    assert refused.exit_code == Code.UNUSABLE
    assert "reported no usage" in refused.stderr
    allowed = [*words, "--estimate-usage"]
    tried = smart("estimate", mails, *allowed, "--items", 4)
    assert "of it estimated; the answers are kept" in tried.stdout
    assert "what their answers cost is estimated, too" in tried.stdout
    assert tried.stderr.count("big reported no usage") == 1
    printed = json.loads(smart("run", mails, out, *allowed, "--json").stdout)
    assert 0 < printed["estimated"] < printed["cost"]
    rows = read(out)
    marked = sum(float(row["smart_estimated"]) for row in rows)
    assert marked == pytest.approx(printed["estimated"])
    shown = smart("run", mails, out, *allowed, "--force")
    assert "of it estimated" in shown.stdout
    kept = smart("report", store)
    assert "of it estimated" in kept.stdout
    kept = json.loads(smart("report", store, "--json").stdout)
    (models,) = kept["jobs"].values()
    assert models["big"]["estimated"] == models["big"]["cost"] > 0
    assert models["small"]["estimated"] == 0


def test_a_batch_is_tried_without_a_store(make, inputs):
    smart = make()
    expected = smart.estimate(inputs)
    assert (expected.items, expected.sampled) == (len(inputs), 50)
    assert expected.differing["small"] < expected.differing["tiny"]
    assert smart.report().cost == smart.ledger().sums("task").popitem()[1].cost
    assert len(smart.ledger().entries) == 150


def test_an_interrupted_run_goes_on(server, mails, tmp_path):
    out, main = tmp_path / "out.csv", threading.main_thread().ident

    def interrupted(model, text, attempt):
        if sum(server.requests.values()) == 40:
            signal.pthread_kill(main, signal.SIGINT)
        return say(model, text, attempt)

    server.script = interrupted
    result = smart("run", mails, out, *job(server))
    assert result.exit_code == 130
    assert not out.exists()
    assert "the same command goes on" in result.stderr
    assert kept_for(result) == pytest.approx(bill(server), rel=5e-3)
    assert f"kept in {mails}.answers.db" in result.stderr
    assert "Traceback" not in result.output

    server.script = say
    kept = f"{mails}.answers.db"
    printed = json.loads(smart("report", kept, "--json").stdout)
    assert printed["store"] == kept
    (jobs,) = printed["jobs"].values()
    assert sum(spend["cost"] for spend in jobs.values()) == pytest.approx(bill(server))
    assert {name: spend["calls"] for name, spend in jobs.items()} == server.requests
    assert f"big {server.requests['big']} (" in smart("report", kept).stdout

    assert smart("run", mails, out, *job(server)).exit_code == 0
    assert bought_once(server)
    assert [row["answer"] for row in read(out)] == [
        say("big", f"{number}", 1) for number in range(ROWS)
    ]


@pytest.mark.slow
@pytest.mark.sparing  # as the other process is
def test_a_killed_run_goes_on(server, mails, tmp_path):
    words = ["run", str(mails), str(tmp_path / "out.csv"), *job(server)]
    killed = subprocess.Popen([sys.executable, "-m", "smart_engine", *words])
    deadline = time.monotonic() + 60
    while sum(server.requests.values()) < 40 and time.monotonic() < deadline:
        time.sleep(0.005)
    killed.kill()
    killed.wait()
    assert sum(server.requests.values()) >= 40
    assert list(tmp_path.glob("*out.csv*")) == []
    assert smart(*words).exit_code == 0
    assert sum(n > 1 for n in server.attempts.values()) <= 8  # those in flight
    assert len(read(tmp_path / "out.csv")) == ROWS


def nights(tmp_path, server) -> list[list[str]]:
    """Return the commands of a task's jobs, each of which answers other rows."""
    commands = []
    for night in range(3):
        table = tmp_path / f"night{night}.csv"
        rows = "".join(f"mail {100 * night + n}\n" for n in range(100))
        table.write_text(f"the mail\n{rows}")
        shared = ["--task", "nightly", "--promise", "task"]
        shared += ["--store", str(tmp_path / "nights.db")]
        shared += ["--certificate", str(tmp_path / f"night{night}.json"), "--json"]
        out = str(tmp_path / f"out{night}.csv")
        commands.append(["run", str(table), out, *job(server), *shared])
    return commands


def test_small_jobs_with_a_task_and_a_store_share_one_promise_by_default(
    server, tmp_path
):
    words = nights(tmp_path, server)[0]
    chosen = words.index("--promise")
    shared = [*words[:chosen], *words[chosen + 2 :], "--max-disagreement", "0.1"]
    assert json.loads(smart(*shared).stdout)["promise"]["answers"] == 100
    store = shared.index("--store")
    alone = [*shared[:store], *shared[store + 2 :], "--force"]
    assert json.loads(smart(*alone).stdout)["promise"] is None
    known = smart("profile", tmp_path / "night0.csv.answers.db").stdout
    assert "batches with promises of their own, which taught it: 1" in known
    assert "audits showed" not in known


@pytest.mark.slow
def test_the_jobs_of_a_task_share_one_promise(server, tmp_path):
    asked = []
    for number, words in enumerate(nights(tmp_path, server), 1):
        before = server.requests["big"]
        printed = json.loads(smart(*words).stdout)
        asked.append(server.requests["big"] - before)
        assert printed["promise"]["jobs"] == number
        assert printed["promise"]["answers"] == 100 * number
        assert printed["promise"]["possible"] <= printed["promise"]["allowed"]
    assert asked[2] < 0.7 * asked[0]
    certificate = tmp_path / "night2.json"
    checked = smart("verify", certificate)
    assert checked.exit_code == 0
    assert "all 300 answers of 'nightly' so far" in " ".join(checked.stdout.split())
    assert "that the sums over the jobs of the task are right" in checked.stdout
    assert "One promise over the jobs of a task" in smart("report", certificate).stdout
    store = tmp_path / "nights.db"
    table, asked_for = tmp_path / "night2.csv", ["--task", "nightly", "--store", store]
    words = ["estimate", table, *job(server), *asked_for, "--items", 30, "--json"]
    expected = json.loads(smart(*words).stdout)
    assert expected["earlier_jobs"] == 3
    assert expected["with_history"]["mean"] > expected["saved_share"]["mean"]
    assert "after the 3 so far" in smart(*words[:-1]).stdout
    (known,) = json.loads(smart("profile", store, "--json").stdout)["tasks"]
    assert known["jobs"] == 3
    assert known["possible"] == printed["promise"]["possible"]
    shown = smart("profile", store, "--task", "nightly")
    assert "300 answers in 3 jobs under one promise" in shown.stdout
    assert smart("profile", store, "--task", "other").exit_code == 2
    record = json.loads(certificate.read_text())
    record["promise"]["undetected"] -= 1
    certificate.write_text(json.dumps(record))
    assert smart("verify", certificate).exit_code == 1


@pytest.mark.slow
def test_a_killed_job_of_a_task_goes_on_with_its_audits(server, tmp_path):
    first, second, _ = nights(tmp_path, server)
    assert smart(*first).exit_code == 0
    before = sum(server.requests.values())
    killed = subprocess.Popen([sys.executable, "-m", "smart_engine", *second])
    deadline = time.monotonic() + 60
    while sum(server.requests.values()) < before + 40 and time.monotonic() < deadline:
        time.sleep(0.005)
    killed.kill()
    killed.wait()
    printed = json.loads(smart(*second).stdout)
    assert printed["promise"]["jobs"] == 2
    assert printed["promise"]["answers"] == 200
    assert printed["promise"]["unresolved"] == 0
    assert sum(n > 1 for n in server.attempts.values()) <= 8  # those in flight


def test_where_the_answers_cannot_be_written_they_are_kept(server, mails, tmp_path):
    out = tmp_path / "new" / "out.csv"
    out.parent.mkdir()

    def vanishing(model, text, attempt):
        shutil.rmtree(out.parent, ignore_errors=True)
        return say(model, text, attempt)

    server.script = vanishing
    result = smart("run", mails, out, *job(server))
    assert result.exit_code == 2
    assert kept_for(result) == pytest.approx(bill(server), rel=5e-3)
    _, error = result.stderr.splitlines()
    assert error.startswith("error: file=")
    out.parent.mkdir()
    assert smart("run", mails, out, *job(server)).exit_code == 0
    assert bought_once(server)


def test_a_budget_ends_a_run_and_a_larger_one_goes_on(server, mails, tmp_path):
    out = tmp_path / "out.csv"
    words = ["run", mails, out, *job(server), "--json"]
    result = smart(*words, "--budget", 0.006)
    assert result.exit_code == 3
    assert 0 < bill(server) <= 0.006
    printed = json.loads(result.stdout)
    assert printed["uncertified"] > 0
    assert not printed["valid"]
    answered = ROWS - printed["unanswered"]
    a_row = charge(server, "big") / server.requests["big"]
    assert printed["reference_only_cost"] == pytest.approx(answered * a_row, rel=0.1)
    rows = read(out)
    roles = [row["smart_role"] for row in rows]
    assert (
        roles.count("uncertified") + roles.count("unanswered") == printed["uncertified"]
    )
    for row in rows:
        left_out = row["smart_role"] == "unanswered"
        assert left_out == (row["answer"] == "")
        assert left_out == row["smart_error"].startswith("BudgetExceededError")
    assert "a larger --budget" in result.stderr

    result = smart(*words, "--budget", 1, "--force", "--max-concurrency", 4)
    assert result.exit_code == 0, result.output
    assert bought_once(server)
    assert all(row["answer"] for row in read(out))


def test_rows_without_an_answer_are_reported_and_asked_again(server, mails, tmp_path):
    def refuses(model, text, attempt):
        bad = (text.endswith("mail 11") and model == "big") or text.endswith("mail 12")
        return Fault("not today", 400) if bad else say(model, text, attempt)

    server.script = refuses
    out = tmp_path / "out.csv"
    words = ["run", mails, out, *job(server), "--strategy", "reference"]
    result = smart(*words)
    assert result.exit_code == 1
    assert "2 rows have no answer, the first in" in result.stderr
    assert f"{mails}, line 24 (" in result.stderr
    rows = read(out)
    assert [n for n, row in enumerate(rows) if not row["answer"]] == [11, 12]
    assert rows[11]["smart_role"] == "unanswered"
    assert "not today" in rows[11]["smart_error"]

    server.script = say
    assert smart(*words, "--force").exit_code == 0
    assert all(row["answer"] for row in read(out))


def test_a_reference_that_answers_nothing_is_an_error(server, mails):
    server.script = lambda *_: Fault("closed", 400)
    result = smart("estimate", mails, *job(server), "--items", 5)
    assert result.exit_code == 2
    assert re.search(r"big answered none of the items: .*closed", result.stderr)


IN = "mails.csv"


@pytest.mark.parametrize(
    ("content", "words", "message"),
    [
        ("", [], "there are no rows"),
        ("the mail\n", [], "there are no rows"),
        ("text\nmail 1\n", [], "{the mail}"),
        ("the mail,n\nmail 1,1\nmail 2\n", [], "mails.csv, line 3"),
        ('the mail\n"a\nb"\n"open\n', [], "mails.csv, line 4"),
        ("the mail,the mail\nmail 1,1\n", [], "two columns"),
        ("the mail,answer\nmail 1,1\n", [], "--answer"),
        ("the mail\n\xff\n", [], "no UTF-8, from byte 9"),
        ("the mail\nmail 1\n", ["--prompt", "{the mail"], "braces"),
        ("the mail\nmail 1\n", ["--prompt", "the mail"], "{column}"),
        ("the mail\nmail 1\n", ["--prompt", "{the mail!r}"], "{column}"),
        ("the mail\nmail 1\n", ["--prompt", "@gone.txt"], "prompt='@gone.txt'"),
        ("the mail\nmail 1\n", ["--price", "big=1"], "MODEL=INPUT,OUTPUT"),
        ("the mail\nmail 1\n", ["--candidate", "openai:new"], "--price MODEL"),
        ("the mail\nmail 1\n", ["--candidate", "new"], "candidate='new'"),
        ("the mail\nmail 1\n", ["--equivalence", "label"], "two distinct labels"),
        ("the mail\nmail 1\n", ["--equivalence", "alike"], "choose one of"),
        ("the mail\nmail 1\n", ["--equivalence", "date:%Q"], "day, month and year"),
        ("the mail\nmail 1\n", ["--confidence", "95"], "confidence=95"),
        ("the mail\nmail 1\n", ["--strategy", "luck"], "strategy='luck'"),
        ("the mail\nmail 1\n", ["--promise", "task"], "--task"),
        (
            "the mail\nmail 1\n",
            ["--promise", "task", "--task", "nightly"],
            "give --task and --store",
        ),
        ("the mail\nmail 1\n", ["--promise", "job"], "promise='job'"),
        ("the mail\nmail 1\n", ["--store", "no/where.db"], "store="),
        ("the mail\nmail 1\n", ["--certificate", "no/where.json"], "certificate="),
        ("the mail\nmail 1\n", ["--certificate", IN], "another file"),
    ],
)
def test_a_mistake_is_reported_in_one_line_before_anything_is_asked(
    server, tmp_path, monkeypatch, content, words, message
):
    monkeypatch.chdir(tmp_path)
    Path(IN).write_bytes(content.encode("latin-1"))
    result = smart("run", IN, "out.csv", *job(server), *words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
    assert message in result.stderr
    assert not server.requests
    assert not Path("out.csv").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["--store", "out.csv"],
        ["--store", "sqlite:///out.csv"],
        ["--store", "sqlite:///file:out.csv?uri=true"],
        ["--store", IN],
        ["--store", "s.db", "--certificate", "./s.db"],
        ["--certificate", f"{IN}.answers.db"],
        ["--certificate", "out.csv"],
        ["--certificate", "prompt.txt"],
        ["--store", "prompt.txt"],
    ],
)
def test_no_file_of_a_command_is_another(server, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    Path(IN).write_text("the mail\nmail 1\n")
    Path("prompt.txt").write_text("{the mail}")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    given = [*job(server), *words, "--prompt", "@prompt.txt", "--force"]
    result = smart("run", IN, "out.csv", *given)
    assert result.exit_code == 2
    assert "another file of this command" in result.stderr
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert not server.requests


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_a_spreadsheet_runs_no_answer(server, tmp_path, monkeypatch, suffix):
    monkeypatch.chdir(tmp_path)
    names = [f"a.{suffix}", f"b.{suffix}"]
    hostile = [*"=+-@\t\r\n", "\uff1d", "a=", "b\rc"]
    mails = [f"mail {number}" for number in range(len(hostile))]
    Path(names[0]).write_text("\n".join(["the mail", *mails]))
    answers = [f"{start}HYPERLINK(1)" for start in hostile]
    server.script = lambda _, text, __: answers[int(text.split()[-1])]
    words = [*names, *job(server), "--equivalence", "exact"]
    assert smart("run", *words).exit_code == 0
    separator = {"csv": ",", "tsv": "\t"}[suffix]

    def column() -> list[str]:
        with Path(names[1]).open(newline="") as file:
            return [row["answer"] for row in csv.DictReader(file, delimiter=separator)]

    assert column() == answers
    assert smart("run", *words, "--force", "--spreadsheet").exit_code == 0
    assert column() == [*(f"'{answer}" for answer in answers[:-2]), *answers[-2:]]


def test_a_file_of_lines_is_no_spreadsheet(server, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"the mail": 1}')
    names = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    result = smart("run", *names, *job(server), "--spreadsheet")
    assert result.exit_code == 2
    assert "--spreadsheet" in result.stderr


@pytest.mark.parametrize(
    ("name", "content", "out", "message"),
    [
        ("a.jsonl", '{"the mail": 1}\n{"the', "b.jsonl", "a.jsonl, line 2"),
        ("a.jsonl", '\n["the mail"]', "b.jsonl", "line 2': a row is an object"),
        ("a.jsonl", '{"the mail": 1}\n{"x": 1}', "b.jsonl", "line 2 has only x"),
        ("a.xlsx", "", "b.xlsx", ".csv, .tsv or .jsonl"),
        ("a.csv", "", "b.jsonl", "ends in .csv"),
        ("a.csv", "the mail\n1", "no/b.csv", "no file can be written there"),
        ("a.csv", "the mail\n1", "a.csv", "another file of this command"),
        ("a.jsonl", '{"the mail": 1, "answer": 2}', "b.jsonl", "--answer"),
        ("a.csv", "the mail\n1", ".csv", "'.csv'"),
    ],
)
def test_a_table_that_cannot_be_used_is_reported_by_its_line(
    server, tmp_path, monkeypatch, name, content, out, message
):
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(content)
    result = smart("run", name, out, *job(server))
    assert result.exit_code == 2
    assert message in result.stderr
    assert not server.requests


def test_a_missing_key_is_named(server, mails, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    result = smart("estimate", mails, *job(server))
    assert result.exit_code == 2
    assert "OPENAI_API_KEY" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("absent", ["langchain", "sqlalchemy"])
def test_the_missing_extra_is_named(server, mails, monkeypatch, absent):
    monkeypatch.setitem(sys.modules, absent, None)
    result = smart("estimate", mails, *job(server))
    assert result.exit_code == 2
    assert "pip install 'smart-llm[run]'" in result.stderr


def test_shells_complete_the_commands_without_loading_langchain():
    code = """
import sys
from smart_engine.__main__ import main
try:
    main()
finally:
    print("langchain_core" in sys.modules, file=sys.stderr)
"""
    variables = {"COMP_WORDS": "smart ", "COMP_CWORD": "1"}
    shown = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **variables, "_SMART_COMPLETE": "complete_bash"},
        capture_output=True,
        text=True,
        check=True,
    )
    commands = ["replay", "simulate", "demo", "verify", "report", "estimate", "run"]
    commands.append("profile")
    commands.append("import")
    assert set(shown.stdout.split()) >= set(commands)
    assert shown.stderr == "False\n"


def test_the_page_names_what_there_is():
    import smart_engine.docs

    page = Path(smart_engine.docs.__file__).with_name("command-line.md").read_text()
    named = set(re.findall(r"`smart (\w+)", page))
    helps = {name: " ".join(smart(name, "--help").stdout.split()) for name in named}
    printed = " ".join(helps.values()) + smart("--help").stdout
    assert named >= {command.name for command in app.registered_commands}
    for option in set(re.findall(r"--[a-z][a-z-]+", page)):
        assert option in printed, option
    for rule in SHORTHANDS:
        assert f"`{rule}" in page
    for code in Code:
        assert f"| {code.value} |" in page
