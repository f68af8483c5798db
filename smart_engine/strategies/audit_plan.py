"""A plan of an audit: serve a part of the items, and audit that part by itself.

Ask one policy's candidates about part of the items, take all others and the riskiest
answers to the reference outright, and audit the rest at the level left; if that turns
out expensive, cut again.

The rule that the promise needs: a cut is chosen in view of all that was seen, so what
it serves is audited by a test of its own, at a level that no other test has, with a
design fixed before its first draw, on draws that say nothing of what the cut was chosen
by: in an order made before, of which the cut has seen none, or in a fresh one.
"""

from __future__ import annotations

import math
from collections.abc import Generator

import numpy as np

from smart_engine.evidence.acceptance import Acceptance, SequentialTest
from smart_engine.evidence.plans import Cut, best_cuts, draws_needed
from smart_engine.evidence.policies import Answers
from smart_engine.evidence.record import REFERENCE, UNASKED
from smart_engine.evidence.repair import repairs
from smart_engine.evidence.risk import RiskModel
from smart_engine.evidence.tails import BoolArray, FloatArray, IntArray
from smart_engine.evidence.waves import next_wave
from smart_engine.strategies._base import Audited, Wave, ask
from smart_engine.strategies.audit_options import Option
from smart_engine.strategies.audit_state import GROWTH, AuditState

__all__ = ["follow"]

_BESIDE = 0.8
"""Draws made while a plan's candidates are asked, as a share of those that it needs if
they show no error."""

_EXPECTED_WORTH = 40.0
"""How many of a plan's own draws what the risk model expects of them is worth."""

_CUTS = 6
"""Cuts that look best at mean error rates, and are compared over all that may be."""

_ATTEMPTS = 6
"""Most plans that are tried one after the other."""


def follow(
    state: AuditState, plan: Option, risk: RiskModel
) -> Generator[Wave, None, None]:
    """Carry out a plan: ask, cut, audit; cut again where that is cheaper."""
    batch, rng, policy = state.batch, state.batch.rng, plan.policy
    items = state.undrawn[: round(plan.share * len(state.undrawn))]
    new = batch.status[REFERENCE, items] == UNASKED  # but two that were scouted
    beside = yield from _ask(state, plan, items)
    leaf, server = risk.leaves(Answers.read(batch, items, policy.tiers))
    free = new & (leaf >= 0)
    for attempt in range(_ATTEMPTS):
        level = state.plan_level
        cut = _cut(state, risk, leaf[free])
        if cut is None:
            return
        state.level_left -= level
        places = np.flatnonzero(free)
        served = places[cut.served(leaf[places], rng)]
        if attempt:  # what the first draws have shown, the cut knows
            served = rng.permutation(served)
        free[:] = False
        free[served] = True
        others = np.setdiff1d(np.arange(batch.n_items), items[served])
        errors = max(0.25, cut.errors)
        test = state.open_test(policy, len(served), level, errors, others)
        until = 0 if attempt else int((served < beside).sum())
        outright: tuple[Wave, ...] = (Wave(others, (REFERENCE,), learning=False),)
        while True:
            drawn = served[test.draws : until]
            wrong = batch.wrong[server[drawn], items[drawn]]
            free[drawn] = False
            risk.learn(leaf[drawn], wrong)
            test.observe(wrong, state.failed(items[drawn]))
            if not outright and (
                test.accepted is not None
                or _recut_pays(state, risk, leaf, free, served, test)
            ):
                break
            until = _draws_of_plan(state, risk, leaf[served], test, not outright)
            if test.accepted is None and until == test.draws:
                test.repaired = repairs(test)
                break
            yield Wave(items[served[test.draws : until]], (REFERENCE,), also=outright)
            if outright:
                test = state.settle(test, others)
                outright = ()
        if test.ended:
            unseen = served[test.draws + (test.repaired or 0) :]
            state.route[items[unseen]] = server[unseen]
            if test.repaired is None:
                drawn = served[: test.draws]
                audited = Audited(items[drawn], server[drawn], items[unseen], test)
                state.audited = [audited]
            return


def _ask(
    state: AuditState, plan: Option, items: IntArray
) -> Generator[Wave, None, int]:
    """Ask a plan's candidates; return the draws made beside that.

    These are the first ones of its audit: its cut does not know what they show. All are
    asked in an order that says nothing of the order of draws.
    """
    policy = plan.policy
    if state.asked(policy, items):
        return 0
    first = Acceptance(len(items), state.max_errors, state.plan_level).draws(0)
    beside = int(_BESIDE * first)
    draws = Wave(items[:beside], (REFERENCE,))
    in_turn = policy.stops and not plan.at_once
    yield from ask(state.batch, policy, np.sort(items), (draws,), in_turn=in_turn)
    return beside


def _draws_of_plan(
    state: AuditState,
    risk: RiskModel,
    leaf: IntArray,
    test: SequentialTest,
    ready: bool,
) -> int:
    """Return how many of the served items to have drawn after the next wave.

    Args:
        state: The audit.
        risk: The risk model.
        leaf: Per served item, in the order in which they are drawn, its leaf.
        test: The audit of the plan.
        ready: Whether it may end by repairs: then as many as now.
    """
    batch, target = state.batch, test.target
    if test.accepted is not None:
        return test.draws
    if math.isinf(batch.rounds_left):
        grown = max(test.draws + 32, int(test.draws * (1 + GROWTH)))
        return state.wave_end(test.draws, min(target, grown), target, 1)
    rate = _shown(state, test, _rate(risk.rates(batch.rng), leaf[test.draws :]))
    last, waves = test.acceptance.most_draws, batch.rounds_left - 1
    spent = batch.n_items - test.acceptance.items  # others are taken outright
    wave = next_wave(test, rate, waves, last, batch.rng, besides=spent, ready=ready)
    return wave.end


def _shown(state: AuditState, test: SequentialTest, rate: FloatArray) -> FloatArray:
    """Draw error rates from what a plan's own draws have shown, and what was expected.

    The cut was chosen for the leaves that looked best, which is why the risk model
    expects too few errors of them. Its own draws are free of that.
    """
    errors, draws, mean = len(test.errors), test.draws, float(rate.mean())
    bad = errors + _EXPECTED_WORTH * mean + 1e-6
    good = draws - errors + _EXPECTED_WORTH * (1 - mean) + 1e-6
    return state.batch.rng.beta(bad, good, size=len(rate))


def _rate(rates: FloatArray, leaf: IntArray) -> FloatArray:
    """Per draw from the posterior, the error rate of items with these leaves."""
    sizes = np.bincount(leaf, minlength=rates.shape[1]).astype(float)
    return np.asarray(rates @ sizes / max(sizes.sum(), 1.0), float)


def _cut(state: AuditState, risk: RiskModel, leaf: IntArray) -> Cut | None:
    """Return the cheapest cut, None if all to the reference is cheaper."""
    cut = _cheapest_cut(state, risk, risk.rates(state.batch.rng), leaf)
    alone = risk.prices[leaf].sum()
    return None if cut is None or cut.calls.mean() >= alone else cut


def _cheapest_cut(
    state: AuditState, risk: RiskModel, rates: FloatArray, leaf: IntArray
) -> Cut | None:
    """Return the cheapest cut of items with these leaves, if there is any."""
    sizes = np.bincount(leaf, minlength=rates.shape[1]).astype(float)
    errors, level, waves = state.max_errors, state.plan_level, state.batch.rounds_left
    best = best_cuts(sizes, rates, errors, level, _CUTS, risk.prices)
    if math.isinf(waves):
        return next(iter(best), None)
    cuts = []
    for cut in best:
        parts = cut.share_of_leaves * sizes
        served = round(parts.sum())
        test = state.sketch(served, errors, level, max(0.25, cut.errors))
        design = test.acceptance
        if design.draws(0) == 0:
            return cut
        rate = np.asarray(rates @ parts / max(parts.sum(), 1e-9), float)
        last = design.most_draws
        spent = state.batch.n_items - served
        wave = next_wave(test, rate, waves - 1, last, state.batch.rng, besides=spent)
        calls = cut.calls + (wave.draws - cut.draws) * cut.price
        cuts.append(cut._replace(calls=calls, draws=wave.draws))
    return min(cuts, key=lambda cut: float(cut.calls.mean()), default=None)


def _recut_pays(
    state: AuditState,
    risk: RiskModel,
    leaf: IntArray,
    free: BoolArray,
    served: IntArray,
    test: SequentialTest,
) -> bool:
    """Whether cutting again, on fresh draws, is expected to beat drawing on."""
    waves, rng = state.batch.rounds_left, state.batch.rng
    if waves < 2:  # take others outright, and draw; end
        return False
    rates = risk.rates(rng)
    unseen = leaf[served[test.draws :]]
    rate, design = _rate(rates, unseen), test.acceptance
    if math.isinf(waves):
        errors = len(test.errors)
        until = draws_needed(
            design.items, rate, state.max_errors, design.level, test.draws, errors
        )
        going_on = float((until - test.draws).mean())
    else:
        last = design.most_draws
        rate = _shown(state, test, rate)
        wave = next_wave(test, rate, waves - 1, last, rng, ready=True)
        going_on = float(wave.draws.mean())
    again = _cheapest_cut(state, risk, rates, leaf[free])
    total, kept = (float(risk.prices[part].sum()) for part in (leaf[free], unseen))
    calls = float(again.calls.mean()) if again else total
    going_on *= kept / max(len(unseen), 1)
    return bool(calls - (total - kept) < 0.97 * going_on - 2)
