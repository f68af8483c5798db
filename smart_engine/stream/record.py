"""What a stream has asked, paid and handed out: sums only, however long it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from smart_engine.calls import Failure, Outcome, Role
from smart_engine.money.spending import Spend
from smart_engine.stream.shared import Sums

__all__ = ["StreamRecord"]


class _Account:
    """Running sums of one model."""

    __slots__ = (
        "calls",
        "cost",
        "estimated",
        "failures",
        "input_tokens",
        "output_tokens",
    )

    def __init__(self) -> None:
        self.calls = self.failures = 0
        self.cost = self.estimated = self.input_tokens = self.output_tokens = 0.0


class StreamRecord:
    """Running sums.

    Args:
        names: Names of the models, reference first.

    Attributes:
        answered: Answers handed out.
        unanswered: Items handed back with an error, for the reference failed.
        abandoned: Items that nobody waited for.
        audits: Items that a coin sent to the reference.
        found: Audits that showed an error, or might have.
        judging: Judge → what its verdicts cost.
        served: Per model, answers handed out.
        roles: Role → answers handed out.
    """

    def __init__(self, names: Sequence[str]) -> None:
        """Start with nothing asked."""
        self._accounts = {name: _Account() for name in names}
        self._by_tier = list(self._accounts.values())
        self.answered = self.unanswered = self.abandoned = 0
        self.audits = self.found = 0
        self.judging: dict[str, Spend] = {}
        self.served = [0] * len(names)
        self.roles: dict[Role, int] = dict.fromkeys(get_args(Role), 0)

    def book(self, tier: int, outcome: Outcome | Failure, *, failed: bool) -> None:
        """Book a call."""
        account = self._by_tier[tier]
        account.calls += 1
        account.failures += failed
        account.cost += outcome.paid
        account.estimated += outcome.estimated
        if outcome.usage is not None:
            account.input_tokens += outcome.usage.input_tokens
            account.output_tokens += outcome.usage.output_tokens

    def lost(self, tier: int) -> None:
        """Book a call whose outcome will never be known."""
        self._by_tier[tier].calls += 1
        self._by_tier[tier].failures += 1

    def hand_out(self, tier: int, role: Role, *, failed: bool) -> None:
        """Count an answer, or an item handed back with an error."""
        if failed:
            self.unanswered += 1
            return
        self.answered += 1
        self.served[tier] += 1
        self.roles[role] += 1

    @property
    def cost(self) -> float:
        """USD spent by all models, judges included."""
        models = sum(account.cost for account in self._by_tier)
        return models + sum(spend.cost for spend in self.judging.values())

    def spend(self) -> dict[str, Spend]:
        """Model or judge → what it was asked and what it cost."""
        return self._models() | self.judging

    def _models(self) -> dict[str, Spend]:
        """Model → what it was asked and what it cost."""
        return {
            name: Spend(
                calls=account.calls,
                failures=account.failures,
                cost=account.cost,
                input_tokens=account.input_tokens,
                output_tokens=account.output_tokens,
                estimated=account.estimated,
            )
            for name, account in self._accounts.items()
        }

    def sums(self) -> Sums:
        """Return all sums, to be shared."""
        return Sums(
            answered=self.answered,
            unanswered=self.unanswered,
            abandoned=self.abandoned,
            audits=self.audits,
            found=self.found,
            served=dict(zip(self._accounts, self.served, strict=True)),
            roles=dict(self.roles),
            spend=self._models(),
            judging=dict(self.judging),
        )

    def take_up(self, sums: Sums) -> None:
        """Go on from such sums.

        Raises:
            ValueError: If they are sums over other models.
        """
        if [*sums.served] != [*self._accounts] or [*sums.spend] != [*self._accounts]:
            raise ValueError("sums over other models")
        self.answered, self.unanswered = sums.answered, sums.unanswered
        self.abandoned, self.audits, self.found = (
            sums.abandoned,
            sums.audits,
            sums.found,
        )
        self.served = list(sums.served.values())
        self.roles.update(sums.roles)
        self.judging = dict(sums.judging)
        for account, spend in zip(self._by_tier, sums.spend.values(), strict=True):
            account.calls, account.failures = spend.calls, spend.failures
            account.cost, account.estimated = spend.cost, spend.estimated
            account.input_tokens = spend.input_tokens
            account.output_tokens = spend.output_tokens
