"""`audit`: serve what candidates answer, once random draws prove it right enough.

1. Scout: ask candidates, not the reference, on a few items. How they disagree shows
   which policies are promising, and what asking them costs.
2. Register: divide the level over a few policies that would serve the whole batch; what
   is left is for plans made later.
3. Draw items in random order for reference and candidates alike. Each draw repairs its
   item, is evidence for every registered policy, and teaches the risk model. After each
   wave, go where the expected cost is least: apply a policy that was accepted, draw on,
   or stop and follow a plan.
   What a policy would serve is asked before the last draws that prove it right, so that
   a candidate that turned bad in between shows it.
4. Plan: ask one policy's candidates on part of the items, take all others and the
   riskiest answers to the reference outright, and audit the rest on fresh draws, at the
   level left; if that turns out expensive, cut again.

Why the promise holds: every test has a design fixed before its first draw, on draws
that are uniform given all that fixed it; each lets more than B wrong answers pass
unseen with at most its level; and the levels sum to at most 1 − γ. Scouted items are
chosen apart from the order of drawing, and a plan's draws are made afresh.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence

import numpy as np

from smart_engine.evidence.acceptance import Acceptance, SequentialTest
from smart_engine.evidence.plans import Cut, best_cuts, draws_needed, portfolio
from smart_engine.evidence.policies import Answers, Policy, family
from smart_engine.evidence.posterior import Posterior
from smart_engine.evidence.record import REFERENCE, UNASKED, BatchRecord
from smart_engine.evidence.risk import RiskModel
from smart_engine.evidence.tails import BoolArray, FloatArray, IntArray
from smart_engine.evidence.waves import next_wave
from smart_engine.strategies._base import Decision, Wave
from smart_engine.strategies.audit_options import (
    Option,
    choose,
    cost_of_a_draw,
    least_cost,
    list_options,
    useful_candidates,
)
from smart_engine.strategies.audit_state import AuditState
from smart_engine.strategies.audit_trial import TELLING, affordable_calls

__all__ = ["ask", "audit"]

_FIRST = 16
"""Draws in the first wave."""

_GROWTH = 0.5
"""A further wave adds at most this share of the draws made so far."""

_LIMITED_GROWTH = 2.0
"""The same where waves are limited."""

_LAST = 0.3
"""Least share of the draws that is made after all that will be served was asked."""

_SCOUT_ITEMS, _SCOUT_LEAST, _SCOUT_COST = 100, 5, 3.0
"""Most and fewest items to scout, and most reference calls to spend on it."""

_SCARCE = 4
"""Waves left at which no more is drawn in order to choose a plan. A wave before, its
candidates are asked beside the draws."""

_BESIDE = 0.8
"""Draws made while a plan's candidates are asked, as a share of those that it needs if
they show no error."""

_EXPECTED_WORTH = 40.0
"""How many of a plan's own draws what the risk model expects of them is worth."""

_CUTS = 6
"""Cuts that are compared in view of the waves left."""

_ATTEMPTS = 6
"""Most plans that are tried one after the other."""


def audit(batch: BatchRecord, looks: str) -> Generator[Wave, None, Decision]:
    """Run the audit; `looks` is for other strategies.

    Source: a risk-limiting audit (Stark 2008) of SMART's mix of models (Jo & Trummer
    2024), with the exact acceptance numbers of `smart_engine.evidence.acceptance`.
    """
    del looks
    state = AuditState(batch)
    if not state.active or (batch.rounds_left <= 2 and not _all_affordable(state)):
        return state.decision()
    yield from _begin(state)
    option = (yield from _draw(state)) if state.active else None
    if option is not None and option.risk is not None:
        yield from _follow(state, option.policy, option.share, option.risk)
    elif option is not None:
        yield from _apply(state, option.policy)
    return state.decision()


def _all_affordable(state: AuditState) -> bool:
    """Whether all candidates may be asked about all items in vain."""
    batch = state.batch
    return affordable_calls(batch, state.active) >= batch.n_items


def _begin(state: AuditState) -> Generator[Wave, None, None]:
    """Scout, and make the first draws beside that; register what scouting suggests.

    Draws are few where a hopeless candidate costs too much. No candidate is active in
    the end if they show that none can save enough.
    """
    batch, tiers = state.batch, tuple(state.active)
    trials = affordable_calls(batch, state.active)
    first = _first_draws(state)
    until = int(np.clip(trials / TELLING, 1, first))
    if batch.rounds_left <= 2 or until == first:
        until = first = state.wave_end(0, first, batch.n_items, 1 + len(tiers))
    scouted = _scouted(state)
    early = not math.isinf(batch.rounds_left) and _all_affordable(state)
    bulk = np.arange(batch.n_items if early else 0)
    yield Wave(
        scouted,
        tiers,
        also=(
            Wave(bulk, tiers),
            Wave(scouted[:2], (REFERENCE,)),
            # The reference's answers are needed anyway.
            Wave(state.order[:first], (REFERENCE,)),
            Wave(state.order[:until], tiers),
        ),
    )
    state.scouted = scouted
    state.active.sort(key=lambda tier: batch.cost(tier, scouted))
    _register(state)
    while True:
        yield from _draw_until(state, until, Policy(()), state.order[:0])
        state.active = [tier for tier in state.active if not state.never_right(tier)]
        if not state.active or state.draws >= first:
            return
        # So few draws tell little of which of several candidates agree.
        if len(state.active) == 1 or state.draws >= trials:
            options = list_options(state)
            best = choose(state, options)
            if best is options[0] and not _drawing_pays(state, options, best):
                state.active = []
                return
        if not math.isinf(batch.rounds_left):
            return
        until = min(first, int(state.draws * (1 + _GROWTH)) + 1)


def _scouted(state: AuditState) -> IntArray:
    """Return the items on which candidates are asked apart from the order of draws.

    The reference is asked on two of them, for its price; these answers are no evidence.
    """
    batch = state.batch
    part = 2 if len(state.active) > 1 else 4  # one alone shows little
    affordable = affordable_calls(batch, state.active) / part
    together = sum(batch.ratios[tier] for tier in state.active)
    within = max(_SCOUT_COST / max(together, 1e-9), _SCOUT_LEAST)
    within = within if batch.priced else _SCOUT_LEAST
    most = int(min(_SCOUT_ITEMS, batch.n_items // 10, affordable, within))
    most = 0 if most < _SCOUT_LEAST else most
    return batch.rng.choice(batch.n_items, most, replace=False)


def _first_draws(state: AuditState) -> int:
    """Return how many draws to begin with: more, the fewer waves can follow."""
    batch = state.batch
    allowed, level = batch.guarantee.max_errors(batch.n_items), batch.guarantee.alpha
    design = Acceptance(batch.n_items, allowed, level)
    if batch.rounds_left <= 2:
        none = state.order[:0]
        prior = Posterior(batch, state.active, none, none, batch.rng)
        policies = (policy.apply(prior.answers) for policy in family(state.active))
        rate = min(map(prior.error_rate, policies), key=lambda rate: rate.mean())
        test = SequentialTest("", design)
        return next_wave(test, rate, 1, batch.n_items, batch.rng).end
    most = int((1 - _LAST) * design.draws(0))
    return max(1, min(_FIRST * int(max(1, 9 - batch.rounds_left)), most))


def _register(state: AuditState) -> None:
    """Divide the level over policies on the whole batch, and plans made later."""
    batch, scouted = state.batch, state.scouted
    n_items, alpha = batch.n_items, batch.guarantee.alpha
    if not n_items:
        return
    posterior = Posterior(batch, state.active, scouted, scouted[:0], batch.rng)
    reference = batch.cost(REFERENCE, scouted[:2]) / 2 if len(scouted) else 0.0
    unit = [
        batch.cost(tier, scouted) / len(scouted) / reference if reference else 0.0
        for tier in range(len(batch.names))
    ]
    policies = family(state.active)
    rates, fixed = [], []
    for policy in policies:
        result = policy.apply(posterior.answers)
        rates.append(posterior.error_rate(result))
        calls = 1.0 - posterior.share(result.agreed)
        for tier, asked in zip(policy.tiers, result.asked, strict=True):
            calls = calls + posterior.share(asked) * unit[tier]
        fixed.append(n_items * calls)
    draws = [
        draws_needed(n_items, rate, state.max_errors, 0.3 * alpha) for rate in rates
    ]
    # The easier a policy on the whole batch looks, the more of the level it gets. One
    # candidate alone shows nothing: half.
    hard = min(
        float(np.exp(np.log(n + cost + 1e-9).mean())) / n_items
        for n, cost in zip(draws, fixed, strict=True)
    )
    easy = float(np.clip((0.2 / hard) ** 2, 0.05, 0.95))
    level = alpha * (0.5 if len(state.active) == 1 else easy)
    state.level_left = alpha - level
    shares = portfolio(n_items, rates, fixed, state.max_errors, level)
    for policy, share, rate, count in zip(policies, shares, rates, draws, strict=True):
        if share:
            errors = float(np.median(rate * np.minimum(count, 0.3 * n_items)))
            state.registered[policy] = state.open_test(
                policy, n_items, level * share, float(np.clip(errors, 0.2, 2))
            )


def _draw(state: AuditState) -> Generator[Wave, None, Option | None]:
    """Draw until going elsewhere is cheapest; return where, None: the reference."""
    batch = state.batch
    # Draws made when all that a policy would serve was asked.
    asked = {p: 0 for p in state.registered if state.asked(p, state.undrawn)}
    while state.draws < batch.n_items:
        waves = batch.rounds_left
        options = list_options(state)
        options = [o for o in options if _waves_needed(state, o, asked) <= waves]
        best = choose(state, options)
        useful = useful_candidates(state, options)
        bulk = state.order[:0]
        if best.test is not None:
            late = state.draws - asked.get(best.policy, state.draws)
            if best.test.accepted is None:
                most, want = _draws_of_test(state, best.end or best.test.target)
            else:
                late_draws = math.ceil(_LAST * best.test.accepted)
                most = want = state.draws + late_draws - late
            if want <= state.draws:
                return best
            if set(best.policy.tiers) <= set(useful):
                state.active = useful
            missing = set(best.policy.tiers) - set(state.active)
            state.active += sorted(missing)
            if best.policy not in asked and want > (1 - _LAST) * most:
                asked[best.policy] = state.draws
                # In an order that says nothing of the order of draws.
                bulk = np.sort(state.undrawn)
        else:
            if not (_may_learn(state, best) and _drawing_pays(state, options, best)):
                return best if best.risk else None
            state.active = useful or state.active
            most, want = batch.n_items, _draws_to_learn(state)
            if best.risk and waves <= _SCARCE + 1:
                rest = state.order[want:]
                bulk = rest[: round(best.share * len(rest))]
        until = state.wave_end(state.draws, want, most, 1 + len(state.active))
        yield from _draw_until(state, until, best.policy, bulk)
    return None


def _growth(state: AuditState) -> float:
    """Most draws that a further wave adds, as a share of those made so far."""
    return _GROWTH if math.isinf(state.batch.rounds_left) else _LIMITED_GROWTH


def _drawing_pays(state: AuditState, options: list[Option], best: Option) -> bool:
    """Whether more draws are worth more than they cost, beside the best option now."""
    regret = float((best.cost - least_cost(state, options)).mean())
    return regret > (1 + _GROWTH) * state.draws * cost_of_a_draw(state, best)


def _waves_needed(
    state: AuditState, option: Option, asked: Mapping[Policy, int]
) -> int:
    """Return how many waves an option takes at least, and the end of the batch."""
    if option.test is not None:
        late = state.draws - asked.get(option.policy, state.draws)
        ready = option.test.accepted is not None
        return 1 if ready and late >= _LAST * (option.test.accepted or 0) else 2
    if option.risk is not None:  # ask; take others outright, and draw; end
        return 2 if state.asked(option.policy, _touched(state, option)) else 3
    return 1


def _may_learn(state: AuditState, best: Option) -> bool:
    """Whether waves enough are left for a further one that only teaches."""
    if best.risk is None:
        return state.batch.rounds_left > 3
    asked = state.asked(best.policy, _touched(state, best))
    return state.batch.rounds_left > (_SCARCE if asked else 2)


def _touched(state: AuditState, plan: Option, draws: int = 0) -> IntArray:
    """The items that a plan touches, after so many draws in all."""
    rest = state.order[max(draws, state.draws) :]
    return rest[: round(plan.share * len(rest))]


def _draws_of_test(state: AuditState, end: int) -> tuple[int, int]:
    """Return the draws with which a test may accept, and those wanted now."""
    waves, grown = state.batch.rounds_left, int(state.draws * (1 + _growth(state))) + 8
    if waves > _SCARCE:
        return end, min(end, grown)
    # All that it would serve is asked now; the draws from here on are late enough.
    end = max(end, math.ceil(state.draws / (1 - _LAST)))
    return min(end, state.batch.n_items), min(end, state.batch.n_items)


def _draws_to_learn(state: AuditState) -> int:
    """Return how many draws to have made before the next decision."""
    grown = int(state.draws * (1 + _growth(state))) + 1
    return min(grown, state.batch.n_items)


def _draw_until(
    state: AuditState,
    until: int,
    policy: Policy,
    bulk: IntArray,
) -> Generator[Wave, None, None]:
    """Draw up to that many items; show them to every registered test.

    Args:
        state: The audit.
        until: Draws to have made then.
        policy: A policy whose candidates are asked beside that.
        bulk: The items on which they are asked.
    """
    batch = state.batch
    fresh = state.order[state.draws : until]
    draws = Wave(fresh, (REFERENCE, *state.active))
    if not len(bulk):
        yield draws
    elif policy.stops and math.isinf(batch.rounds_left):
        yield from ask(batch, policy, bulk)
        yield draws
    else:
        yield Wave(bulk, policy.tiers, also=(draws,))
    state.draws = until
    answers, failed = Answers.read(batch, fresh, state.active), state.failed(fresh)
    for each, test in list(state.registered.items()):
        if set(each.tiers) <= set(state.active):
            result = each.apply(answers)
            test.observe(result.wrong(batch.wrong[:, fresh]) & result.agreed, failed)
        elif test.accepted is None:
            del state.registered[each]  # its candidates are asked no more


def ask(
    batch: BatchRecord, policy: Policy, items: IntArray, also: Sequence[Wave] = ()
) -> Generator[Wave, None, Answers]:
    """Ask a policy's candidates, one after the other where it may stop early.

    All at once where waves are limited. The first wave has the calls of `also`, too.
    """
    if policy.stops and math.isinf(batch.rounds_left):
        yield Wave(items, policy.tiers[:2], also=also)
        for place, tier in enumerate(policy.tiers[2:], 2):
            answers = Answers.read(batch, items, policy.tiers)
            yield Wave(items[policy.apply(answers).asked[place]], (tier,))
    else:
        yield Wave(items, policy.tiers, also=also)
    return Answers.read(batch, items, policy.tiers)


def _apply(state: AuditState, policy: Policy) -> Generator[Wave, None, None]:
    """Let an accepted policy serve all items not drawn."""
    items = state.undrawn
    if len(policy.tiers) == 1:
        state.route[items] = policy.tiers[0]
        return
    result = policy.apply((yield from ask(state.batch, policy, items)))
    state.route[items] = np.where(result.agreed, result.server, REFERENCE)


def _follow(
    state: AuditState, policy: Policy, share: float, risk: RiskModel
) -> Generator[Wave, None, None]:
    """Carry out a plan: ask, cut, audit; cut again where that is cheaper."""
    batch, rng = state.batch, state.batch.rng
    items = state.undrawn[: round(share * len(state.undrawn))]
    new = batch.status[REFERENCE, items] == UNASKED  # but two that were scouted
    beside = 0
    if not state.asked(policy, items):
        # Its first draws, too: the cut does not know what they show. All are asked in
        # an order that says nothing of the order of draws.
        first = Acceptance(len(items), state.max_errors, state.plan_level).draws(0)
        beside = int(_BESIDE * first)
        draws = Wave(items[:beside], (REFERENCE,))
        yield from ask(batch, policy, np.sort(items), (draws,))
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
            until = _draws_of_plan(state, risk, leaf[served], test)
            yield Wave(items[served[test.draws : until]], (REFERENCE,), also=outright)
            if outright:
                test = state.settle(test, others)
                outright = ()
        if test.accepted is not None:
            unseen = served[test.draws :]
            state.route[items[unseen]] = server[unseen]
            return


def _draws_of_plan(
    state: AuditState, risk: RiskModel, leaf: IntArray, test: SequentialTest
) -> int:
    """Return how many of the served items to have drawn after the next wave.

    Args:
        state: The audit.
        risk: The risk model.
        leaf: Per served item, in the order in which they are drawn, its leaf.
        test: The audit of the plan.
    """
    batch, target = state.batch, test.target
    if test.accepted is not None:
        return test.draws
    if math.isinf(batch.rounds_left):
        grown = max(test.draws + 32, int(test.draws * (1 + _GROWTH)))
        return state.wave_end(test.draws, min(target, grown), target, 1)
    rate = _shown(state, test, _rate(risk.rates(batch.rng), leaf[test.draws :]))
    last = test.acceptance.most_draws
    return next_wave(test, rate, batch.rounds_left - 1, last, batch.rng).end


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
    cut = _cheapest_cut(state, risk.rates(state.batch.rng), leaf)
    return None if cut is None or cut.calls.mean() >= len(leaf) else cut


def _cheapest_cut(state: AuditState, rates: FloatArray, leaf: IntArray) -> Cut | None:
    """Return the cheapest cut of items with these leaves, if there is any."""
    sizes = np.bincount(leaf, minlength=rates.shape[1]).astype(float)
    errors, level, waves = state.max_errors, state.plan_level, state.batch.rounds_left
    if math.isinf(waves):
        return next(iter(best_cuts(sizes, rates, errors, level)), None)
    cuts = []
    for cut in best_cuts(sizes, rates, errors, level, keep=_CUTS):
        parts = cut.share_of_leaves * sizes
        served = round(parts.sum())
        design = Acceptance(served, errors, level, max(0.25, cut.errors))
        if design.draws(0) == 0:
            return cut
        rate = np.asarray(rates @ parts / max(parts.sum(), 1e-9), float)
        test, last = SequentialTest("", design), design.most_draws
        draws = next_wave(test, rate, waves - 1, last, state.batch.rng).draws
        cuts.append(cut._replace(calls=len(leaf) - served + draws))
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
        going_on = float(next_wave(test, rate, waves - 1, last, rng).draws.mean())
    again = _cheapest_cut(state, rates, leaf[free])
    calls = float(again.calls.mean()) if again else int(free.sum())
    return bool(calls - (int(free.sum()) - len(unseen)) < 0.97 * going_on - 2)
