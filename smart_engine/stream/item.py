"""One item in flight: its calls, its answers, and what they show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from smart_engine.calls import Failure, Result, Role, Served
from smart_engine.equivalence import Equivalence
from smart_engine.equivalence.rule import agree_as_read
from smart_engine.evidence.policies import Policy
from smart_engine.evidence.record import REFERENCE
from smart_engine.money.spending import RuleCalls, record_rule_calls
from smart_engine.stream.choice import Step, advance

__all__ = ["Item"]


@dataclass(slots=True, eq=False)
class Item:
    """One item in flight."""

    rule: Equivalence
    role: Role
    policy: Policy  # serves it, or is what its audit is about
    compared: tuple[int, ...] = ()  # candidates to compare with the reference
    shown: bool = False  # a single candidate's answer is shown while it is written
    asked: set[int] = field(default_factory=set)  # tiers whose calls were started
    evaluated: set[int] = field(default_factory=set)  # whose results are in
    booked: set[int] = field(default_factory=set)
    answers: dict[int, Any] = field(default_factory=dict)  # the usable ones
    readings: dict[int, Any] = field(default_factory=dict)  # of those read so far
    errors: dict[int, BaseException] = field(default_factory=dict)  # of all others
    agreements: dict[tuple[int, int], bool] = field(default_factory=dict)
    judge_calls: RuleCalls = field(default_factory=list)  # those not recorded yet
    cost: float = 0.0  # USD spent on it
    estimated: float = 0.0  # USD of that by an estimated usage
    server: int | None = None  # tier whose answer can be handed out
    handed_out: bool = False

    @property
    def usable(self) -> dict[int, bool]:
        """Candidate → whether its answer can be used, of those that are in."""
        usable = dict.fromkeys(self.answers, True) | dict.fromkeys(self.errors, False)
        usable.pop(REFERENCE, None)
        return usable

    @property
    def expected_server(self) -> int | None:
        """Tier that serves if its call succeeds; None if that depends on several."""
        if not self._by_policy:
            return REFERENCE
        tiers = self.policy.tiers
        return tiers[0] if len(tiers) == 1 else None

    def ask(self) -> list[int]:
        """Return the tiers to ask now, each of them once."""
        wanted: Iterable[int] = (REFERENCE, *self.compared)
        if self._by_policy:
            done = self.server is not None or REFERENCE in self.asked
            wanted = () if done else self._step().ask or (REFERENCE,)
        fresh = [tier for tier in wanted if tier not in self.asked]
        self.asked.update(fresh)
        return fresh

    def fall_back(self, tier: int) -> None:
        """Let one candidate answer, whatever was decided; forget calls not made."""
        self.role, self.policy, self.compared = "uncertified", Policy((tier,)), ()
        self.asked.intersection_update(self.booked)
        self.server = self._step().server

    def evaluate(self, tier: int, result: Result, policies: Sequence[Policy]) -> None:
        """Read the result of a call; once all are in, compare what `policies` need."""
        error = self._unusable(tier, result)
        self.evaluated.add(tier)
        if error is not None:
            self.errors[tier] = error
        elif not isinstance(result, Failure):
            self.answers[tier] = result.answer
        self.cost += result.total
        self.estimated += result.estimated
        if tier == REFERENCE:
            self.server = REFERENCE
        elif self._by_policy and REFERENCE not in self.asked:
            self.server = self._step().server
        if self.compared and self.evaluated == self.asked:
            others = () if REFERENCE in self.errors else policies
            for policy in (self.policy, *others):
                server = advance(policy, self.usable, self.same).server
                if server is not None:
                    self.same(server, REFERENCE)

    def same(self, left: int, right: int) -> bool:
        """Whether two tiers' answers are in and mean the same; each pair once."""
        if left not in self.answers or right not in self.answers:
            return False
        pair = left, right
        if pair not in self.agreements:
            with record_rule_calls() as calls:
                self.agreements[pair] = agree_as_read(
                    self.rule, lambda: (self._read(left), self._read(right))
                )
            self.judge_calls += calls
            self.cost += sum(result.total for _, result in calls)
            self.estimated += sum(result.estimated for _, result in calls)
        return self.agreements[pair]

    def shows_error(self) -> bool:
        """Whether its audit, all results being in, showed an error, or might have."""
        server = self._step().server
        if server is not None:
            return not self.same(server, REFERENCE)
        # A call that was cancelled, as any that failed after the answer was handed out
        # may have been, shows nothing, so it counts as an error.
        failed = [self.errors[t] for t in self.policy.tiers if not self.usable[t]]
        cancelled = any(not isinstance(error, Exception) for error in failed)
        return bool(failed) and (cancelled or self.handed_out)

    def served(self, number: int, names: Sequence[str]) -> Served | None:
        """Return the answer to hand out, None before there is one."""
        if self.server is None:
            return None
        by_reference = self.server == REFERENCE
        escalated = by_reference and self._by_policy
        return Served(
            number,
            names[self.server],
            "escalated" if escalated else self.role,
            self.answers.get(self.server),
            self.cost,
            self.errors.get(REFERENCE) if by_reference else None,
            self.estimated,
        )

    @property
    def _by_policy(self) -> bool:
        """Whether a policy answers, and the reference only where it escalates."""
        return self.role in {"applied", "uncertified"}

    def _unusable(self, tier: int, result: Result) -> BaseException | None:
        """Return why there is no usable answer; what was shown must count as one."""
        if isinstance(result, Failure):
            return result.error
        if tier != REFERENCE and not (self.shown and self.policy.tiers == (tier,)):
            try:
                self.readings[tier] = self.rule.parse(result.answer)
            except Exception as unread:  # noqa: BLE001 - a user's rule may raise anything
                return unread
        return None

    def _read(self, tier: int) -> Any:
        """Return what the rule reads in an answer, which it reads once."""
        if tier not in self.readings:
            self.readings[tier] = self.rule.parse(self.answers[tier])
        return self.readings[tier]

    def _step(self) -> Step:
        return advance(self.policy, self.usable, self.same)
