r"""The promises about labels and slices. This file alone carries them.

For a label c: Q answers are handed out as c. Of those that were not compared with the
reference's, F are false, and among all other answers that were not compared, H should
have been c. Items that the reference answered are right.

    precision ≥ p  ⇔  F ≤ (1 − p)·Q,
    recall ≥ r     ⇔  H ≤ (1 − r)/r·(Q − F).

Of all answers, or of a slice's, W differ from the reference's, and at most the share δ
may. Q is known in the end; F, H and W are bounded by audits. An audit is about those
unknown items of a stratum that candidates are to serve, and its design, one of
`evidence/acceptance.py`, is fixed before its first draw: once it accepts after c errors
detected, at most B stay undetected, so that B + c were in all of its items. Errors of
them that later calls find are fewer that remain. Nothing is assumed of B: whether it
suffices for a promise is seen in the end, from the counts that are known then. If it
does not, the reference answers further items. The levels of all audits sum to at most
α, so all bounds hold together with probability 1 − α, and the promises follow from
them. An audit that accepts without an error detected passes its level on to audits that
are designed later: either B or fewer errors were there, so that it never had any use
for it, or it has accepted wrongly, which was counted already.

A reference that fails on an item counts as an error there, of every kind.

Source: `docs/mathematics.md`, section 5; levels passed on as in Bretz et al. 2009.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel

from smart_engine.evidence.acceptance import Acceptance, SequentialTest, risen
from smart_engine.guarantee import as_share

__all__ = [
    "LabelTest",
    "Promised",
    "missed_per_right",
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


def missed_per_right(recall: float) -> float:
    """Missed ones that each further right answer of a label allows."""
    share = as_share(recall)
    return float((1 - share) / share)


class LabelTest(BaseModel, frozen=True, extra="forbid"):
    """The test of an audit that has accepted.

    Attributes:
        items: Items that it is about.
        max_errors: Errors that may stay undetected, B.
        gain: Errors that may stay undetected besides, for each one detected.
        expected_errors: Shape of its acceptance numbers.
        foreseen: Errors detected that were expected at most.
        surplus: Errors that may stay undetected besides, for each one beyond those.
        draws: Items drawn, in random order.
        errors: Numbers of the draws, from 1, that showed an error.
        accepted: Number of draws after which it accepted.
    """

    items: int
    max_errors: int
    gain: float = 0.0
    expected_errors: float
    foreseen: int = 0
    surplus: float = 0.0
    draws: int
    errors: tuple[int, ...]
    accepted: int

    @classmethod
    def of(cls, test: SequentialTest) -> LabelTest:
        """Return what is recorded of a test.

        Raises:
            ValueError: If it did not accept.
        """
        if test.accepted is None:
            raise ValueError("what is served was not accepted")
        return cls(
            items=test.acceptance.items,
            max_errors=test.acceptance.max_errors,
            gain=test.acceptance.gain,
            expected_errors=test.acceptance.expected_errors,
            foreseen=test.acceptance.foreseen,
            surplus=test.acceptance.surplus,
            draws=test.draws,
            errors=tuple(test.errors),
            accepted=test.accepted,
        )

    @property
    def detected(self) -> int:
        """Errors that were detected when it accepted."""
        return sum(number <= self.accepted for number in self.errors)

    @property
    def undetected(self) -> int:
        """Errors that stay undetected at most, as it accepted."""
        rise = risen(self.detected, self.gain, self.foreseen, self.surplus)
        return self.max_errors + rise

    def replay(self, level: float) -> SequentialTest:
        """Run the test again, on the draws that are recorded."""
        design = Acceptance(
            self.items,
            self.max_errors,
            level,
            self.expected_errors,
            self.gain,
            self.foreseen,
            self.surplus,
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
        passed_on: Whether it accepted without an error, so that later audits have its
            level, too.
        test: Its test; None without one.
        found: Errors found in its items since the first draw.
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
    test: LabelTest | None = None
    found: int = 0
    undetected: int
    holds: bool = True

    @property
    def bound(self) -> int:
        """The bound on errors left that follows from the test."""
        if self.test is None:
            return self.unseen
        before = self.test.undetected + self.test.detected
        return min(self.unseen, max(0, before - self.found))

    @classmethod
    def follow(
        cls,
        of: Kind,
        label: str | None,
        share: float | None,
        *,
        answers: int,
        unseen: int,
        test: SequentialTest | None = None,
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
            test: The audit's test, if there was one.
            passed_on: As the attribute.
            found: As the attribute.
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
            level=0.0 if test is None else test.acceptance.level,
            passed_on=passed_on,
            test=None if test is None else LabelTest.of(test),
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
