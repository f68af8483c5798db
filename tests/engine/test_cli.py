"""The command line: tables, JSON lines, and one clear line where something is wrong."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from smart_engine import (
    BatchSession,
    Call,
    Date,
    Exact,
    Guarantee,
    InvalidInputError,
    Items,
    Json,
    Label,
    Normalized,
    Number,
    Outcome,
    Report,
    Spend,
    Store,
    Tier,
    Trace,
)
from smart_engine.equivalence.shorthand import read_rule
from smart_engine.offline.replay import ReplayResult

typer_testing = pytest.importorskip("typer.testing")
pytest.importorskip("rich")

KEYS = list(ReplayResult.model_fields)
STRATEGIES = ["reference", "exhaustive", "efficient", "mix", "audit"]


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 60 recorded items of three models."""
    folder = tmp_path_factory.mktemp("cli")
    names = ("big", "small", "tiny")
    rows = [
        {
            "item_id": str(item),
            "input": f"question {item}",
            "tenant": "ab"[item % 3 == 0],
            "answers": {"big": 1, "small": 1, "tiny": item % 2},
            "tokens": {name: [10, 1] for name in names},
        }
        for item in range(60)
    ]
    models = {
        "reference": "big",
        "candidates": ["small", "tiny"],
        "prices_usd_per_million_tokens": {
            name: {"input": price, "output": price}
            for name, price in zip(names, (10, 1, 0.1), strict=True)
        },
    }
    (folder / "t.models.json").write_text(json.dumps(models))
    path = folder / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def simulation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the inputs of a small simulation."""
    tokens = {"prompt_tokens": 100, "completion_tokens": 1}
    content = {
        "usd_per_1k_tokens": {
            "big": {"prompt": 0.03, "completion": 0.06},
            "small": {"prompt": 0.001, "completion": 0.002},
        },
        "datasets": {
            "news": {
                "items": 300,
                "models": {
                    "big": {"agreement": 1.0} | tokens,
                    "small": {"agreement": 0.97} | tokens,
                },
            }
        },
    }
    path = tmp_path_factory.mktemp("cli") / "s.json"
    path.write_text(json.dumps(content))
    return path


def smart(*arguments: object):
    """Run the command in this process."""
    from smart_engine.cli.app import app

    runner = typer_testing.CliRunner(env={"COLUMNS": "400", "NO_COLOR": "1"})
    return runner.invoke(app, [str(argument) for argument in arguments])


def json_lines(result) -> list[dict]:
    """Parse a successful run's output."""
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_replay_prints_a_table_of_every_strategy(trace) -> None:
    result = smart("replay", trace, "--trials", 2)
    assert result.exit_code == 0
    assert "60 items, at most 0.05 may differ from big's answers" in result.stdout
    alone = re.findall(r"big alone: ([\d.]+) USD", result.stdout)
    assert re.findall(r"cost, USD +│ +([\d.]+)", result.stdout) == alone
    assert re.search(r"saved +│ +0.0%", result.stdout)
    for word in (*STRATEGIES, "saved", "ratio", "broken", "small", "tiny"):
        assert word in result.stdout
    assert result.stderr == ""


def test_a_replay_of_every_strategy_fits_into_80_columns(trace) -> None:
    from smart_engine.cli.app import app

    runner = typer_testing.CliRunner(env={"COLUMNS": "80", "NO_COLOR": "1"})
    shown = runner.invoke(app, ["replay", str(trace), "--trials", "1"])
    assert shown.exit_code == 0
    assert "…" not in shown.stdout
    assert all(name in shown.stdout for name in STRATEGIES)


def test_replay_and_simulate_promise_recall_and_precision(trace, simulation) -> None:
    labels = ("--recall", "1=0.9", "--precision", "1=0.8", "--max-disagreement", "none")
    runs = ("--trials", 2, *labels)
    made_up = ("simulate", simulation, "--dataset", "news")
    for command in (("replay", trace), made_up):
        lines = json_lines(smart(*command, *runs, "--json"))
        assert [line["strategy"] for line in lines] == ["reference", "audit"]
        for line in lines:
            assert list(line) == KEYS
            assert line["max_disagreement"] is None
            assert line["recall"]["1"] >= 0.9
            assert line["precision"]["1"] >= 0.8
            assert line["label_violations"] == 0
        table = smart(*command, *runs)
        assert "recall and precision of 1 promised" in table.stdout
    refused = smart("replay", trace, *labels, "--plot", "costs.svg")
    assert "give shares, not none" in refused.stderr


def test_replay_and_simulate_promise_each_slice(trace, simulation) -> None:
    runs = ("--trials", 2, "--max-disagreement", 0.2)
    made_up = ("simulate", simulation, "--dataset", "news", "--slices", 3)
    recorded = ("replay", trace, "--slice", "tenant")
    for command, count in ((recorded, 2), (made_up, 3)):
        lines = json_lines(smart(*command, *runs, "--json"))
        assert [line["strategy"] for line in lines] == ["reference", "audit"]
        for line in lines:
            assert (line["slices"], line["slice_violations"]) == (count, 0)
        assert lines[1]["cost_ratio"] < 1
        table = smart(*command, *runs)
        assert f"answers in each of {count} slices" in table.stdout
        assert "slices broken" in table.stdout
    sampled = json_lines(smart(*recorded, *runs, "--sample", 20, "--json"))
    assert {line["slices"] for line in sampled} == {2}


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        (("--recall", "0.9"), "write LABEL=SHARE"),
        (("--slice", "country"), "item 0 has no text or number in this column"),
        (("--slice", "tenant", "--strategy", "mix"), "use 'audit'"),
        (("--recall", "1=most"), "write LABEL=SHARE"),
        (("--max-disagreement", "some"), "write 0.05, or none"),
        (("--max-disagreement", "none"), "nothing is promised"),
        (("--recall", "1=0.9", "--strategy", "mix"), "use 'audit'"),
    ],
)
def test_promises_that_cannot_be_read_are_refused(trace, given, hint) -> None:
    result = smart("replay", trace, *given)
    assert result.exit_code != 0
    assert hint in result.stderr


def test_replay_draws_costs_by_strategy_and_share(trace, tmp_path) -> None:
    options = ("--trials", 1, "--strategy", "audit", "--strategy", "reference")
    shares = ("--max-disagreement", 0.2, "--max-disagreement", 0.1)
    picture = tmp_path / "costs.svg"
    result = smart("replay", trace, *options, *shares, "--json", "--plot", picture)
    assert [
        (line["max_disagreement"], line["strategy"]) for line in json_lines(result)
    ] == [(share, name) for share in (0.2, 0.1) for name in ("audit", "reference")]
    drawn = picture.read_text("utf-8")
    for word in (">10 %<", ">20 %<", ">audit<", ">reference<", ">least possible<"):
        assert word in drawn
    table = smart("replay", trace, *options, *shares, "--plot", tmp_path / "costs.png")
    assert table.stdout.count("60 items, at most 0.") == 2
    assert (tmp_path / "costs.png").read_bytes().startswith(b"\x89PNG")
    refused = smart("replay", trace, "--plot", tmp_path / "costs.gif")
    assert refused.exit_code == 2
    assert "end it in .svg, .png or .pdf" in refused.stderr
    assert refused.stdout == ""


@pytest.mark.parametrize("looks", ["corrected", "paper"])
def test_replay_prints_json_one_line_a_strategy(trace, looks) -> None:
    lines = json_lines(
        smart("replay", trace, "--json", "--trials", 1, "--looks", looks)
    )
    assert [line["strategy"] for line in lines] == STRATEGIES
    for line in lines:
        assert list(line) == KEYS
        assert (line["items"], line["trials"]) == (60, 1)
        assert set(line["calls"]) == {"big", "small", "tiny"}
        assert line["planning_seconds"] > 0
    assert lines[0]["cost_ratio"] == pytest.approx(1)


def test_options_repeat(trace) -> None:
    result = smart(
        *("replay", trace, "--json", "--trials", 1),
        *("--strategy", "mix", "--strategy", "reference", "--strategy", "mix"),
        *("--candidate", "tiny", "--candidate", "small"),
        *("--max-disagreement", 0.3, "--confidence", 0.8, "--reference", "big"),
    )
    lines = json_lines(result)
    assert [line["strategy"] for line in lines] == ["mix", "reference"]
    assert list(lines[0]["calls"]) == ["big", "tiny", "small"]
    assert (lines[0]["max_disagreement"], lines[0]["confidence"]) == (0.3, 0.8)


def test_one_candidate_of_several(trace) -> None:
    (line,) = json_lines(
        smart("replay", trace, "--json", "--strategy", "mix", "--candidate", "small")
    )
    assert set(line["calls"]) == {"big", "small"}
    assert line["trials"] == 20


def test_seeds_repeat_results(trace) -> None:
    def run(seed: int) -> dict:
        arguments = ("--json", "--strategy", "mix", "--trials", 2, "--seed", seed)
        (line,) = json_lines(smart("replay", trace, *arguments))
        del line["planning_seconds"]
        return line

    assert run(3) == run(3)


def test_models_file_can_be_given(trace, tmp_path) -> None:
    other = tmp_path / "other.json"
    content = json.loads(trace.with_name("t.models.json").read_text())
    other.write_text(json.dumps(content | {"candidates": ["tiny"]}))
    result = smart("replay", trace, "--models", other, "--json", "--trials", 1)
    assert set(json_lines(result)[0]["calls"]) == {"big", "tiny"}


def test_simulate_prints_the_same(simulation) -> None:
    arguments = ("simulate", simulation, "--dataset", "news", "--trials", 2)
    lines = json_lines(smart(*arguments, "--json"))
    assert [line["strategy"] for line in lines] == STRATEGIES
    assert all(list(line) == KEYS and line["items"] == 300 for line in lines)
    assert lines[0]["cost_ratio"] < 1.1
    table = smart(*arguments)
    assert table.exit_code == 0
    assert "300 items" in table.stdout


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--strategy", "best"], "strategy='best'"),
        (["--looks", "often"], "looks='often'"),
        (["--max-disagreement", "5"], "max_disagreement=5.0"),
        (["--confidence", "95"], "confidence=95.0"),
        (["--trials", "0"], "trials=0"),
        (["--candidate", "huge"], "model='huge'"),
        (["--reference", "huge"], "model='huge'"),
        (["--models", "gone.json"], "gone.json"),
    ],
)
def test_what_cannot_be_used_is_one_line_on_stderr(trace, arguments, word) -> None:
    result = smart("replay", trace, *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert word in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["replay"],
        ["replay", "gone.jsonl"],
        ["replay", "{trace}", "--trials", "many"],
        ["replay", "{trace}", "--unknown"],
        ["simulate", "{simulation}"],
        ["simulate", "{simulation}", "--dataset", "olds"],
        ["simulate", "gone.json", "--dataset", "news"],
        ["simulate", "{trace}", "--dataset", "news"],
        ["dance"],
    ],
)
def test_misuse_leaves_with_code_2(trace, simulation, arguments) -> None:
    result = smart(*(a.format(trace=trace, simulation=simulation) for a in arguments))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr
    assert "Traceback" not in result.output


def test_python_dash_m_runs_the_command(trace) -> None:
    command = [sys.executable, "-m", "smart_engine", "replay", str(trace)]

    def run(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [*command, *arguments], capture_output=True, text=True, check=False
        )

    good = run("--json", "--strategy", "mix", "--trials", "1")
    assert good.returncode == 0
    assert list(json.loads(good.stdout)) == KEYS
    assert good.stderr == ""
    bad = run("--confidence", "95")
    assert bad.returncode == 2
    assert bad.stdout == ""
    assert bad.stderr.startswith("error: confidence=95.0")
    assert "Traceback" not in bad.stderr


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate as a file."""
    session = BatchSession(
        800, [Tier("big", role="reference"), Tier("small")], Guarantee(0.1, 0.95)
    )
    while calls := session.next_calls():
        for call in calls:
            session.record(call, Outcome("yes", 1.0 if call.tier == "big" else 0.01))
    path = tmp_path_factory.mktemp("verify") / "certificate.json"
    path.write_text(session.certificate.model_dump_json())
    return path


def test_verify_says_what_follows(certificate) -> None:
    result = smart("verify", certificate)
    assert result.exit_code == 0, result.output
    assert "FAILS" not in result.stdout
    assert "draws suffice at level" in result.stdout
    last = result.stdout.splitlines()[-1]
    assert last.startswith("With probability at least 0.95, at most 80 of 800 answers")


def test_verify_finds_out_a_forged_record(certificate, tmp_path) -> None:
    record = json.loads(certificate.read_text())
    record["tests"][0]["errors"] = list(range(1, 10))
    path = tmp_path / "forged.json"
    path.write_text(json.dumps(record))
    result = smart("verify", path)
    assert result.exit_code == 1
    assert "FAILS - 'small': with 9 errors detected" in result.stdout
    assert "does not follow" in result.stdout


def test_verify_lets_no_file_control_the_terminal(certificate, tmp_path) -> None:
    record = json.loads(certificate.read_text())
    record["equivalence"] = record["task"] = "\x1b[2J\x1b]0;owned\x07\u202e"
    record["tests"][0]["policy"] = "\x1b[31msmall"
    path = tmp_path / "forged.json"
    for strategy in ("audit", "\x1b[31m"):
        path.write_text(json.dumps(record | {"strategy": strategy}))
        result = smart("verify", path)
        assert result.exit_code != 0
        assert set(result.output) & set("\x1b\x07\u202e") == set()
        assert "\\x1b[31m" in result.output


NAME = "größe\x1b[31m\0\x9b[bold]:bug:"
"""A model that nobody should be called."""


@pytest.fixture
def odd_files(tmp_path, monkeypatch, trace, certificate) -> list[list[str]]:
    """Files that name such a model, and the commands that show them."""
    monkeypatch.chdir(tmp_path)
    written = json.dumps(NAME)[1:-1]
    for file, name in ((trace, "t.jsonl"), (certificate, "c.json")):
        Path(name).write_text(file.read_text().replace('"small"', f'"{written}"'))
    models = trace.with_name("t.models.json").read_text()
    Path("t.models.json").write_text(models.replace('"small"', f'"{written}"'))
    store = Store("s.db")
    answers = store.answers("a job", write=str, read=str)
    answers.save_outcome(Call(0, NAME), Outcome("yes", 0.25))
    store.close()
    Path("\x1b[2J.json").write_bytes(Path("c.json").read_bytes())
    replay = ["replay", "t.jsonl", "--trials", "1", "--strategy", "mix"]
    shown = [replay, ["report", "c.json", "\x1b[2J.json"], ["report", "s.db"]]
    shown += [["verify", "c.json"], ["report", "gone\x1b"]]
    return [*shown, *([*words, "--json"] for words in shown)]


def test_no_name_controls_the_terminal(odd_files) -> None:
    for words in odd_files:
        result = smart(*words)
        assert result.exit_code == (2 if words[1] == "gone\x1b" else 0), words
        assert set(result.output) & set("\x1b\0\x9b") == set(), words
        if words[0] == "replay" and "--json" not in words:
            assert "größe\\x1b[31m\\x00\\x9b[bold]:bug:" in result.output
    report = Report(spend={NAME: Spend()}, served={}, certificates=())
    assert "\x1b" not in str(report)


def test_a_terminal_of_ascii_shows_all_that_others_do(odd_files) -> None:
    code = f"""
import sys
from smart_engine.__main__ import main
for words in {[*odd_files, ["run", "--help"]]!r}:
    sys.argv[1:] = words
    try:
        main()
    except SystemExit as ended:
        assert not ended.code or words[1] == "gone\\x1b", words
"""
    plain = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    shown = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=False,
        env={**os.environ, **plain, "PYTHONCOERCECLOCALE": "0"},
    )
    assert shown.returncode == 0, shown.stderr
    assert rb"gr\xf6\xdfe\x1b[31m\x00\x9b[bold]" in shown.stdout
    lines = [line for line in shown.stdout.splitlines() if line.startswith(b"{")]
    assert len([json.loads(line) for line in lines]) == 4


def test_verify_says_that_nothing_is_claimed_and_what_it_cannot_see(
    certificate, tmp_path
) -> None:
    seen = smart("verify", certificate).stdout
    assert "no record can show - that the draws were random" in seen
    assert "the task" not in seen  # it has no promise with other jobs
    record = json.loads(certificate.read_text())
    path = tmp_path / "ended.json"
    path.write_text(json.dumps(record | {"valid": False, "uncertified": 300}))
    result = smart("verify", path)
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1].startswith("Nothing is claimed: the budget")


@pytest.mark.parametrize("content", [None, "", "[]", '{"format": 1}'])
def test_verify_refuses_what_is_no_certificate(tmp_path, content) -> None:
    path = tmp_path / "x.json"
    if content is not None:
        path.write_text(content)
    result = smart("verify", path)
    assert result.exit_code == 2
    assert "certificate=" in result.stderr
    assert ": : " not in result.stderr


def test_verify_and_report_print_json(certificate) -> None:
    (printed,) = json_lines(smart("verify", certificate, "--json"))
    assert printed["holds"] is True
    assert all(check["holds"] and check["statement"] for check in printed["checks"])
    (report,) = json_lines(smart("report", certificate, certificate, "--json"))
    assert len(report["certificates"]) == 2
    assert report["certificates"][0]["items"] == 800
    assert report["spend"]["big"]["calls"] == 2 * (800 - report["served"]["small"] / 2)


def test_report_adds_jobs_up(certificate) -> None:
    result = smart("report", certificate, certificate)
    assert result.exit_code == 0
    assert "in 2 batches" in result.stdout
    assert result.stdout.count("at most 80 of 800 answers") == 4
    assert "Who answered, and what it cost" in result.stdout


def test_report_writes_a_page_and_markdown(certificate, tmp_path) -> None:
    page, text = tmp_path / "report.html", tmp_path / "report.md"
    result = smart("report", certificate, "--html", page, "--markdown", text, "--json")
    (report,) = json_lines(result)
    for form in (page.read_text("utf-8"), text.read_text("utf-8")):
        assert "at most 80 of 800 answers" in form
        assert f"{report['spend']['big']['calls']:,}" in form
    assert page.read_text("utf-8").startswith("<!doctype html>")
    Store(tmp_path / "kept.db").bought()
    store = smart("report", tmp_path / "kept.db", "--html", page)
    assert store.exit_code == 2
    assert "stores tell no savings" in store.stderr
    nowhere = smart("report", certificate, "--html", tmp_path / "gone" / "x.html")
    assert nowhere.exit_code == 2
    assert nowhere.stderr.startswith("error: --html=")


def test_report_makes_no_store(tmp_path) -> None:
    letter = tmp_path / "letter.db"
    letter.write_text("Dear reader, this is no database. " * 50)
    for place in (tmp_path / "gone.db", letter):
        result = smart("report", place)
        assert result.exit_code == 2
        assert result.stderr.startswith("error: ")
    assert not (tmp_path / "gone.db").exists()


def file_hashes(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Mode and content of all files of a folder."""
    return {p.name: (p.stat().st_mode, p.read_bytes()) for p in folder.iterdir()}


@pytest.mark.parametrize(
    "words",
    [
        ["report", "c.json", "--html", "mine.html"],
        ["report", "c.json", "--markdown", "mine.html"],
        ["replay", "t.jsonl", "--trials", "1", "--plot", "mine.svg"],
    ],
)
def test_nothing_is_overwritten_unasked(
    certificate, trace, tmp_path, monkeypatch, words
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.json").write_bytes(certificate.read_bytes())
    Path("t.jsonl").write_bytes(trace.read_bytes())
    models = trace.with_name("t.models.json").read_bytes()
    Path("t.models.json").write_bytes(models)
    for name in ("mine.html", "mine.svg"):
        Path(name).write_text("mine")
    before = file_hashes(tmp_path)
    result = smart(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--force writes over it" in result.stderr
    same = smart(*words[:-1], words[1], "--force")
    if words[0] == "report":
        assert "another file of this command" in same.stderr
    assert same.exit_code == 2
    assert file_hashes(tmp_path) == before
    assert smart(*words, "--force").exit_code == 0
    assert Path(words[-1]).read_bytes() != b"mine"


def test_one_file_is_not_written_twice(certificate, tmp_path) -> None:
    place = tmp_path / "report"
    result = smart("report", certificate, "--html", place, "--markdown", place)
    assert result.exit_code == 2
    assert "another file of this command" in result.stderr
    assert not place.exists()


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_report_changes_no_database(tmp_path, journal) -> None:
    theirs = tmp_path / "theirs.db"
    with closing(sqlite3.connect(theirs)) as connection:
        connection.execute(f"pragma journal_mode={journal}")
        connection.execute("create table letters (text)")
    before = file_hashes(tmp_path)
    for place in (theirs, f"sqlite:///{theirs}", "sqlite:///gone.db"):
        result = smart("report", place)
        assert result.exit_code == 2
        assert "this is no store" in result.stderr or "gone.db" in result.stderr
    assert file_hashes(tmp_path) == before


def test_report_reads_a_store_without_changing_it(tmp_path) -> None:
    place = tmp_path / "a?b%20.db"
    store = Store(place)
    answers = store.answers("a job", write=str, read=str)
    answers.save_outcome(Call(0, "big"), Outcome("yes", 0.25))
    open_shows = json_lines(smart("report", place, "--json"))
    store.close()
    with closing(sqlite3.connect(place)) as connection:  # as an older version made it
        connection.execute("alter table smart_outcomes_1 drop column estimated")
    place.chmod(0o444)
    before = file_hashes(tmp_path)
    assert json_lines(smart("report", place, "--json")) == open_shows
    assert open_shows[0]["jobs"]["a job"]["big"]["cost"] == 0.25
    assert file_hashes(tmp_path) == before


def test_demo_shows_what_a_recorded_job_saves_at_each_size(monkeypatch) -> None:
    whole = Trace.example()
    few = dataclasses.replace(whole, rows=whole.rows[:250])
    monkeypatch.setattr(Trace, "example", lambda: few)
    given = ("demo", "--trials", 1, "--max-disagreement", 0.1)
    lines = json_lines(smart(*given, "--json"))
    assert [line["items"] for line in lines] == [100, 250]
    for line in lines:
        assert line["strategy"] == "audit"
        assert line["reference_accuracy"] == pytest.approx(line["accuracy"], abs=0.1)
    shown = smart(*given).stdout
    saved = f"{1 - lines[1]['cost_ratio']:.1%}"
    assert re.search(rf"│ 10 % +│ .* │ {re.escape(saved)} │", shown)
    assert "reference alone" in shown


def test_the_version_and_the_exit_codes_are_shown() -> None:
    assert smart("--version").stdout.startswith("smart-llm ")
    shown = smart("--help").stdout
    for code in ("0 done", "1 a claim", "2 an option", "3 the budget", "130 inter"):
        assert code in " ".join(shown.split())


def test_answers_are_compared_by_the_rule_that_is_named(tmp_path, trace) -> None:
    rows = [json.loads(line) for line in trace.read_text().splitlines()]
    for row in rows:
        row["answers"] = {"big": "Yes.", "small": "yes", "tiny": "no"}
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    words = (path, "--models", trace.with_name("t.models.json"), "--json")
    words = (*words, "--strategy", "exhaustive", "--trials", 1)
    (plain,) = json_lines(smart("replay", *words))
    (normalized,) = json_lines(smart("replay", *words, "--equivalence", "normalized"))
    assert plain["cost_floor"] > normalized["cost_floor"]


@pytest.mark.parametrize(
    ("written", "rule"),
    [
        ("normalized", Normalized()),
        ("exact", Exact()),
        ("label:spam, ham", Label(["spam", "ham"])),
        ("number", Number()),
        ("number:0.01", Number(absolute=0.01)),
        ("date", Date()),
        ("date:%m/%d/%Y", Date(formats=["%m/%d/%Y"])),
        ("items", Items()),
        ("json", Json()),
        ("json:id,time", Json(ignore=["id", "time"])),
    ],
)
def test_a_rule_may_be_written_in_a_word(written, rule) -> None:
    assert read_rule(written).name == rule.name


@pytest.mark.parametrize(
    "written",
    ["", "alike", "exact:", "label", "label:spam", "number:", "number:-1", "date:"],
)
def test_a_word_that_is_no_rule_is_refused(written) -> None:
    with pytest.raises(InvalidInputError):
        read_rule(written)
