"""Recorded answers: reading good and broken files, replaying, simulating."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smart_engine import (
    Failure,
    Guarantee,
    InvalidInputError,
    Normalized,
    Outcome,
    Price,
    Trace,
)
from smart_engine.offline import traces
from smart_engine.offline.replay import accuracy, replay, savings
from smart_engine.offline.traces import Row, Sample, Simulation, read_simulation

DATA = Path(traces.__file__).with_name("data")

MODELS = {
    "reference": "big",
    "candidates": ["small"],
    "prices_usd_per_million_tokens": {
        "big": {"input": 10, "output": 20},
        "small": {"input": 1, "output": 2},
    },
}
KEYS = (
    "strategy items trials max_disagreement confidence cost_ratio cost_ratio_max "
    "cost_floor agreement_mean agreement_min violations reference_share calls "
    "planning_seconds rounds reference_cost reference_accuracy accuracy recall "
    "precision label_violations slices slice_violations"
)


def row(item: int = 0, **changes: object) -> dict:
    """One recorded item on which both models agree."""
    return {
        "item_id": f"item-{item}",
        "input": f"question {item}",
        "answers": {"big": "yes", "small": "yes"},
        "tokens": {"big": [100, 10], "small": [100, 10]},
    } | changes


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., Path]:
    """Write a trace and its models file; return the trace's path."""

    def write(
        rows: list, models: object = MODELS, name: str = "log.jsonl", about: str = ""
    ) -> Path:
        lines = [r if isinstance(r, str) else json.dumps(r) for r in rows]
        data = "".join(f"{line}\n" for line in lines).encode()
        path = tmp_path / name
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        stem = name.removesuffix(".gz").removesuffix(".jsonl")
        (tmp_path / (about or f"{stem}.models.json")).write_text(json.dumps(models))
        return path

    return write


# -- reading -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["log.jsonl", "log.jsonl.gz", "my.log.jsonl.gz"])
def test_reads_a_trace_and_the_models_file_beside_it(files, name) -> None:
    path = files([row(0), row(1, confidence={"small": 0.7})], name=name)
    for trace in (Trace.read(path), Trace.read(str(path))):
        assert (trace.reference, list(trace.candidates)) == ("big", ["small"])
        assert len(trace.rows) == 2
        assert trace.prices["small"] == Price(1.0, 2.0)
        big, small = trace.outcome(1, "big"), trace.outcome(1, "small")
        assert big.cost == pytest.approx((100 * 10 + 10 * 20) / 1e6)
        assert small.answer == "yes"
        assert (big.confidence, small.confidence) == (None, 0.7)


def test_reads_a_models_file_of_any_name(files, tmp_path) -> None:
    path = files([row()], about="prices.json")
    assert Trace.read(path, tmp_path / "prices.json").reference == "big"
    with pytest.raises(InvalidInputError, match=r"log\.models\.json"):
        Trace.read(path)


def test_arguments_take_the_place_of_the_files_roles(files) -> None:
    trace = Trace.read(files([row()]), reference="small", candidates=["big"])
    assert (trace.reference, trace.candidates) == ("small", ["big"])
    # A new reference is not its own candidate.
    assert Trace.read(files([row()]), reference="small").candidates == []


def test_what_was_not_recorded_is_optional(files) -> None:
    bare = {key: row()[key] for key in ("answers", "tokens")}
    trace = Trace.read(files([bare, row(1, gold=1, input=None, more="ignored")]))
    assert trace.rows[0].gold is None
    assert trace.rows[1].gold == 1


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "null",
        '"text"',
        "{}",
        json.dumps(row(answers=None)),
        json.dumps(row(answers=["yes"])),
        json.dumps(row(tokens={"big": [1]})),
        json.dumps(row(tokens={"big": [1, 2, 3]})),
        json.dumps(row(tokens={"big": ["many", 2]})),
        json.dumps(row(confidence={"big": "high"})),
        json.dumps({"answers": {}}),
        json.dumps({"tokens": {}}),
    ],
)
@pytest.mark.parametrize("name", ["log.jsonl", "log.jsonl.gz"])
def test_a_broken_line_is_named(files, line, name) -> None:
    path = files([row(0), row(1), line, row(3)], name=name)
    with pytest.raises(InvalidInputError, match="line 3") as error:
        Trace.read(path)
    assert error.value.field == "items"
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "data",
    [b"", b"no gzip", gzip.compress(b"x" * 100, mtime=0)[:25], b"\x1f\x8b"],
)
def test_a_broken_archive_is_named(files, data) -> None:
    path = files([row()], name="log.jsonl.gz")
    path.write_bytes(data or b"\xff\xfe")
    with pytest.raises(InvalidInputError, match=r"log\.jsonl\.gz, line 1"):
        Trace.read(path)


def test_missing_files_and_folders_are_named(files, tmp_path) -> None:
    (tmp_path / "gone.models.json").write_text(json.dumps(MODELS))
    with pytest.raises(InvalidInputError, match=r"gone\.jsonl.*No such file"):
        Trace.read(tmp_path / "gone.jsonl")
    with pytest.raises(InvalidInputError, match="items="):
        Trace.read(tmp_path)
    with pytest.raises(InvalidInputError, match=r"other\.json.*No such file"):
        Trace.read(files([row()]), tmp_path / "other.json")


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({"reference": None}, {}, "reference=None: name one"),
        ({"reference": "huge"}, {}, "'huge'.*no price.*big, small"),
        ({"candidates": ["tiny"]}, {}, "'tiny'.*no price"),
        ({}, {"candidates": ["tiny"]}, "'tiny'.*no price"),
        ({}, {"reference": "huge"}, "'huge'.*no price"),
        ({"prices_usd_per_million_tokens": {}}, {}, "'big'.*no price.*none"),
        ({"reference": 3}, {}, "models=.*reference"),
        ({"candidates": "small"}, {}, "models=.*candidates"),
        (
            {"prices_usd_per_million_tokens": {"big": {"input": 1}}},
            {},
            "models=.*big.output",
        ),
    ],
)
def test_missing_models_and_prices_are_named(files, changes, arguments, message):
    path = files([row()], MODELS | changes)
    with pytest.raises(InvalidInputError, match=message):
        Trace.read(path, **arguments)


def test_a_priced_model_without_answers_is_named(files) -> None:
    models = json.loads(json.dumps(MODELS))
    models["prices_usd_per_million_tokens"]["mute"] = {"input": 1, "output": 1}
    with pytest.raises(InvalidInputError, match=r"'mute'.*no answers.*big, small"):
        Trace.read(files([row()], models), candidates=["mute"])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
SHAPED = st.fixed_dictionaries(
    {"answers": JSON, "tokens": JSON}, optional={"confidence": JSON, "item_id": JSON}
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists((JSON | SHAPED).map(json.dumps) | st.text(), max_size=3))
def test_garbage_lines_are_refused_and_nothing_worse(files, lines) -> None:
    path = files([row(), *lines])
    with suppress(InvalidInputError):
        assert len(Trace.read(path).rows) >= 1


@given(st.lists(st.text("ab ", max_size=6), max_size=8), st.text("ab ", max_size=20))
def test_find_takes_the_longest_input_the_prompt_contains(inputs, prompt) -> None:
    rows = [Row(input=text, answers={}, tokens={}) for text in inputs]
    found = Trace(rows, "big", []).find(prompt)
    contained = [text for text in inputs if text and text in prompt]
    if prompt in inputs:
        assert found == inputs.index(prompt)
    elif contained:
        assert len(inputs[found]) == max(map(len, contained))
        assert inputs[found] in prompt
        assert inputs.index(inputs[found]) == found
    else:
        assert found is None


# -- replaying -----------------------------------------------------------------


def test_a_replays_numbers_on_a_tiny_trace(files) -> None:
    # Too few items to show anything: all are profiled, by both models.
    trace = Trace.read(files([row(0), row(1), row(2, answers={"big": 1, "small": 2})]))
    result = replay(trace, Guarantee(0.1, 0.9), strategy="exhaustive", trials=2)
    assert set(type(result).model_fields) == set(KEYS.split())
    assert list(json.loads(result.model_dump_json())) == KEYS.split()
    assert result.model_dump() == {
        "strategy": "exhaustive",
        "items": 3,
        "trials": 2,
        "max_disagreement": 0.1,
        "confidence": 0.9,
        "cost_ratio": pytest.approx(1.1),
        "cost_ratio_max": pytest.approx(1.1),
        "cost_floor": pytest.approx((1 + 0.1 + 0.1) / 3),
        "agreement_mean": 1,
        "agreement_min": 1,
        "violations": 0,
        "reference_share": 1,
        "calls": {"big": 3, "small": 3},
        "planning_seconds": 0,
        "reference_cost": pytest.approx(3 * (100 * 10 + 10 * 20) / 1e6),
        "reference_accuracy": None,
        "accuracy": None,
        "rounds": result.rounds,
        "recall": {},
        "precision": {},
        "label_violations": 0.0,
        "slices": 0.0,
        "slice_violations": 0.0,
    }


def test_a_replays_numbers_where_the_candidate_serves() -> None:
    wrong = {3, 100, 250}
    rows = [
        Row(**row(i, answers={"big": 1, "small": int(i not in wrong)}))
        for i in range(400)
    ]
    trace = Trace(rows, "big", ["small"], {"big": Price(10, 0), "small": Price(1, 0)})
    result = replay(trace, Guarantee(0.1, 0.9), strategy="exhaustive", trials=5)
    big, small = result.calls["big"], result.calls["small"]
    assert small == 400
    assert 20 < big < 200
    assert result.reference_share == pytest.approx(big / 400)
    assert result.cost_ratio == pytest.approx((big + small / 10) / 400)
    assert result.cost_ratio <= result.cost_ratio_max
    assert 1 - 3 / 400 <= result.agreement_min <= result.agreement_mean < 1
    assert result.violations == 0


def test_accuracy_is_that_of_items_whose_true_answer_is_known() -> None:
    rows = [
        Row(**row(i, answers={"big": "Yes", "small": "no"}, gold=gold))
        for i, gold in enumerate(["yes", "no", "yes", None])
    ]
    trace = Trace(rows, "big", ["small"], {"big": Price(9, 9), "small": Price(1, 1)})
    result = replay(
        trace, Guarantee(), strategy="reference", trials=2, equivalence=Normalized()
    )
    assert result.reference_accuracy == result.accuracy == pytest.approx(2 / 3)
    assert accuracy(["no", None], ["no", "no"], Normalized()) == 0.5
    assert accuracy(["no"], [None], Normalized()) is None


def test_each_trial_of_a_sample_draws_its_own_items() -> None:
    rows = [
        Row(**row(i, answers={"big": str(i), "small": str(i)}, gold=str(i)))
        for i in range(30)
    ]
    trace = Trace(rows, "big", ["small"], {"big": Price(9, 9), "small": Price(1, 1)})
    sample = Sample(trace, 10)
    drawn = [[r.answer for r in sample.outcomes(seed)["big"]] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] == sample.gold(0)
    assert len(set(drawn[0])) == 10
    assert set(drawn[0]) != set(drawn[2])
    assert replay(sample, Guarantee(), trials=2).items == 10
    sizes = [each.items for each in savings(trace, [10, 20, 99], [0.1], trials=1)]
    assert sizes == [10, 20, 30]


def test_the_package_brings_a_recorded_job() -> None:
    trace = Trace.example()
    assert len(trace.rows) == 5250
    assert not any(row.input for row in trace.rows)
    stated = json.loads((DATA / "toxicity.models.json").read_text(encoding="utf-8"))
    assert "CC BY 4.0" in stated["license"]
    for model, share in stated["agreement_with_reference"].items():
        same = [
            row.answers[model] == row.answers[trace.reference] for row in trace.rows
        ]
        assert sum(same) / 5250 == pytest.approx(share, abs=5e-4)
        assert {row.answers[model] for row in trace.rows} == {"0", "1"}
    assert sum(file.stat().st_size for file in DATA.iterdir()) < 300_000


def test_violations_count_trials_that_exceed_the_budget() -> None:
    table = {
        "big": [Outcome(0, 1.0)] * 40,
        "small": [Outcome(1, 0.0)] * 40,
    }
    liar = SimpleNamespace(
        reference="big", candidates=["small"], outcomes=lambda seed: table
    )
    strict = replay(liar, Guarantee(0.5, 0.9), strategy="exhaustive", trials=4)
    assert strict.violations == 0  # wrong wherever it serves, but it serves few
    assert strict.agreement_min >= 0.5
    table["big"] = [Failure(RuntimeError(), 1.0)] * 40  # no answer is no agreement
    broken = replay(liar, Guarantee(0.5, 0.9), strategy="reference", trials=4)
    assert (broken.violations, broken.agreement_mean) == (1, 0)


@pytest.mark.parametrize(
    "gap", [{"answers": {"big": "yes"}}, {"tokens": {"big": [100, 10]}}]
)
def test_missing_recorded_answers_are_failures(files, gap) -> None:
    trace = Trace.read(files([row(0), row(1, **gap)]))
    failure = trace.outcome(1, "small")
    assert isinstance(failure, Failure)
    assert "small" in str(failure.error)
    assert "item-1" in str(failure.error)
    assert failure.cost == 0
    assert isinstance(trace.outcome(0, "small"), Outcome)
    assert replay(trace, Guarantee(), trials=1).agreement_min == 1


def test_same_seed_same_result_and_other_seeds_draw_other_items() -> None:
    models = Simulation(800, "big", {"small": 0.97}, {"big": 1.0, "small": 0.1})

    def run(seed: int, trials: int = 3):
        return replay(models, Guarantee(0.1, 0.9), seed=seed, trials=trials)

    assert run(0) == run(0)
    assert run(0) != run(50)
    parts = [run(seed, trials=1) for seed in (0, 1, 2)]  # trial t runs with seed + t
    assert run(0).cost_ratio == pytest.approx(sum(p.cost_ratio for p in parts) / 3)
    assert run(0).cost_ratio_max == max(p.cost_ratio for p in parts)
    assert run(0).agreement_min == min(p.agreement_min for p in parts)


def test_replays_compare_by_the_rule_they_are_given() -> None:
    rows = [Row(**row(i, answers={"big": "Yes.", "small": "yes"})) for i in range(600)]
    trace = Trace(rows, "big", ["small"], {"big": Price(9, 9), "small": Price(1, 1)})
    exact = replay(trace, Guarantee(), strategy="exhaustive", trials=2)
    folded = replay(
        trace, Guarantee(), strategy="exhaustive", trials=2, equivalence=Normalized()
    )
    assert exact.reference_share == 1
    assert folded.reference_share < 0.5
    assert folded.agreement_min == 1


def test_planning_time_is_read_from_the_clock_handed_in() -> None:
    ticks = iter(range(100))
    models = Simulation(10, "big", {"small": 1.0}, {"big": 1.0, "small": 0.1})
    result = replay(models, Guarantee(), trials=3, clock=lambda: float(next(ticks)))
    assert result.planning_seconds == 1


def test_a_free_reference_makes_no_ratio() -> None:
    models = Simulation(50, "big", {"small": 1.0}, {"big": 0.0, "small": 0.0})
    assert replay(models, Guarantee(), trials=1).cost_ratio == 1


@pytest.mark.parametrize(
    ("items", "arguments", "field"),
    [
        (10, {"trials": 0}, "trials"),
        (10, {"trials": -1}, "trials"),
        (10, {"strategy": "best"}, "strategy"),
        (10, {"looks": "often"}, "looks"),
        (10, {"equivalence": 3}, "equivalence"),
        (0, {}, "items"),
    ],
)
def test_replay_refuses_what_it_cannot_use(items, arguments, field) -> None:
    models = Simulation(items, "big", {"small": 1.0}, {"big": 1.0, "small": 0.1})
    with pytest.raises(InvalidInputError) as error:
        replay(models, Guarantee(), **arguments)
    assert error.value.field == field


# -- simulating ----------------------------------------------------------------


def test_simulated_answers_have_the_asked_agreement() -> None:
    shares = {"a": 0.9, "b": 0.5, "c": 1.0, "d": 0.0}
    models = Simulation(20_000, "big", shares, dict.fromkeys(["big", *shares], 0.1))
    table = models.outcomes(1)
    assert list(table) == ["big", "a", "b", "c", "d"]
    for name, share in shares.items():
        rows = zip(table[name], table["big"], strict=True)
        agreeing = sum(o.answer == truth.answer for o, truth in rows) / 20_000
        assert agreeing == pytest.approx(share, abs=0.015)
    rows = zip(table["a"], table["b"], table["big"], strict=True)
    both = sum(x.answer == y.answer == truth.answer for x, y, truth in rows)
    assert both / 20_000 == pytest.approx(0.45, abs=0.02)  # independent
    assert {outcome.answer for outcome in table["big"]} == {0, 1}
    assert models.outcomes(1) == table
    assert models.outcomes(2) != table


SIMULATION = {
    "usd_per_1k_tokens": {
        "big": {"prompt": 0.03, "completion": 0.06},
        "small": {"prompt": 0.001, "completion": 0.002},
    },
    "datasets": {
        "news": {
            "items": 300,
            "models": {
                "small": {
                    "agreement": 0.9,
                    "prompt_tokens": 50,
                    "completion_tokens": 1,
                },
                "big": {"agreement": 1, "prompt_tokens": 100, "completion_tokens": 5},
            },
        }
    },
}


def test_reads_a_simulation(tmp_path) -> None:
    path = tmp_path / "simulation.json"
    path.write_text(json.dumps(SIMULATION))
    models = read_simulation(path, "news")
    assert (models.items, models.reference) == (300, "big")
    assert models.agreement == {"small": 0.9}
    assert models.costs["big"] == pytest.approx(0.1 * 0.03 + 0.005 * 0.06)
    assert models.costs["small"] == pytest.approx(0.05 * 0.001 + 0.001 * 0.002)


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("{", {}, "file="),
        ("{}", {}, "file=.*usd_per_1k_tokens"),
        (None, {"dataset": "olds"}, "dataset='olds'.*news"),
        (None, {"reference": "huge"}, "model='huge'.*small, big"),
        (None, {"candidates": ["tiny"]}, "model='tiny'.*small, big"),
    ],
)
def test_a_broken_simulation_is_refused(tmp_path, text, arguments, message) -> None:
    path = tmp_path / "simulation.json"
    path.write_text(text or json.dumps(SIMULATION))
    with pytest.raises(InvalidInputError, match=message):
        read_simulation(path, **({"dataset": "news"} | arguments))


def test_a_missing_simulation_is_refused(tmp_path) -> None:
    with pytest.raises(InvalidInputError, match="No such file"):
        read_simulation(tmp_path / "gone.json", "news")
