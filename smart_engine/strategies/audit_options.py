"""The ways an audit may go on after a wave of draws, and what each is expected to cost.

Nothing here touches the promise: a wrong expectation costs money, never validity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from smart_engine.evidence.acceptance import SequentialTest
from smart_engine.evidence.plans import best_cuts, draws_needed, least_calls
from smart_engine.evidence.policies import Answers, Policy, family, pairs
from smart_engine.evidence.posterior import DRAWS, Posterior
from smart_engine.evidence.record import REFERENCE, UNASKED
from smart_engine.evidence.risk import RiskModel
from smart_engine.evidence.tails import FloatArray
from smart_engine.evidence.waves import next_wave
from smart_engine.strategies.audit_state import AuditState

__all__ = [
    "Option",
    "choose",
    "cost_of_a_draw",
    "least_cost",
    "list_options",
    "useful_candidates",
]

_SHARES = (1.0, 0.5, 0.25, 0.12, 0.06)
"""Shares of the items a plan may touch: a weak candidate's errors fit into a part."""


_LAST_PLAN = 3
"""Waves left at which no plan can follow draws: ask; take others outright; end."""


class Option(NamedTuple):
    """One way to go on, and its cost.

    Attributes:
        policy: The policy it applies; that without candidates: all to the reference.
        test: The registered test it waits for, or None for a plan.
        cost: Per draw from the posterior, expected USD from here on.
        share: Share of the items a plan touches.
        risk: The risk model of a plan's policy.
        end: Draws to have made after the next wave, if a test has not accepted yet.
        known: Per draw, the cost of a plan that is cut knowing that draw's error rates,
            if a confidence splits its items into many groups.
    """

    policy: Policy
    test: SequentialTest | None
    cost: FloatArray
    share: float = 1.0
    risk: RiskModel | None = None
    end: int | None = None
    known: FloatArray | None = None


def list_options(state: AuditState) -> list[Option]:
    """Return every way to go on: the reference alone, plans, and registered tests."""
    batch, drawn, rest = state.batch, state.drawn, len(state.undrawn)
    unasked = (batch.status[:, state.undrawn] == UNASKED).mean(axis=1)
    reference = batch.cost(REFERENCE, drawn) / state.draws
    candidates = sum(batch.cost(tier, drawn) for tier in state.active) / state.draws
    answers, wrong = Answers.read(batch, drawn, state.active), batch.wrong[:, drawn]
    posterior = Posterior(batch, state.active, state.scouted, drawn, batch.rng)
    options = [Option(Policy(()), None, np.full(DRAWS, rest * reference))]
    waiting: list[Option] = []
    for policy in (*family(state.active), *pairs(state.active)):
        risk = RiskModel(policy, answers, wrong, posterior, classes=batch.keyed)
        asked = zip(policy.tiers, risk.result.asked, strict=True)
        bought = (unasked[tier] * batch.cost(tier, drawn[here]) for tier, here in asked)
        calls = sum(bought) / len(drawn)
        rates = risk.rates(batch.rng, risk.patterns)
        for share in _SHARES if len(risk.tally) else ():
            sizes = share * rest * risk.shares
            limits = state.max_errors, state.plan_level
            fixed = (rest - sizes.sum(axis=1)) * reference + share * rest * calls
            known = None
            if share == 1 and risk.scored:
                known = least_calls(sizes, rates, *limits) * reference + fixed
            for cut in best_cuts(sizes, rates, *limits, keep=2):
                cost = cut.calls * reference + fixed
                options.append(Option(policy, None, cost, share, risk, known))
        if test := state.registered.get(policy):
            rate = posterior.error_rate(policy.apply(posterior.answers))
            lost = state.failed(drawn) & ~policy.apply(answers).agreed
            rate = np.minimum(rate + lost.mean(), 1.0)
            serving = calls + (1 - policy.apply(answers).agreed.mean()) * reference
            draws, end = _draws_left(state, test, rate)
            cost = draws * (reference + candidates) + (rest - draws) * serving
            waiting.append(Option(policy, test, cost, end=end))
    # A test that drags on would be given up for a plan at about its next look.
    fallback = np.min([option.cost for option in options], axis=0)
    for option in waiting:
        cost, test = option.cost, option.test
        if batch.rounds_left <= _LAST_PLAN:
            fallback = options[0].cost
        if test is not None and test.accepted is None:
            until = test.target - test.draws
            cost = np.minimum(cost, fallback + until * (reference + candidates))
        options.append(option._replace(cost=cost))
    return options


def _draws_left(
    state: AuditState, test: SequentialTest, rate: FloatArray
) -> tuple[FloatArray, int | None]:
    """Return the draws until a registered test may accept, and where to look next.

    The draws are expected ones, per draw from the posterior. Where waves are limited,
    those after the last wave that may draw are all that are left.
    """
    if test.accepted is not None:
        return np.zeros(DRAWS), None
    batch, design, errors = state.batch, test.acceptance, len(test.errors)
    if batch.rounds_left <= _LAST_PLAN:
        wave = next_wave(test, rate, batch.rounds_left - 1, batch.n_items, batch.rng)
        return wave.draws, wave.end
    until = draws_needed(
        design.items, rate, state.max_errors, design.level, state.draws, errors
    )
    return np.maximum(until, test.target) - state.draws, test.target


def choose(state: AuditState, options: Sequence[Option]) -> Option:
    """Return the cheapest option; the reference alone, if none saves enough."""
    best = min(options, key=lambda option: float(option.cost.mean()))
    alone = options[0]
    enough = float((alone.cost - best.cost).mean()) >= _least_gain(state)
    return best if enough else alone


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
