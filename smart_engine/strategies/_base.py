"""The contract between a session and a strategy.

A strategy is a generator. It yields waves of calls; a session runs each wave, in any
order and concurrently, records the outcomes in the batch, and resumes the strategy
when the last one is in. It ends by returning a decision. So it reads from top to
bottom, and its result cannot depend on the order in which outcomes arrive.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from smart_engine.batch.certificate import AuditTest, Evidence
from smart_engine.evidence.record import BatchRecord
from smart_engine.evidence.tails import IntArray

__all__ = ["Decision", "Strategy", "Wave"]


class Wave(NamedTuple):
    """Calls that may all run at once.

    Attributes:
        items: Indices of the items, in the order in which to ask.
        tiers: Indices of the tiers to ask about each of them.
    """

    items: IntArray
    tiers: Sequence[int]


class Decision(NamedTuple):
    """How a strategy ends.

    Attributes:
        route: Per item, the index of the tier that serves it. An item for which the
            reference's answer was bought is served by the reference in any case.
        evidence: What was seen of each candidate, for the certificate.
        level: One-sided error probability of each look, or None without looks.
        tests: The audits that were run, for the certificate.
    """

    route: NDArray[np.int16]
    evidence: Sequence[Evidence] = ()
    level: float | None = None
    tests: Sequence[AuditTest] = ()


Strategy = Callable[[BatchRecord, str], Generator[Wave, None, Decision]]
"""Called with the batch and the name of the looks."""
