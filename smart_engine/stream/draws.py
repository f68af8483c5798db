"""The coins of a stream: that of an item follows from the seed and its number alone.

So processes that share a stream share its coins without passing on a generator's state,
and no coin is tossed for two items.
"""

from __future__ import annotations

import numpy as np

__all__ = ["AuditDraws"]

_BLOCK = 1024
"""Coins tossed at once, for speed."""


class AuditDraws:
    """Uniform numbers in [0, 1), one per item.

    Args:
        seed: Seed of all of them.

    Example:
        ```python
        coins = AuditDraws(seed=7)
        assert coins[5000] == AuditDraws(seed=7)[5000] != coins[5001]
        ```
    """

    def __init__(self, seed: int) -> None:
        """Toss none yet."""
        self._seed = seed
        self._block = -1
        self._tossed: list[float] = []

    def __getitem__(self, number: int) -> float:
        """Return the coin of an item."""
        block, place = divmod(number, _BLOCK)
        if block != self._block:
            # The block comes first: seeds of any size give streams of their own.
            self._tossed = (
                np.random.default_rng([block, self._seed]).random(_BLOCK).tolist()
            )
            self._block = block
        return self._tossed[place]
