"""`audit` where labels or slices are promised: what may go wrong is audited by them.

1. Try: ask the reference and all candidates about a few random items. Then ask the best
   candidate about all items; what it cannot answer goes to the reference, and so do
   slices that are too small for an audit to save anything.
2. Divide: each label has two strata, the items that would be handed out as it and all
   others; each slice is one more, or all items, if agreement is promised. Ask the
   reference about a few items of each stratum, more of the risky ones, and outright
   about the riskiest as long as that is cheapest. Then divide the level over audits.
3. Audit false answers of each label; then missed items, and the agreement. The audits
   of a stage draw in one random order, so that a draw serves all whose stratum it is
   in. The second stage has an order of its own: in that of the first, items of audited
   strata that were not drawn come late.
4. Settle: where a bound does not suffice for a promise after all, the reference answers
   the riskiest items left, until it does.

The promises rest on `labels/promise.py`: every audit is designed before its own draws,
on items of which the reference has told nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from functools import partial

import numpy as np

from smart_engine.evidence.record import (
    ANSWERED,
    FAILED,
    REFERENCE,
    UNASKED,
    BatchRecord,
)
from smart_engine.evidence.tails import BoolArray, IntArray
from smart_engine.labels.levels import UNITS, LabelPlan, divide, least_share
from smart_engine.labels.promise import Kind, Promised, most_missed
from smart_engine.labels.running import RunningAudit
from smart_engine.labels.strata import Stratum
from smart_engine.strategies._base import Audited, Decision, Tally, Verdict, Wave
from smart_engine.strategies.audit_trial import promising, promising_slices

__all__ = ["label_audit"]

_FEWEST, _ROOTS = 16, 0.5
"""Items on which candidates are tried: at least so many, and roots of all items."""

_PILOT, _TOWARDS_RISK = 1.0, 1.25
"""Items of a stratum asked beforehand, in roots of its size; and the exponent by which
they lie more densely towards the risky end."""

_CHECK = 0.2
"""Share of the draws planned by which a plan is checked, in as many items at most."""

_FOUND = 0.6
"""Share of the missed items still to be found on which the bound of an audit relies."""

_NEGLIGIBLE = 0.02
"""A candidate that costs no more than this share of the reference is asked besides."""


def label_audit(batch: BatchRecord, looks: str) -> Generator[Wave, None, Decision]:
    """Run the audits of labels; `looks` is for other strategies."""
    del looks
    state = _State(batch)
    tiers = yield from _try(state)
    yield from _claim(state, tiers)
    if not tiers:
        return state.decision()
    yield from _divide(state)
    yield from _audit_false(state)
    yield from _audit_missed(state)
    yield from _settle(state)
    return state.decision()


class _Part:
    """A stratum with its audit.

    Attributes:
        stratum: The items.
        units: Parts of the level for its audit.
        allowed: Returns how many errors may stay undetected, by what is known.
        audit: The audit, if it was begun.
    """

    def __init__(self, stratum: Stratum) -> None:
        self.stratum = stratum
        self.units = 0.0
        self.allowed: Callable[[], int] = lambda: 0
        self.audit: RunningAudit | None = None

    def begin(self, place: IntArray, allowed: Callable[[], int], alpha: float) -> None:
        """Design its audit, if it has a part of the level."""
        if self.units and len(self.stratum.unknown()):
            level = alpha * self.units / UNITS
            self.allowed = allowed
            self.audit = RunningAudit(self.stratum, place, allowed(), level)

    def next_draws(self) -> IntArray:
        """Return what its audit draws next."""
        if self.audit is None:
            return self.stratum.items[:0]
        self.audit.allowed = self.allowed()
        return self.audit.next_draws()

    def follow(
        self,
        of: Kind,
        label: str | None,
        share: float | None,
        answers: int,
        unseen: int,
        false: int = 0,
        in_slice: str | None = None,
    ) -> Promised:
        """Return what follows from its audit."""
        audit = self.audit
        return Promised.follow(
            of,
            label,
            share,
            answers=answers,
            unseen=unseen,
            audit=None if audit is None else audit.audit,
            claims=0 if audit is None else audit.served or 0,
            found=0 if audit is None else audit.found,
            false=false,
            in_slice=in_slice,
        )


class _Slice:
    """All answers of a slice, or of a batch that has none.

    Attributes:
        name: Its name; None for the batch.
        items: All of its items.
        part: Those that candidates would serve.
    """

    def __init__(self, name: str | None, items: IntArray, stratum: Stratum) -> None:
        self.name, self.items = name, items
        self.part = _Part(stratum)


class _Label:
    """A label with its strata.

    Attributes:
        name: Its name.
        number: Its number among the labels of the batch.
        recall: Least recall, None if none is promised.
        precision: Least precision, None if none is promised.
        claimed: Items that would be handed out as it.
        others: All other items that candidates would serve.
        plan: How both are audited.
    """

    def __init__(
        self, batch: BatchRecord, name: str, claimed: Stratum, others: Stratum
    ) -> None:
        self.name = name
        self.number = batch.labelling.named(name)
        self.recall = batch.guarantee.recall.get(name)
        self.precision = batch.guarantee.precision.get(name)
        self.claimed, self.others = _Part(claimed), _Part(others)
        self.plan = LabelPlan(0, 0, 0, 0)


class _State:
    """What is known of the batch.

    Attributes:
        batch: The batch.
        place: Per item, its place in the random order in which a stage draws.
        server: Per item, the candidate that would serve it; the reference if none can.
        claim: Per item, the number of the label it would be handed out with.
        compared: Per item, whether its answers were compared with the reference's.
        tried: Candidates that were asked.
        labels: The labels, once they have strata.
        slices: The slices, if their agreement is promised; all items without any.
    """

    def __init__(self, batch: BatchRecord) -> None:
        n_items = batch.n_items
        self.batch = batch
        self.place = batch.rng.permutation(n_items)
        self.server = np.full(n_items, REFERENCE, np.int16)
        self.claim = np.full(n_items, -1, np.int64)
        self.compared = np.zeros(n_items, bool)
        self.tried: list[int] = []
        self.labels: list[_Label] = []
        self.slices: list[_Slice] = []

    @property
    def known(self) -> BoolArray:
        """Per item, whether the reference was asked."""
        return np.asarray(self.batch.status[REFERENCE] >= ANSWERED)

    @property
    def parts(self) -> list[_Part]:
        """All strata that are audited."""
        found = [
            part for label in self.labels for part in (label.claimed, label.others)
        ]
        return [*found, *(each.part for each in self.slices)]

    def learn(self) -> None:
        """Show all strata what is known by now."""
        known, truth = self.known, self.batch.labels[REFERENCE]
        failed = self.batch.status[REFERENCE] == FAILED
        for label in self.labels:
            label.claimed.stratum.learn(known, (truth != label.number) | failed)
            label.others.stratum.learn(known, (truth == label.number) | failed)
        wrong = self.batch.wrong[self.server, np.arange(len(known))] & self.compared
        for each in self.slices:
            each.part.stratum.learn(known, wrong | failed)

    def draw(self, items: Iterable[IntArray]) -> Generator[Wave, None, None]:
        """Ask the reference about items, and compare."""
        wanted = np.unique(np.concatenate([np.zeros(0, np.int64), *items]))
        self.compared[wanted] |= ~self.known[wanted]
        yield Wave(wanted[np.argsort(self.place[wanted])], (REFERENCE,))
        self.learn()

    def take(self, items: Iterable[IntArray]) -> Generator[Wave, None, None]:
        """Ask the reference about items outright."""
        wanted = np.unique(np.concatenate([np.zeros(0, np.int64), *items]))
        yield Wave(wanted, (REFERENCE,), learning=False)
        self.learn()

    def run(self, parts: Iterable[_Part]) -> Generator[Wave, None, None]:
        """Run audits side by side; what they do not serve goes to the reference."""
        audited = [part for part in parts if part.audit is not None]
        draws = [part.next_draws() for part in audited]
        while any(map(len, draws)):
            yield from self.draw(draws)
            draws = [part.next_draws() for part in audited]
        yield from self.take(part.audit.outside() for part in audited if part.audit)

    def answers(self, number: int) -> int:
        """Return how many answers have a label, if nothing more is asked."""
        by_reference = self.batch.status[REFERENCE] == ANSWERED
        by_reference &= self.batch.labels[REFERENCE] == number
        return int((by_reference | (~self.known & (self.claim == number))).sum())

    def promised(self) -> list[tuple[Promised, _Part, int]]:
        """Return what follows by now, from which audit, and how much is left over."""
        found = []
        for label in self.labels:
            answers = self.answers(label.number)
            unseen = len(label.claimed.stratum.unknown())
            false = label.claimed.follow(
                "precision", label.name, label.precision, answers, unseen
            )
            found.append((false, label.claimed, false.excess()))
            if label.recall is not None:
                unseen, bound = len(label.others.stratum.unknown()), false.undetected
                missed = label.others.follow(
                    "recall", label.name, label.recall, answers, unseen, bound
                )
                found.append((missed, label.others, missed.excess(bound)))
        share, known = self.batch.guarantee.max_disagreement, self.known
        for each in self.slices:
            answers, unseen = self.left(each), int((~known[each.items]).sum())
            same = each.part.follow(
                "agreement", None, share, answers, unseen, in_slice=each.name
            )
            found.append((same, each.part, same.excess()))
        return found

    def left(self, of: _Slice) -> int:
        """Return how many items of a slice can still have an answer."""
        lost = self.batch.status[REFERENCE, of.items] == FAILED
        return len(of.items) - int(lost.sum())

    def decision(self) -> Decision:
        """Route and evidence as they stand."""
        batch, drawn = self.batch, np.flatnonzero(self.compared)
        serving = set(np.unique(self.server[~self.known]).tolist())
        evidence: list[tuple[Tally, Verdict]] = []
        for tier in self.tried:
            asked = drawn[batch.status[tier, drawn] != UNASKED]
            if len(asked):
                cost = batch.cost(tier, asked) / len(asked)
                tally = Tally(tier, len(asked), batch.errors(tier, asked), cost)
                verdict: Verdict = "admitted" if tier in serving else "undecided"
                evidence.append((tally, verdict))
        promised = [each for each, *_ in self.promised()]
        compared = Audited(drawn, self.server[drawn], drawn[:0])
        return Decision(self.server, evidence, promised=promised, audited=[compared])


def _try(state: _State) -> Generator[Wave, None, list[int]]:
    """Ask all models about a few items; return the candidates to ask, best first."""
    batch = state.batch
    size = int(min(max(_FEWEST, _ROOTS * batch.n_items**0.5), batch.n_items // 4))
    active = promising(batch) if size else []
    if not active or not _auditable(batch, active).any():
        return []
    items = np.argsort(state.place)[:size]
    state.tried, state.compared[items] = active, True
    yield Wave(items, (REFERENCE, *active))
    truth = batch.labels[REFERENCE, items]
    errors = {}
    for tier in active:
        wrong = (batch.labels[tier, items] != truth) | batch.wrong[tier, items]
        wrong |= batch.status[tier, items] == FAILED
        if not wrong.all():
            errors[tier] = float(wrong.mean()) + batch.ratios[tier]
    order = sorted(errors, key=errors.__getitem__)
    if not order or _least_cost(batch, truth) + batch.ratios[order[0]] > (
        1 - batch.min_saving
    ):
        return []
    cheap = [tier for tier in order[1:] if batch.ratios[tier] <= _NEGLIGIBLE]
    return [order[0], *cheap]


def _least_cost(batch: BatchRecord, truth: IntArray) -> float:
    """Least share of the items that the reference must answer, by what was seen."""
    least, alpha = 0.0, batch.guarantee.alpha
    for name, recall in batch.guarantee.recall.items():
        seen = int((truth == batch.labelling.named(name)).sum())
        items = (seen + 1) / (len(truth) + 1) * batch.n_items
        least = max(least, least_share(recall, int(items), alpha))
    return least


def _auditable(batch: BatchRecord, tiers: list[int]) -> BoolArray:
    """Per item, whether its slice is large enough for candidates to save anything."""
    if batch.guarantee.max_disagreement is None:
        return np.ones(batch.n_items, bool)
    return promising_slices(batch, tiers)[batch.slices.number]


def _claim(state: _State, tiers: list[int]) -> Generator[Wave, None, None]:
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
        label = _Label(
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
            state.slices.append(_Slice(slice_name, items, stratum))


def _divide(state: _State) -> Generator[Wave, None, None]:
    """Learn a little of every stratum, take risky items, and divide the level."""
    yield from state.draw(_scattered(state, part) for part in state.parts)
    alpha = state.batch.guarantee.alpha
    agreements = [(each.part.stratum, _allowed(state, each)) for each in state.slices]
    top, checked = [part.stratum.bands for part in state.parts], False
    while True:
        plans, slices = divide(
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
                level = alpha * part.units / UNITS
                end = int(part.stratum.costs(float(bound), level).calls.argmin())
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


def _check(state: _State, part: _Part, bound: int) -> IntArray:
    """Return a few of the items that one plans to audit.

    What ends the buying is an estimate that is low, often by chance: so a plan is made
    on a look at what it would serve.
    """
    left = part.stratum.unknown()
    if not part.units or not len(left):
        return left[:0]
    level = state.batch.guarantee.alpha * part.units / UNITS
    costs = part.stratum.costs(float(bound), level)
    planned = float(costs.shares[int(costs.calls.argmin())]) * len(left)
    most = _PILOT * len(part.stratum.items) ** 0.5
    count = int(min(most, _CHECK * planned))
    return state.batch.rng.permutation(left)[:count]


def _allowed(state: _State, of: _Slice) -> int:
    """Return how many answers of a slice may differ."""
    return state.batch.guarantee.max_errors(state.left(of))


def _needs_no_audit(state: _State, part: _Part) -> bool:
    """Whether nothing is promised of a stratum."""
    return any(part is each.others and each.recall is None for each in state.labels)


def _scattered(state: _State, part: _Part) -> IntArray:
    """Return a few items of a stratum, more of the risky ones."""
    if _needs_no_audit(state, part):
        return np.zeros(0, np.int64)
    size = len(part.stratum.items)
    count = int(_PILOT * size**0.5)
    spread = (np.arange(count) + state.batch.rng.random(count)) / max(count, 1)
    places = size - 1 - (spread**_TOWARDS_RISK * size).astype(np.int64)
    return part.stratum.items[places]


def _audit_false(state: _State) -> Generator[Wave, None, None]:
    """Audit the answers that would be handed out as a label."""
    alpha = state.batch.guarantee.alpha
    for label in state.labels:
        label.claimed.begin(state.place, partial(_may_be_false, label), alpha)
    yield from state.run([label.claimed for label in state.labels])


def _may_be_false(label: _Label) -> int:
    """Return how many answers of a label may stay false, as planned."""
    return label.plan.false


def _audit_missed(state: _State) -> Generator[Wave, None, None]:
    """Audit all other answers for missed items, and all of them for agreement."""
    state.place = state.batch.rng.permutation(state.batch.n_items)
    alpha = state.batch.guarantee.alpha
    bounds = {
        each.label: each for each, *_ in state.promised() if each.of == "precision"
    }
    for label in state.labels:
        if label.recall is not None:
            false = bounds[label.name].undetected
            allowed = partial(_may_be_missed, state, label, label.recall, false)
            label.others.begin(state.place, allowed, alpha)
    for each in state.slices:
        each.part.begin(state.place, partial(_allowed, state, each), alpha)
    yield from state.run(part for part in state.parts if _is_late(state, part))


def _may_be_missed(state: _State, label: _Label, recall: float, false: int) -> int:
    """Return how many items of a label may stay missed, with those still to be found.

    Args:
        state: What is known.
        label: The label.
        recall: Least recall.
        false: Bound of the false ones among its answers.
    """
    stratum, right = label.others.stratum, state.answers(label.number) - false
    level = state.batch.guarantee.alpha * max(label.others.units, 1) / UNITS
    costs = stratum.costs(float(most_missed(recall, right)), level)
    end = int(costs.calls.argmin())
    left = stratum.per_band(~stratum.known) * stratum.rates()
    right += int(_FOUND * (costs.found[end] + left[end:].sum()))
    return most_missed(recall, right)


def _is_late(state: _State, part: _Part) -> bool:
    """Whether a stratum is audited in the second stage."""
    return all(part is not label.claimed for label in state.labels)


def _settle(state: _State) -> Generator[Wave, None, None]:
    """Ask about the riskiest items left, until every promise follows."""
    while True:
        wanted = []
        for _, part, excess in state.promised():
            if excess > 0:
                rates, stratum = part.stratum.rates(), part.stratum
                left = stratum.unknown()
                band = stratum.band[~stratum.known][-1]
                count = int(np.ceil(excess / max(float(rates[band]), 0.01)))
                wanted.append(left[-count:])
        if not wanted:
            return
        yield from state.draw(wanted)
