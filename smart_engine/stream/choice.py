"""Which policy serves a stream: the one that is cheapest with the audits it demands.

A policy that errs more needs more audits; one that asks several candidates costs more
itself, and escalates more items, but errs less. What is known of each comes from the
items on which both the reference and the policy's candidates answered; older items
count less, for models change. Any choice keeps the promise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from smart_engine.evidence.policies import Policy, family, pairs
from smart_engine.evidence.record import REFERENCE
from smart_engine.stream.state import ChoiceState, PolicyCounts

__all__ = ["HARM", "REFERENCE_ONLY", "Choice", "Step", "advance"]

REFERENCE_ONLY = Policy(())
"""The policy that asks no candidate: every item escalates to the reference."""

_MEMORY = 400  # items after which older ones count half
_COSTS = 200  # calls over which costs are averaged
_DOUBT = 0.5  # errors that a new policy is assumed to have made already, …
_PRIOR = 0.25  # … as if it erred at this share of what is tolerated
_SEEN = 10  # as few items as a candidate was right on before it was seen
_WEALTH = 6.0  # ln(1/α) and what the mixture and past charges cost, as a rule
_PARTLY = 0.7  # see `_expected`
_HORIZON = 3500  # fewest answers to plan for: a costly start must seem worth it
_GAIN = 0.95  # a policy must cost less than this share of the present one's cost
_TELLING = 4  # comparisons that show whether a candidate is hopeless
HARM = 0.004  # share of the reference's cost that comparing in vain may cost
_ENOUGH = 128  # comparisons after which a candidate is compared less often: …
_SELDOM = 16  # … on one in so many items that the reference answers anyway


class Learned(Protocol):
    """What processes share of a choice."""

    @property
    def learned(self) -> ChoiceState:
        """What it rests on."""
        ...

    @property
    def compared(self) -> tuple[int, ...]:
        """Per tier, comparisons with the reference."""
        ...

    @property
    def pending(self) -> tuple[int, ...]:
        """Per tier, comparisons begun and not booked."""
        ...


class Step(NamedTuple):
    """What a policy does next with an item; neither server nor `ask`: it escalates."""

    server: int | None  # tier whose answer it takes
    ask: tuple[int, ...]  # tiers whose answers it needs first
    consulted: int  # how many of its tiers have been asked so far


def advance(
    policy: Policy, usable: Mapping[int, bool], same: Callable[[int, int], bool]
) -> Step:
    """Return what a policy does next, given the answers that are in.

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


class Choice:
    """Chooses the policy that serves, and the candidates to compare.

    Args:
        candidates: Indices of the candidates, cheapest first.
        tolerated: Share of wrong answers tolerated, δ.
        ratios: Per tier, what a call is expected to cost, in calls of the reference.
        min_saving: Least share of the reference's cost that a policy must save. At 0,
            candidates are compared from the first item on, whatever that costs.

    Attributes:
        policies: All policies that may serve.
        policy: The policy to serve with, the first candidate alone to begin with.
        error: Share of items it is expected to answer wrongly.
        compared: Per tier, how often it was compared with the reference.
        pending: Per tier, comparisons that were begun and whose call is not booked.

    Example:
        ```python
        choice = Choice([1], tolerated=0.05, ratios=[1.0, 0.01])
        for _ in range(100):  # the reference costs 1, the candidate 0.01 and is right
            choice.paid(0, 1.0)
            choice.paid(1, 0.01)
            choice.learn({1: True}, lambda a, b: True)
        choice.choose(answered=1000)
        assert choice.policy == Policy((1,))
        ```
    """

    def __init__(
        self,
        candidates: Sequence[int],
        tolerated: float,
        ratios: Sequence[float],
        min_saving: float = 0.0,
    ) -> None:
        tiers = len(candidates) + 1
        self._ratios, self._worthwhile = ratios, 1 - min_saving
        self._tolerated = tolerated
        self.policies = [*family(candidates), *pairs(candidates)]
        self._counts = [
            PolicyCounts(asked=(0.0,) * len(policy.tiers)) for policy in self.policies
        ]
        self._cost, self._calls = [0.0] * tiers, [0] * tiers
        self.compared, self.pending = [0] * tiers, [0] * tiers
        self.policy = self.policies[0]
        self.error = self._error(self._counts[0])

    @property
    def tiers(self) -> range:
        """Indices of the candidates."""
        return range(1, len(self.compared))

    def paid(self, tier: int, cost: float) -> None:
        """Update the mean cost of a tier's calls."""
        self._calls[tier] += 1
        self._cost[tier] += (cost - self._cost[tier]) / min(self._calls[tier], _COSTS)

    def cost(self, tier: int) -> float | None:
        """Recent mean cost of a call of a tier, in USD; None before any."""
        return self._cost[tier] if self._calls[tier] else None

    def price(self, tier: int) -> float:
        """What a call is expected to cost, in USD.

        A few calls that were cheap by chance do not show that the next one is, too.
        """
        if self._calls[tier] >= _TELLING:
            return self._cost[tier]
        known = self._calls[REFERENCE]
        expected = self._ratios[tier] * self._cost[REFERENCE] if known else math.inf
        return max(expected, self._cost[tier])

    def ratio(self, tier: int) -> float | None:
        """What a call of a tier costs, in the reference's calls; None if unknown."""
        unit, cost = self.cost(REFERENCE), self.cost(tier)
        enough = self._calls[tier] >= _TELLING
        return cost / unit if enough and unit and cost is not None else None

    def to_compare(self, turn: int, spare: float) -> tuple[int, ...]:
        """Candidates to compare with the reference on an item that it answers.

        Those on which least was spent come first.

        Args:
            turn: Number of such items before, of which one in `_SELDOM` asks all.
            spare: What may be spent on it, in USD.
        """
        chosen = []
        for tier in sorted(self.tiers, key=lambda t: self.compared[t] * self.price(t)):
            price, often = self.price(tier), self.compared[tier] < _ENOUGH
            if self.hopeless(tier):
                due = turn & (turn - 1) == 0  # at doubling distances
            else:
                due = often or turn % _SELDOM == 0
            allowed = price <= spare and price < self.price(REFERENCE)
            if due and (allowed or self._worthwhile == 1):
                chosen.append(tier)
                spare -= price
        return tuple(sorted(chosen))

    def hopeless(self, tier: int) -> bool:
        """Whether a candidate was never right, on enough items to tell."""
        alone = self._counts[self.policies.index(Policy((tier,)))]
        return self.compared[tier] >= _TELLING and _never_right(alone)

    def pays(self, rate: float) -> bool:
        """Whether the policy saves anything while so many of its items are audited."""
        if self.policy == REFERENCE_ONLY:
            return False
        counts = self._counts[self.policies.index(self.policy)]
        if self._worthwhile == 1 or not counts.seen:
            return True
        return self._cost_at(self.policy, counts, rate) < self._cost[REFERENCE]

    def worthwhile(self, place: int, rate: float) -> bool:
        """Whether the policy at a place saves enough while so many are audited."""
        policy, counts = self.policies[place], self._counts[place]
        if _never_right(counts):
            return False
        expected = self._cost_at(policy, counts, rate)
        return expected < self._worthwhile * self._cost[REFERENCE]

    def learn(
        self, usable: Mapping[int, bool], same: Callable[[int, int], bool]
    ) -> None:
        """Count an item on which the reference answered.

        Args:
            usable: Candidate → whether its answer can be used, of those asked.
            same: Whether two tiers' answers mean the same.
        """
        for tier in usable:
            self.compared[tier] += 1
        for place, policy in enumerate(self.policies):
            step = advance(policy, usable, same)
            if not step.ask:
                wrong = step.server is not None and not same(step.server, REFERENCE)
                self._counts[place] = _count(self._counts[place], step, wrong)

    def shared(self) -> ChoiceState:
        """Return what the choice rests on, to be shared."""
        only = self.policy == REFERENCE_ONLY
        return ChoiceState(
            policies=tuple(self._counts),
            chosen=-1 if only else self.policies.index(self.policy),
            error=self.error,
            cost=tuple(self._cost),
            calls=tuple(self._calls),
        )

    def take_up(self, part: Learned) -> None:
        """Go on from where other processes have come.

        Raises:
            ValueError: If it rests on other models or policies.
        """
        state, tiers = part.learned, len(self.compared)
        sizes = [len(policy.tiers) for policy in self.policies]
        known = len(state.policies)  # fewer where an older version wrote it
        if not (
            [len(counts.asked) for counts in state.policies] == sizes[:known]
            and known >= len(family(self.tiers))
            and -1 <= state.chosen < len(sizes)
            and len(state.cost) == len(state.calls) == len(part.compared) == tiers
            and len(part.pending) in {0, tiers}
        ):
            raise ValueError("a choice among other models")
        self._counts[:known], self.error = state.policies, state.error
        self.policy = (*self.policies, REFERENCE_ONLY)[state.chosen]
        self._cost, self._calls = list(state.cost), list(state.calls)
        self.compared = list(part.compared)
        self.pending = list(part.pending) or [0] * tiers

    def choose(self, answered: int, rate: Callable[[int], float] | None = None) -> None:
        """Choose again.

        Args:
            answered: Number of answers handed out so far.
            rate: Place of a policy → audit rate that it demands; by default as a
                stream would demand over its next stretch.
        """
        best, least = REFERENCE_ONLY, math.inf
        every = zip(self.policies, self._counts, strict=True)
        for place, (policy, counts) in enumerate(every):
            if _never_right(counts):
                continue
            if rate is None:
                expected = self._expected(policy, counts, answered)
            else:
                expected = self._cost_at(policy, counts, rate(place))
            if expected >= self._worthwhile * self._cost[REFERENCE]:
                continue
            if policy == self.policy:
                expected *= _GAIN
            if expected < least:
                best, least, self.error = policy, expected, self._error(counts)
        self.policy = best

    def error_of(self, place: int) -> float:
        """Share of items that the policy at a place is expected to answer wrongly."""
        return self._error(self._counts[place])

    def seen_error_of(self, place: int) -> float:
        """Share of items that it answered wrongly, as if it had erred in few before."""
        counts = self._counts[place]
        return (counts.wrong + _DOUBT) / (counts.seen + _SEEN)

    def _error(self, counts: PolicyCounts) -> float:
        """Expected share of items that a policy answers wrongly."""
        prior = _DOUBT / (_PRIOR * self._tolerated)
        return (counts.wrong + _DOUBT) / (counts.seen + prior)

    def _expected(self, policy: Policy, counts: PolicyCounts, answered: int) -> float:
        """Expected cost of an item over the next stretch, in USD."""
        errs = self._error(counts) / self._tolerated
        share = min(errs, 1.0)
        # Audit rate after t answers: ln(1/α) / (r·t·(δ − e·g(r))) with r = 1 − e/δ.
        room = 1 - share + (share * math.log(share) if share else 0.0)
        rate = _mean_rate(_WEALTH / max(self._tolerated * room, 1e-12), answered)
        if errs > _PARTLY:
            # A policy that errs more than is tolerated can serve about this share of
            # tolerated to actual errors; as measured, the rest goes to the reference.
            rate = min(rate, 1 - _PARTLY / errs)
        return self._cost_at(policy, counts, rate)

    def _cost_at(self, policy: Policy, counts: PolicyCounts, rate: float) -> float:
        """Cost of an item, in USD, while so many are audited."""
        asked = sum(
            count * self._cost[tier]
            for count, tier in zip(counts.asked, policy.tiers, strict=True)
        )
        escalated = counts.escalated / counts.seen
        by_reference = escalated + (1 - escalated) * rate
        return asked / counts.seen + by_reference * self._cost[REFERENCE]


def _count(counts: PolicyCounts, step: Step, wrong: bool) -> PolicyCounts:
    """Add an item to what is known of a policy."""
    fade = 0.5 if counts.seen >= _MEMORY else 1.0
    return PolicyCounts(
        seen=fade * counts.seen + 1,
        wrong=fade * counts.wrong + wrong,
        escalated=fade * counts.escalated + (step.server is None),
        asked=tuple(
            fade * count + (place < step.consulted)
            for place, count in enumerate(counts.asked)
        ),
    )


def _never_right(counts: PolicyCounts) -> bool:
    """Whether a policy served no item rightly, as far as it is remembered."""
    return counts.seen - counts.wrong - counts.escalated < 0.5


def _mean_rate(audits: float, answered: int) -> float:
    """Mean of min(1, audits/t) over the next stretch of answers t."""
    end = answered + max(answered, _HORIZON)
    full = min(max(audits, answered), end)
    falling = audits * math.log(end / max(full, 1.0))
    return float((full - answered + falling) / (end - answered))
