"""The audit draws of a stream: an item's follows from the seed and its number alone.

So processes that share a stream share its draws without passing on a generator's state,
and no draw serves two items.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

__all__ = ["AuditDraws"]

_BLOCK = 1024  # draws made at once, for speed; of all streams, the last few stay


class AuditDraws:
    """Uniform numbers in [0, 1), one per item.

    Args:
        seed: Seed of all of them.

    Example:
        ```python
        draws = AuditDraws(seed=7)
        assert draws[5000] == AuditDraws(seed=7)[5000] != draws[5001]
        ```
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __getitem__(self, number: int) -> float:
        """Return the draw of an item."""
        block, place = divmod(number, _BLOCK)
        return _block(block, self._seed)[place]


@lru_cache(maxsize=128)
def _block(block: int, seed: int) -> list[float]:
    # The block comes first: seeds of any size give streams of their own.
    draws: list[float] = np.random.default_rng([block, seed]).random(_BLOCK).tolist()
    return draws
