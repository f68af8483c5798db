r"""An alarm where a stream's recent errors leave its past. An alarm, not a promise.

The promise needs no alarm: it holds whatever drifts. The alarm says *that* something
has changed, so that somebody looks.

Hypothesis: each audit of one policy detects an error with the same probability p,
independently, with p under Jeffreys' prior. From every tenth audit on, a bet is made
that the rate has just risen, to 2, 4 or 8 times what the past shows. Each bet, divided
by what the past predicts (a beta-binomial), is a martingale that begins at 1, so their
sum is an e-detector (Shin, Ramdas & Rinaldo 2024): the expected number of bets until it
reaches A is at least A, and so a false alarm comes once in `FALSE_ALARMS` audits at
most, on average. Tests simulate it at fixed p.

An audit that was abandoned counts as an error, as in the promise.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["FALSE_ALARMS", "Drift", "DriftWatch"]

FALSE_ALARMS = 10_000
"""Audits until a false alarm, at least, on average, while nothing changes."""

_EVERY = 10
"""Audits from one bet to the next."""

_BETS = 100
"""Bets that are kept, the newest ones: fewer only make false alarms rarer."""

_RISES = np.array([[2.0], [4.0], [8.0]])
"""By how much the rate may have risen."""

_HIGHEST = 0.95
"""A rate above which no rise is bet on."""


class Drift(NamedTuple):
    """The errors of a stream have become more frequent.

    Attributes:
        task: Name of the task.
        policy: What was audited.
        audits_before: Audits before the likeliest time of the change.
        errors_before: Errors that they detected.
        audits_since: Audits since then.
        errors_since: Errors that they detected.
    """

    task: str | None
    policy: str
    audits_before: int
    errors_before: int
    audits_since: int
    errors_since: int

    def __str__(self) -> str:
        """Say it in one sentence."""
        return (
            f"{self.policy}: {self.errors_since} of the last {self.audits_since} "
            f"audits detected an error, {self.errors_before} of "
            f"{self.audits_before} before. An alarm, no promise: about one in "
            f"{FALSE_ALARMS:,} audits is false."
        )


class DriftWatch:
    """Watches the audits of a stream; begins anew with another policy, or an alarm.

    Args:
        task: Name of the task, for alarms.

    Example:
        ```python
        watch = DriftWatch("mails")
        quiet = [watch.see(n, n // 100, "small") for n in range(1000)]
        assert not any(quiet)
        alarms = [watch.see(1000 + n, 9 + n // 4, "small") for n in range(100)]
        assert sum(alarm is not None for alarm in alarms) == 1
        ```
    """

    def __init__(self, task: str | None = None) -> None:
        self._task, self._policy = task, ""
        self._begin(0, 0)

    def _begin(self, audits: int, errors: int) -> None:
        """Forget the past."""
        self._from = self._last = (audits, errors)
        self._starts: list[tuple[int, int]] = []

    def see(self, audits: int, errors: int, policy: str) -> Drift | None:
        """Look at the sums of a stream; return an alarm, if there is one.

        Args:
            audits: Audits of the stream that are resolved.
            errors: Those of them that detected an error.
            policy: What is audited now.
        """
        if policy != self._policy:
            self._policy = policy
            self._begin(audits, errors)
        if (audits, errors) == self._last:
            return None
        self._last = (audits, errors)
        seen, found = audits - self._from[0], errors - self._from[1]
        if not 0 <= found <= seen:  # the sums are of another stream
            self._begin(audits, errors)
            return None
        alarm = self._alarm(seen, found) if self._starts else None
        if alarm is not None:
            self._begin(audits, errors)
        elif seen >= _EVERY + (self._starts[-1][0] if self._starts else _EVERY):
            self._starts = [*self._starts[1 - _BETS :], (seen, found)]
        return alarm

    def _alarm(self, seen: int, found: int) -> Drift | None:
        from scipy.special import betaln, xlogy

        before, wrong = np.array(self._starts, dtype=float).T
        since, now = seen - before, found - wrong
        alpha, beta = wrong + 0.5, before - wrong + 0.5
        predicted = betaln(alpha + now, beta + since - now) - betaln(alpha, beta)
        rates = np.minimum(_RISES * alpha / (alpha + beta), _HIGHEST)
        bets = xlogy(now, rates) + xlogy(since - now, 1 - rates) - predicted
        wealth = np.exp(np.minimum(bets, 700)).mean(axis=0)
        if wealth.sum() < FALSE_ALARMS / _EVERY:
            return None
        best = int(wealth.argmax())
        counts = (before[best], wrong[best], since[best], now[best])
        return Drift(self._task, self._policy, *map(int, counts))
