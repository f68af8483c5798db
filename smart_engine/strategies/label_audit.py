"""`audit` where labels or slices are promised: what may go wrong is audited by them.

1. Try: ask the reference and all candidates about a few random items, and about more
   until it is clear whether audits would save anything. If so, ask the best candidate
   about all items; what it cannot answer goes to the reference, and so do slices that
   are too small for an audit to save anything. If not, the reference answers all.
2. Divide: each label has two strata, the items that would be handed out as it and all
   others; each slice is one more, or all items, if agreement is promised. Ask the
   reference about a few items of each stratum, more of the risky ones, and outright
   about the riskiest as long as that is cheapest. Then divide the level over audits.
3. Audit false answers of each label; then missed items, and the agreement. The audits
   of a stage draw in one random order, so that a draw serves all whose stratum it is
   in. The second stage has an order of its own: in that of the first, items of audited
   strata that were not drawn come late. Each missed item that is detected is one more
   right answer, which allows more of the others to stay missed. Where an audit detects
   more errors than were foreseen, its bound rises, for the last step to lower again.
   An audit of the first that has detected no error passes its level on.
4. Settle: where a bound does not suffice for a promise, the reference answers the
   riskiest items left, until it does.

The promises rest on `labels/promise.py`: every audit is designed before its own draws,
on items of which the reference has told nothing.
"""

from __future__ import annotations

import math
from collections.abc import Generator

import numpy as np

from smart_engine.evidence.record import (
    ANSWERED,
    FAILED,
    REFERENCE,
    BatchRecord,
)
from smart_engine.evidence.tails import BoolArray, IntArray
from smart_engine.labels.levels import divide
from smart_engine.labels.promise import most_missed
from smart_engine.labels.strata import Stratum
from smart_engine.strategies._base import Decision, Wave
from smart_engine.strategies.audit_trial import TELLING, promising, promising_slices
from smart_engine.strategies.label_state import (
    AuditedLabel,
    AuditedSlice,
    LabelPart,
    LabelState,
)
from smart_engine.strategies.label_trial import first_trial, next_trial

__all__ = ["label_audit"]

_FEWEST, _ROOTS = 16, 0.5
"""Items on which candidates are tried: at least so many, and roots of all items."""

_PILOT, _TOWARDS_RISK = 1.0, 1.25
"""Items of a stratum asked beforehand, in roots of its size; and the exponent by which
they lie more densely towards the risky end."""

_CHECK, _TOWARDS_EDGE = 0.4, 2.5
"""Share of the draws planned by which a plan is checked, in as many items at most; and
the exponent by which these lie more densely where what it would serve ends."""

_NEGLIGIBLE = 0.02
"""A candidate that costs no more than this share of the reference is asked besides."""


def label_audit(batch: BatchRecord, looks: str) -> Generator[Wave, None, Decision]:
    """Run the audits of labels; `looks` is for other strategies."""
    del looks
    state = LabelState(batch)
    tiers = yield from _try(state)
    yield from _claim(state, tiers)
    if not tiers:
        return state.decision()
    yield from _divide(state)
    yield from _audit_false(state)
    yield from _audit_missed(state)
    yield from _settle(state)
    return state.decision()


def _try(state: LabelState) -> Generator[Wave, None, list[int]]:
    """Ask all models about a few items; return the candidates to ask, best first."""
    batch = state.batch
    tiers = promising(batch)
    size = min(batch.n_items // 4, first_trial(batch, tiers))
    if size < TELLING or not tiers or not _auditable(batch, tiers).any():
        return []
    state.tried, order = tiers, np.argsort(state.place)
    size = min(size, int(max(_FEWEST, _ROOTS * batch.n_items**0.5)))
    while True:
        items = order[:size]
        state.compared[items] = True
        yield Wave(items, (REFERENCE, *tiers))
        tiers = _best(batch, tiers, items)
        most = next_trial(batch, tiers, items) if tiers else 0
        if most >= batch.n_items:
            return tiers
        if size >= most:
            return []
        size = min(2 * size, most)


def _best(batch: BatchRecord, tiers: list[int], items: IntArray) -> list[int]:
    """Return the candidate that is best by these items, and those that cost little."""
    truth = batch.labels[REFERENCE, items]
    errors = {}
    for tier in tiers:
        wrong = (batch.labels[tier, items] != truth) | batch.wrong[tier, items]
        wrong |= batch.status[tier, items] == FAILED
        if not wrong.all():
            errors[tier] = float(wrong.mean()) + batch.ratios[tier]
    order = sorted(errors, key=errors.__getitem__)
    cheap = [tier for tier in order[1:] if batch.ratios[tier] <= _NEGLIGIBLE]
    return [*order[:1], *cheap]


def _auditable(batch: BatchRecord, tiers: list[int]) -> BoolArray:
    """Per item, whether its slice is large enough for candidates to save anything."""
    if batch.guarantee.max_disagreement is None:
        return np.ones(batch.n_items, bool)
    return promising_slices(batch, tiers)[batch.slices.number]


def _claim(state: LabelState, tiers: list[int]) -> Generator[Wave, None, None]:
    """Ask candidates about all items worth it, and make the strata."""
    batch = state.batch
    worth = _auditable(batch, tiers)
    yield Wave(np.flatnonzero(worth & ~state.known), tuple(tiers), learning=False)
    answered = (batch.status == ANSWERED) & worth
    for tier in reversed(tiers):
        state.server[answered[tier]] = tier
    yield from state.take([np.flatnonzero((state.server == REFERENCE) & ~state.known)])
    served, every = state.server != REFERENCE, np.arange(batch.n_items)
    state.claim = np.where(served, batch.labels[state.server, every], -1)
    score = np.nan_to_num(batch.scores[state.server, every], nan=0.5)
    doubt = 1 - np.clip(score, 0.0, 1.0)
    said = np.where(answered, batch.labels, -1)[np.array(tiers, np.int64)]
    dissent = ((said != state.claim) & (said >= 0)).sum(axis=0)
    for name in batch.guarantee.labels:
        number = batch.labelling.named(name)
        is_label = state.claim == number
        claimed = np.flatnonzero(served & is_label)
        others = np.flatnonzero(served & ~is_label)
        suspected = (said == number).any(axis=0)
        label = AuditedLabel(
            batch,
            name,
            Stratum(claimed, (doubt + dissent)[claimed]),
            Stratum(others, (doubt + suspected)[others]),
        )
        state.labels.append(label)
    if batch.guarantee.max_disagreement is not None:
        for slice_name, items in zip(
            batch.slices.names, batch.slices.items(), strict=True
        ):
            inside = items[served[items]]
            stratum = Stratum(inside, (doubt + dissent)[inside])
            state.slices.append(AuditedSlice(slice_name, items, stratum))


def _divide(state: LabelState) -> Generator[Wave, None, None]:
    """Learn a little of every stratum, take risky items, and divide the level."""
    yield from state.draw(_pilot(state, part) for part in state.parts)
    alpha = state.batch.guarantee.alpha
    agreements = [(each.part.stratum, _allowed(state, each)) for each in state.slices]
    top, checked = [part.stratum.bands for part in state.parts], False
    while True:
        plans, slices, _ = divide(
            [
                (each.claimed.stratum, each.others.stratum, each.recall, each.precision)
                for each in state.labels
            ],
            agreements,
            alpha,
        )
        bounds = []
        for label, plan in zip(state.labels, plans, strict=True):
            label.plan = plan
            label.claimed.units, label.others.units = (
                plan.false_units,
                plan.missed_units,
            )
            bounds += [plan.false, plan.missed]
        for each, units in zip(state.slices, slices, strict=True):
            each.part.units = units
        bounds += [allowed for _, allowed in agreements]
        wanted = []
        for index, (part, bound) in enumerate(zip(state.parts, bounds, strict=True)):
            end = 0
            if part.units:
                end = part.costs(bound, alpha).end
            elif _needs_no_audit(state, part):
                end = top[index]
            if end < top[index]:
                top[index] = max(end, top[index] - max(1, (top[index] - end) // 2))
                wanted.append(part.stratum.unknown(top[index]))
        if wanted:
            yield from state.take(wanted)
        elif checked:
            return
        else:
            checked = True
            yield from state.draw(
                _check(state, part, bound)
                for part, bound in zip(state.parts, bounds, strict=True)
            )


def _check(state: LabelState, part: LabelPart, bound: int) -> IntArray:
    """Return a few of the items that one plans to audit, most of them the riskiest.

    What ends the buying is an estimate that is low, often by chance, and a score may
    promise too much where it is fairly sure: so a plan is made on a look at that.
    """
    if not part.units or not len(part.stratum.unknown()):
        return part.stratum.items[:0]
    costs = part.costs(bound, state.batch.guarantee.alpha)
    end = costs.end
    inside = part.stratum.items[~part.stratum.known & (part.stratum.band < end)]
    most = _PILOT * len(part.stratum.items) ** 0.5
    count = int(min(most, _CHECK * float(costs.shares[end]) * len(inside)))
    return _scattered(state, inside, count, _TOWARDS_EDGE)


def _allowed(state: LabelState, of: AuditedSlice) -> int:
    """Return how many answers of a slice may differ."""
    return state.batch.guarantee.max_errors(state.left(of))


def _needs_no_audit(state: LabelState, part: LabelPart) -> bool:
    """Whether nothing is promised of a stratum."""
    return any(part is each.others and each.recall is None for each in state.labels)


def _pilot(state: LabelState, part: LabelPart) -> IntArray:
    """Return a few items of a stratum, more of the risky ones."""
    if _needs_no_audit(state, part):
        return part.stratum.items[:0]
    items = part.stratum.items
    return _scattered(state, items, int(_PILOT * len(items) ** 0.5), _TOWARDS_RISK)


def _scattered(
    state: LabelState, items: IntArray, count: int, exponent: float
) -> IntArray:
    """Return so many of some items, more densely chosen towards the last of them."""
    spread = (np.arange(count) + state.batch.rng.random(count)) / max(count, 1)
    return items[len(items) - 1 - (spread**exponent * len(items)).astype(np.int64)]


def _audit_false(state: LabelState) -> Generator[Wave, None, None]:
    """Audit the answers that would be handed out as a label."""
    alpha = state.batch.guarantee.alpha
    for label in state.labels:
        label.claimed.begin(state.place, label.plan.false, alpha)
    yield from state.run([label.claimed for label in state.labels])


def _audit_missed(state: LabelState) -> Generator[Wave, None, None]:
    """Audit all other answers for missed items, and all of them for agreement."""
    state.place = state.batch.rng.permutation(state.batch.n_items)
    alpha = state.batch.guarantee.alpha
    parts = [part for part in state.parts if _is_late(state, part)]
    planned = sum(part.units for part in parts)
    passed_on = sum(label.claimed.pass_on() for label in state.labels)
    for part in parts:
        part.units *= 1 + passed_on / max(planned, 1.0)
    yield from state.take(
        part.stratum.unknown(part.costs(allowed, alpha).end)
        for part, allowed in _may_be_missed(state)
    )
    for part, allowed in _may_be_missed(state):
        part.begin(state.place, allowed, alpha)
    for each in state.slices:
        each.part.begin(state.place, _allowed(state, each), alpha)
    yield from state.run(parts)


def _may_be_missed(state: LabelState) -> list[tuple[LabelPart, int]]:
    """Return where missed items are audited, and how many may stay so, as is known."""
    false = {
        each.label: each.undetected
        for each, *_ in state.promised()
        if each.of == "precision"
    }
    return [
        (
            label.others,
            most_missed(label.recall, state.answers(label.number) - false[label.name]),
        )
        for label in state.labels
        if label.recall is not None and label.others.units
    ]


def _is_late(state: LabelState, part: LabelPart) -> bool:
    """Whether a stratum is audited in the second stage."""
    return all(part is not label.claimed for label in state.labels)


def _settle(state: LabelState) -> Generator[Wave, None, None]:
    """Ask about the riskiest items left until every promise follows."""
    while short := [each for each in state.promised() if each[2] > 0]:
        wanted = []
        for _, part, excess in short:
            stratum = part.stratum
            band = stratum.band[~stratum.known][-1]
            rate = max(float(stratum.rates()[band]), 0.01)
            wanted.append(stratum.unknown()[-math.ceil(excess / rate) :])
        yield from state.draw(wanted)
