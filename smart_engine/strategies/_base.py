"""The contract between a session and a strategy.

A strategy is a generator. It yields waves of calls; a session runs each wave, in any
order and concurrently, records the outcomes in the batch, and resumes the strategy
when the last one is in. It ends by returning a decision. So it reads from top to
bottom, and its result cannot depend on the order in which outcomes arrive.
`ask` is a part that several strategies have in common.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smart_engine.evidence.acceptance import SequentialTest
from smart_engine.evidence.policies import Answers, Policy
from smart_engine.evidence.record import BatchRecord
from smart_engine.evidence.tails import IntArray
from smart_engine.evidence.task_promise import TaskPromise
from smart_engine.labels.promise import Promised

__all__ = ["Audited", "Decision", "Strategy", "Tally", "Verdict", "Wave", "ask"]

Verdict = Literal["admitted", "ruled out", "too dear", "never right", "undecided"]
"""What was concluded of a candidate. `too dear`: serving by it would cost no less than
by the reference or by an admitted candidate. `never right`: none of its answers meant
the same as the reference's."""


class Wave(NamedTuple):
    """Calls that may all run at once.

    Attributes:
        items: Indices of the items, in the order in which to ask.
        tiers: Indices of the tiers to ask about each of them.
        learning: Whether the reference's answers are compared with the candidates'.
        also: Further calls of the same wave, made after these; a call that is among
            these, too, is made once. They have none of their own.
    """

    items: IntArray
    tiers: Sequence[int]
    learning: bool = True
    also: Sequence[Wave] = ()


class Tally(NamedTuple):
    """What comparisons with the reference have shown of one candidate.

    Attributes:
        tier: Index of the candidate among the tiers.
        draws: Items on which it was compared with the reference.
        errors: How many of those answers were not equivalent.
        cost: Mean cost of serving one item by it, in USD, escalations included.
    """

    tier: int
    draws: int
    errors: int
    cost: float


class Audited(NamedTuple):
    """What an audit that decided has compared, of what it let candidates serve.

    Attributes:
        items: Items drawn, in their order; or all that were compared.
        server: Per item of these, the tier that would have served it.
        rest: Items that were not drawn, and are served.
        test: The audit whose population they all are; None where items were compared
            in another way than by uniform draws.
        in_slice: The slice that they are of; None where a batch has no slices.
    """

    items: IntArray
    server: NDArray[Any]
    rest: IntArray
    test: SequentialTest | None = None
    in_slice: str | None = None


class Decision(NamedTuple):
    """How a strategy ends.

    Attributes:
        route: Per item, the index of the tier that serves it. An item for which the
            reference's answer was bought is served by the reference in any case.
        evidence: What was seen and concluded of each candidate.
        level: One-sided error probability of each look, or None without looks.
        tests: The audits that were run.
        slice_of: Per audit, its slice; empty where the batch has none.
        promise: What all jobs of the task have shown, if they share one promise.
        promised: What was promised of labels and slices, and what follows.
        audited: What the audits that decided have compared.
    """

    route: NDArray[np.int16]
    evidence: Sequence[tuple[Tally, Verdict]] = ()
    level: float | None = None
    tests: Sequence[SequentialTest] = ()
    slice_of: Sequence[str | None] = ()
    promise: TaskPromise | None = None
    promised: Sequence[Promised] = ()
    audited: Sequence[Audited] = ()


Strategy = Callable[[BatchRecord, str], Generator[Wave, None, Decision]]
"""Called with the batch and the name of the looks."""


def ask(
    batch: BatchRecord,
    policy: Policy,
    items: IntArray,
    also: Sequence[Wave] = (),
    *,
    in_turn: bool | None = None,
) -> Generator[Wave, None, Answers]:
    """Ask a policy's candidates.

    Args:
        batch: The batch.
        policy: The policy.
        items: The items.
        also: More calls of the first wave.
        in_turn: Whether a cascade asks one after the other, as many as it takes; by
            default where waves are not limited.
    """
    if in_turn is None:
        in_turn = policy.stops and math.isinf(batch.rounds_left)
    if in_turn:
        yield Wave(items, policy.tiers[:2], also=also)
        for place, tier in enumerate(policy.tiers[2:], 2):
            answers = Answers.read(batch, items, policy.tiers)
            yield Wave(items[policy.apply(answers).asked[place]], (tier,))
    else:
        yield Wave(items, policy.tiers, also=also)
    return Answers.read(batch, items, policy.tiers)
