"""The SMART paper's strategies: profile the candidates, then apply what that allows.

They profile while that pays. Going on until a later look costs the reference and every
undecided candidate on each item in between; from there, the cheapest candidate expected
to be admitted serves the rest. A candidate's chance to be admitted is the probability
that its errors stay within the look's acceptance number, its error rate being
uncertain.

Source: Jo & Trummer 2024: profiling phase, and expected cost of profiling (k = 1, 2, 4,
… more). `reference` is the paper's yardstick.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from smart_engine.evidence.record import FAILED, REFERENCE, BatchRecord
from smart_engine.evidence.tails import IntArray, beta_binomial_cdf
from smart_engine.strategies._base import Decision, Tally, Verdict, Wave
from smart_engine.strategies.looks import LOOKS, Looks

__all__ = ["efficient", "exhaustive", "mix", "reference"]


def reference(batch: BatchRecord, looks: str) -> Generator[Wave, None, Decision]:
    """Ask the reference alone, which promises nothing that needs evidence."""
    del looks
    yield from ()
    return Decision(route=np.full(batch.n_items, REFERENCE, np.int16))


def exhaustive(batch: BatchRecord, looks: str) -> Generator[Wave, None, Decision]:
    """Profile at any cost, then apply the cheapest admitted candidate."""
    profiled = yield from _profile(batch, looks, while_it_pays=False)
    return profiled.decide(profiled.cheapest_admitted())


def efficient(batch: BatchRecord, looks: str) -> Generator[Wave, None, Decision]:
    """Profile while it pays, then apply the cheapest admitted candidate."""
    profiled = yield from _profile(batch, looks, while_it_pays=True)
    return profiled.decide(profiled.cheapest_admitted())


def mix(batch: BatchRecord, looks: str) -> Generator[Wave, None, Decision]:
    """Profile while it pays, then apply the cheapest mix that is allowed.

    A candidate that may not serve all remaining items may still serve some.
    """
    profiled = yield from _profile(batch, looks, while_it_pays=True)
    tallies = list(profiled.tallies.values())
    split = profiled.looks.mix(tallies, profiled.draws, profiled.reference_cost)
    return profiled.decide(split)


@dataclass
class _Profile:
    """What the profiling phase has shown.

    Attributes:
        batch: The batch.
        looks: The looks that were taken.
        order: The items in the random order in which they were drawn.
        draws: How many of them were drawn.
        reference_cost: Mean cost of the reference on a drawn item, in USD.
        tallies: Evidence per candidate, as of the last look at it.
        verdicts: What was concluded of each candidate.
    """

    batch: BatchRecord
    looks: Looks
    order: IntArray
    draws: int
    reference_cost: float
    tallies: dict[int, Tally]
    verdicts: dict[int, Verdict]

    def admitted(self) -> list[Tally]:
        """The admitted candidates, cheapest first."""
        found = [
            t for t in self.tallies.values() if self.verdicts[t.tier] == "admitted"
        ]
        return sorted(found, key=lambda tally: (tally.cost, tally.tier))

    def cost_now(self) -> float:
        """Cost per item, in USD, of the cheapest model that may serve the rest."""
        return min([self.reference_cost, *(tally.cost for tally in self.admitted())])

    def cheapest_admitted(self) -> dict[int, int]:
        """All remaining items to the cheapest admitted candidate, if there is one."""
        return {t.tier: self.batch.n_items - self.draws for t in self.admitted()[:1]}

    def conclude(self, tier: int, look: int) -> Verdict:
        """What this look concludes of a candidate."""
        tally = self.tallies[tier]
        if tally.cost >= self.reference_cost:
            return "too dear"
        if tally.errors <= self.looks.acceptance[look]:
            return "admitted"
        if tally.errors >= self.looks.rejection[look]:
            return "ruled out"
        return "undecided"

    def decide(self, split: Mapping[int, int]) -> Decision:
        """Give each tier as many of the next items in random order as `split` says."""
        route = np.full(self.batch.n_items, REFERENCE, np.int16)
        start = self.draws
        for tier, count in split.items():
            route[self.order[start : start + count]] = tier
            start += count
        evidence = [
            (tally, self.verdicts[tier]) for tier, tally in self.tallies.items()
        ]
        return Decision(route, evidence, self.looks.level)


def _profile(
    batch: BatchRecord, looks_name: str, *, while_it_pays: bool
) -> Generator[Wave, None, _Profile]:
    """Draw items in random order until every candidate that matters is decided.

    Each drawn item goes to the reference and to every candidate still undecided. At
    each look a candidate is ruled out, admitted, or left undecided; one that is no
    cheaper than an admitted one, or than the reference, needs no more profiling. The
    phase ends when none is undecided, or, with `while_it_pays`, when going on is
    expected to cost more than it saves.
    """
    candidates = batch.candidates
    looks = LOOKS[looks_name](batch.guarantee, batch.n_items, len(candidates))
    order = batch.rng.permutation(batch.n_items)
    errors, failures = dict.fromkeys(candidates, 0), dict.fromkeys(candidates, 0)
    spent = dict.fromkeys((REFERENCE, *candidates), 0.0)
    undecided = list(candidates)
    result = _Profile(batch, looks, order, 0, 0.0, {}, {})

    for look, size in enumerate(looks.schedule if batch.n_items else ()):
        wave = order[result.draws : size]
        yield Wave(wave, (REFERENCE, *undecided))
        draws = result.draws = int(size)
        spent[REFERENCE] += batch.cost(REFERENCE, wave)
        result.reference_cost = spent[REFERENCE] / draws
        for tier in undecided:
            errors[tier] += batch.errors(tier, wave)
            failures[tier] += int((batch.status[tier, wave] == FAILED).sum())
            spent[tier] += batch.cost(tier, wave)
            serving = spent[tier] + failures[tier] * result.reference_cost
            result.tallies[tier] = Tally(tier, draws, errors[tier], serving / draws)
            result.verdicts[tier] = result.conclude(tier, look)
        cost_now = result.cost_now()
        for tier in undecided:
            dear = result.tallies[tier].cost >= cost_now
            if dear and result.verdicts[tier] == "undecided":
                result.verdicts[tier] = "too dear"
        undecided = [t for t in undecided if result.verdicts[t] == "undecided"]
        tallies = [result.tallies[tier] for tier in undecided]
        costs = (result.reference_cost, cost_now)
        if not tallies or (while_it_pays and not _pays(looks, look, tallies, *costs)):
            break
    return result


def _pays(
    looks: Looks,
    look: int,
    undecided: Sequence[Tally],
    reference_cost: float,
    cost_now: float,
) -> bool:
    """Whether going on until some later look is expected to cost less than stopping.

    Args:
        looks: The looks in use, the last of them at all items.
        look: Index of the look just taken.
        undecided: Evidence of the candidates still profiled.
        reference_cost: Mean cost of the reference on one item, in USD.
        cost_now: Mean cost per item of what may serve the rest now, in USD.
    """
    later = looks.horizons(look)
    remaining = int(looks.schedule[-1] - looks.schedule[look])
    more = looks.schedule[later] - looks.schedule[look]
    acceptance = looks.acceptance[later]
    expected = np.zeros(len(later))
    none_cheaper = np.ones(len(later))
    for tally in sorted(undecided, key=lambda tally: (tally.cost, tally.tier)):
        errors, right = tally.errors, tally.draws - tally.errors
        chance = beta_binomial_cdf(acceptance - errors, more, errors, right)
        expected += none_cheaper * chance * tally.cost
        none_cheaper *= 1.0 - chance
    expected += none_cheaper * cost_now
    per_item = reference_cost + sum(tally.cost for tally in undecided)
    going_on = more * per_item + (remaining - more) * expected
    return bool((going_on < remaining * cost_now).any())
