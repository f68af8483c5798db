"""`audit`: serve what candidates answer, once random draws prove it right enough.

1. Scout: ask candidates, not the reference, on a few items. How they disagree tells
   which policies are promising, and what asking them costs.
2. Register: divide the level over a few policies that would serve the whole batch; what
   is left is for plans made later.
3. Draw items in random order for reference and candidates alike. Each draw repairs its
   item, is evidence for every registered policy, and teaches the risk model. After each
   wave, go where the expected cost is least: apply a policy that was accepted, draw on,
   or stop and follow a plan.
4. Plan: ask one policy's candidates on part of the items, take the riskiest answers to
   the reference outright, and audit the others on fresh draws, at the level left; if
   that turns out dear, cut again.

Why the promise holds: every test has a design fixed before its first draw, on draws
that are uniform given all that fixed it; each lets more than B wrong answers pass
unseen with at most its level; and the levels sum to at most 1 − γ. Scouted items are
chosen apart from the order of drawing, and a plan's draws are made afresh.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from smart_engine.batch.certificate import AuditTest, Evidence, Verdict
from smart_engine.evidence.acceptance import Acceptance, Test
from smart_engine.evidence.plans import Cut, best_cuts, draws_needed, portfolio
from smart_engine.evidence.policies import Answers, BoolArray, Policy, family, pairs
from smart_engine.evidence.posterior import DRAWS, Posterior
from smart_engine.evidence.record import REFERENCE, BatchRecord
from smart_engine.evidence.risk import RiskModel
from smart_engine.evidence.tails import FloatArray, IntArray
from smart_engine.strategies._base import Decision, Wave

__all__ = ["audit"]

_FIRST = 16
"""Draws in the first wave."""

_GROWTH = 0.5
"""A further wave adds at most this share of the draws made so far."""

_SCOUT_ITEMS, _SCOUT_COST = 100, 3.0
"""Most items to scout, and most reference calls that may be spent on it."""

_AGAIN = 0.05
"""Share of what is left of the level that is kept for a further attempt."""

_ATTEMPTS = 6
_SHARES = (1.0, 0.5, 0.25, 0.12, 0.06)
"""Shares of the items a plan may touch: a weak candidate's errors fit into a part."""


def audit(batch: BatchRecord, looks: str) -> Generator[Wave, None, Decision]:
    """Run the audit; `looks` is for other strategies.

    Source: a risk-limiting audit (Stark 2008) of SMART's mix of models (Jo & Trummer
    2024), with the exact acceptance numbers of `smart_engine.evidence.acceptance`.
    """
    del looks
    state = _State(batch)
    yield from _scout(state)
    _register(state)
    way = yield from _draw(state)
    if way is not None and way.risk is not None:
        yield from _follow(state, way.policy, way.share, way.risk)
    elif way is not None:
        yield from _apply(state, way.policy)
    return state.decision()


@dataclass
class _State:
    """What the audit of one batch knows.

    Attributes:
        batch: The batch.
        max_errors: Wrong answers that may stay hidden, B.
        order: The items in the order in which they are drawn.
        draws: How many of them were drawn.
        alive: Candidates still asked on drawn items.
        scouted: Items on which candidates alone were asked.
        tests: Every audit run so far.
        registered: Policy → its test on the whole batch.
        spare: Level left for plans.
        route: Per item, the tier that serves it.
    """

    batch: BatchRecord
    max_errors: int = field(init=False)
    order: IntArray = field(init=False)
    draws: int = 0
    alive: list[int] = field(init=False)
    scouted: IntArray = field(init=False)
    tests: list[Test] = field(default_factory=list)
    registered: dict[Policy, Test] = field(default_factory=dict)
    spare: float = 0.0

    def __post_init__(self) -> None:
        """Nothing is known; everything goes to the reference."""
        n_items = self.batch.n_items
        self.max_errors = self.batch.guarantee.max_errors(n_items)
        self.order = self.batch.rng.permutation(n_items)
        self.alive = list(self.batch.candidates)
        self.scouted = np.empty(0, np.int64)
        self.route = np.full(n_items, REFERENCE, np.int16)

    @property
    def drawn(self) -> IntArray:
        """The items drawn so far."""
        return self.order[: self.draws]

    def begin(self, policy: str, acceptance: Acceptance) -> Test:
        """Open a test; its level is spent."""
        self.tests.append(Test(policy, acceptance))
        return self.tests[-1]

    def fill(self, drawn: int, want: int, most: int, tiers: int) -> int:
        """End of a wave: a draw more is bought only where it fills what may fly.

        Args:
            drawn: Draws made so far.
            want: Draws wanted in all.
            most: Draws that suffice, or all there are; never more than these.
            tiers: Calls that a draw makes.
        """
        flight = max(1, self.batch.max_in_flight // tiers)
        return min(most, drawn + -(-(want - drawn) // flight) * flight)

    def decision(self) -> Decision:
        """End: route, evidence and tests, as the certificate shows them."""
        batch, drawn = self.batch, self.drawn
        serving = set(np.unique(self.route).tolist())
        reference = batch.cost(REFERENCE, drawn) / max(len(drawn), 1)
        evidence = []
        for tier in batch.candidates:
            seen = drawn[batch.asked(tier, drawn)]
            if len(seen):
                cost = batch.cost(tier, seen) / len(seen)
                verdict: Verdict = "too dear" if cost >= reference else "undecided"
                evidence.append(
                    Evidence(
                        model=batch.tiers[tier].name,
                        draws=len(seen),
                        errors=batch.errors(tier, seen),
                        mean_cost=cost,
                        verdict="admitted" if tier in serving else verdict,
                    )
                )
        tests = [
            AuditTest(
                policy=test.policy,
                items=test.acceptance.items,
                max_errors=test.acceptance.max_errors,
                level=test.acceptance.level,
                expected_errors=test.acceptance.expected_errors,
                draws=test.draws,
                errors=tuple(test.found),
                accepted=test.accepted,
            )
            for test in self.tests
        ]
        return Decision(self.route, evidence, tests=tests)


class _Way(NamedTuple):
    """One way to go on, and its price.

    Attributes:
        policy: The policy it applies; None: all to the reference.
        test: The registered test it waits for, or None for a plan.
        price: Per draw from the posterior, expected USD from here on.
        share: Share of the items a plan touches.
        risk: The risk model of a plan's policy.
    """

    policy: Policy
    test: Test | None
    price: FloatArray
    share: float = 1.0
    risk: RiskModel | None = None

    @property
    def mean(self) -> float:
        """Expected price."""
        return float(self.price.mean())


# -- scouting and registering ------------------------------------------------------


def _scout(state: _State) -> Generator[Wave, None, None]:
    """Ask candidates on a few items that are chosen apart from the order of draws.

    The reference is asked on two of them, for its price; these answers are no evidence.
    """
    batch = state.batch
    if batch.n_items <= 40:
        return
    most = min(_SCOUT_ITEMS, batch.n_items // 10)
    items = batch.rng.choice(batch.n_items, most, replace=False)
    yield Wave(items[:2], (REFERENCE, *state.alive))
    reference = batch.cost(REFERENCE, items[:2])
    others = sum(batch.cost(tier, items[:2]) for tier in state.alive)
    affordable = _SCOUT_COST * reference / others if others else most
    state.scouted = items[: int(np.clip(affordable, min(8, most), most))]
    yield Wave(state.scouted[2:], tuple(state.alive))
    state.alive.sort(key=lambda tier: batch.cost(tier, state.scouted))


def _register(state: _State) -> None:
    """Divide the level over policies on the whole batch, and plans made later."""
    batch, scouted = state.batch, state.scouted
    n_items, alpha = batch.n_items, batch.guarantee.alpha
    if not n_items:
        return
    posterior = Posterior(batch, state.alive, scouted, scouted[:0], batch.rng)
    reference = batch.cost(REFERENCE, scouted[:2]) / 2 if len(scouted) else 0.0
    unit = [
        batch.cost(tier, scouted) / len(scouted) / reference if reference else 0.0
        for tier in range(len(batch.tiers))
    ]
    policies = family(state.alive)
    rates, fixed = [], []
    for policy in policies:
        sort = policy.sort(posterior.answers)
        rates.append(posterior.error_rate(sort, sort.agreed))
        calls = 1.0 - posterior.share(sort.agreed)
        for place, tier in enumerate(policy.tiers):
            calls = calls + posterior.share(sort.asked[place]) * unit[tier]
        fixed.append(n_items * calls)
    draws = [
        draws_needed(
            np.full(DRAWS, float(n_items)), rate, state.max_errors, 0.3 * alpha
        )
        for rate in rates
    ]
    # The easier a policy on the whole batch looks, the more of the level it gets. One
    # candidate alone tells nothing: half.
    hard = min(
        float(np.exp(np.log(n + cost + 1e-9).mean())) / n_items
        for n, cost in zip(draws, fixed, strict=True)
    )
    easy = float(np.clip((0.2 / hard) ** 2, 0.05, 0.95))
    if len(state.alive) == 1:
        easy = 0.5
    level = alpha * easy
    state.spare = alpha - level
    shares = portfolio(n_items, rates, fixed, state.max_errors, level)
    for policy, share, rate, count in zip(policies, shares, rates, draws, strict=True):
        if share:
            errors = float(np.median(rate * np.minimum(count, 0.3 * n_items)))
            state.registered[policy] = state.begin(
                policy.name(batch),
                Acceptance(
                    n_items,
                    state.max_errors,
                    level * share,
                    float(np.clip(errors, 0.2, 2)),
                ),
            )


# -- drawing -----------------------------------------------------------------------


def _draw(state: _State) -> Generator[Wave, None, _Way | None]:
    """Draw until going elsewhere is cheapest; return where, None: the reference."""
    batch = state.batch
    want, most = _FIRST, batch.n_items
    while True:
        asked = 1 + len(state.alive)
        yield from _take(state, state.fill(state.draws, want, most, asked))
        if state.draws == batch.n_items:
            return None
        ways = _ways(state)
        best = min(ways, key=lambda way: way.mean)
        prices = np.array([way.price for way in ways])
        alive = _useful(state, ways)
        if best.test is not None:
            if best.test.accepted is not None:
                return best
            if set(best.policy.tiers) <= set(alive):
                state.alive = alive
            most = best.test.target
            want = min(most, int(state.draws * (1 + _GROWTH)) + 8)
        else:
            regret = float((best.price - prices.min(axis=0)).mean())
            if regret <= (1 + _GROWTH) * state.draws * _price_of_a_draw(state, best):
                return best if best.risk else None
            state.alive = alive or state.alive
            most = batch.n_items
            want = min(most, int(state.draws * (1 + _GROWTH)) + 1)


def _take(state: _State, until: int) -> Generator[Wave, None, None]:
    """Draw up to that many items; show them to every registered test."""
    batch = state.batch
    fresh = state.order[state.draws : until]
    yield Wave(fresh, (REFERENCE, *state.alive))
    state.draws = until
    answers, wrong = Answers.read(batch, fresh, state.alive), batch.wrong_of(fresh)
    for policy, test in list(state.registered.items()):
        if set(policy.tiers) <= set(state.alive):
            sort = policy.sort(answers)
            test.see(sort.wrong(wrong) & sort.agreed)
        elif test.accepted is None:
            del state.registered[policy]  # its candidates are asked no more


def _ways(state: _State) -> list[_Way]:
    """Price every way to go on."""
    batch, drawn, n_items = state.batch, state.drawn, state.batch.n_items
    rest = n_items - state.draws
    reference = batch.cost(REFERENCE, drawn) / state.draws
    asked = sum(batch.cost(tier, drawn) for tier in state.alive) / state.draws
    answers = Answers.read(batch, drawn, state.alive)
    wrong = batch.wrong_of(drawn)
    posterior = Posterior(batch, state.alive, state.scouted, drawn, batch.rng)
    ways = [_Way(Policy(()), None, np.full(DRAWS, rest * reference))]
    tested: list[_Way] = []
    for policy in (*family(state.alive), *pairs(state.alive)):
        risk = RiskModel(policy, answers, wrong, posterior, classes=batch.keyed)
        calls = _calls(batch, policy, drawn, risk.sort.asked)
        rates = risk.rates(batch.rng, risk.patterns)
        level = state.spare * (1 - _AGAIN)
        for share in _SHARES if len(risk.tally) else ():
            sizes = share * rest * risk.shares
            for cut in best_cuts(sizes, rates, state.max_errors, level, keep=2):
                untouched = rest * (1 - share) + share * rest - sizes.sum(axis=1)
                price = (cut.calls + untouched) * reference + share * rest * calls
                ways.append(_Way(policy, None, price, share, risk))
        if policy in state.registered:
            test = state.registered[policy]
            sort = policy.sort(posterior.answers)
            draws = _draws_left(state, test, posterior.error_rate(sort, sort.agreed))
            agreed = policy.sort(answers).agreed.mean()
            serving = calls + (1 - agreed) * reference
            price = draws * (reference + asked) + (rest - draws) * serving
            tested.append(_Way(policy, test, price))
    # A test that drags on would be given up for a plan at about its next look.
    fallback = np.min([way.price for way in ways], axis=0)
    for way in tested:
        price = way.price
        if way.test is not None and way.test.accepted is None:
            until = max(way.test.target - state.draws, 0)
            price = np.minimum(price, fallback + until * (reference + asked))
        ways.append(way._replace(price=price))
    return ways


def _draws_left(state: _State, test: Test, rate: FloatArray) -> FloatArray:
    """Per draw from the posterior, draws until a registered test may accept."""
    if test.accepted is not None:
        return np.zeros(DRAWS)
    items = np.full(DRAWS, float(state.batch.n_items))
    level = test.acceptance.level
    until = draws_needed(
        items, rate, state.max_errors, level, float(state.draws), float(len(test.found))
    )
    return np.maximum(until, test.target) - state.draws


def _calls(
    batch: BatchRecord, policy: Policy, items: IntArray, asked: BoolArray
) -> float:
    """Mean cost of a policy's calls on one item, in USD."""
    return sum(
        batch.cost(tier, items[asked[place]]) for place, tier in enumerate(policy.tiers)
    ) / len(items)


def _price_of_a_draw(state: _State, best: _Way) -> float:
    """What one more draw costs beyond what its item would cost anyway, in USD."""
    batch, drawn = state.batch, state.drawn
    reference = batch.cost(REFERENCE, drawn) / state.draws
    asked = sum(batch.cost(tier, drawn) for tier in state.alive) / state.draws
    anyway = best.mean / (batch.n_items - state.draws)
    return max(reference + asked - anyway, 0.02 * reference)


def _useful(state: _State, ways: Sequence[_Way]) -> list[int]:
    """Candidates that may save more than asking them on the next draws costs."""
    batch, drawn = state.batch, state.drawn
    useful = []
    for tier in state.alive:
        using = [way.price for way in ways if tier in way.policy.tiers]
        without = [way.price for way in ways if tier not in way.policy.tiers]
        if using:
            gain = np.min(without, axis=0) - np.min(using, axis=0)
            cost = batch.cost(tier, drawn) / 4
            if np.maximum(gain, 0.0).mean() > cost:
                useful.append(tier)
    return useful


# -- applying ----------------------------------------------------------------------


def _ask(
    batch: BatchRecord, policy: Policy, items: IntArray
) -> Generator[Wave, None, None]:
    """Ask a policy's candidates, one after the other where it may stop early."""
    if not policy.stops:
        yield Wave(items, policy.tiers)
        return
    yield Wave(items, policy.tiers[:2])
    for place in range(2, len(policy.tiers)):
        answers = Answers.read(batch, items, policy.tiers)
        yield Wave(items[policy.sort(answers).asked[place]], policy.tiers[place:][:1])


def _apply(state: _State, policy: Policy) -> Generator[Wave, None, None]:
    """Let an accepted policy serve all items not drawn."""
    items = state.order[state.draws :]
    if len(policy.tiers) == 1:
        state.route[items] = policy.tiers[0]
        return
    yield from _ask(state.batch, policy, items)
    sort = policy.sort(Answers.read(state.batch, items, policy.tiers))
    state.route[items] = np.where(sort.agreed, sort.server, REFERENCE)


def _follow(
    state: _State, policy: Policy, share: float, risk: RiskModel
) -> Generator[Wave, None, None]:
    """Carry out a plan: ask, cut, audit; cut again where that is cheaper."""
    batch, rng = state.batch, state.batch.rng
    rest = state.order[state.draws :]
    items = rest[: round(share * len(rest))]
    yield from _ask(batch, policy, items)
    leaf, server = risk.leaves(Answers.read(batch, items, policy.tiers))
    free = leaf >= 0
    for _ in range(_ATTEMPTS):
        level = state.spare * (1 - _AGAIN)
        cut = _cut(state, risk, leaf[free], level)
        if cut is None:
            return
        state.spare -= level
        places = np.flatnonzero(free)
        served = rng.permutation(places[cut.picks(leaf[places], rng)])
        design = Acceptance(len(served), state.max_errors, level, max(0.25, cut.errors))
        test = state.begin(policy.name(batch), design)
        test.see(np.zeros(0, bool))
        while test.accepted is None:
            grown = max(test.draws + 32, int(test.draws * (1 + _GROWTH)))
            want = min(test.target, grown)
            until = state.fill(test.draws, want, test.target, 1)
            drawn = served[test.draws : until]
            yield Wave(items[drawn], (REFERENCE,))
            wrong = batch.wrong_of(items[drawn])[server[drawn], np.arange(len(drawn))]
            free[drawn] = False
            risk.learn(leaf[drawn], wrong)
            test.see(wrong)
            if test.accepted is None and _dear(state, risk, leaf, free, served, test):
                break
        if test.accepted is not None:
            unseen = served[test.draws :]
            state.route[items[unseen]] = server[unseen]
            return


def _cut(state: _State, risk: RiskModel, leaf: IntArray, level: float) -> Cut | None:
    """Return the cheapest cut, None if all to the reference is cheaper."""
    sizes = np.bincount(leaf, minlength=len(risk.tally)).astype(float)
    rates = risk.rates(state.batch.rng)
    cuts = best_cuts(sizes, rates, state.max_errors, level)
    if not cuts or cuts[0].calls.mean() >= len(leaf):
        return None
    return cuts[0]


def _dear(
    state: _State,
    risk: RiskModel,
    leaf: IntArray,
    free: BoolArray,
    served: IntArray,
    test: Test,
) -> bool:
    """Whether cutting again, on fresh draws, is expected to beat drawing on."""
    size = len(risk.tally)
    rates = risk.rates(state.batch.rng)
    unseen = np.bincount(leaf[served[test.draws :]], minlength=size).astype(float)
    rate = rates @ unseen / max(unseen.sum(), 1.0)
    until = draws_needed(
        np.full(DRAWS, float(test.acceptance.items)),
        rate,
        state.max_errors,
        test.acceptance.level,
        float(test.draws),
        float(len(test.found)),
    )
    going_on = float((until - test.draws).mean())
    sizes = np.bincount(leaf[free], minlength=size).astype(float)
    again = best_cuts(sizes, rates, state.max_errors, state.spare * (1 - _AGAIN))
    taken_anyway = sizes.sum() - unseen.sum()
    calls = float(again[0].calls.mean()) if again else sizes.sum()
    return bool(calls - taken_anyway < 0.97 * going_on - 2)
