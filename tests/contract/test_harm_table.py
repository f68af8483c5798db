"""What small jobs really cost through both adapters, beside the reference alone.

Every model bills its tokens here, so both costs are known to the token: nothing is
estimated. `pytest -s -m slow` prints the whole table.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from statistics import mean
from typing import Any

import pytest
from fakes import Scripted, say

from langchain_smart import Price, SmartChatModel
from llama_index_smart import SmartLLM

pytestmark = [
    pytest.mark.sparing,
    pytest.mark.timeout(0),
    pytest.mark.filterwarnings("ignore:.*:UserWarning"),
]

HARM = 1.005
"""Most that a job may cost in the mean, in costs of the reference alone."""

SIZES = [1, 2, 5, 10, 20, 30, 50, 100, 150]
LENGTHS = [20, 50, 100, 200, 500]
USD = 10.0  # of a million of the reference's tokens

both = pytest.mark.parametrize(
    "adapter", [SmartChatModel, SmartLLM], ids=lambda made: made.__name__
)
LONG = [pytest.mark.slow, pytest.mark.long]
EVERY = [(a, p) for a in (0.97, 0.92, 0.8, 0.3, 0.0) for p in (0.04, 0.2, 4.0)]


def cells(*few: tuple[float, float], seeds: int) -> pytest.MarkDecorator:
    """All cells of the table over 20 seeds if slow; and a few of them over fewer."""
    whole = [pytest.param(*cell, 20, marks=LONG) for cell in EVERY]
    names = ("agreement", "price", "seeds")
    return pytest.mark.parametrize(names, [*whole, *((*cell, seeds) for cell in few)])


def items(size: int, seed: int) -> list[str]:
    """Texts of very different lengths, other ones for each seed."""
    words = Random(seed)
    return [f"{'long ' * words.randrange(23)}item {n:03}" for n in range(size)]


def alone(texts: Iterable[str]) -> float:
    """What the reference alone bills, in USD."""
    return sum(USD * (len(text) + 1) / 1e6 for text in texts)


def errs(agreement: float, seed: int) -> Any:
    """A script that gives the reference's answer on that share of the items."""

    def answer(text: str, kwargs: dict[str, Any]) -> str:
        right = Random(f"{seed} {text}").random() < agreement
        return say("big")(text, kwargs) if right else "whatever"

    return answer


def make(adapter, agreement: float, price: float, seed: int, task: str | None) -> Any:
    return adapter(
        reference=Scripted(name="big", script=say("big")),
        candidates=[Scripted(name="small", script=errs(agreement, seed))],
        prices={"big": Price(USD, USD), "small": Price(price * USD, price * USD)},
        seed=seed,
        task=task,
    )


def batch_cost(size: int, adapter, agreement, price, seed, task) -> float:
    smart = make(adapter, agreement, price, seed, task)
    texts = items(size, seed)
    ask = smart.complete_batch if isinstance(smart, SmartLLM) else smart.batch
    ask(texts)
    return smart.report().cost / alone(texts)


def stream_costs(adapter, agreement, price, seed) -> dict[int, float]:
    """The cost after each of `LENGTHS`."""
    smart = make(adapter, agreement, price, seed, None)
    texts, costs = items(LENGTHS[-1], seed), {}
    ask = smart.complete if isinstance(smart, SmartLLM) else smart.invoke
    for count, text in enumerate(texts, 1):
        ask(text)
        if count in LENGTHS:
            costs[count] = smart.report().cost / alone(texts[:count])
    return costs


def show(what: str, adapter, agreement: float, price: float, costs) -> None:
    """Print a row of the table; see it with `pytest -s`."""
    row = " | ".join(f"{cost:.4f}" for cost in costs.values())
    print(f"\n| {adapter.__name__} {what} | {agreement} | {price} | {row} |", end="")


@both
@pytest.mark.parametrize("task", [None, "nightly"])
@cells((0.3, 0.2), seeds=3)
def test_no_small_batch_is_dearer(adapter, task, agreement, price, seeds) -> None:
    costs = {
        size: mean(
            batch_cost(size, adapter, agreement, price, seed, task)
            for seed in range(seeds)
        )
        for size in (SIZES if task is None and seeds == 20 else (10, 50, 150))
    }
    show(f"batch, task={task}", adapter, agreement, price, costs)
    assert max(costs.values()) <= HARM, costs


@both
@cells((0.0, 0.04), seeds=1)
def test_no_short_stream_is_dearer(adapter, agreement, price, seeds) -> None:
    runs = [stream_costs(adapter, agreement, price, seed) for seed in range(seeds)]
    costs = {length: mean(run[length] for run in runs) for length in LENGTHS}
    show("stream", adapter, agreement, price, costs)
    assert max(costs.values()) <= HARM, costs
