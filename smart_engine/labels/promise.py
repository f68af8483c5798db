r"""The promises about labels and slices. This file alone carries them.

For a label c: Q answers are handed out as c. Of those that were not compared with the
reference's, F are false, and among all other answers that were not compared, H should
have been c. Items that the reference answered are right.

    precision ≥ p  ⇔  F ≤ (1 − p)·Q,
    recall ≥ r     ⇔  H ≤ (1 − r)/r·(Q − F).

Of all answers, or of a slice's, W differ from the reference's, and at most the share δ
may. Q is known in the end; F, H and W are bounded by audits. An audit draws from nested
populations, safest items first, in one random order, so that of each population the
draws are uniform without replacement. It makes claims in an order that is fixed before
the first draw: that a population had at most b errors before it, then that it had
fewer, or how many a larger one had. Each is tested at the same level, by a design of
`evidence/acceptance.py` that is fixed, too, and made once its test accepts and all
claims before it are made. No level is divided for that:
whether a claim is true is a fact that no draw changes, and the first false one in the
order is made before any other false one, so with probability at most the level.

What is served is a population of which a claim is made; the reference answers all items
outside of it. So at most b − (all errors found in it, then or later) remain. Nothing is
assumed of b: whether it suffices for a promise is seen in the end, from the counts that
are known then. If it does not, the reference answers further items. The levels of all
audits sum to at most α, so all bounds hold together with probability 1 − α, and the
promises follow from them. An audit of which all claims are made passes its level on to
audits that are designed later: either they are all true, so that it never had any use
for it, or one is false, which was counted already.

A reference that fails on an item counts as an error there, of every kind.

Source: tests in a fixed sequence (Maurer, Hothorn & Lehmacher 1995; for thresholds of a
score BARGAIN, Zeighami et al. 2025), here on exact designs; `docs/mathematics.md`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from pydantic import BaseModel

from smart_engine.evidence.acceptance import Acceptance, SequentialTest
from smart_engine.evidence.tails import BoolArray, IntArray
from smart_engine.guarantee import as_share

__all__ = [
    "Claim",
    "NestedAudit",
    "NestedTest",
    "Promised",
    "most_false",
    "most_missed",
]

Kind = Literal["precision", "recall", "agreement"]
"""What an audit bounds: false answers of a label, missed ones, or differing answers."""


def most_false(precision: float, answers: int) -> int:
    """False ones that so many answers of a label may have: F ≤ (1 − p)·Q."""
    return math.floor((1 - as_share(precision)) * answers)


def most_missed(recall: float, right: int) -> int:
    """Missed ones that so many right answers of a label allow: H ≤ (1 − r)/r·right."""
    share = as_share(recall)
    return math.floor((1 - share) / share * max(0, right))


class Claim(NamedTuple):
    """What an audit may claim.

    Attributes:
        population: Which of the nested populations, from 0 on.
        max_errors: Errors that it had at most before the first draw; b.
        expected_errors: Errors one expects to find until it is made: the shape of its
            acceptance numbers.
    """

    population: int
    max_errors: int
    expected_errors: float = 1.0


class NestedAudit:
    """One audit of nested populations; its design is fixed when it is made.

    Args:
        rank: Per item, in the order of drawing, the smallest population, from 0 on,
            that contains it.
        claims: The claims in their order: populations grow, bounds may be any.
        level: Probability with which a false claim may be made.

    Attributes:
        claims: As given.
        level: As given.
        tests: Per claim, its test.
        made: Number of claims made.

    Raises:
        ValueError: If a claim is about a smaller population than the one before it.

    Example:
        ```python
        # 200 safe items, and 800 others of which every fourth is wrong.
        rng = np.random.default_rng(0)
        rank = rng.permutation(np.repeat([0, 1], [200, 800]))
        claims = [Claim(0, 10), Claim(1, 10)]
        audit = NestedAudit(rank, claims, 0.05)
        audit.observe(400, wrong=(rank == 1) & (rng.random(1000) < 0.25))
        assert audit.made == 1
        ```
    """

    def __init__(
        self,
        rank: IntArray,
        claims: Sequence[Claim],
        level: float,
    ) -> None:
        for before, after in pairwise(claims):
            if before.population > after.population:
                raise ValueError("a claim is about a smaller population")
        self.claims, self.level = list(claims), level
        self.made = 0
        self._rank = rank
        sizes = np.cumsum(np.bincount(rank, minlength=claims[-1].population + 1))
        self.tests = [
            SequentialTest(
                "",
                Acceptance(int(sizes[population]), most, level, expected, of_all=True),
            )
            for population, most, expected in claims
        ]

    def observe(self, drawn: int, wrong: BoolArray) -> None:
        """Look at the first draws.

        Args:
            drawn: Length of the order that was drawn: all items there of every
                population of which a claim may still be made.
            wrong: Per item in the order of drawing, whether it showed an error, the
                reference's failure being one.
        """
        while self.made < len(self.tests):
            test = self.tests[self.made]
            inside = self._rank[:drawn] <= self.claims[self.made].population
            errors = np.flatnonzero(wrong[:drawn][inside]) + 1
            fresh = errors[errors > test.draws].tolist()
            test.extend(int(inside.sum()), fresh, ())
            if test.accepted is None:
                return
            self.made += 1

    @property
    def complete(self) -> bool:
        """Whether all claims are made."""
        return self.made == len(self.claims)

    def record(self, claims: int) -> tuple[NestedTest, ...]:
        """Return what is recorded where what the last of these claims is of is served.

        Raises:
            ValueError: If it was not made.
        """
        if claims > self.made:
            raise ValueError("a population is served of which no claim was made")
        return tuple(
            NestedTest(
                items=test.acceptance.items,
                max_errors=test.acceptance.max_errors,
                expected_errors=test.acceptance.expected_errors,
                draws=test.draws,
                errors=tuple(test.errors),
                accepted=test.accepted,
            )
            for test in self.tests[:claims]
        )


class NestedTest(BaseModel, frozen=True, extra="forbid"):
    """The test of one claim.

    Attributes:
        items: Items of its population.
        max_errors: Errors that it had at most before the first draw, b.
        expected_errors: Shape of its acceptance numbers.
        draws: Items drawn of it, in random order.
        errors: Numbers of the draws, from 1, that showed an error.
        accepted: Number of draws after which it accepted, None if it did not.
    """

    items: int
    max_errors: int
    expected_errors: float
    draws: int
    errors: tuple[int, ...]
    accepted: int | None

    def replay(self, level: float) -> SequentialTest:
        """Run the test again, on the draws that are recorded."""
        design = Acceptance(
            self.items, self.max_errors, level, self.expected_errors, of_all=True
        )
        test = SequentialTest("", design)
        test.extend(self.draws, self.errors, ())
        return test


class Promised(BaseModel, frozen=True, extra="forbid"):
    """What was promised of a label, or of all answers, and what its audit has shown.

    Attributes:
        of: `precision` or `recall` of a label, or the `agreement` of all answers.
        label: The label; None for agreement.
        in_slice: The slice whose agreement it is; None for that of all answers.
        share: Least precision or recall, or largest share of differing answers; None
            where only a bound was needed.
        answers: Answers handed out as the label, in the slice, or at all.
        unseen: Answers handed out that were not compared with the reference's, in
            which such an error may be.
        level: Level of the audit; 0 without one.
        passed_on: Whether all its claims were made, so that later audits have its
            level, too.
        tests: The tests of its claims, in their order; the last one is of what is
            served.
        found: Errors found in that since the first draw.
        undetected: So many errors remain at most.
        holds: Whether the share promised follows.
    """

    of: Kind
    label: str | None = None
    in_slice: str | None = None
    share: float | None = None
    answers: int
    unseen: int
    level: float = 0.0
    passed_on: bool = False
    tests: tuple[NestedTest, ...] = ()
    found: int = 0
    undetected: int
    holds: bool = True

    @property
    def bound(self) -> int:
        """The bound on errors left that follows from the tests."""
        if not self.tests:
            return self.unseen
        return min(self.unseen, max(0, self.tests[-1].max_errors - self.found))

    @classmethod
    def follow(
        cls,
        of: Kind,
        label: str | None,
        share: float | None,
        *,
        answers: int,
        unseen: int,
        audit: NestedAudit | None = None,
        claims: int = 0,
        passed_on: bool = False,
        found: int = 0,
        false: int = 0,
        in_slice: str | None = None,
    ) -> Promised:
        """Return what follows from an audit.

        Args:
            of: What was promised; of which `label`, and with which `share`.
            label: As the attribute, like `share`, `answers` and `unseen`.
            share: As the attribute.
            answers: As the attribute.
            unseen: As the attribute.
            audit: The audit, if there was one.
            claims: Number of its claims, the last of which is of what is served.
            passed_on: As the attribute.
            found: Errors found in that since the first draw.
            false: For recall: bound on the false ones among the answers.
            in_slice: As the attribute.
        """
        draft = cls(
            of=of,
            label=label,
            in_slice=in_slice,
            share=share,
            answers=answers,
            unseen=unseen,
            level=0.0 if audit is None else audit.level,
            passed_on=passed_on,
            tests=() if audit is None else audit.record(claims),
            found=found,
            undetected=0,
        )
        draft = draft.model_copy(update={"undetected": draft.bound})
        return draft.model_copy(update={"holds": draft.excess(false) <= 0})

    def excess(self, false: int = 0) -> int:
        """Return by how much the undetected errors exceed what is allowed.

        Args:
            false: For recall: bound on the false ones among the answers.
        """
        if self.share is None:
            return 0
        if self.of == "recall":
            allowed = most_missed(self.share, self.answers - false)
        elif self.of == "precision":
            allowed = most_false(self.share, self.answers)
        else:
            allowed = math.floor(as_share(self.share) * self.answers)
        return self.undetected - allowed
