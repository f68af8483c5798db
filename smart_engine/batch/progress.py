"""Where a batch stands: what is settled, spent and saved, and what may still differ."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from smart_engine.evidence.record import ANSWERED, REFERENCE, BatchRecord
from smart_engine.evidence.tails import IntArray, hypergeometric_cdf, largest
from smart_engine.money.spending import Spend
from smart_engine.strategies import Decision

__all__ = ["Phase", "Progress", "measure"]

Phase = Literal["learning", "serving", "done"]
"""In `learning` answers are compared, and who serves is open; then it is decided."""


class Progress(NamedTuple):
    """Where a batch stands.

    Attributes:
        phase: What is being done.
        items: Number of items.
        settled: Items whose answer, or lasting error, is known and stays.
        spent: USD spent by all models, judges included.
        saved: USD saved (estimated) on what is answered: what the reference alone would
            have cost there, less all that was spent. It is below zero while there is
            more to learn than to serve, and None until the reference was paid.
        draws: Items on which a candidate was compared with the reference.
        may_differ: Where it is open who serves: the most answers that would differ if
            the candidate that looks best served from here on, at the stated confidence
            for this one look; None before any comparison. Where it is decided: what
            the guarantee allows, or 0 if the reference alone answers. None where a
            budget in USD ended first.
        allowed: Differing answers that the guarantee allows, B, if the items that have
            no answer so far get one, those excepted whose reference failed.
        estimated: USD of what was spent that rest on an estimated usage.
        calls: Calls made to all models, judges included.
    """

    phase: Phase
    items: int
    settled: int
    spent: float
    saved: float | None
    draws: int
    may_differ: int | None
    allowed: int
    estimated: float = 0.0
    calls: int = 0


def measure(
    batch: BatchRecord,
    drawn: IntArray,
    decision: Decision | None,
    *,
    done: bool,
    whole: bool,
) -> Progress:
    """Return where a batch stands.

    Args:
        batch: The batch.
        drawn: Items that went to the reference in order to learn.
        decision: How the rest is served, once that is decided.
        done: Whether every item has its answer.
        whole: Whether the guarantee covers all items.
    """
    by_reference = batch.status[REFERENCE] >= ANSWERED
    right = batch.status[REFERENCE] == ANSWERED
    route = np.zeros(batch.n_items, np.int16) if decision is None else decision.route
    served = np.zeros(batch.n_items, bool)
    for tier in batch.candidates:
        served |= ~by_reference & (batch.status[tier] == ANSWERED) & (route == tier)
    answered = right | served
    spend = sum(batch.spend.values(), Spend())
    alone = batch.cost_alone(
        np.flatnonzero(right), np.flatnonzero(served), drawn, route
    )
    failed = by_reference & (batch.status[REFERENCE] != ANSWERED)
    allowed = batch.guarantee.max_errors(batch.n_items - int(failed.sum()))
    compared = drawn[by_reference[drawn]]
    may_differ = None
    if decision is None:
        may_differ = _may_differ(batch, compared)
    elif whole:
        may_differ = allowed if (decision.route > REFERENCE).any() else 0
    return Progress(
        phase="done" if done else "learning" if decision is None else "serving",
        items=batch.n_items,
        settled=batch.n_items if done else int((answered | by_reference).sum()),
        spent=spend.cost,
        saved=None if alone is None else alone - spend.cost,
        draws=len(compared),
        may_differ=may_differ,
        allowed=allowed,
        estimated=spend.estimated,
        calls=spend.calls,
    )


def _may_differ(batch: BatchRecord, compared: IntArray) -> int | None:
    """Return the least bound of undetected errors over all candidates."""
    bounds = []
    for tier in batch.candidates:
        seen = compared[batch.status[tier, compared] >= ANSWERED]
        if len(seen):
            errors, alpha = batch.errors(tier, seen), batch.guarantee.alpha
            bounds.append(_most_hidden(batch.n_items, len(seen), errors, alpha))
    return min(bounds, default=None)


def _most_hidden(items: int, draws: int, errors: int, level: float) -> int:
    """Return the most undetected errors that the draws do not exclude at a level."""
    return largest(
        0,
        items - draws,
        lambda more: hypergeometric_cdf(errors, items, errors + more, draws) > level,
    )
