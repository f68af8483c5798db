"""A few items put to every model, to learn what a whole job would cost."""

from __future__ import annotations

from collections.abc import Sequence

from smart_engine.calls import Call, Failure, Result
from smart_engine.money.ledger import LedgerScope

__all__ = ["SampleSession"]


class SampleSession:
    """Asks every model about some of a job's items; decides nothing.

    Args:
        items: Indices of the items in the job.
        models: Names of the models.
        scope: Where every call is entered as it is recorded, if anywhere.

    Example:
        ```python
        from smart_engine.calls import Outcome

        session = SampleSession([7, 3], ["big", "small"])
        for call in session.next_calls():
            session.record(call, Outcome("yes", cost=0.01))
        assert [outcome.answer for outcome in session.outcomes["big"]] == ["yes"] * 2
        assert session.next_calls() == []
        ```
    """

    waits = False

    def __init__(
        self,
        items: Sequence[int],
        models: Sequence[str],
        scope: LedgerScope | None = None,
    ) -> None:
        """Ask nobody yet."""
        self._items, self._models, self._scope = items, models, scope
        self._brought: dict[Call, Result] = {}
        self._todo = [Call(item, model) for item in items for model in models]

    def next_calls(self) -> list[Call]:
        """Return the calls that may start now: all of them, once."""
        calls, self._todo = self._todo, []
        return calls

    def keep(self, call: Call, outcome: Result) -> None:
        """Do nothing with what a call has just brought; see `ResumedSession`."""

    def record(self, call: Call, outcome: Result) -> BaseException | None:
        """Record what a call brought; return why it brought nothing, if so."""
        self._brought[call] = outcome
        if self._scope is not None:
            self._scope.record_call(call.item, call.tier, outcome)
        return outcome.error if isinstance(outcome, Failure) else None

    @property
    def outcomes(self) -> dict[str, list[Result]]:
        """Model → what it brought, item by item."""
        return {
            model: [self._brought[Call(item, model)] for item in self._items]
            for model in self._models
        }
