"""What follows from a batch that has ended: who answers each item, and the certificate.

It reads what a session has recorded, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from smart_engine.batch.certificate import AuditTest, Certificate, Evidence
from smart_engine.batch.label_counts import Labels
from smart_engine.batch.slice_counts import count_slices
from smart_engine.calls import ROLES, HandedOut
from smart_engine.evidence.record import (
    FAILED,
    REFERENCE,
    UNASKED,
    BatchRecord,
)
from smart_engine.evidence.tails import BoolArray
from smart_engine.strategies import Decision
from smart_engine.strategies.looks import LOOKS

__all__ = ["Ending"]


@dataclass(frozen=True, slots=True)
class Ending:
    """A batch that has ended.

    Attributes:
        batch: Its record.
        decision: How its strategy ended.
        profiled: Per item, whether the reference was paid in order to learn.
        uncovered: Per item, whether the guarantee does not cover it.
        reference_errors: Item → why the reference did not answer it.
        codes: What was read in answers → its number.
        stopped: Why it ended early, if it did.
    """

    batch: BatchRecord
    decision: Decision
    profiled: BoolArray
    uncovered: BoolArray
    reference_errors: Mapping[int, BaseException]
    codes: Mapping[Any, int]
    stopped: BaseException | None = None

    def handed_out(self) -> HandedOut:
        """Return who answers each item, and at what cost."""
        batch, decision = self.batch, self.decision
        asked = batch.status != UNASKED
        routed = self.uncovered | ~asked[REFERENCE]
        models = np.where(routed, decision.route, REFERENCE).astype(np.int16)
        roles = np.full(batch.n_items, ROLES.index("applied"), np.uint8)
        roles[asked[1:].any(axis=0) & ~routed] = ROLES.index("escalated")
        roles[self.profiled & ~routed] = ROLES.index("profiled")
        roles[self.uncovered] = ROLES.index("uncertified")
        costs, estimated = np.zeros((2, batch.n_items))
        for item, cost in batch.judge_cost.items():
            costs[item] = cost
        for item, cost in batch.judge_cost_estimated.items():
            estimated[item] = cost
        for item, cost in batch.lost.items():
            costs[item] += cost
        paid, guessed = np.zeros((2, batch.n_items))
        for tier, cost_of in enumerate(batch.costs):  # in this order, as sums are exact
            np.add(paid, cost_of, out=paid, where=~batch.cached[tier])
            np.add(guessed, cost_of, out=guessed, where=batch.estimated[tier])
        errors = self.reference_errors
        if self.stopped is not None:
            left = np.flatnonzero(models < 0).tolist()
            errors = {
                item: error for item, error in errors.items() if not routed[item]
            } | dict.fromkeys(left, self.stopped)
        costs += paid
        estimated += guessed
        return HandedOut(batch.names, models, roles, costs, estimated, errors)

    def certificate(
        self, task: str | None, strategy: str, looks: str, seed: int
    ) -> Certificate:
        """Return what was promised, what was seen, and what follows.

        Args: As of `BatchSession`.
        """
        batch, decision, names = self.batch, self.decision, self.batch.names
        guarantee, asked = batch.guarantee, batch.status[REFERENCE]
        by_reference = (asked != UNASKED) & ~self.uncovered
        failed = by_reference & (asked == FAILED)
        tiers = np.where(by_reference, REFERENCE, decision.route)
        has_answer = (tiers >= 0) & ~failed
        answering = tiers[has_answer]
        counts = np.bincount(answering, minlength=len(names)).tolist()
        tried = (batch.status[1:] != UNASKED).any(axis=0)
        answered = len(answering)
        slices = count_slices(batch.slices, names, tiers, has_answer, self.profiled)
        answers: dict[str | None, int] = {each.name: each.answered for each in slices}
        answers = answers or {None: answered}
        allowed = sum(map(guarantee.max_errors, answers.values()))
        if decision.promise is not None:
            allowed = decision.promise.allowed
        kept = self.stopped is None and (answered or not batch.n_items)
        if decision.level is not None:  # looks leave no room for missing answers
            whole = allowed == guarantee.max_errors(batch.n_items)
            kept = kept and LOOKS[looks].keeps_level
            kept = kept and (whole or not (answering != REFERENCE).any())
        kept = kept and all(each.holds for each in decision.promised)
        slice_of = decision.slice_of or [None] * len(decision.tests)
        tests = [*zip(decision.tests, slice_of, strict=True)]
        wasted: dict[str | None, int] = {}
        for test, name in tests:
            if test.ended and decision.promise is None:
                kept = kept and test.covers(answers[name])
            if test.accepted is not None:
                late = test.draws - test.accepted
                wasted[name] = min(late, wasted.get(name, late))
        names_of = Labels(batch, self.codes)
        labels = names_of.counts(tiers, has_answer)
        return Certificate(
            task=task,
            strategy=strategy,
            looks=None if decision.level is None else looks,
            level=decision.level,
            seed=seed,
            items=batch.n_items,
            max_disagreement=guarantee.max_disagreement,
            confidence=guarantee.confidence,
            max_errors=allowed,
            equivalence=batch.rule.name,
            reference=names[REFERENCE],
            evidence=tuple(
                Evidence(
                    model=names[tier],
                    draws=n,
                    errors=errors,
                    mean_cost=cost,
                    verdict=verdict,
                )
                for (tier, n, errors, cost), verdict in decision.evidence
            ),
            tests=tuple(AuditTest.of(test, name) for test, name in tests),
            promise=decision.promise,
            promised=tuple(decision.promised),
            labels=labels,
            compared=names_of.confusions(decision.audited, decision.route)
            if labels
            else (),
            slices=slices,
            wasted=sum(wasted.values()),
            profiled=int(self.profiled.sum()),
            served=dict(zip(names, counts, strict=True)),
            escalated=int((by_reference & ~self.profiled & tried).sum()),
            unanswered=batch.n_items - answered,
            uncertified=int(self.uncovered.sum()),
            spend=batch.spend,
            reference_only_cost=batch.cost_alone(
                np.flatnonzero(by_reference & has_answer),
                np.flatnonzero(~by_reference & has_answer),
                np.flatnonzero(self.profiled),
                tiers,
            ),
            valid=bool(kept),
        )
