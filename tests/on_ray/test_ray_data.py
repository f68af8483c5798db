"""Data sets on Ray: answered as a batch in one process, whatever is killed."""

from __future__ import annotations

import threading
import time
from collections import Counter
from functools import partial

import pyarrow as pa
import pytest
import ray
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableLambda
from pools import without_labels
from rows import PRICES, limited, made, one, smart

from langchain_smart import RowCaller, SmartRunnable, smart_dataset
from langchain_smart.parts import Parts
from smart_engine import Price
from smart_engine.errors import InvalidInputError
from smart_engine.money.pricing import Usage

PROMPT = "Sort item {n}"
pytestmark = pytest.mark.usefixtures("cluster")


def data(items, blocks=3, first=0):
    numbers = range(first, first + items)
    rows = [{"n": item, "kept": f"row {item}"} for item in numbers]
    return ray.data.from_items(rows, override_num_blocks=blocks)


def test_a_data_set_ends_as_its_batch_does(monkeypatch):
    monkeypatch.setattr("langchain_smart.ray_rows._JOINED", 5_000)
    done = smart_dataset(
        data(400), smart=smart, prompt=PROMPT, concurrency=2, batch_size=64
    )
    rows = done.dataset.take_all()
    one = smart()
    told = one.batch([f"Sort item {item}" for item in range(400)])
    assert done.certificate == without_labels(one.report().certificates[0])
    assert done.certificate.valid
    assert done.certificate.served["small"] > 100
    for row, message in zip(rows, told, strict=True):
        mark = message.response_metadata["smart"]
        assert row == {
            "n": row["n"],
            "kept": f"row {row['n']}",
            "answer": message.text,
            "model": mark["model"],
            "role": mark["role"],
            "cost": mark["cost"],
            "error": None,
        }
    assert [row["n"] for row in rows] == [*range(400)]
    for name, spend in one.report().spend.items():
        there = done.report.spend[name]
        assert (there.calls, there.cost) == (spend.calls, pytest.approx(spend.cost))


def test_a_job_with_a_folder_goes_on_and_buys_only_what_is_not_there(tmp_path):
    calls, output = tmp_path / "calls", tmp_path / "job"
    calls.mkdir()

    def run():
        return smart_dataset(
            data(300),
            smart=partial(smart, calls),
            prompt=PROMPT,
            output=output,
            concurrency=1,
            batch_size=50,
        )

    first = run()
    bought = Counter(made(calls))
    assert set(bought.values()) == {1}
    parts = sorted((output / "parts").iterdir())
    lost = Parts(str(output)).answers(parts[2].stem)
    gone = set(zip(lost["item"].to_pylist(), lost["model"].to_pylist(), strict=True))
    parts[2].unlink()
    second = run()
    again = Counter(made(calls)) - bought
    assert set(again) == gone
    assert second.certificate == first.certificate
    assert second.dataset.take_all() == first.dataset.take_all()
    assert sum(spend.calls for spend in second.report.spend.values()) == len(bought)
    with pytest.raises(InvalidInputError, match="with other rows: give another folder"):
        smart_dataset(
            data(301), smart=partial(smart, calls), prompt=PROMPT, output=output
        )


def test_rows_that_fail_or_kill_have_errors_and_the_rest_is_answered(tmp_path):
    def script(name):
        return lambda text, kwargs: (
            RuntimeError("never") if text[-2:] == " 7" else "fine"
        )

    make = partial(
        smart, tmp_path, deadly={15}, script=script, max_retries=0, max_tokens=1
    )
    # Row by row: how the one that kills is found among others, a pool of threads shows.
    done = smart_dataset(
        data(20), smart=make, prompt=PROMPT, concurrency=1, batch_size=1
    )
    rows = done.dataset.take_all()
    failed = {row["n"]: row["error"] for row in rows if row["error"]}
    assert set(failed) == {7, 15}
    assert failed[7] == "RuntimeError: never"
    assert failed[15].startswith("WorkerLostError: each of ")
    assert {row["answer"] for row in rows if not row["error"]} == {"fine"}
    assert done.certificate.unanswered == 2
    # Nobody knows what it cost: each attempt is charged at its most, and marked.
    (cost,) = (row["cost"] for row in rows if row["n"] == 15)
    unknown = sum(spend.unknown for spend in done.report.spend.values())
    times = made(tmp_path).count((15, "big"))
    assert unknown >= cost > times * bill([(15, "big")])
    assert (15, "big") in made(tmp_path)


def bill(calls):
    """Return what calls cost, by the prices of their models."""
    usage = {item: Usage(len(f"Sort item {item}"), 1) for item, _ in calls}
    return sum(PRICES[name].cost(usage[item]) for item, name in calls)


def test_a_budget_holds_over_all_actors_and_a_larger_one_goes_on(tmp_path):
    calls = tmp_path / "calls"
    calls.mkdir()
    whole = smart(max_tokens=1)
    whole.batch([f"Sort item {item}" for item in range(300)])
    full = sum(spend.cost for spend in whole.report().spend.values())

    def run(budget):
        return smart_dataset(
            data(300),
            smart=partial(smart, calls, max_tokens=1, budget_usd=budget, mode="strict"),
            prompt=PROMPT,
            output=tmp_path / "job",
            concurrency=2,
            batch_size=16,
        )

    poor = run(full / 2)
    spent = sum(spend.cost for spend in poor.report.spend.values())
    assert full / 4 < spent == pytest.approx(bill(made(calls)))
    assert spent <= full / 2
    assert not poor.certificate.valid
    rows = poor.dataset.take_all()
    errors = {row["error"] for row in rows} - {None}
    assert all(error.startswith("BudgetExceededError: ") for error in errors)
    assert errors
    assert all((row["answer"] is None) == bool(row["error"]) for row in rows)
    rich = run(2 * full)
    assert rich.certificate.valid
    assert set(Counter(made(calls)).values()) == {1}
    assert bill(made(calls)) == pytest.approx(full)


def test_what_has_no_bound_is_refused_before_anything_is_bought(tmp_path):
    def with_a_picture(row):
        picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}
        return [HumanMessage([picture] if row["n"] == 3 else f"Sort item {row['n']}")]

    bounded = partial(smart, tmp_path, budget_usd=1.0, max_tokens=1)
    with pytest.raises(InvalidInputError, match="messages='image_url'"):
        smart_dataset(data(5), smart=bounded, prompt=with_a_picture)
    assert not made(tmp_path)


def test_actors_share_a_rate(tmp_path):
    began = time.monotonic()
    smart_dataset(
        data(90), smart=partial(limited, tmp_path), prompt=PROMPT, concurrency=2
    )
    assert len(made(tmp_path)) == 90
    # Each may begin with one at once, and has 15 a second from then on.
    assert time.monotonic() - began > (90 - 2) / 30


def test_new_rows_are_audited_anew_whatever_was_certified():
    first, second = (
        smart_dataset(rows, smart=one, prompt=PROMPT, concurrency=1)
        for rows in (data(200), data(200, first=200))
    )
    assert len(second.report.certificates) == 2
    for certificate in (first.certificate, second.certificate):
        assert certificate.valid
        assert certificate.profiled > 10
    assert second.certificate.items == 200
    assert second.certificate.id != first.certificate.id


def test_chains_take_rows_as_they_are_and_an_empty_data_set_is_answered():
    def chains():
        free = dict.fromkeys(("a", "b"), Price.free())
        chain = RunnableLambda(lambda row: {"label": row["n"] % 3})
        both = {"reference": {"a": chain}, "candidates": {"b": chain}}
        return SmartRunnable(**both, prices=free)

    done = smart_dataset(data(30), smart=chains, concurrency=1)
    assert done.dataset.take(2)[1]["answer"] == '{"label": 1}'
    none = smart_dataset(data(3).filter(lambda row: False), smart=chains, concurrency=1)
    assert none.dataset.count() == 0
    assert none.certificate.items == 0


def test_blocks_may_have_columns_of_nulls_alone():
    blocks = [{"n": [0, 1], "said": [None, None]}, {"n": [2, 3], "said": ["a", None]}]
    done = smart_dataset(
        ray.data.from_arrow([*map(pa.table, blocks)]),
        smart=smart,
        prompt="{said}: sort item {n}",
        concurrency=1,
    )
    rows = done.dataset.take_all()
    assert [row["said"] for row in rows] == [None, None, "a", None]
    assert not any(row["error"] for row in rows)


def test_the_class_serves_in_a_plain_map_batches():
    rows = data(20, 1).add_column("model", lambda batch: ["small"] * len(batch))
    answered = rows.map_batches(
        RowCaller,
        fn_constructor_args=[smart],
        fn_constructor_kwargs={"prompt": PROMPT},
        concurrency=1,
        batch_format="pyarrow",
    ).take_all()
    assert answered[4]["answer"] == "yes 1"
    assert answered[4]["kept"] == "row 4"


def test_an_arrow_table_comes_back_as_one():
    table = pa.table({"n": [1, 2], "model": ["big", "small"]})
    made = RowCaller(smart, prompt=PROMPT)(table)
    assert isinstance(made, pa.Table)
    assert made["answer"].to_pylist() == ["yes 1", "yes 2"]
    assert made.column_names[:3] == ["n", "model", "answer"]


def broken():
    raise FileNotFoundError("no key here")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "shadow"}, "mode='shadow': a data set is answered"),
        ({"store": "x.db"}, "store=Store"),
        ({"dedupe": True}, "dedupe=True: rows are in different places"),
        ({"promise": "task", "task": "t"}, "promise='task': each data set has"),
        ({"equivalence": lambda a, b: a == b}, "compares answers in pairs"),
    ],
)
def test_settings_without_a_meaning_here_are_refused(settings, message, tmp_path):
    if "store" in settings:
        settings["store"] = str(tmp_path / settings["store"])
    with pytest.raises(InvalidInputError) as error:
        smart_dataset(data(5), smart=partial(smart, **settings), prompt=PROMPT)
    assert message in str(error.value)


def test_ray_makes_no_answer_again_behind_the_certificate():
    with pytest.raises(InvalidInputError, match=r"max_task_retries=-1.*leave it out"):
        smart_dataset(
            data(5), smart=smart, prompt=PROMPT, max_restarts=1, max_task_retries=-1
        )


def test_columns_that_are_taken_or_missing_are_named():
    taken = data(5).rename_columns({"kept": "answer"})
    with pytest.raises(InvalidInputError, match=r"ds='answer'.*rename_columns"):
        smart_dataset(taken, smart=smart, prompt=PROMPT)
    with pytest.raises(InvalidInputError, match="prompt='m': no such column"):
        smart_dataset(data(5), smart=smart, prompt="Sort item {m}")


def test_a_column_that_some_rows_lack_is_named():
    blocks = [{"n": [0], "said": ["a"]}, {"n": [1]}]
    ds = ray.data.from_arrow([*map(pa.table, blocks)])
    with pytest.raises(InvalidInputError, match="said"):
        smart_dataset(ds, smart=smart, prompt="{said} {n}")


def test_what_cannot_be_sent_to_actors_is_said():
    said = r"smart='function'.*lambda"
    lock = threading.Lock()
    with pytest.raises(InvalidInputError, match=said):
        smart_dataset(data(5), smart=lambda: (lock, smart())[1], prompt=PROMPT)
