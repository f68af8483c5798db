"""A job of short items, and the models that answer it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from langchain_smart import Price, RecordedChatModel, SmartChatModel
from smart_engine import Trace
from smart_engine.offline.traces import Row

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4), "tiny": Price(0.01, 0.04)}
RATES = {"big": 0.0, "small": 0.02, "tiny": 0.4}


@pytest.fixture(scope="session")
def job() -> Trace:
    """200 items; `small` differs from `big` on about 2 %, `tiny` on 40 %."""
    rng = random.Random(1)
    rows = []
    for number in range(200):
        right = rng.choice(["spam", "ham"])
        wrong = "ham" if right == "spam" else "spam"
        answers = {m: wrong if rng.random() < r else right for m, r in RATES.items()}
        tokens = {m: (float(20 + number % 7), 1.0) for m in RATES}
        text = f"mail number {number:04d}"
        rows.append(
            Row(item_id=str(number), input=text, answers=answers, tokens=tokens)
        )
    return Trace(rows, "big", ["small", "tiny"], PRICES)


@pytest.fixture(scope="session")
def inputs(job: Trace) -> list[str]:
    """Return the texts of the job."""
    return [str(row.input) for row in job.rows]


@pytest.fixture
def make(job: Trace) -> Callable[..., SmartChatModel]:
    """Build a smart model over the job's recorded models."""

    def build(**settings: Any) -> SmartChatModel:
        models = {m: RecordedChatModel(trace=job, model=m) for m in RATES}
        settings.setdefault("reference", models["big"])
        settings.setdefault("candidates", [models["small"], models["tiny"]])
        settings.setdefault("prices", PRICES)
        settings.setdefault("max_disagreement", 0.1)
        return SmartChatModel(**settings)

    return build
