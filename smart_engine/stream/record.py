"""The accounts of a stream: totals and a short history, however long it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from smart_engine.calls import Outcome, Result, Role, Served
from smart_engine.money.spending import Spend, spend_of
from smart_engine.stream.guard import StreamGuard
from smart_engine.stream.state import SharedPart, StreamPoint, Totals

__all__ = ["StreamRecord"]

_GROWTH = 0.05  # of the number of answers after which the history gains a point


class StreamRecord:
    """Totals of calls, costs and answers.

    Args:
        names: Names of the models, reference first.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.unanswered = 0  # items for which the reference itself failed
        self.abandoned = 0  # items closed before their answer was handed out
        self.served = dict.fromkeys(names, 0)  # answers handed out
        self.roles: dict[Role, int] = dict.fromkeys(get_args(Role), 0)
        self.models = dict.fromkeys(names, Spend())
        self.judges: dict[str, Spend] = {}
        self.history: list[StreamPoint] = []

    @property
    def cost(self) -> float:
        """USD spent on all models, judges included."""
        models = sum(spend.cost for spend in self.models.values())
        return models + sum(spend.cost for spend in self.judges.values())

    def book(self, model: str, result: Result, *, usable: bool) -> None:
        """Book a call; one without a usable answer counts as a failure."""
        self.models[model] += spend_of(result)
        if isinstance(result, Outcome) and not usable:
            self.models[model] += Spend(failures=1)

    def hand_out(self, served: Served) -> None:
        """Count an answer, or an item handed back with an error."""
        if served.error is not None:
            self.unanswered += 1
        else:
            self.served[served.tier] += 1
            self.roles[served.role] += 1

    def mark(self, guard: StreamGuard) -> None:
        """Add a point to the history, if the stream has grown enough."""
        last = self.history[-1].answered if self.history else 0
        if guard.answered > last + int(_GROWTH * last):
            point = StreamPoint(
                answered=guard.answered,
                allowed=guard.allowed(),
                possible_misses=guard.possible_errors,
                audits=guard.audits,
                cost=self.cost,
            )
            self.history.append(point)

    def totals(self, guard: StreamGuard) -> Totals:
        """Return all totals, to be shared."""
        return Totals(
            answered=guard.answered,
            unanswered=self.unanswered,
            abandoned=self.abandoned,
            audits=guard.audits,
            found=guard.detected,
            served=dict(self.served),
            roles=dict(self.roles),
            spend=dict(self.models),
            judging=dict(self.judges),
        )

    def take_up(self, part: SharedPart) -> None:
        """Go on from where other processes have come.

        Raises:
            ValueError: If these are totals over other models.
        """
        totals, names = part.sums, [*self.models]
        if [*totals.served] != names or [*totals.spend] != names:
            raise ValueError("totals over other models")
        self.unanswered, self.abandoned = totals.unanswered, totals.abandoned
        self.served = dict(totals.served)
        self.roles.update(totals.roles)
        self.models, self.judges = dict(totals.spend), dict(totals.judging)
        self.history = list(part.history)
