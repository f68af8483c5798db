"""What would a candidate have to reach, if only the reference's answers are known?

Each prospect is an imagined candidate: at a share of the reference's price it gives the
reference's answer, but on a stated share of the items, at random. Real sessions run on
it, so that what they cost includes everything that certifying costs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from smart_engine.calls import Outcome, Result
from smart_engine.errors import InvalidInputError
from smart_engine.guarantee import Guarantee
from smart_engine.offline.replay import run_session
from smart_engine.tiers import MIN_SAVING

__all__ = ["Prospect", "Prospects", "prospects"]

_PRICES = (0.2, 0.04)
"""Prices of the imagined candidates, as shares of the reference's: mini and nano."""

_DIFFERING = (0.0, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
"""How often they differ, as parts of the share that may differ."""

_MAX_SIMULATED = 20_000
"""Items of a simulated job; larger ones are scaled up, which understates savings."""


class Prospect(BaseModel):
    """An imagined candidate.

    Attributes:
        price: Its cost per item ÷ the reference's.
        differing: Share of the items on which it differs from the reference.
        asked: Items on which the reference is paid (mean).
        saved: Share of the reference's cost that the job would save (mean).
    """

    model_config = ConfigDict(frozen=True)

    price: float
    differing: float
    asked: float
    saved: float


class Prospects(BaseModel):
    """What candidates would save on a job whose reference alone is known.

    Attributes:
        items: Number of items.
        reference_only: USD that the reference alone costs.
        max_errors: Answers that may differ.
        candidates: Imagined candidates, by price, those that differ least first.
        break_even: Price → largest of these shares of differing answers at which the
            job saves `min_saving`; None where none does.
    """

    model_config = ConfigDict(frozen=True)

    items: int
    reference_only: float
    max_errors: int
    candidates: tuple[Prospect, ...]
    break_even: dict[float, float | None]


def prospects(
    costs: Sequence[float],
    guarantee: Guarantee,
    *,
    prices: Sequence[float] = _PRICES,
    min_saving: float = MIN_SAVING,
    jobs: int = 2,
    seed: int = 0,
) -> Prospects:
    """Return what imagined candidates would save.

    Args:
        costs: USD that the reference costs on each item.
        guarantee: What is to be promised.
        prices: The candidates' costs, as shares of the reference's.
        min_saving: Least share that candidates must be expected to save.
        jobs: Simulated jobs of each candidate.
        seed: Seed of all randomness.

    Raises:
        InvalidInputError: If there are no items.

    Example:
        ```python
        found = prospects([0.01] * 1000, Guarantee(0.05), prices=[0.1], jobs=1)
        good, *_, bad = found.candidates
        assert good.saved > 0.5 > bad.saved
        ```
    """
    if not costs:
        raise InvalidInputError("items", 0, "there is nothing to estimate from")
    rng = np.random.default_rng(seed)
    size = min(len(costs), _MAX_SIMULATED)
    paid = [costs[item] for item in rng.permutation(len(costs))[:size]]
    shares = [min(1, part * guarantee.tolerance) for part in _DIFFERING]
    found = []
    for price in prices:
        for share in shares:
            runs = [
                _run(paid, price, share, guarantee, min_saving, seed + job)
                for job in range(jobs)
            ]
            asked, saved = np.mean(runs, axis=0).tolist()
            found.append(
                Prospect(
                    price=price,
                    differing=share,
                    asked=asked * len(costs) / size,
                    saved=saved,
                )
            )
    pays = {
        price: max(
            (
                each.differing
                for each in found
                if each.price == price and each.saved >= max(min_saving, 1e-9)
            ),
            default=None,
        )
        for price in prices
    }
    return Prospects(
        items=len(costs),
        reference_only=sum(costs),
        max_errors=guarantee.max_errors(len(costs)),
        candidates=tuple(found),
        break_even=pays,
    )


def _run(
    paid: Sequence[float],
    price: float,
    share: float,
    guarantee: Guarantee,
    min_saving: float,
    seed: int,
) -> tuple[float, float]:
    """Return how often the reference is asked, and the share saved, of one job."""
    rng = np.random.default_rng([seed, len(paid)])
    right = rng.integers(0, 2, len(paid))  # so that no answer is known to be wrong
    given = right ^ (rng.random(len(paid)) < share)
    results: dict[str, list[Result]] = {
        "reference": [Outcome(*one) for one in zip(right.tolist(), paid, strict=True)],
        "candidate": [
            Outcome(answer, cost * price)
            for answer, cost in zip(given.tolist(), paid, strict=True)
        ],
    }
    session = run_session(results, guarantee, seed=seed, min_saving=min_saving)
    asked = session.certificate.spend["reference"].calls
    alone = sum(paid)
    return asked, 1 - session.certificate.cost / alone if alone else 0.0
