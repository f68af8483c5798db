"""What an audit of labels knows of its batch: strata, their audits, what follows."""

from __future__ import annotations

from collections.abc import Generator, Iterable

import numpy as np

from smart_engine.evidence.record import (
    ANSWERED,
    FAILED,
    REFERENCE,
    UNASKED,
    BatchRecord,
)
from smart_engine.evidence.tails import BoolArray, IntArray
from smart_engine.labels.levels import UNITS, LabelPlan
from smart_engine.labels.promise import Kind, Promised, missed_per_right
from smart_engine.labels.running import RunningAudit
from smart_engine.labels.strata import Costs, Stratum
from smart_engine.strategies._base import Audited, Decision, Tally, Verdict, Wave

__all__ = ["AuditedLabel", "AuditedSlice", "LabelPart", "LabelState"]


class LabelPart:
    """A stratum with its audit.

    Attributes:
        stratum: The items.
        gain: Errors that may stay undetected besides, for each one detected.
        units: Parts of the level for its audit.
        audit: The audit, if it was begun.
        passed_on: Whether its level was given to later audits.
    """

    def __init__(self, stratum: Stratum, gain: float = 0.0) -> None:
        self.stratum = stratum
        self.gain = gain
        self.units = 0.0
        self.audit: RunningAudit | None = None
        self.passed_on = False

    def begin(self, place: IntArray, allowed: int, alpha: float) -> None:
        """Design its audit, if it has a part of the level."""
        if self.units and len(self.stratum.unknown()):
            level = alpha * self.units / UNITS
            self.audit = RunningAudit(self.stratum, place, allowed, level, self.gain)

    def costs(self, allowed: float, alpha: float) -> Costs:
        """Return what its audit is expected to cost, band by band."""
        return self.stratum.costs(allowed, alpha * self.units / UNITS, self.gain)

    def pass_on(self) -> float:
        """Return the parts of the level that later audits may use besides theirs."""
        self.passed_on = self.audit is not None and not self.audit.test.errors
        return self.units if self.passed_on or self.audit is None else 0.0

    def next_draws(self) -> IntArray:
        """Return what its audit draws next."""
        if self.audit is None:
            return self.stratum.items[:0]
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
            test=None if audit is None else audit.test,
            passed_on=self.passed_on,
            found=0 if audit is None else audit.found,
            false=false,
            in_slice=in_slice,
        )


class AuditedSlice:
    """All answers of a slice, or of a batch that has none.

    Attributes:
        name: Its name; None for the batch.
        items: All of its items.
        part: Those that candidates would serve.
    """

    def __init__(self, name: str | None, items: IntArray, stratum: Stratum) -> None:
        self.name, self.items = name, items
        self.part = LabelPart(stratum)


class AuditedLabel:
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
        gain = 0.0 if self.recall is None else missed_per_right(self.recall)
        self.claimed, self.others = LabelPart(claimed), LabelPart(others, gain)
        self.plan = LabelPlan(0, 0, 0, 0)


class LabelState:
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
        self.labels: list[AuditedLabel] = []
        self.slices: list[AuditedSlice] = []

    @property
    def known(self) -> BoolArray:
        """Per item, whether the reference was asked."""
        return np.asarray(self.batch.status[REFERENCE] >= ANSWERED)

    @property
    def parts(self) -> list[LabelPart]:
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

    def run(self, parts: Iterable[LabelPart]) -> Generator[Wave, None, None]:
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

    def promised(self) -> list[tuple[Promised, LabelPart, int]]:
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

    def left(self, of: AuditedSlice) -> int:
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
