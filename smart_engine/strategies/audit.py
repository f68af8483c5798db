"""`audit`: serve what candidates answer, once random draws prove it right enough.

1. Scout: ask candidates, not the reference, on a few items. How they disagree shows
   which policies are promising, and what asking them costs.
2. Register: divide the level over a few policies that would serve the whole batch; what
   is left is for plans made later (`audit_plan.py`).
3. Draw items in random order for reference and candidates alike. Each draw repairs its
   item, is evidence for every registered policy, and teaches the risk model. After each
   wave, go where the expected cost is least: apply a policy that was accepted, draw on,
   or stop and follow a plan.
   Where waves are limited, the last one may repair what is missing (`repair.py`).
   What a policy would serve is asked before the last draws that prove it right, so that
   a candidate that turned bad in between shows it.

The rule that the promise needs: every test has a design fixed before its first draw, on
draws that are uniform given all that fixed it, for scouted items are chosen apart from
the order of drawing; each lets more than B wrong answers pass unseen with at most its
level; and the levels, those of plans too, sum to at most 1 − γ.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence

import numpy as np

from smart_engine.evidence.acceptance import Acceptance
from smart_engine.evidence.plans import draws_needed, portfolio
from smart_engine.evidence.policies import Answers, Policy, family
from smart_engine.evidence.posterior import Posterior
from smart_engine.evidence.record import REFERENCE, BatchRecord
from smart_engine.evidence.repair import repairs
from smart_engine.evidence.tails import IntArray
from smart_engine.evidence.waves import next_wave
from smart_engine.strategies._base import Audited, Decision, Wave, ask
from smart_engine.strategies.audit_options import (
    Option,
    also_to_ask,
    choose,
    cost_of_a_draw,
    least_cost,
    list_options,
    more_draws,
    plan_by_price,
    useful_candidates,
    wasted_on_asking,
    waves_to_ask,
)
from smart_engine.strategies.audit_plan import follow
from smart_engine.strategies.audit_state import GROWTH, LAST, AuditState
from smart_engine.strategies.audit_trial import TELLING, affordable_calls

__all__ = ["audit"]

_FIRST = 16
"""Draws in the first wave."""


_SCOUT_ITEMS, _SCOUT_LEAST, _SCOUT_COST = 100, 5, 3.0
"""Most and fewest items to scout, and most reference calls to spend on it."""

_ALONE, _ALONE_SCORED = 0.7, 0.5
"""Share of the level for the whole batch, of one candidate, and of one with scores."""

_SCARCE = 4
"""Waves left at which a registered test makes all the draws that have to come late."""

_LAST_CHANCE = 3
"""Waves left at which no candidate can serve any more that does not yet."""


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
        yield from follow(state, option, option.risk)
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
    trials = float(np.floor(affordable_calls(batch, state.active)))
    first, most = _first_draws(state)
    until = int(np.clip(trials / TELLING, 1, first))
    if batch.rounds_left <= 2 or until == first:
        until = first = state.wave_end(0, first, most, 1 + len(tiers))
    scouted = _scouted(state)
    early = _asked_at_once(state)
    bulk = np.arange(batch.n_items if early else 0)
    yield Wave(
        scouted,
        tiers,
        also=(
            Wave(bulk, early),
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
                if plan_by_price(state, options, best) is None:
                    state.active = []
                return
        if not math.isinf(batch.rounds_left):
            return
        soon = min(first, int(state.draws * (1 + GROWTH)) + 1)
        until = int(min(soon, trials)) if state.draws < trials else soon


def _asked_at_once(state: AuditState) -> list[int]:
    """Return the candidates that are asked about all items in the first wave.

    That may save a wave, but costs no more than the fewest draws that can prove
    anything: a batch may need no others.
    """
    batch = state.batch
    if math.isinf(batch.rounds_left) or not _all_affordable(state):
        return []
    if batch.rounds_left <= 2:  # no other wave asks them
        return [*state.active]
    spent = batch.n_items * np.cumsum([batch.ratios[tier] for tier in state.active])
    return state.active[: int((spent <= _whole_test(batch).draws(0)).sum())]


def _whole_test(batch: BatchRecord) -> Acceptance:
    """Return the test of the whole batch at the whole level."""
    guarantee = batch.guarantee
    allowed = guarantee.max_errors(batch.n_items)
    return Acceptance(batch.n_items, allowed, guarantee.alpha)


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


def _first_draws(state: AuditState) -> tuple[int, int]:
    """Return how many draws to begin with, and at most so that others are late enough.

    They are more, the fewer waves can follow.
    """
    batch = state.batch
    design = _whole_test(batch)
    if batch.rounds_left <= 2:
        none = state.order[:0]
        prior = Posterior(batch, state.active, none, none, batch.rng)
        policies = (policy.apply(prior.answers) for policy in family(state.active))
        rate = min(map(prior.error_rate, policies), key=lambda rate: rate.mean())
        test = state.sketch(design.items, design.max_errors, design.level, 1.0)
        end = next_wave(test, rate, 1, batch.n_items, batch.rng).end
        return end, end
    most = max(1, int((1 - LAST) * design.draws(0)))
    if math.isinf(batch.rounds_left):
        return min(_FIRST, most), most
    want = max(_FIRST * (9 - batch.rounds_left), math.sqrt(batch.n_items / 2))
    return max(1, min(int(want), most)), most


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
    # candidate alone does not show that; without a score, plans are worth less of it.
    hard = min(
        float(np.exp(np.log(n + cost + 1e-9).mean())) / n_items
        for n, cost in zip(draws, fixed, strict=True)
    )
    easy = float(np.clip((0.2 / hard) ** 2, 0.05, 0.95))
    scored = np.isfinite(batch.scores[state.active][:, scouted]).any()
    alone = _ALONE_SCORED if scored else _ALONE
    level = alpha * (alone if len(state.active) == 1 else easy)
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
    while state.draws < batch.n_items:
        waves = batch.rounds_left
        options = list_options(state)
        options = [o for o in options if _waves_needed(state, o) <= waves]
        best = choose(state, options)
        useful = useful_candidates(state, options)
        bulk, asking = state.order[:0], best.policy.tiers
        if best.test is not None:
            if _ends_now(state, best):
                return best
            if best.test.suffices:
                most = want = state.late_enough(best.policy)
            else:
                end = best.end or best.test.target
                most, want = _draws_of_test(state, best.policy, end)
            if set(best.policy.tiers) <= set(useful):
                state.active = useful
            missing = set(best.policy.tiers) - set(state.active)
            state.active += sorted(missing)
            if best.policy not in state.all_asked and want > (1 - LAST) * most:
                if _too_soon_to_ask(state, options, best):
                    want = min(want, _draws_to_learn(state, options, best))
                else:
                    state.all_asked[best.policy] = state.draws
                    # In an order that says nothing of the order of draws.
                    bulk = np.sort(state.undrawn)
                    asking = (*best.policy.tiers, *also_to_ask(state, options, best))
        else:
            if not _drawing_pays(state, options, best):
                return plan_by_price(state, options, best)
            beside = _asks_beside(state, options, best)
            state.active = useful or state.active
            most, want = batch.n_items, _draws_to_learn(state, options, best)
            if beside:
                rest = state.order[want:]
                bulk = rest[: round(best.share * len(rest))]
        until = state.wave_end(state.draws, want, most, 1 + len(state.active))
        yield from _draw_until(state, until, best.policy, bulk, asking)
    return None


def _drawing_pays(state: AuditState, options: list[Option], best: Option) -> bool:
    """Whether more draws are worth more than they cost, beside the best option now."""
    waves, draws = state.batch.rounds_left, state.draws
    each = cost_of_a_draw(state, best)
    if math.isinf(waves):
        regret = float((best.cost - least_cost(state, options)).mean())
        return regret > (1 + GROWTH) * draws * each
    want = more_draws(state, options, best)
    gain = each * max(want - draws, 0.0) ** 2 / draws  # (√r − √(n·c))²
    if best.later is None:
        return waves > _LAST_CHANCE and gain > 0
    if waves_to_ask(state, best) == 1:  # that takes a wave, in which one may draw
        return gain > 0
    return gain > _worth_of_a_wave(best)


def _asks_beside(state: AuditState, options: list[Option], best: Option) -> bool:
    """Whether a plan's candidates are asked beside draws that tell how to go on."""
    if math.isinf(state.batch.rounds_left) or best.later is None:
        return False
    asking = waves_to_ask(state, best) == 1
    return asking and wasted_on_asking(state, options, best) < _worth_of_a_wave(best)


def _too_soon_to_ask(state: AuditState, options: list[Option], best: Option) -> bool:
    """Whether a test's candidates cost more in vain now than a wave less would."""
    waves = state.batch.rounds_left
    if math.isinf(waves) or waves <= _SCARCE:
        return False
    return wasted_on_asking(state, options, best) > _worth_of_a_wave(best)


def _worth_of_a_wave(plan: Option) -> float:
    """What a plan is expected to cost more with a wave less, in USD."""
    return 0.0 if plan.later is None else float((plan.later - plan.cost).mean())


def _ends_now(state: AuditState, option: Option) -> bool:
    """Whether a test's policy may serve after these draws, proven or by repairs."""
    proven = option.test is not None and state.proven(option.policy, option.test)
    return proven or option.end == state.draws


def _waves_needed(state: AuditState, option: Option) -> int:
    """Return how many waves an option takes at least, and the end of the batch."""
    if option.test is not None:
        return 1 if _ends_now(state, option) else 2
    if option.risk is not None:  # ask; take others outright, and draw; end
        return 2 + waves_to_ask(state, option)
    return 1


def _draws_of_test(state: AuditState, policy: Policy, end: int) -> tuple[int, int]:
    """Return the draws with which a test may accept, and those wanted now."""
    waves = state.batch.rounds_left
    if math.isinf(waves):
        return end, min(end, int(state.draws * (1 + GROWTH)) + 8)
    if waves <= _SCARCE:  # all that it would serve is asked by now
        end = max(end, state.late_enough(policy))
    return min(end, state.batch.n_items), min(end, state.batch.n_items)


def _draws_to_learn(state: AuditState, options: list[Option], best: Option) -> int:
    """Return how many draws to have made before the next decision."""
    grown = state.draws * (1 + GROWTH)
    if not math.isinf(state.batch.rounds_left):
        grown = more_draws(state, options, best)
    return min(int(grown) + 1, state.batch.n_items)


def _draw_until(
    state: AuditState,
    until: int,
    policy: Policy,
    bulk: IntArray,
    asking: Sequence[int] = (),
) -> Generator[Wave, None, None]:
    """Draw up to that many items; show them to every registered test.

    Args:
        state: The audit.
        until: Draws to have made then.
        policy: A policy whose candidates are asked beside that.
        bulk: The items on which they are asked.
        asking: The candidates asked there where waves are limited.
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
        yield Wave(bulk, asking, also=(draws,))
    state.note_asked()
    state.draws = until
    answers, failed = Answers.read(batch, fresh, state.active), state.failed(fresh)
    for each, test in list(state.registered.items()):
        if set(each.tiers) <= set(state.active):
            result = each.apply(answers)
            test.observe(result.wrong(batch.wrong[:, fresh]) & result.agreed, failed)
        elif test.accepted is None:
            del state.registered[each]  # its candidates are asked no more


def _apply(state: AuditState, policy: Policy) -> Generator[Wave, None, None]:
    """Let a proven policy serve all items not drawn; or end its test by repairs."""
    items, test = state.undrawn, state.registered[policy]
    if not state.proven(policy, test):
        test.repaired = repairs(test)
        items = items[test.repaired :]
    if len(policy.tiers) == 1:
        state.route[items] = policy.tiers[0]
    else:
        result = policy.apply((yield from ask(state.batch, policy, items)))
        state.route[items] = np.where(result.agreed, result.server, REFERENCE)
    if test.repaired is not None:
        return
    drawn = state.order[: test.draws]
    result = policy.apply(Answers.read(state.batch, drawn, policy.tiers))
    server = np.where(result.agreed, result.server, REFERENCE)
    state.audited = [Audited(drawn, server, items, test)]
