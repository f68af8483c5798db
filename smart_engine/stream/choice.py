"""Which policy serves a stream: the one that is cheapest with the audits it demands.

A policy that errs more needs more audits; one that asks several candidates costs more
itself, and passes more items to the reference, but errs less. What is known of each is
learned from the items on which the reference and the policy's candidates answered, and
is forgotten little by little, for models change. Any choice keeps the promise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from smart_engine.evidence.policies import Policy, family
from smart_engine.stream.shared import Learned, Seen

__all__ = ["NOBODY", "Choice", "Step", "advance"]

NOBODY = Policy(())
"""The policy that asks no candidate: every item escalates to the reference."""

_MEMORY = 400
"""Items after which older ones count half."""

_COSTS = 200
"""Calls over which costs are averaged."""

_DOUBT = 0.5
"""Errors a new policy is taken to have made already, …"""

_OUTLOOK = 0.25
"""… which is what one expects of it at this share of what is tolerated."""

_WEALTH = 6.0
"""ln(1/α) and what the mixture and past finds cost, as a rule."""

_PARTLY = 0.7
"""A policy that errs more than is tolerated can serve about this share of tolerated to
actual errors of the items; as measured, the rest goes to the reference."""

_HORIZON = 3500
"""Fewest answers to plan for: with few, a costly start never seems worth it."""

_GAIN = 0.95
"""A policy must cost less than this share of the present one's to replace it."""

_WORTHWHILE = 0.9
"""A policy must cost less than this share of the reference to be used at all."""


class Step(NamedTuple):
    """What a policy does next with an item. Nothing at all: it escalates.

    Attributes:
        server: Tier whose answer it takes, or None.
        ask: Tiers whose answers it needs first.
        consulted: How many of its tiers have been asked for it so far.
    """

    server: int | None
    ask: tuple[int, ...]
    consulted: int


def advance(
    policy: Policy, usable: Mapping[int, bool], same: Callable[[int, int], bool]
) -> Step:
    """Say what a policy does next, given the answers that are in.

    Args:
        policy: The policy: all of its candidates must agree, or two of a cascade.
        usable: Tier → whether its answer can be used, of the answers that are in.
        same: Whether two tiers' answers mean the same.

    Example:
        ```python
        both = Policy((1, 2))
        assert advance(both, {}, lambda a, b: True).ask == (1, 2)
        assert advance(both, {1: True, 2: True}, lambda a, b: True).server == 1
        assert advance(both, {1: True, 2: True}, lambda a, b: False).server is None
        ```
    """
    groups: list[list[int]] = []
    tiers = policy.tiers
    for place, tier in enumerate(tiers):
        if tier not in usable:
            last = max(2, place + 1) if policy.stops else len(tiers)
            missing = tuple(t for t in tiers[place:last] if t not in usable)
            return Step(None, missing, last)
        group = next((g for g in groups if same(g[0], tier)), None)
        if not usable[tier]:
            if not policy.stops:
                return Step(None, (), len(tiers))
        elif group is None:
            groups.append([tier])
        else:
            group.append(tier)
            if policy.stops:
                return Step(group[0], (), max(2, place + 1))
    agreed = not policy.stops and len(groups) == 1
    return Step(groups[0][0] if agreed else None, (), len(tiers))


class _Standing:
    """What was seen of one policy, older items counting less."""

    __slots__ = ("asked", "escalated", "policy", "seen", "wrong")

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.seen = self.wrong = self.escalated = 0.0
        self.asked = [0.0] * len(policy.tiers)

    def error(self, tolerated: float) -> float:
        """Expected share of items it answers wrongly."""
        return (self.wrong + _DOUBT) / (self.seen + _DOUBT / (_OUTLOOK * tolerated))

    def learn(self, step: Step, wrong: bool) -> None:
        """Count one item."""
        if self.seen >= _MEMORY:
            self.seen, self.wrong = self.seen / 2, self.wrong / 2
            self.escalated /= 2
            self.asked = [count / 2 for count in self.asked]
        self.seen += 1
        self.wrong += wrong
        self.escalated += step.server is None
        for place in range(step.consulted):
            self.asked[place] += 1

    def said(self) -> Seen:
        """Return what was seen, to be shared."""
        return Seen(
            seen=self.seen,
            wrong=self.wrong,
            escalated=self.escalated,
            asked=tuple(self.asked),
        )

    def take_up(self, seen: Seen) -> None:
        """Go on from what was seen elsewhere."""
        if len(seen.asked) != len(self.asked):
            raise ValueError("a policy of other models")
        self.seen, self.wrong, self.escalated = seen.seen, seen.wrong, seen.escalated
        self.asked = list(seen.asked)


class Choice:
    """Chooses the policy that serves.

    Args:
        candidates: Indices of the candidates, cheapest first.
        tolerated: Share of wrong answers tolerated, δ.

    Attributes:
        policy: The policy to serve with.
        error: Share of items it is expected to answer wrongly.

    Example:
        ```python
        choice = Choice([1], tolerated=0.05)
        for _ in range(100):  # the reference costs 1, the candidate 0.01 and is right
            choice.paid(0, 1.0)
            choice.paid(1, 0.01)
            choice.learn({1: True}, lambda a, b: True, lambda tier: False)
        choice.choose(answered=1000)
        assert choice.policy == Policy((1,))
        ```
    """

    def __init__(self, candidates: Sequence[int], tolerated: float) -> None:
        """Start with the first candidate alone."""
        self._tolerated = tolerated
        self._standings = [_Standing(policy) for policy in family(candidates)]
        self._cost = [0.0] * (len(candidates) + 1)
        self._calls = [0] * (len(candidates) + 1)
        self.policy = self._standings[0].policy
        self.error = self._standings[0].error(tolerated)

    def paid(self, tier: int, cost: float) -> None:
        """Take note of what a call of a tier costs."""
        self._calls[tier] += 1
        self._cost[tier] += (cost - self._cost[tier]) / min(self._calls[tier], _COSTS)

    def cost(self, tier: int) -> float | None:
        """Recent mean cost of a call of a tier, in USD; None before any."""
        return self._cost[tier] if self._calls[tier] else None

    def learn(
        self,
        usable: Mapping[int, bool],
        same: Callable[[int, int], bool],
        wrong: Callable[[int], bool],
    ) -> None:
        """Take note of an item on which the reference answered.

        Args:
            usable: Candidate → whether its answer can be used, of those asked.
            same: Whether two candidates' answers mean the same.
            wrong: Whether a candidate's answer differs from the reference's.
        """
        for standing in self._standings:
            step = advance(standing.policy, usable, same)
            if not step.ask:
                standing.learn(step, step.server is not None and wrong(step.server))

    @property
    def policies(self) -> list[Policy]:
        """All policies that may serve."""
        return [standing.policy for standing in self._standings]

    def learned(self) -> Learned:
        """Return what was learned, to be shared."""
        chosen = -1 if self.policy == NOBODY else self.policies.index(self.policy)
        return Learned(
            policies=tuple(standing.said() for standing in self._standings),
            chosen=chosen,
            error=self.error,
            cost=tuple(self._cost),
            calls=tuple(self._calls),
        )

    def take_up(self, learned: Learned) -> None:
        """Go on from what was learned elsewhere.

        Raises:
            ValueError: If it was learned of other policies.
        """
        for standing, seen in zip(self._standings, learned.policies, strict=True):
            standing.take_up(seen)
        policies = self.policies
        if not -1 <= learned.chosen < len(policies):
            raise ValueError("no such policy")
        self.policy = NOBODY if learned.chosen < 0 else policies[learned.chosen]
        self.error = learned.error
        if not len(learned.cost) == len(learned.calls) == len(self._cost):
            raise ValueError("costs of other models")
        self._cost, self._calls = list(learned.cost), list(learned.calls)

    def choose(self, answered: int) -> None:
        """Choose again.

        Args:
            answered: Number of answers handed out so far.
        """
        best, least = NOBODY, math.inf
        for standing in self._standings:
            if not standing.seen:
                continue
            expected = self._expected(standing, answered)
            if expected >= _WORTHWHILE * self._cost[0]:
                continue
            if standing.policy == self.policy:
                expected *= _GAIN
            if expected < least:
                best, least = standing.policy, expected
                self.error = standing.error(self._tolerated)
        self.policy = best

    def _expected(self, standing: _Standing, answered: int) -> float:
        """Expected cost of an item over the next stretch, in USD."""
        seen = standing.seen
        errs = standing.error(self._tolerated) / self._tolerated
        share = min(errs, 1.0)
        # Audit rate after t answers: ln(1/α) / (r·t·(δ − e·g(r))) with r = 1 − e/δ.
        room = 1 - share + (share * math.log(share) if share else 0.0)
        rate = _mean_rate(_WEALTH / max(self._tolerated * room, 1e-12), answered)
        if errs > _PARTLY:
            rate = min(rate, 1 - _PARTLY / errs)
        asked = sum(
            count * self._cost[tier]
            for count, tier in zip(standing.asked, standing.policy.tiers, strict=True)
        )
        escalated = standing.escalated / seen
        return asked / seen + (escalated + (1 - escalated) * rate) * self._cost[0]


def _mean_rate(audits: float, answered: int) -> float:
    """Mean of min(1, audits/t) over the next stretch of answers t."""
    end = answered + max(answered, _HORIZON)
    full = min(max(audits, answered), end)
    falling = audits * math.log(end / max(full, 1.0))
    return float((full - answered + falling) / (end - answered))
