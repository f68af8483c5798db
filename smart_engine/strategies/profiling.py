"""The profiling phase that the paper's strategies share."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass

import numpy as np

from smart_engine.batch.certificate import Evidence, Verdict
from smart_engine.evidence.record import REFERENCE, BatchRecord
from smart_engine.evidence.tails import IntArray
from smart_engine.strategies._base import Decision, Wave
from smart_engine.strategies.looks import Looks, Seen, find_looks

__all__ = ["GoesOn", "Profile", "profile"]

GoesOn = Callable[[int, list[Seen], float, float], bool]
"""Whether to profile on: look, undecided candidates, cost of the reference per item,
cost per item of what may serve the rest now."""


@dataclass
class Profile:
    """What the profiling phase has shown.

    Attributes:
        batch: The batch.
        looks: The looks that were taken.
        order: The items in the random order in which they were drawn.
        draws: How many of them were drawn.
        reference_cost: Mean cost of the reference on a drawn item, in USD.
        seen: Evidence per candidate, as of the last look at it.
        verdicts: What was concluded of each candidate.
    """

    batch: BatchRecord
    looks: Looks
    order: IntArray
    draws: int
    reference_cost: float
    seen: dict[int, Seen]
    verdicts: dict[int, Verdict]

    def admitted(self) -> list[Seen]:
        """The admitted candidates, cheapest first."""
        found = [s for s in self.seen.values() if self.verdicts[s.tier] == "admitted"]
        return sorted(found, key=lambda s: (s.cost, s.tier))

    def cost_now(self) -> float:
        """Cost per item, in USD, of the cheapest model that may serve the rest."""
        return min([self.reference_cost, *(s.cost for s in self.admitted())])

    def cheapest_admitted(self) -> dict[int, int]:
        """All remaining items to the cheapest admitted candidate, if there is one."""
        return {s.tier: self.batch.n_items - self.draws for s in self.admitted()[:1]}

    def decide(self, split: Mapping[int, int]) -> Decision:
        """Hand the next items in the random order to each tier as split says."""
        route = np.full(self.batch.n_items, REFERENCE, np.int16)
        start = self.draws
        for tier, count in split.items():
            route[self.order[start : start + count]] = tier
            start += count
        evidence = [
            Evidence(
                model=self.batch.tiers[s.tier].name,
                draws=s.draws,
                errors=s.errors,
                mean_cost=s.cost,
                verdict=self.verdicts[s.tier],
            )
            for s in self.seen.values()
        ]
        return Decision(route, evidence, self.looks.level)


def profile(
    batch: BatchRecord, looks_name: str, goes_on: Callable[[Looks], GoesOn]
) -> Generator[Wave, None, Profile]:
    """Draw items in random order until every candidate that matters is decided.

    Each drawn item goes to the reference and to every candidate still undecided. At
    each look a candidate is ruled out, admitted, or left undecided; one that is no
    cheaper than an admitted one, or than the reference, needs no more profiling. The
    phase ends when none is undecided, or when `goes_on` says that it no longer pays.

    Source: Jo & Trummer 2024, profiling phase.
    """
    looks = find_looks(looks_name)(
        batch.guarantee, batch.n_items, len(batch.candidates)
    )
    order = batch.rng.permutation(batch.n_items)
    worth_it = goes_on(looks)
    errors = dict.fromkeys(batch.candidates, 0)
    failures = dict.fromkeys(batch.candidates, 0)
    spent = dict.fromkeys((REFERENCE, *batch.candidates), 0.0)
    undecided = list(batch.candidates)
    result = Profile(batch, looks, order, 0, 0.0, {}, {})

    for look, size in enumerate(looks.schedule if batch.n_items else ()):
        wave = order[result.draws : size]
        yield Wave(wave, (REFERENCE, *undecided))
        result.draws = int(size)
        spent[REFERENCE] += batch.cost(REFERENCE, wave)
        result.reference_cost = spent[REFERENCE] / result.draws
        for tier in undecided:
            errors[tier] += batch.errors(tier, wave)
            failures[tier] += batch.failures(tier, wave)
            spent[tier] += batch.cost(tier, wave)
            serving = spent[tier] + failures[tier] * result.reference_cost
            result.seen[tier] = Seen(
                tier, result.draws, errors[tier], serving / result.draws
            )
            result.verdicts[tier] = _verdict(result, tier, look)
        cost_now = result.cost_now()
        for tier in undecided:
            dear = result.seen[tier].cost >= cost_now
            if dear and result.verdicts[tier] == "undecided":
                result.verdicts[tier] = "too dear"
        undecided = [t for t in undecided if result.verdicts[t] == "undecided"]
        pending = [result.seen[tier] for tier in undecided]
        if not pending or not worth_it(look, pending, result.reference_cost, cost_now):
            break
    return result


def _verdict(result: Profile, tier: int, look: int) -> Verdict:
    """What this look concludes of a candidate."""
    seen = result.seen[tier]
    if seen.cost >= result.reference_cost:
        return "too dear"
    if seen.errors <= result.looks.acceptance[look]:
        return "admitted"
    if seen.errors >= result.looks.rejection[look]:
        return "ruled out"
    return "undecided"
