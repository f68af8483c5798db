"""Whether candidates can save anything where labels are promised, by a few items.

What those items show is taken for a batch of the same make, and the audits of that are
planned. Candidates are asked about everything only if that would most probably pay even
if errors were more frequent, and the label rarer, than they look. No promise rests on
it: all it leads to is more answers of the reference.
"""

from __future__ import annotations

import math

import numpy as np

from smart_engine.evidence.record import ANSWERED, REFERENCE, BatchRecord
from smart_engine.evidence.tails import BoolArray, FloatArray, IntArray
from smart_engine.labels.levels import Strata, divide
from smart_engine.labels.strata import Stratum

__all__ = ["first_trial", "next_trial"]

_LUCKY, _UNLUCKY = 0.99, (0.5, 0.2, 0.08, 0.03, 0.01, 0.004, 0.001)
"""Quantiles of how well things may go: where even the first would save too little,
candidates are dropped; the last one at which they still pay bounds the probability that
they do not."""

_TRIAL, _MOST_TRIAL = 0.002, 0.005
"""What may be paid to candidates before anything is known, and before they are asked
about everything: shares of what the reference alone costs."""

_HARM = 0.001
"""What may be lost on average each time that candidates are asked about more: what is
paid, times the probability that it is in vain."""


def first_trial(batch: BatchRecord, tiers: list[int]) -> int:
    """Return about how many items candidates may be asked before anything is known."""
    return _affordable(batch, tiers, _TRIAL)


def next_trial(batch: BatchRecord, tiers: list[int], items: IntArray) -> int:
    """Return about how many items to ask candidates in all, none if it cannot pay.

    Args:
        batch: The batch.
        tiers: The candidates, the one that would serve first.
        items: Items chosen at random about which they and the reference were asked.
    """
    price = sum(batch.ratios[tier] for tier in tiers)
    if expected_calls(batch, tiers[0], items, _LUCKY) > 1 - price - batch.min_saving:
        return 0
    in_vain = 1.0
    for quantile in _UNLUCKY:
        enough = in_vain * price <= _HARM
        if enough or expected_calls(batch, tiers[0], items, quantile) > 1 - price:
            break
        in_vain = quantile
    if in_vain * price <= _HARM:
        return batch.n_items
    share = min(_MOST_TRIAL, max(_TRIAL, _HARM / in_vain))
    return _affordable(batch, tiers, share)


def _affordable(batch: BatchRecord, tiers: list[int], share: float) -> int:
    """Return about how many items may be asked for that share of the batch's cost."""
    together = max(sum(batch.ratios[tier] for tier in tiers), 1e-9)
    return math.ceil(min(1.0, share / together) * batch.n_items - 1e-9)


def expected_calls(
    batch: BatchRecord, tier: int, items: IntArray, quantile: float
) -> float:
    """Return the share of a batch that the reference would answer.

    Args:
        batch: The batch.
        tier: The candidate that would serve.
        items: Items chosen at random about which both were asked.
        quantile: How well it goes, from 0 to 1.
    """
    from scipy.special import betaincinv

    size, truth = batch.n_items, batch.labels[REFERENCE, items]
    served = batch.status[tier, items] == ANSWERED
    claim = np.where(served, batch.labels[tier, items], -1)
    doubt = 1 - np.clip(np.nan_to_num(batch.scores[tier, items], nan=0.5), 0.0, 1.0)
    labels: list[Strata] = []
    for name in batch.guarantee.labels:
        number = batch.labelling.named(name)
        claimed, others = served & (claim == number), served & (claim != number)
        right = claimed & (truth == number)
        found, false = int(right.sum()), float((claimed & ~right).mean())
        share = float(betaincinv(found + 0.5, len(items) - found + 0.5, quantile))
        rarer = share / (found + 0.5) * (float(claimed.sum()) + 0.5)
        count = min(float(served.mean()), share + false, rarer) * size
        rest = served.mean() * size - count
        labels.append(
            (
                _alike(doubt[claimed], (truth != number)[claimed], int(count)),
                _alike(doubt[others], (truth == number)[others], int(rest)),
                batch.guarantee.recall.get(name),
                batch.guarantee.precision.get(name),
            )
        )
    agreements = []
    if batch.guarantee.max_disagreement is not None:
        wrong = batch.wrong[tier, items]
        for of_slice in batch.slices.sizes.tolist():
            inside = int(served.mean() * of_slice)
            stratum = _alike(doubt[served], wrong[served], inside)
            agreements.append((stratum, batch.guarantee.max_errors(of_slice)))
    division = divide(labels, agreements, batch.guarantee.alpha, (1 - quantile,))
    unserved = size * (1 - float(served.mean()))
    return min(1.0, (division.calls + len(items) + unserved) / size)


def _alike(risk: FloatArray, wrong: BoolArray, size: int) -> Stratum:
    """Return a stratum of so many items that are like those given."""
    seen, size = len(risk), max(size, len(risk))
    like = np.resize(np.arange(seen), size) if seen else np.zeros(size, np.int64)
    stratum = Stratum(np.arange(size), risk[like] if seen else np.zeros(size))
    known = np.arange(size) < seen
    stratum.learn(known, known & (wrong[like] if seen else known))
    return stratum
