"""How often the reference agrees with itself, measured by asking it twice.

Where it differs from itself on a share s of the items, every candidate differs from it
on at least s/2 (proof: `docs/mathematics.md`, section 6). Where a guarantee allows
demonstrably less, a candidate would be admitted by chance only, and trying any would be
money wasted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from smart_engine.calls import Call, Failure, Outcome, check_outcome
from smart_engine.equivalence import Equivalence, agree
from smart_engine.errors import (
    InvalidInputError,
    ProtocolError,
    SmartError,
    check_whole,
)
from smart_engine.evidence.tails import clopper_pearson_lower
from smart_engine.money.ledger import LedgerScope
from smart_engine.money.spending import Spend, add_spend, record_rule_calls
from smart_engine.warn import warn

__all__ = [
    "NoisyReferenceError",
    "SelfAgreement",
    "SelfAgreementSession",
    "drawn_twice",
]


class NoisyReferenceError(InvalidInputError):
    """Every candidate must differ from the reference more often than is allowed."""


class SelfAgreement(BaseModel):
    """How often the reference's two answers to the same item differ.

    Attributes:
        task: Name of the task.
        reference: Name of the reference.
        equivalence: When two answers count as the same.
        items: Items whose two answers were compared.
        disagreements: Those whose answers differ.
        cached: Items left out because an answer came from a cache: no second answer.
        failed: Items left out because a call failed.
        confidence: Confidence of the interval.
        cost: USD spent on it, judges included.
    """

    model_config = ConfigDict(frozen=True)

    task: str
    reference: str
    equivalence: str
    items: int
    disagreements: int
    cached: int = 0
    failed: int = 0
    confidence: float
    cost: float

    @property
    def rate(self) -> float:
        """Share of the items on which the reference differs from itself."""
        return self.disagreements / self.items

    @property
    def interval(self) -> tuple[float, float]:
        """Clopper and Pearson's exact interval of that share, two-sided.

        Condition: the items were drawn at random, or are like those to come.

        Example:
            ```python
            names = {"task": "t", "reference": "big", "equivalence": "Exact()"}
            measured = SelfAgreement(
                **names, items=20, disagreements=1, confidence=0.95, cost=0.1
            )
            assert [round(end, 4) for end in measured.interval] == [0.0013, 0.2487]
            ```
        """
        differ, same = self.disagreements, self.items - self.disagreements
        lower = clopper_pearson_lower(differ, same, self.confidence)
        upper = 1 - clopper_pearson_lower(same, differ, self.confidence)
        return float(lower), float(upper)

    def refuse(self, max_disagreement: float) -> None:
        """Raise if no candidate can reach a guarantee; warn if hardly any can.

        A candidate that always gives the reference's most frequent answer differs from
        it on half of the reference's own noise at least, and on all of it at most; one
        that answers as the reference does, on all of it. So half of the interval's
        lower end refuses, and the lower end itself warns. By the measured share itself,
        half of all guarantees at the edge would be refused by chance.

        Args:
            max_disagreement: δ of the guarantee.

        Raises:
            NoisyReferenceError: It names δ, the figures and the way out.

        Warns:
            UserWarning: If δ lies between both.
        """
        lower, upper = self.interval
        if max_disagreement >= lower:
            return
        found = (
            f"{self.reference} differs from itself on {self.disagreements} of "
            f"{self.items} items ({lower:.3g} to {upper:.3g} of all, confidence "
            f"{self.confidence:.4g}) by the rule '{self.equivalence}', task "
            f"{self.task!r}: no candidate can differ on less than half of that, "
            f"{lower / 2:.3g}, and one that answers as {self.reference} does differs "
            f"on all of it, {lower:.3g} or more. Allow at least {self.rate:.3g}, "
            "compare by a rule that passes over what does not matter, or set its "
            "temperature to 0"
        )
        if max_disagreement < lower / 2:
            hint = f"{found}; or force it by accept_noise=True"
            raise NoisyReferenceError("max_disagreement", max_disagreement, hint)
        warn(f"max_disagreement={max_disagreement} may be out of reach: {found}")

    def __str__(self) -> str:
        """The measurement in one line."""
        lower, upper = self.interval
        text = (
            f"{self.task}: {self.reference} differs from itself on "
            f"{self.disagreements} of {self.items} items ({self.rate:.3g}; "
            f"{lower:.3g} to {upper:.3g} with confidence {self.confidence:.4g})"
        )
        if self.cached:
            text += f"; {self.cached} left out: answered by a cache"
        if self.failed:
            text += f"; {self.failed} left out: without two answers"
        return text


class SelfAgreementSession:
    """Asks the reference twice about each item; driven as a batch's session is.

    Args:
        n_items: Number of items; the second call about item i is number n_items + i.
        reference: Name of the reference.
        rule: When two answers mean the same.
        scope: Where every call is entered as it is recorded, if anywhere.

    Example:
        ```python
        from smart_engine.equivalence import Exact

        session = SelfAgreementSession(20, "big", Exact())
        for call in session.next_calls():
            answer = "no" if call.item == 37 else "yes"
            session.record(call, Outcome(answer, cost=0.01))
        measured = session.result("a task", confidence=0.95)
        assert (measured.items, measured.disagreements) == (20, 1)
        ```
    """

    def __init__(
        self,
        n_items: int,
        reference: str,
        rule: Equivalence,
        scope: LedgerScope | None = None,
    ) -> None:
        self._n_items, self._reference, self._rule = n_items, reference, rule
        self._scope = scope
        self._in_flight: set[Call] = set()
        self._outcomes: dict[int, Outcome | Failure] = {}
        self._same: list[bool] = []
        self._spend: dict[str, Spend] = {reference: Spend()}
        self._begun = False

    @property
    def waits(self) -> bool:
        """Whether comparing answers may wait, such as for a judge's verdict."""
        return bool(getattr(self._rule, "waits", False))

    def next_calls(self) -> list[Call]:
        """Return all calls, once: the first call about each item comes first."""
        if self._begun:
            return []
        self._begun = True
        calls = [Call(item, self._reference) for item in range(2 * self._n_items)]
        self._in_flight.update(calls)
        return calls

    def keep(self, call: Call, outcome: Outcome | Failure) -> None:
        """Do nothing with a result before it is recorded."""

    def record(self, call: Call, outcome: Outcome | Failure) -> BaseException | None:
        """Record the result of a call.

        Returns:
            Why it has no answer, None if it has one.

        Raises:
            ProtocolError: If that call is not in flight.
        """
        if call not in self._in_flight:
            raise ProtocolError(f"{call} is not in flight: record each call once")
        check_outcome(outcome)
        self._in_flight.remove(call)
        add_spend(self._spend, [(self._reference, outcome)])
        if self._scope is not None:
            self._scope.record_call(call.item, self._reference, outcome)
        self._outcomes[call.item] = outcome
        item = call.item % self._n_items
        both = [self._outcomes.get(number) for number in (item, item + self._n_items)]
        answers = [each for each in both if isinstance(each, Outcome)]
        if len(answers) == 2 and not any(answer.cached for answer in answers):
            with record_rule_calls() as calls:
                try:
                    self._same.append(agree(self._rule, *(a.answer for a in answers)))
                finally:
                    add_spend(self._spend, calls)
                    if self._scope is not None:
                        self._scope.record_judge_calls(call.item, calls)
        return outcome.error if isinstance(outcome, Failure) else None

    @property
    def done(self) -> bool:
        """Whether every call was recorded."""
        return self._begun and not self._in_flight

    def answer_or_error(self, number: int) -> Any:
        """Return the answer to a call, or the error it ended with."""
        outcome = self._outcomes.get(number)
        if outcome is None:
            return ProtocolError("the call was broken off")
        return outcome.error if isinstance(outcome, Failure) else outcome.answer

    @property
    def spend(self) -> dict[str, Spend]:
        """What was asked and what it cost, so far; judges included."""
        return dict(self._spend)

    def result(self, task: str, confidence: float) -> SelfAgreement:
        """Return what was measured.

        Args:
            task: Name of the task.
            confidence: Confidence of the interval.

        Raises:
            SmartError: If no item has two answers of its own.
        """
        failures = {
            number % self._n_items: outcome.error
            for number, outcome in self._outcomes.items()
            if isinstance(outcome, Failure)
        }
        compared, failed = len(self._same), len(failures)
        cached = self._n_items - compared - failed
        if not compared:
            problem = f"nothing to compare: of {self._n_items} items {failed} failed"
            if cached:
                problem += (
                    f", and {cached} were answered by a cache, which is no second "
                    "answer: turn the reference's cache off (cache=False)"
                )
            raise SmartError(problem) from next(iter(failures.values()), None)
        return SelfAgreement(
            task=task,
            reference=self._reference,
            equivalence=self._rule.name,
            items=compared,
            disagreements=self._same.count(False),
            cached=cached,
            failed=failed,
            confidence=confidence,
            cost=sum(part.cost for part in self._spend.values()),
        )


def drawn_twice(
    field: str, items: Sequence[Any], n: int, seed: int | None
) -> list[Any]:
    """Return at most n items in their order, drawn without replacement, and them again.

    Raises:
        InvalidInputError: If there is no item; it names the field.
    """
    check_whole("n", n, 1)
    if not items:
        raise InvalidInputError(field, [], "give items of the task")
    if len(items) > n:
        drawn = np.random.default_rng(seed).choice(len(items), n, replace=False)
        items = [items[index] for index in sorted(drawn.tolist())]
    return [*items, *items]
