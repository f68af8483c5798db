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

from collections.abc import Generator

import numpy as np

from smart_engine.evidence.acceptance import SequentialTest
from smart_engine.evidence.plans import Cut, best_cuts, draws_needed, portfolio
from smart_engine.evidence.policies import Answers, Policy, family
from smart_engine.evidence.posterior import Posterior
from smart_engine.evidence.record import REFERENCE, BatchRecord
from smart_engine.evidence.risk import RiskModel
from smart_engine.evidence.tails import BoolArray, IntArray
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

_LAST = 0.3
"""Least share of the draws that is made after all that will be served was asked."""

_SCOUT_ITEMS, _SCOUT_LEAST, _SCOUT_COST = 100, 5, 3.0
"""Most and fewest items to scout, and most reference calls to spend on it."""

_ATTEMPTS = 6
"""Most plans that are tried one after the other."""


def audit(batch: BatchRecord, looks: str) -> Generator[Wave, None, Decision]:
    """Run the audit; `looks` is for other strategies.

    Source: a risk-limiting audit (Stark 2008) of SMART's mix of models (Jo & Trummer
    2024), with the exact acceptance numbers of `smart_engine.evidence.acceptance`.
    """
    del looks
    state = AuditState(batch)
    if not state.active:
        return state.decision()
    yield from _scout(state)
    _register(state)
    option = yield from _draw(state)
    if option is not None and option.risk is not None:
        yield from _follow(state, option.policy, option.share, option.risk)
    elif option is not None:
        yield from _apply(state, option.policy)
    return state.decision()


def _scout(state: AuditState) -> Generator[Wave, None, None]:
    """Ask candidates on a few items that are chosen apart from the order of draws.

    The reference is asked on two of them, for its price; these answers are no evidence.
    """
    batch = state.batch
    part = 2 if len(state.active) > 1 else 4  # one alone shows little
    affordable = affordable_calls(batch, state.active) / part
    most = int(min(_SCOUT_ITEMS, batch.n_items // 10, affordable))
    if most < _SCOUT_LEAST:
        return
    items = batch.rng.choice(batch.n_items, most, replace=False)
    yield Wave(items[:2], (REFERENCE, *state.active))
    reference = batch.cost(REFERENCE, items[:2])
    candidates = sum(batch.cost(tier, items[:2]) for tier in state.active)
    within = _SCOUT_COST * reference / candidates if candidates else most
    state.scouted = items[: int(np.clip(within, _SCOUT_LEAST, most))]
    yield Wave(state.scouted[2:], tuple(state.active))
    state.active.sort(key=lambda tier: batch.cost(tier, state.scouted))


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
    soonest = min((t.target for t in state.registered.values()), default=_FIRST)
    want = min(_FIRST, max(1, int((1 - _LAST) * soonest)))
    most = state.batch.n_items
    yield from _try(state, want)
    if not state.active:
        return None
    asked: dict[Policy, int] = {}  # draws made when all that it would serve was asked
    while True:
        calls = 1 + len(state.active)
        yield from _draw_until(state, state.wave_end(state.draws, want, most, calls))
        if state.draws == state.batch.n_items:
            return None
        options = list_options(state)
        best = choose(state, options)
        useful = useful_candidates(state, options)
        grown = int(state.draws * (1 + _GROWTH))
        if best.test is not None:
            left = max(0, best.test.target - best.test.draws)
            late = state.draws - asked.get(best.policy, state.draws)
            if not left:
                left = int(np.ceil(_LAST * best.test.target)) - late
                if left <= 0:
                    return best
                grown = most
            if set(best.policy.tiers) <= set(useful):
                state.active = useful
            missing = set(best.policy.tiers) - set(state.active)
            state.active += sorted(missing)
            most = min(state.draws + left, state.batch.n_items)
            want = min(most, grown + 8)
            if best.policy not in asked and want > (1 - _LAST) * most:
                asked[best.policy] = state.draws
                # In an order that says nothing of the order of draws.
                yield from ask(state.batch, best.policy, np.sort(state.undrawn))
        else:
            if not _drawing_pays(state, options, best):
                return best if best.risk else None
            state.active = useful or state.active
            most = state.batch.n_items
            want = min(most, grown + 1)


def _try(state: AuditState, first: int) -> Generator[Wave, None, None]:
    """Make the first draws, few at a time where a hopeless candidate costs too much.

    No candidate is active in the end if that shows that none can save enough.
    """
    trials = affordable_calls(state.batch, state.active)
    until = int(np.clip(trials / TELLING, 1, first))
    if until < first:  # the reference's answers are needed anyway
        yield Wave(state.order[:first], (REFERENCE,))
    else:
        calls = 1 + len(state.active)
        until = state.wave_end(0, first, state.batch.n_items, calls)
    while True:
        yield from _draw_until(state, until)
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
        until = min(first, int(state.draws * (1 + _GROWTH)) + 1)


def _drawing_pays(state: AuditState, options: list[Option], best: Option) -> bool:
    """Whether more draws are worth more than they cost, beside the best option now."""
    regret = float((best.cost - least_cost(state, options)).mean())
    return regret > (1 + _GROWTH) * state.draws * cost_of_a_draw(state, best)


def _draw_until(state: AuditState, until: int) -> Generator[Wave, None, None]:
    """Draw up to that many items; show them to every registered test."""
    batch = state.batch
    fresh = state.order[state.draws : until]
    yield Wave(fresh, (REFERENCE, *state.active))
    state.draws = until
    answers, failed = Answers.read(batch, fresh, state.active), state.failed(fresh)
    for policy, test in list(state.registered.items()):
        if set(policy.tiers) <= set(state.active):
            result = policy.apply(answers)
            test.observe(result.wrong(batch.wrong[:, fresh]) & result.agreed, failed)
        elif test.accepted is None:
            del state.registered[policy]  # its candidates are asked no more


def ask(
    batch: BatchRecord, policy: Policy, items: IntArray
) -> Generator[Wave, None, Answers]:
    """Ask a policy's candidates, one after the other where it may stop early."""
    if policy.stops:
        yield Wave(items, policy.tiers[:2])
        for place, tier in enumerate(policy.tiers[2:], 2):
            answers = Answers.read(batch, items, policy.tiers)
            yield Wave(items[policy.apply(answers).asked[place]], (tier,))
    else:
        yield Wave(items, policy.tiers)
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
    leaf, server = risk.leaves((yield from ask(batch, policy, items)))
    free = leaf >= 0
    for _ in range(_ATTEMPTS):
        level = state.plan_level
        cut = _cut(state, risk, leaf[free])
        if cut is None:
            return
        state.level_left -= level
        places = np.flatnonzero(free)
        served = rng.permutation(places[cut.served(leaf[places], rng)])
        others = np.setdiff1d(state.undrawn, items[served])
        yield Wave(others, (REFERENCE,), learning=False)
        free[:] = False
        free[served] = True
        test = state.open_test(policy, len(served), level, max(0.25, cut.errors))
        test.observe(np.zeros(0, bool))
        while test.accepted is None:
            grown = max(test.draws + 32, int(test.draws * (1 + _GROWTH)))
            want = min(test.target, grown)
            until = state.wave_end(test.draws, want, test.target, 1)
            drawn = served[test.draws : until]
            yield Wave(items[drawn], (REFERENCE,))
            wrong = batch.wrong[server[drawn], items[drawn]]
            free[drawn] = False
            risk.learn(leaf[drawn], wrong)
            test.observe(wrong, state.failed(items[drawn]))
            if test.accepted is None and _recut_pays(
                state, risk, leaf, free, served, test
            ):
                break
        if test.accepted is not None:
            unseen = served[test.draws :]
            state.route[items[unseen]] = server[unseen]
            return


def _cut(state: AuditState, risk: RiskModel, leaf: IntArray) -> Cut | None:
    """Return the cheapest cut, None if all to the reference is cheaper."""
    sizes = np.bincount(leaf, minlength=len(risk.tally)).astype(float)
    rates = risk.rates(state.batch.rng)
    cuts = best_cuts(sizes, rates, state.max_errors, state.plan_level)
    if not cuts or cuts[0].calls.mean() >= len(leaf):
        return None
    return cuts[0]


def _recut_pays(
    state: AuditState,
    risk: RiskModel,
    leaf: IntArray,
    free: BoolArray,
    served: IntArray,
    test: SequentialTest,
) -> bool:
    """Whether cutting again, on fresh draws, is expected to beat drawing on."""
    size = len(risk.tally)
    rates = risk.rates(state.batch.rng)
    unseen = np.bincount(leaf[served[test.draws :]], minlength=size).astype(float)
    rate = rates @ unseen / max(unseen.sum(), 1.0)
    design = test.acceptance
    until = draws_needed(
        design.items, rate, state.max_errors, design.level, test.draws, len(test.errors)
    )
    going_on = float((until - test.draws).mean())
    sizes = np.bincount(leaf[free], minlength=size).astype(float)
    again = best_cuts(sizes, rates, state.max_errors, state.plan_level)
    taken_anyway = sizes.sum() - unseen.sum()
    calls = float(again[0].calls.mean()) if again else sizes.sum()
    return bool(calls - taken_anyway < 0.97 * going_on - 2)
