"""`audit` where slices are promised: each slice is a batch of its own.

Its audit, its choice of models and its draws are those of `audit`, at a part of the
level. Slices too small for that to save anything go to the reference; the others have
equal parts: their audits cost about the same more for each halving of the level, so no
other division is much cheaper. All audits ask side by side.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator

import numpy as np

from smart_engine.evidence.record import REFERENCE, BatchRecord, RecordPart
from smart_engine.guarantee import Guarantee
from smart_engine.strategies._base import Decision, Tally, Verdict, Wave
from smart_engine.strategies.audit import audit
from smart_engine.strategies.audit_trial import promising_slices

__all__ = ["slice_audit"]


def slice_audit(batch: BatchRecord, looks: str) -> Generator[Wave, None, Decision]:
    """Run an audit in each slice.

    The audits see draws of their own slices alone, each keeps its slice's share with
    its own level, and the levels sum to at most 1 − γ: so all shares are kept together
    (`docs/mathematics.md`, Theorem 9).
    """
    parts = _parts(batch)
    running = {name: audit(part, looks) for name, part in parts.items()}
    decisions: dict[str | None, Decision] = {}
    while running:
        waves = []
        for name, deciding in list(running.items()):
            parts[name].update()
            try:
                waves += _in_batch(next(deciding), parts[name])
            except StopIteration as stop:
                decisions[name] = stop.value
                del running[name]
        if waves:
            yield waves[0]._replace(also=waves[1:])
    route = np.full(batch.n_items, REFERENCE, np.int16)
    for name, decision in decisions.items():
        route[parts[name].items] = decision.route
    tests = [
        (test, name) for name, decision in decisions.items() for test in decision.tests
    ]
    return Decision(
        route,
        _evidence([*decisions.values()]),
        tests=[test for test, _ in tests],
        slice_of=[name for _, name in tests],
        audited=[
            each._replace(
                items=parts[name].items[each.items],
                rest=parts[name].items[each.rest],
                in_slice=name,
            )
            for name, decision in decisions.items()
            for each in decision.audited
        ],
    )


def _parts(batch: BatchRecord) -> dict[str | None, RecordPart]:
    """Return the slices whose audits may save something, each with its level."""
    slices, guarantee = batch.slices, batch.guarantee
    worth = promising_slices(batch, batch.candidates)
    count = int(worth.sum())
    if not count:
        return {}
    own = Guarantee(guarantee.max_disagreement, 1 - guarantee.alpha / count)
    at_once = max(1, batch.max_in_flight // count)
    return {
        name: RecordPart(batch, items, own, at_once)
        for name, items, kept in zip(slices.names, slices.items(), worth, strict=True)
        if kept
    }


def _in_batch(wave: Wave, part: RecordPart) -> list[Wave]:
    """Return the parts of a slice's wave, by the items' places in the batch."""
    return [
        each._replace(items=part.items[each.items], also=())
        for each in (wave, *wave.also)
    ]


def _evidence(decisions: list[Decision]) -> list[tuple[Tally, Verdict]]:
    """Return what all slices have shown of each candidate."""
    found: dict[int, list[tuple[Tally, Verdict]]] = defaultdict(list)
    for decision in decisions:
        for tally, verdict in decision.evidence:
            found[tally.tier].append((tally, verdict))
    evidence = []
    for tier, each in sorted(found.items()):
        draws = sum(tally.draws for tally, _ in each)
        errors = sum(tally.errors for tally, _ in each)
        cost = sum(tally.cost * tally.draws for tally, _ in each) / draws
        verdicts = {verdict for _, verdict in each}
        shared: Verdict = "undecided"
        if "admitted" in verdicts:
            shared = "admitted"
        elif len(verdicts) == 1:
            (shared,) = verdicts
        evidence.append((Tally(tier, draws, errors, cost), shared))
    return evidence
