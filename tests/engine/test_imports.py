"""`smart import`: logs as their documentation describes them, and odd ones."""

from __future__ import annotations

import csv
import gzip
import io
import json

import pytest

from smart_engine import InvalidInputError, Price, Trace
from smart_engine.offline.imports.content import answer_of, digest
from smart_engine.offline.imports.join import join
from smart_engine.offline.imports.logged import LoggedCall, Skipped
from smart_engine.offline.imports.reader import FORMATS, read_log

typer_testing = pytest.importorskip("typer.testing")
pytest.importorskip("rich")

QUESTION = "Spam or ham? Dear winner, …"
ASKED = [{"role": "user", "content": QUESTION}]
PROMPT_WORD = "winner"


def otlp(value):
    """Write a Python value as OTLP does."""
    if isinstance(value, str):
        return {"stringValue": value}
    return {"intValue": str(value)}


def span(**changes):
    told = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-5",
        "gen_ai.usage.input_tokens": 20,
        "gen_ai.usage.output_tokens": 2,
        "gen_ai.input.messages": json.dumps(
            [{"role": "user", "parts": [{"type": "text", "content": QUESTION}]}]
        ),
        "gen_ai.output.messages": json.dumps(
            [
                {
                    "role": "assistant",
                    "parts": [
                        {"type": "reasoning", "content": "A prize?"},
                        {"type": "text", "content": "spam"},
                    ],
                    "finish_reason": "stop",
                }
            ]
        ),
    } | changes
    listed = [{"key": k, "value": otlp(v)} for k, v in told.items() if v is not None]
    return {"traceId": "5b8e", "spanId": "eee1", "name": "chat", "attributes": listed}


def spans(*given, service="mail"):
    about = [{"key": "service.name", "value": {"stringValue": service}}]
    inner = [{"scope": {"name": "openai"}, "spans": list(given)}]
    return {"resourceSpans": [{"resource": {"attributes": about}, "scopeSpans": inner}]}


LANGFUSE = {
    "id": "o1",
    "traceId": "t1",
    "projectId": "mail",
    "type": "GENERATION",
    "name": "classify",
    "level": "DEFAULT",
    "providedModelName": "gpt-5",
    "input": json.dumps({"messages": ASKED}),
    "output": {"role": "assistant", "content": "spam"},
    "usageDetails": {
        "input": 12,
        "input_cached_tokens": 8,
        "output": 2,
        "total": 22,
    },
    "costDetails": {"input": 0.1, "output": 0.2, "total": 0.3},
}
LANGFUSE_FLAT = {
    "id": "o1",
    "trace_id": "t1",
    "project_id": "mail",
    "type": "GENERATION",
    "name": "classify",
    "level": "DEFAULT",
    "provided_model_name": "gpt-5",
    "input": json.dumps(ASKED),
    "output": "spam",
    "usage_details": json.dumps({"input": 20, "output": 2, "total": 22}),
    "total_cost": "0.3",
}
LANGSMITH = {
    "id": "r1",
    "name": "ChatOpenAI",
    "run_type": "llm",
    "session_name": "mail",
    "inputs": {
        "messages": [
            [
                {
                    "lc": 1,
                    "type": "constructor",
                    "id": ["langchain", "schema", "messages", "HumanMessage"],
                    "kwargs": {"content": QUESTION, "type": "human"},
                }
            ]
        ]
    },
    "outputs": {
        "generations": [
            [
                {
                    "text": "spam",
                    "type": "ChatGeneration",
                    "message": {
                        "lc": 1,
                        "type": "constructor",
                        "id": ["langchain", "schema", "messages", "AIMessage"],
                        "kwargs": {
                            "content": "spam",
                            "usage_metadata": {
                                "input_tokens": 20,
                                "output_tokens": 2,
                                "total_tokens": 22,
                            },
                        },
                    },
                }
            ]
        ]
    },
    "extra": {"metadata": {"ls_model_name": "gpt-5", "ls_provider": "openai"}},
    "error": None,
}
WRAPPED = {
    "id": "r2",
    "name": "ChatOpenAI",
    "run_type": "llm",
    "session_name": "mail",
    "prompt_tokens": 20,
    "completion_tokens": 2,
    "inputs": {"messages": ASKED},
    "outputs": {"choices": [{"message": {"role": "assistant", "content": "spam"}}]},
    "extra": {"invocation_params": {"model": "gpt-5"}},
}
BATCH = {
    "id": "batch_req_1",
    "custom_id": "mail-1",
    "response": {
        "status_code": 200,
        "request_id": "req_1",
        "body": {
            "object": "chat.completion",
            "model": "gpt-5",
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": "spam"}}
            ],
            "usage": {"prompt_tokens": 20, "completion_tokens": 2, "total_tokens": 22},
        },
    },
    "error": None,
}
RESPONSES = BATCH | {
    "response": {
        "status_code": 200,
        "body": {
            "object": "response",
            "model": "gpt-5",
            "output": [
                {"type": "reasoning", "summary": []},
                {
                    "type": "message",
                    "role": "assistant",
                    "content": [{"type": "output_text", "text": "spam"}],
                },
            ],
            "usage": {"input_tokens": 20, "output_tokens": 2, "total_tokens": 22},
        },
    }
}
CHAT = {
    "request": {"model": "gpt-5", "messages": ASKED},
    "response": BATCH["response"]["body"],
}
BESIDE = {"messages": ASKED, "response": RESPONSES["response"]["body"]}
LITELLM = {
    "request_id": "chatcmpl-1",
    "call_type": "acompletion",
    "model": "gpt-5",
    "custom_llm_provider": "openai",
    "spend": 0.0003,
    "prompt_tokens": 20,
    "completion_tokens": 2,
    "total_tokens": 22,
    "cache_hit": "False",
    "status": "success",
    "messages": ASKED,
    "response": {"choices": [{"message": {"role": "assistant", "content": "spam"}}]},
}
ROW = {
    "model": "gpt-5",
    "input": QUESTION,
    "answer": "spam",
    "input_tokens": 20,
    "output_tokens": 2,
    "gold": "spam",
}
OLD = span(
    **dict.fromkeys(("gen_ai.input.messages", "gen_ai.output.messages")),
    **{"gen_ai.prompt.0.role": "user", "gen_ai.prompt.0.content": QUESTION},
    **{"gen_ai.completion.0.content": "spam", "gen_ai.usage.prompt_tokens": 20},
    **{"gen_ai.usage.input_tokens": None, "gen_ai.usage.output_tokens": None},
    **{"gen_ai.usage.completion_tokens": 2},
)
LOGS = {
    "langfuse": [LANGFUSE, LANGFUSE_FLAT],
    "langsmith": [LANGSMITH, WRAPPED],
    "otel": [spans(span()), spans(OLD)],
    "openai-batch": [BATCH, RESPONSES],
    "openai-chat": [CHAT, BESIDE],
    "litellm": [LITELLM],
    "table": [ROW],
}


def lines(*records) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def cells(*records) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]))
    writer.writeheader()
    for record in records:
        flat = {
            k: json.dumps(v) if isinstance(v, dict | list) else v
            for k, v in record.items()
        }
        writer.writerow(flat)
    return text.getvalue().encode()


def read(content: bytes, format_name=None) -> list:
    return [call for _, call in read_log("log", content, format_name)]


def smart(*arguments):
    from smart_engine.cli.app import app

    runner = typer_testing.CliRunner(env={"COLUMNS": "400", "NO_COLOR": "1"})
    return runner.invoke(app, [str(argument) for argument in arguments])


CASES = [(name, record) for name, records in LOGS.items() for record in records]


@pytest.mark.parametrize(("name", "record"), CASES)
@pytest.mark.parametrize(
    "written",
    [
        lines,
        cells,
        lambda *records: json.dumps(records).encode(),
        lambda *records: json.dumps({"data": records}, indent=2).encode(),
        lambda *records: gzip.compress(lines(*records)),
    ],
    ids=["lines", "cells", "array", "reply", "zipped"],
)
def test_a_call_is_read_whatever_the_form_of_its_file(name, record, written) -> None:
    if written is cells and name in {"otel", "openai-batch"}:
        return  # these are never written as cells
    for chosen in (None, name):
        (call,) = read(written(record), chosen)
        assert (call.model, call.answer, call.tokens) == ("gpt-5", "spam", (20, 2))
        asked = {"custom_id": "mail-1"} if name == "openai-batch" else QUESTION
        assert digest(call.asked) == digest(asked)


def test_every_format_has_a_sample() -> None:
    assert LOGS.keys() == FORMATS.keys()


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (LANGFUSE | {"type": "SPAN"}, "but SPAN"),
        (LANGFUSE | {"level": "ERROR"}, "failed"),
        (LANGFUSE | {"output": None}, "no answer"),
        (LANGFUSE | {"input": ""}, "no input"),
        (LANGFUSE | {"providedModelName": None}, "no model"),
        (LANGSMITH | {"run_type": "chain"}, "but chain"),
        (LANGSMITH | {"error": "RateLimitError"}, "failed"),
        (spans(span(**{"gen_ai.operation.name": "embeddings"})), "but embeddings"),
        (spans(span(**{"error.type": "timeout"})), "failed"),
        (spans(span() | {"status": {"code": 2}}), "failed"),
        (spans(span(**{"gen_ai.output.messages": None})), "no answer"),
        (spans({"name": "GET /", "attributes": []}), "another span"),
        (BATCH | {"response": {"status_code": 400, "body": {}}}, "failed"),
        (BATCH | {"response": None, "error": {"code": "batch_expired"}}, "failed"),
        ({"custom_id": "a", "method": "POST", "body": {}}, "no answer"),
        (CHAT | {"error": "timeout"}, "failed"),
        (LITELLM | {"cache_hit": "True"}, "from a cache"),
        (LITELLM | {"status": "failure"}, "failed"),
        (LITELLM | {"messages": {}, "response": {}}, "store_prompts"),
        (LITELLM | {"call_type": "aembedding"}, "but aembedding"),
        (ROW | {"cached": "true"}, "from a cache"),
        (ROW | {"error": "timeout"}, "failed"),
    ],
)
def test_a_row_that_is_no_use_is_left_out_with_a_reason(record, reason) -> None:
    (skipped,) = read(lines(record))
    assert isinstance(skipped, Skipped)
    assert reason in skipped.reason


@pytest.mark.parametrize(
    "record",
    [
        LANGFUSE | {"usageDetails": {}, "usage": None},
        LANGFUSE | {"usageDetails": {"total": 22}},
        WRAPPED | {"prompt_tokens": 0, "completion_tokens": 0},
        WRAPPED | {"completion_tokens": None},
        spans(span(**{"gen_ai.usage.output_tokens": None})),
        LITELLM | {"prompt_tokens": 0, "completion_tokens": 0},
        ROW | {"output_tokens": ""},
    ],
)
def test_a_call_without_usage_is_told_from_one_with(record) -> None:
    (call,) = read(lines(record))
    assert call.tokens is None


def test_what_is_cut_off_loses_only_its_end() -> None:
    three = [ROW | {"input": f"mail {number}"} for number in range(3)]
    for content, kept in (
        (json.dumps(three).encode()[:-40], 2),
        (lines(*three)[:-40], 2),
        (gzip.compress(lines(*[ROW] * 500))[:-12], 1),
        (cells(*three)[:-14], 2),
    ):
        *calls, end = read(content)
        assert sum(isinstance(call, LoggedCall) for call in calls) >= kept
        assert isinstance(end, Skipped)
    assert [type(call) for call in read(lines(ROW) + b"nonsense\n" + lines(ROW))] == [
        *(LoggedCall, Skipped, LoggedCall)
    ]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "nothing in it"),
        (b"\n  \n", "nothing in it"),
        (b'{"colour": "red"}\n', "no known format"),
        (b"%PDF-1.7\x00\xff", "no known format"),
        (b"[]", "nothing in it"),
        (json.dumps(spans(span())).encode()[:90], "no known format"),
    ],
)
def test_a_file_that_is_no_log_is_refused(content, problem) -> None:
    with pytest.raises(InvalidInputError, match=problem):
        read(content)
    with pytest.raises(InvalidInputError, match="format"):
        read(lines(ROW), "xml")


def places(value, path=()):
    """Yield the way to every value within a record."""
    yield path
    inner = dict(enumerate(value)) if isinstance(value, list) else value
    for key, each in inner.items() if isinstance(inner, dict) else ():
        yield from places(each, (*path, key))


def changed(value, path, other):
    if not path:
        return other
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(value[path[0]], path[1:], other)
    return copy


@pytest.mark.parametrize(("name", "record"), CASES)
def test_no_value_in_a_record_breaks_its_reader(name, record) -> None:
    others: tuple[object, ...] = (None, "", "x", -1, 1e999, 10**400, True)
    others += ([], [[]], [None], {}, {"a": {}}, "\ud800", {"tool_calls": 5})
    others += ({"arrayValue": {"values": 5}},)
    for path in places(record):
        for other in others:
            broken = changed(record, path, other)
            content = json.dumps([record, broken]).encode()
            for call in read(content, name):
                if isinstance(call, Skipped):
                    assert call.reason.encode()
                else:
                    joined = join(
                        [call._replace(tokens=call.tokens or (1, 1))],
                        {call.model: Price(1, 1)},
                    )
                    assert joined.rows[0].model_dump_json()


@pytest.mark.parametrize(
    "deep",
    [
        {"gold": "["},
        {"answer": '{"text":'},
        {"input": [{"role": "user", "content": '{"text":'}]},
    ],
)
def test_what_is_nested_too_deeply_is_left_out(deep) -> None:
    text = json.dumps(ROW | deep)
    for opening in ('{"text":', "["):
        closing = {"[": "]"}.get(opening, "}")
        nested = opening * 800 + "1" + closing * 800
        text = text.replace(json.dumps(opening), nested)
    first, second = read(lines(ROW) + text.encode())
    assert isinstance(first, LoggedCall)
    assert isinstance(second, Skipped)
    assert "nested too deeply" in second.reason


def test_a_format_that_is_named_wins_and_tells_what_does_not_fit() -> None:
    (call,) = read(lines({"question": "mail", "answer": "ham"}), "table")
    assert "no column model" in call.reason
    (call,) = read(lines(ROW), "litellm")
    assert "no record of litellm" in call.reason


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (
            {"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            "ab",
        ),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": "?"},
                    {"type": "text", "text": "a"},
                ]
            },
            "a",
        ),
        ({"candidates": [{"content": {"parts": [{"text": "a"}]}}]}, "a"),
        (
            {"tool_calls": [{"function": {"name": "f", "arguments": '{"x": 1}'}}]},
            '[{"arguments": {"x": 1}, "name": "f"}]',
        ),
        (
            {"content": [{"type": "tool_use", "name": "f", "input": {"x": 1}}]},
            '[{"arguments": {"x": 1}, "name": "f"}]',
        ),
        (7, "7"),
        (None, ""),
        ({}, ""),
    ],
)
def test_answers_of_all_shapes(reply, answer) -> None:
    assert answer_of(reply) == answer


def test_calls_are_joined_by_what_was_asked_also_again() -> None:
    calls = [
        LoggedCall(model, asked, f"{model} {n}", (9, 1))
        for model in ("big", "small", "rare")
        for n, asked in enumerate(["a", "b", "a"])
        if model != "rare" or n == 1
    ]
    prices = {"big": Price(2, 8), "small": Price(1, 4), "rare": Price(1, 4)}
    joined = join(calls, prices)
    assert (joined.reference, joined.candidates) == ("big", ["small"])
    assert joined.shared == {"small": 3, "rare": 1}
    answers = [row.answers for row in joined.rows]
    assert answers == [{m: f"{m} {n}" for m in ("big", "small")} for n in (0, 1, 2)]
    assert len(join(calls, prices, candidates=["small", "rare"]).rows) == 1
    with pytest.raises(InvalidInputError, match="no usable call"):
        join(calls, prices, reference="medium")
    with pytest.raises(InvalidInputError, match="no call is left"):
        join(calls, {})


PRICES = ("--price", "gpt-5=1.25,10", "--price", "gpt-5-mini=0.25,2")


@pytest.fixture
def logs(tmp_path):
    """60 mails, answered by gpt-5 in one log and by gpt-5-mini in another."""
    paths = []
    for model, wrong in (("gpt-5", ()), ("gpt-5-mini", {7})):
        rows = [
            ROW
            | {"model": model, "input": f"{QUESTION} {n}"}
            | {"answer": "ham" if n in wrong else "spam"}
            for n in range(60)
        ]
        path = tmp_path / f"{model}.jsonl"
        path.write_bytes(lines(*rows))
        paths.append(path)
    return paths


def test_a_trace_of_two_logs_is_replayed(logs, tmp_path) -> None:
    out = tmp_path / "trace.jsonl"
    shown = smart("import", *logs, "-o", out, *PRICES)
    assert shown.exit_code == 0, shown.output
    assert "gpt-5-mini: 60 of its inputs (candidate)" in shown.stdout
    trace = Trace.read(out)
    assert (trace.reference, trace.candidates) == ("gpt-5", ["gpt-5-mini"])
    assert len(trace.rows) == 60
    assert (
        PROMPT_WORD
        not in out.read_text() + (tmp_path / "trace.models.json").read_text()
    )
    replayed = smart("replay", out, "--strategy", "audit", "--trials", 1, "--json")
    result = json.loads(replayed.stdout)
    assert result["items"] == 60
    assert result["reference_accuracy"] == 1
    assert result["reference_cost"] == pytest.approx(60 * (20 * 1.25 + 2 * 10) / 1e6)
    again = smart("import", *logs, "-o", out, *PRICES)
    assert again.exit_code == 2
    assert "--force" in again.stderr


def test_rows_that_are_left_out_are_counted_and_shown(tmp_path) -> None:
    path, out = tmp_path / "log.jsonl", tmp_path / "trace.jsonl"
    streamed = ROW | {"input_tokens": None, "output_tokens": None}
    path.write_bytes(lines(ROW, streamed, ROW | {"error": "x"}, streamed) + b"{")
    shown = smart("import", path, "-o", out, *PRICES[:2])
    assert shown.exit_code == 0, shown.output
    assert (
        f"left out: 2, no usage is logged (--estimate-usage); the first: {path}, line 2"
        in shown.stdout
    )
    assert "left out: 1, the call failed" in shown.stdout
    assert "left out: 1, this is no JSON, or cut off" in shown.stdout
    assert f"smart estimate {out}" in shown.stdout
    assert PROMPT_WORD not in shown.stdout
    more = ("--estimate-usage", "--force", "--json")
    told = json.loads(smart("import", path, "-o", out, *PRICES[:2], *more).stdout)
    assert (told["items"], told["estimated_usage"]) == (3, 2)
    assert told["left_out"] == {"the call failed": 1, "this is no JSON, or cut off": 1}


def test_projects_are_not_mixed_and_prices_are_not_guessed(tmp_path) -> None:
    path, out = tmp_path / "log.jsonl", tmp_path / "trace.jsonl"
    named = [LANGFUSE, LANGFUSE | {"projectId": "shop"}]
    path.write_bytes(lines(*named))
    mixed = smart("import", path, "-o", out, *PRICES[:2])
    assert mixed.exit_code == 2
    assert "mail (1), shop (1)" in mixed.stderr
    one = smart("import", path, "-o", out, *PRICES[:2], "--project", "shop", "--json")
    told = json.loads(one.stdout)
    assert (told["items"], told["left_out"]) == (1, {"of another project": 1})
    free = smart("import", path, "-o", out, "--project", "shop", "--force")
    assert free.exit_code == 2
    assert "add --price gpt-5=IN,OUT" in free.stdout
    assert "no call is left that has a price" in free.stderr
    typo = smart("import", path, "-o", out, "--price", "gpt5=1,2", "--force")
    assert typo.exit_code == 2


def test_what_a_candidate_would_have_to_reach_is_estimated_from_one_model(
    tmp_path,
) -> None:
    path, out = tmp_path / "log.jsonl", tmp_path / "trace.jsonl"
    path.write_bytes(lines(*[ROW | {"input": f"{QUESTION} {n}"} for n in range(200)]))
    assert smart("import", path, "-o", out, *PRICES[:2]).exit_code == 0
    given = ("estimate", out, "--max-disagreement", 0.1)
    found = json.loads(smart(*given, "--json").stdout)
    assert (found["items"], found["max_errors"]) == (200, 20)
    best, *_, worst = found["candidates"]
    assert best["saved"] > 0.3 > worst["saved"]
    assert best["differing"] == 0 < found["break_even"]["0.04"]
    shown = smart(*given).stdout
    assert "200 answers of gpt-5" in shown
    assert "pays if it differs on at most about" in shown
    missing = smart("estimate", path)
    assert missing.exit_code == 2
    assert "--reference" in missing.stderr
    labelled = smart(*given, "--recall", "spam=0.9")
    assert labelled.exit_code == 2
    assert "imagined candidates give no labels" in labelled.stderr
    alone = smart("replay", out)
    assert alone.exit_code == 2
    assert "smart estimate" in alone.stderr


def test_a_log_without_a_usable_call_says_why(tmp_path) -> None:
    path, out = tmp_path / "log.jsonl", tmp_path / "trace.jsonl"
    path.write_bytes(lines(ROW | {"input_tokens": None, "output_tokens": None}))
    for named in ([], ["--reference", "gpt-5"]):
        shown = smart("import", path, "-o", out, *PRICES[:2], *named)
        assert shown.exit_code == 2
        assert "left out: 1, no usage is logged (--estimate-usage)" in shown.stdout
        assert "no call is left" in shown.stderr
