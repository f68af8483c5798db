"""What users get wrong: refused by name, or read as it was meant."""

from __future__ import annotations

import gzip
import json
import random
import sys
from fractions import Fraction

import pytest

from smart_engine import (
    BatchSession,
    Call,
    Guarantee,
    InvalidInputError,
    Label,
    Normalized,
    Number,
    Outcome,
    ProtocolError,
    Tier,
    Trace,
    Usage,
    replay,
)
from smart_engine.__main__ import main
from smart_engine.offline.traces import Simulation, read_simulation

TIERS = [Tier("big", role="reference"), Tier("small")]


@pytest.fixture
def trace(tmp_path):
    """Write a trace of the given lines and a models file; return its path."""

    def write(*lines: str | bytes, **prices: float):
        priced = {"input": 1, "output": 1}
        about = {
            "reference": "big",
            "candidates": ["small"],
            "prices_usd_per_million_tokens": {"big": priced, "small": priced | prices},
        }
        (tmp_path / "t.models.json").write_text(json.dumps(about))
        path = tmp_path / "t.jsonl"
        raw = [x if isinstance(x, bytes) else x.encode() for x in lines]
        path.write_bytes(b"\n".join(raw))
        return path

    return write


def row(tokens: str = "[1, 1]", item: str = "x") -> str:
    return (
        f'{{"item_id": "{item}", "answers": {{"big": "1", "small": "1"}}, '
        f'"tokens": {{"big": [1, 1], "small": {tokens}}}}}'
    )


@pytest.fixture
def refusal(capsys, monkeypatch):
    """Run the command in this process, which must refuse; return what it says."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["smart", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        assert ended.value.code == 2
        assert shown.out == ""
        return shown.err

    return run


def test_replay_is_the_function_even_after_its_file_was_loaded() -> None:
    import smart_engine.offline.replay

    assert smart_engine.replay is smart_engine.offline.replay.replay is replay


@pytest.mark.parametrize("looks", ["corrected", "paper"])
@pytest.mark.parametrize("strategy", ["reference", "exhaustive", "efficient", "mix"])
def test_an_empty_batch_is_done_at_once(strategy, looks) -> None:
    session = BatchSession(0, TIERS, strategy=strategy, looks=looks)
    assert session.next_calls() == []
    assert session.done
    assert session.answers == []
    assert session.certificate.cost == 0


@pytest.mark.parametrize("item", [-1, 1000])
def test_an_item_outside_the_batch_is_refused(item) -> None:
    session = BatchSession(20, TIERS)
    session.next_calls()
    with pytest.raises(ProtocolError, match="not in flight"):
        session.record(Call(item, "big"), Outcome(1, 1.0))


@pytest.mark.parametrize("cost", ["x", None, True, -1, float("nan"), float("inf")])
def test_a_cost_that_is_none_is_refused(cost) -> None:
    session = BatchSession(20, TIERS)
    call = session.next_calls()[0]
    with pytest.raises(InvalidInputError, match="cost"):
        session.record(call, Outcome(1, cost))


@pytest.mark.parametrize(
    "arguments",
    [
        {"seed": -1},
        {"seed": 0.5},
        {"n_items": True},
        {"n_items": -3},
        {"guarantee": (0.05, 0.95)},
        {"tiers": ["big", "small"]},
        {"tiers": [*TIERS, Tier("c", role="xx")]},  # type: ignore[arg-type]
    ],
    ids=str,
)
def test_a_session_checks_its_arguments(arguments) -> None:
    with pytest.raises(InvalidInputError) as caught:
        BatchSession(**{"n_items": 3, "tiers": TIERS, **arguments})
    assert caught.value.field == next(iter(arguments))


def test_fractional_tokens_add_up_the_same_in_any_order() -> None:
    def certificate_id(step: int) -> str:
        session = BatchSession(50, TIERS)
        while calls := session.next_calls():
            for call in calls[::step]:
                usage = Usage(0.1 + call.item * 0.01, 0.3)
                session.record(call, Outcome(1, 0.1, usage))
        return session.certificate.id

    assert certificate_id(1) == certificate_id(-1)


def test_the_budget_never_rounds_up() -> None:
    exact = int(Fraction("0.050001") * 49999)
    assert Guarantee(0.050001).max_errors(49999) == exact == 2499


def test_a_replay_survives_a_reference_that_cannot_be_read() -> None:
    class Recording:
        reference = "big"
        candidates = ("small",)

        def outcomes(self, seed):
            del seed
            unclear = [n % 40 == 0 for n in range(2000)]
            right = [Outcome("???" if odd else "yes", 1.0) for odd in unclear]
            return {"big": right, "small": [Outcome("yes", 0.01)] * 2000}

    rule = Label(["yes", "no"])
    result = replay(Recording(), Guarantee(0.1), trials=1, equivalence=rule)
    assert 0.9 <= result.agreement_min < 1


def test_a_damaged_archive_is_refused(trace) -> None:
    dice = random.Random(1)
    path = trace(row())
    lines = "\n".join(row(item=str(dice.random())) for _ in range(300))
    packed = bytearray(gzip.compress(lines.encode()))
    for place in range(60, len(packed) - 20):
        packed[place] = (packed[place] + 7) % 256
    path = path.with_suffix(".jsonl.gz")
    path.write_bytes(packed)
    with pytest.raises(InvalidInputError, match="items"):
        Trace.read(path)


@pytest.mark.parametrize(
    "bad", [b"\xff", row("[NaN, 1]"), row("[-5, 1]"), row("[1e400, 1]"), "{}", "[]"]
)
def test_the_line_at_fault_is_named(trace, bad) -> None:
    with pytest.raises(InvalidInputError, match="line 5"):
        Trace.read(trace(*[row()] * 4, bad))


def test_the_model_with_a_negative_price_is_named(trace) -> None:
    with pytest.raises(InvalidInputError, match="small"):
        Trace.read(trace(row(), input=-1))


def test_byte_order_marks_and_blank_lines_are_no_matter(trace) -> None:
    assert len(Trace.read(trace(b"\xef\xbb\xbf" + row().encode(), "", "")).rows) == 1


@pytest.mark.parametrize("name", ["x" * 120, "a[/b]c", "a[red]c"])
def test_an_error_is_one_line_that_shows_the_name(tmp_path, name, refusal) -> None:
    said = refusal("replay", tmp_path / f"{name}.jsonl")
    assert len(said.strip().splitlines()) == 1
    assert name in said


def test_a_bad_seed_or_strategy_is_refused_before_anything_runs(trace, refusal) -> None:
    path = trace(row())
    for option in (["--seed", -1], ["--strategy", "mix", "--strategy", "best"]):
        assert refusal("replay", path, "--json", *option).startswith("error: ")


def simulation_file(tmp_path, items: int = 5, agreement: float = 1, **extra: dict):
    tokens = {"prompt_tokens": 1, "completion_tokens": 1}
    models = {"a": {"agreement": 1} | tokens, "b": {"agreement": agreement} | tokens}
    rate = {"prompt": 1, "completion": 1}
    content = {
        "usd_per_1k_tokens": {"a": rate, "b": rate},
        "datasets": {"n": {"items": items, "models": models | extra}},
    }
    path = tmp_path / "s.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("bad", [{"items": -5}, {"items": 0}, {"agreement": 7}])
def test_a_simulations_values_are_checked(tmp_path, bad) -> None:
    with pytest.raises(InvalidInputError):
        read_simulation(simulation_file(tmp_path, **bad), "n")


def test_a_model_that_is_never_asked_needs_no_price(tmp_path) -> None:
    unpriced = {"agreement": 0.5, "prompt_tokens": 1, "completion_tokens": 1}
    path = simulation_file(tmp_path, c=unpriced)
    assert read_simulation(path, "n", candidates=["b"]).candidates == ["b"]


def test_a_simulation_needs_every_cost() -> None:
    with pytest.raises(InvalidInputError, match="costs"):
        replay(Simulation(10, "big", {"small": 0.9}, {"big": 1}), Guarantee())


def test_signs_are_part_of_an_answer() -> None:
    rule = Normalized()
    assert not rule.same(rule.parse("-5"), rule.parse("5"))
    assert Label(["-1", "0", "1"]).parse("-1.") == "-1"
    assert Label(["C", "C++"]).parse("**C++**") == "c++"
    assert Number().parse("the answer is \u22125") == (-5, "")


@pytest.mark.parametrize("make", [lambda: Number(absolute="x"), lambda: Label(None)])
def test_rules_check_their_settings(make) -> None:
    with pytest.raises(InvalidInputError):
        make()
