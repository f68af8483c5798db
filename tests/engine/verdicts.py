"""Verdicts over trials that are over as soon as they stand."""

from __future__ import annotations

from collections.abc import Iterable

from scipy.stats import binomtest


def surely_above(count: int, trials: int, rate: float) -> bool:
    """Whether a count refutes that the rate is kept, with p < 1e-4."""
    return binomtest(count, trials, rate, alternative="greater").pvalue < 1e-4


def refuted(rate: float, trials: int, failures: Iterable[bool]) -> bool:
    """What `surely_above` says of all trials, without those that cannot change it.

    Args:
        rate: The rate that is claimed.
        trials: Number of trials.
        failures: Whether each one failed, worked out when it is asked for.
    """
    least = next(n for n in range(trials + 2) if surely_above(n, trials, rate))
    count = 0
    for number, failed in enumerate(failures, 1):
        count += failed
        if count >= least:
            return True
        if count + trials - number < least:
            return False
    raise ValueError(f"fewer than {trials} trials")
