"""The ways an audit may go on after a wave of draws, and what each is expected to cost.

Nothing here touches the promise: a wrong expectation costs money, never validity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

from smart_engine.evidence.acceptance import SequentialTest
from smart_engine.evidence.plans import Cut, best_cuts, draws_needed, least_calls
from smart_engine.evidence.policies import Answers, Policy, family, pairs
from smart_engine.evidence.posterior import DRAWS, Posterior
from smart_engine.evidence.record import REFERENCE, UNASKED
from smart_engine.evidence.risk import RiskModel
from smart_engine.evidence.tails import FloatArray
from smart_engine.evidence.waves import next_wave
from smart_engine.strategies.audit_state import AuditState

__all__ = [
    "Option",
    "also_to_ask",
    "choose",
    "cost_of_a_draw",
    "least_cost",
    "list_options",
    "more_draws",
    "plan_by_price",
    "useful_candidates",
    "wasted_on_asking",
    "waves_to_ask",
]

_SHARES = (1.0, 0.5, 0.25, 0.12, 0.06)
"""Shares of the items a plan may touch: a weak candidate's errors fit into a part."""

_WASTE = 0.02
"""Share of its cost that a batch of few waves may waste on asking another model."""


class Audit(NamedTuple):
    """The audit of a plan.

    Attributes:
        cut: What it serves.
        sizes: Items per leaf, per draw from the posterior.
        rates: Their error rates.
    """

    cut: Cut
    sizes: FloatArray
    rates: FloatArray

    def draws(self, state: AuditState, waves: int) -> FloatArray:
        """Return what draws cost beyond those expected if waves were not limited.

        Args:
            state: The audit of the batch.
            waves: Waves that may draw before one that draws all that is left.

        Returns:
            By the waves that may draw, from none on, and draw from the posterior.
        """
        cut, rng = self.cut, state.batch.rng
        parts = cut.share_of_leaves * self.sizes
        served = np.maximum(parts.sum(axis=1), 1e-9)
        level, errors = state.plan_level, max(0.25, cut.errors)
        items = round(float(served.mean()))
        test = state.sketch(items, state.max_errors, level, errors)
        design = test.acceptance
        if design.draws(0) == 0:
            return np.zeros((waves + 1, DRAWS))
        rate = (parts * self.rates).sum(axis=1) / served
        last = design.most_draws
        outright = float((self.sizes.sum(axis=1) - served).mean())
        spent = outright + state.reference_calls
        draws = next_wave(test, rate, waves, last, rng, besides=spent).by_waves
        more = draws[np.arange(waves + 1).clip(max=len(draws) - 1)] - cut.draws
        return np.asarray(more * cut.price, float)


class Option(NamedTuple):
    """One way to go on, and its cost.

    Attributes:
        policy: The policy it applies; that without candidates: all to the reference.
        test: The registered test it waits for, or None for a plan.
        cost: Per draw from the posterior, expected USD from here on.
        share: Share of the items a plan touches.
        risk: The risk model of a plan's policy.
        audit: The audit of a plan.
        at_once: Whether a plan asks all its candidates at once, where a cascade would
            ask one after the other.
        later: Per draw, the cost of a plan that has a wave less.
        end: Draws to have made after the next wave, if a test has not accepted yet.
        known: Per draw, the cost of a plan that is cut knowing that draw's error rates,
            if a confidence splits its items into many groups.
    """

    policy: Policy
    test: SequentialTest | None
    cost: FloatArray
    share: float = 1.0
    risk: RiskModel | None = None
    audit: Audit | None = None
    at_once: bool = False
    later: FloatArray | None = None
    end: int | None = None
    known: FloatArray | None = None


def list_options(state: AuditState) -> list[Option]:
    """Return every way to go on: the reference alone, plans, and registered tests.

    Which is best is judged as if the reference cost the same on all items. Plans that
    heed its prices look cheap before it is known how often answers are wrong: where
    that is seldom, they would be made too soon.
    """
    batch, drawn, rest = state.batch, state.drawn, len(state.undrawn)
    unasked = (batch.status[:, state.undrawn] == UNASKED).mean(axis=1)
    reference = batch.cost(REFERENCE, drawn) / state.draws
    candidates = sum(batch.cost(tier, drawn) for tier in state.active) / state.draws
    answers, wrong = Answers.read(batch, drawn, state.active), batch.wrong[:, drawn]
    posterior = Posterior(batch, state.active, state.scouted, drawn, batch.rng)
    limited = not math.isinf(batch.rounds_left)
    options = [Option(Policy(()), None, np.full(DRAWS, rest * reference))]
    waiting: list[_Waiting] = []
    for policy in (*family(state.active), *pairs(state.active)):
        risk = RiskModel(policy, answers, wrong, posterior, classes=batch.keyed)
        each = [unasked[tier] * batch.cost(tier, drawn) for tier in policy.tiers]
        asked = zip(policy.tiers, risk.result.asked, strict=True)
        bought = (unasked[tier] * batch.cost(tier, drawn[here]) for tier, here in asked)
        calls = sum(bought) / len(drawn)
        ways = [(calls, False)]
        if limited and policy.stops:
            calls = sum(each) / len(drawn)
            ways.append((calls, True))
        rates = risk.rates(batch.rng, risk.patterns)
        for share in _SHARES if len(risk.tally) else ():
            sizes = share * rest * risk.shares
            limits = state.max_errors, state.plan_level
            outright = (rest - sizes.sum(axis=1)) * reference
            known = None
            if share == 1 and (risk.scored or limited):
                known = least_calls(sizes, rates, *limits) * reference
            for cut, (call, at_once) in product(
                best_cuts(sizes, rates, *limits, keep=2), ways
            ):
                fixed = outright + share * rest * call
                options.append(
                    Option(
                        policy,
                        None,
                        cut.calls * reference + fixed,
                        share,
                        risk,
                        Audit(cut, sizes, rates),
                        at_once,
                        known=None if known is None else known + fixed,
                    )
                )
        if test := state.registered.get(policy):
            rate = posterior.error_rate(policy.apply(posterior.answers))
            lost = state.failed(drawn) & ~policy.apply(answers).agreed
            rate = np.minimum(rate + lost.mean(), 1.0)
            serving = calls + (1 - policy.apply(answers).agreed.mean()) * reference
            ready = test.suffices or state.proven(policy, test)
            waiting.append(_Waiting(policy, test, ready, rate, serving))
    if limited:
        return _in_few_waves(state, options, waiting, reference, candidates)
    # A test that drags on would be given up for a plan at about its next look.
    fallback = np.min([option.cost for option in options], axis=0)
    for policy, test, ready, rate, serving in waiting:
        cost = np.full(DRAWS, rest * serving)
        if not ready:
            draws, until = _draws_left(state, test, rate), test.target - test.draws
            cost = draws * (reference + candidates) + (rest - draws) * serving
            cost = np.minimum(cost, fallback + until * (reference + candidates))
        options.append(Option(policy, test, cost))
    return options


class _Waiting(NamedTuple):
    """A registered test.

    Attributes:
        policy: Its policy.
        test: The test.
        ready: Whether it needs no more draws but late ones.
        rate: Per draw from the posterior, the policy's error rate.
        serving: USD that an item costs that is not drawn once the test has accepted.
    """

    policy: Policy
    test: SequentialTest
    ready: bool
    rate: FloatArray
    serving: float


def _draws_left(
    state: AuditState, test: SequentialTest, rate: FloatArray
) -> FloatArray:
    """Return, per draw from the posterior, the draws until a test may accept."""
    design, errors = test.acceptance, len(test.errors)
    until = draws_needed(
        design.items, rate, state.max_errors, design.level, state.draws, errors
    )
    return np.maximum(until, test.target) - state.draws


def _in_few_waves(
    state: AuditState,
    options: list[Option],
    waiting: Sequence[_Waiting],
    reference: float,
    candidates: float,
) -> list[Option]:
    """Return all options at what they cost where waves are limited.

    A plan's cost without a limit is its least; so those that are dearer than the best
    one anyway keep theirs.
    """
    batch, alone = state.batch, options[0]
    waves = int(batch.rounds_left) - 1  # the last one asks what is left
    priced, best = [alone], np.tile(alone.cost, (waves + 1, 1))
    for plan in sorted(options[1:], key=lambda option: float(option.cost.mean())):
        if plan.cost.mean() >= best[waves].mean():
            priced.append(plan)
            continue
        cost = _by_waves(state, plan, alone.cost, reference)
        best = _cheaper(best, cost)
        priced.append(plan._replace(cost=cost[waves], later=cost[waves - 1]))
    # A test may be given up for a plan, or for another test.
    by_plans = [
        _test_by_waves(state, test, best, reference, candidates)[0] for test in waiting
    ]
    for place, test in enumerate(waiting):
        fallback = best
        for other, cost in enumerate(by_plans):
            if other != place:
                fallback = _cheaper(fallback, cost)
        cost, end = _test_by_waves(state, test, fallback, reference, candidates)
        later = cost[max(waves - 1, 0)]
        priced.append(Option(test.policy, test.test, cost[waves], later=later, end=end))
    return priced


def _cheaper(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return, by the waves left, the one of two costs that is expected to be less."""
    less = second.mean(axis=1) < first.mean(axis=1)
    return np.where(less[:, None], second, first)


def _test_by_waves(
    state: AuditState,
    waiting: _Waiting,
    fallback: FloatArray,
    reference: float,
    candidates: float,
) -> tuple[FloatArray, int | None]:
    """Return what a registered test costs, and where its next wave ends.

    Args:
        state: The audit.
        waiting: The test.
        fallback: What it costs to go on without it, by the waves left before the last.
        reference: USD of a call of the reference.
        candidates: USD of calls of all candidates about an item.
    """
    batch, rest, waves = state.batch, len(state.undrawn), len(fallback) - 1
    _, test, ready, rate, serving = waiting
    cost = np.full(fallback.shape, rest * serving)
    if ready:
        return cost, None
    extra = max(reference + candidates - serving, 0.02 * reference)
    spent = state.reference_calls + rest * serving / extra
    instead = (fallback - cost) / extra
    ready = state.asked(waiting.policy, state.undrawn)
    ready = ready and state.draws >= state.late_enough(waiting.policy)
    wave = next_wave(
        test, rate, waves, batch.n_items, batch.rng, instead, spent, ready=ready
    )
    draws = wave.by_waves[np.arange(waves + 1).clip(max=len(wave.by_waves) - 1)]
    return cost + draws * extra, wave.end


def _by_waves(
    state: AuditState, plan: Option, alone: FloatArray, reference: float
) -> FloatArray:
    """Return the cost of a plan by the waves left before the last, from none on."""
    waves, asking = int(state.batch.rounds_left) - 1, waves_to_ask(state, plan)
    cost = np.tile(alone, (waves + 1, 1))
    if plan.audit is not None and waves >= asking:
        more = plan.audit.draws(state, waves - asking)
        cost[asking:] = plan.cost + more * reference
    return cost


def waves_to_ask(state: AuditState, plan: Option) -> int:
    """Return how many waves a plan takes to ask its candidates."""
    policy, rest = plan.policy, state.undrawn
    items = rest[: round(plan.share * len(rest))]
    if state.asked(policy, items):
        return 0
    if plan.at_once or not policy.stops:
        return 1
    begun = state.asked(Policy(policy.tiers[:2]), items)
    return len(policy.tiers) - 2 + (not begun)


def choose(state: AuditState, options: Sequence[Option]) -> Option:
    """Return the cheapest option; the reference alone, if none saves enough.

    Where waves are limited, costs are simulated: a plan, which needs draws of its own,
    must be cheaper than a registered test by more than their noise.
    """
    best = min(options, key=lambda option: float(option.cost.mean()))
    tests = [option for option in options if option.test is not None]
    if best.audit is not None and tests and not math.isinf(state.batch.rounds_left):
        test = min(tests, key=lambda option: float(option.cost.mean()))
        more = test.cost - best.cost
        best = test if more.mean() < more.std() / math.sqrt(DRAWS) else best
    alone = options[0]
    enough = float((alone.cost - best.cost).mean()) >= _least_gain(state)
    return best if enough else alone


def plan_by_price(
    state: AuditState, options: Sequence[Option], best: Option
) -> Option | None:
    """Return the plan to follow instead of drawing on, None: the reference alone.

    Args:
        state: The audit.
        options: The ways to go on.
        best: The best of them if the reference cost the same on all items.
    """
    batch, drawn = state.batch, state.drawn
    limits = state.max_errors, state.plan_level
    least, chosen = float(options[0].cost.mean()) - _least_gain(state), None
    for plan in options:
        if plan.risk is None or plan.audit is None or not plan.risk.priced:
            continue
        audit = plan.audit
        cut = best_cuts(audit.sizes, audit.rates, *limits, prices=plan.risk.prices)[0]
        saved = (audit.cut.calls - cut.calls).mean() * batch.cost(REFERENCE, drawn)
        cost = float(plan.cost.mean() - saved / state.draws)
        if cost <= least:
            least, chosen = cost, plan
    return chosen or (best if best.risk is not None else None)


def least_cost(state: AuditState, options: Sequence[Option]) -> FloatArray:
    """Per draw from the posterior, the cost of the option to choose if it were true."""
    costs = [option.cost for option in options]
    costs += [option.known for option in options if option.known is not None]
    alone, least = options[0].cost, np.min(costs, axis=0)
    return np.where(alone - least >= _least_gain(state), least, alone)


def _least_gain(state: AuditState) -> float:
    """What candidates must save to serve at all, in USD."""
    batch = state.batch
    mean = batch.cost(REFERENCE, state.drawn) / state.draws
    return batch.min_saving * batch.n_items * mean


def cost_of_a_draw(state: AuditState, best: Option) -> float:
    """What one more draw costs beyond what its item would cost anyway, in USD."""
    batch, drawn = state.batch, state.drawn
    reference = batch.cost(REFERENCE, drawn) / state.draws
    candidates = sum(batch.cost(tier, drawn) for tier in state.active) / state.draws
    anyway = float(best.cost.mean()) / len(state.undrawn)
    return max(reference + candidates - anyway, 0.02 * reference)


def more_draws(state: AuditState, options: Sequence[Option], best: Option) -> float:
    """Return the draws to have made where more of them are made only to learn.

    What is lost by not knowing more falls as draws grow in number, r·n/(n + m) after m
    more of them. With a cost of c each, n + m = √(r·n/c) is best.
    """
    lost = float((best.cost - least_cost(state, options)).mean())
    each = cost_of_a_draw(state, best)
    if each <= 0:  # nothing is lost by it
        return float(state.batch.n_items)
    return math.sqrt(max(lost, 0.0) * state.draws / each)


def wasted_on_asking(
    state: AuditState, options: Sequence[Option], chosen: Option
) -> float:
    """Return USD that asking an option's candidates is expected to cost in vain."""
    tiers = chosen.policy.tiers
    return sum(_wasted(state, options, tier) for tier in tiers) * chosen.share


def also_to_ask(
    state: AuditState, options: Sequence[Option], best: Option
) -> list[int]:
    """Return candidates to ask about all items along with those of the best option.

    Where waves are limited, each of which little is expected to be wasted: then the
    draws that follow are late enough for other policies, too.
    """
    if math.isinf(state.batch.rounds_left):
        return []
    others = [tier for tier in state.active if tier not in best.policy.tiers]
    most = _WASTE * best.cost.mean()
    return [tier for tier in others if _wasted(state, options, tier) <= most]


def _wasted(state: AuditState, options: Sequence[Option], tier: int) -> float:
    """Return USD that asking a candidate about all items may cost in vain, expected.

    It is in vain where another option would be chosen if what is true were known.
    """
    batch, drawn = state.batch, state.drawn
    using = [option.cost for option in options if tier in option.policy.tiers]
    without = [option.cost for option in options if tier not in option.policy.tiers]
    vain = 1.0
    if using:
        vain = float((np.min(without, axis=0) < np.min(using, axis=0)).mean())
    unasked = (batch.status[tier, state.undrawn] == UNASKED).sum()
    return vain * float(unasked) * batch.cost(tier, drawn) / len(drawn)


def useful_candidates(state: AuditState, options: Sequence[Option]) -> list[int]:
    """Candidates that may save more than asking them on the next draws costs."""
    useful = []
    for tier in state.active:
        using = [option.cost for option in options if tier in option.policy.tiers]
        without = [option.cost for option in options if tier not in option.policy.tiers]
        if using:
            gain = np.min(without, axis=0) - np.min(using, axis=0)
            cost = state.batch.cost(tier, state.drawn) / 4
            if np.maximum(gain, 0.0).mean() > cost:
                useful.append(tier)
    return useful
