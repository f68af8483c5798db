"""How often the reference agrees with itself: asked twice, compared, never guessed.

No candidate can be expected to agree with the reference more often than the reference
does. Where it demonstrably differs from itself on more items than a guarantee allows,
no candidate would be admitted but by chance, and all that is tried would be wasted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from smart_engine.calls import Call, Failure, Outcome, check_outcome
from smart_engine.equivalence import Equivalence, agree
from smart_engine.errors import InvalidInputError, ProtocolError, SmartError
from smart_engine.evidence.tails import clopper_pearson_lower
from smart_engine.money.ledger import LedgerScope
from smart_engine.money.spending import Spend, add_spend, record_rule_calls

__all__ = ["NoisyReferenceError", "SelfAgreement", "SelfAgreementSession", "sample"]


class NoisyReferenceError(InvalidInputError):
    """The reference differs from itself on more items than the guarantee allows."""


class SelfAgreement(BaseModel):
    """How often the reference's two answers to the same item differ.

    Attributes:
        task: Name of the task.
        reference: Name of the reference.
        equivalence: When two answers count as the same.
        items: Items whose two answers were compared.
        disagreements: Those whose answers differ.
        cached: Items left out, for an answer came from a cache: that is no second one.
        failed: Items left out, for a call brought no answer.
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
            told = {"task": "t", "reference": "big", "equivalence": "Exact()"}
            noise = SelfAgreement(
                **told, items=20, disagreements=1, confidence=0.95, cost=0.1
            )
            assert [round(end, 4) for end in noise.interval] == [0.0013, 0.2487]
            ```
        """
        differ, same = self.disagreements, self.items - self.disagreements
        lower = clopper_pearson_lower(differ, same, self.confidence)
        upper = 1 - clopper_pearson_lower(same, differ, self.confidence)
        return float(lower), float(upper)

    def refuse(self, max_disagreement: float) -> None:
        """Raise if a guarantee asks for less than the reference's own noise.

        The lower end of the interval decides. The measured share itself would refuse
        half of all guarantees that ask for exactly the noise, by chance; the lower end
        refuses one only if the measurement rules out that the noise fits.

        Args:
            max_disagreement: δ of the guarantee.

        Raises:
            NoisyReferenceError: It names δ, the figure and the way out.
        """
        lower, upper = self.interval
        if max_disagreement < lower:
            hint = (
                f"{self.reference} differs from itself on {self.disagreements} of "
                f"{self.items} items ({lower:.3g} to {upper:.3g} of all, confidence "
                f"{self.confidence:.4g}) by the rule '{self.equivalence}', task "
                f"{self.task!r}: no candidate can be expected to do better. Allow at "
                f"least {self.rate:.3g}, compare by a rule that passes over what does "
                "not matter, set its temperature to 0, or force it by "
                "accept_noise=True"
            )
            raise NoisyReferenceError("max_disagreement", max_disagreement, hint)

    def __str__(self) -> str:
        """Say it in one line."""
        lower, upper = self.interval
        left_out = [
            f"{count} left out: {why}"
            for count, why in (
                (self.cached, "answered by a cache"),
                (self.failed, "without two answers"),
            )
            if count
        ]
        said = (
            f"{self.task}: {self.reference} differs from itself on "
            f"{self.disagreements} of {self.items} items ({self.rate:.3g}; "
            f"{lower:.3g} to {upper:.3g} with confidence {self.confidence:.4g})"
        )
        return "; ".join([said, *left_out])


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
            said = "no" if call.item == 37 else "yes"
            session.record(call, Outcome(said, cost=0.01))
        noise = session.result("a task", confidence=0.95)
        assert (noise.items, noise.disagreements, noise.rate) == (20, 1, 0.05)
        ```
    """

    def __init__(
        self,
        n_items: int,
        reference: str,
        rule: Equivalence,
        scope: LedgerScope | None = None,
    ) -> None:
        """Nothing was asked yet."""
        self._scope = scope
        self._n_items, self._reference, self._rule = n_items, reference, rule
        self._waiting: set[Call] = set()
        self._said: list[dict[int, Outcome | Failure]] = [{} for _ in range(n_items)]
        self._same: list[bool | None] = [None] * n_items
        self._spend: dict[str, Spend] = {reference: Spend()}
        self._begun = False

    @property
    def waits(self) -> bool:
        """Whether comparing answers may wait, such as for a judge's verdict."""
        return bool(getattr(self._rule, "waits", False))

    def next_calls(self) -> list[Call]:
        """Return all calls, once: first those that come first for each item."""
        if self._begun:
            return []
        self._begun = True
        calls = [Call(item, self._reference) for item in range(2 * self._n_items)]
        self._waiting.update(calls)
        return calls

    def keep(self, call: Call, outcome: Outcome | Failure) -> None:
        """Keep nothing beside what is recorded."""

    def record(self, call: Call, outcome: Outcome | Failure) -> BaseException | None:
        """Record what a call brought.

        Returns:
            Why it brought no answer, None if it brought one.

        Raises:
            ProtocolError: If that call is not in flight.
        """
        if call not in self._waiting:
            raise ProtocolError(f"{call} is not in flight: record each call once")
        check_outcome(outcome)
        self._waiting.remove(call)
        add_spend(self._spend, [(self._reference, outcome)])
        if self._scope is not None:
            self._scope.record_call(call.item, self._reference, outcome)
        turn, item = divmod(call.item, self._n_items)
        said = self._said[item]
        said[turn] = outcome
        answers = [each for each in said.values() if isinstance(each, Outcome)]
        if len(answers) == 2 and not any(answer.cached for answer in answers):
            first, second = answers
            self._compare(call.item, item, first.answer, second.answer)
        return outcome.error if isinstance(outcome, Failure) else None

    def _compare(self, number: int, item: int, first: Any, second: Any) -> None:
        """Compare an item's two answers, and book what it cost to say."""
        with record_rule_calls() as bought:
            try:
                self._same[item] = agree(self._rule, first, second)
            finally:
                add_spend(self._spend, bought)
                if self._scope is not None:
                    self._scope.record_judge_calls(number, bought)

    @property
    def done(self) -> bool:
        """Whether every call was recorded."""
        return self._begun and not self._waiting

    def brought(self, number: int) -> Any:
        """Return what a call brought: an answer, or why there is none."""
        turn, item = divmod(number, self._n_items)
        outcome = self._said[item].get(turn)
        if outcome is None:
            return ProtocolError("the call was broken off")
        return outcome.error if isinstance(outcome, Failure) else outcome.answer

    @property
    def spend(self) -> dict[str, Spend]:
        """What was asked and what it cost, so far; judges included."""
        return dict(self._spend)

    def result(self, task: str, confidence: float) -> SelfAgreement:
        """Return what was seen.

        Args:
            task: Name of the task.
            confidence: Confidence of the interval.

        Raises:
            SmartError: If no item has two answers of its own.
        """
        compared = [same for same in self._same if same is not None]
        failed = sum(
            any(isinstance(outcome, Failure) for outcome in said.values())
            for said in self._said
        )
        cached = self._n_items - len(compared) - failed
        if not compared:
            problem = f"nothing to compare: of {self._n_items} items {failed} failed"
            if cached:
                problem += (
                    f", and {cached} were answered by a cache, which is no second "
                    "answer: turn the reference's cache off (cache=False)"
                )
            for said in self._said:
                for outcome in said.values():
                    if isinstance(outcome, Failure):
                        raise SmartError(problem) from outcome.error
            raise SmartError(problem)
        return SelfAgreement(
            task=task,
            reference=self._reference,
            equivalence=self._rule.name,
            items=len(compared),
            disagreements=compared.count(False),
            cached=cached,
            failed=failed,
            confidence=confidence,
            cost=sum(part.cost for part in self._spend.values()),
        )


def sample(items: Sequence[Any], n: int, seed: int) -> list[Any]:
    """Return at most so many items, drawn at random without replacement."""
    if len(items) <= n:
        return list(items)
    drawn = np.random.default_rng(seed).choice(len(items), n, replace=False)
    return [items[place] for place in sorted(drawn.tolist())]
