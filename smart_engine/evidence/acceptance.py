r"""How many uniform draws suffice, given the errors they have shown.

A population of M items hides D errors, D unknown. Items are drawn one by one, uniformly
without replacement; every drawn item is repaired. With c errors detected the audit
stops when n_c draws are in. Then D − c errors stay undetected, so only a stop with
c ≤ D − B − 1 breaks the promise "at most B stay undetected".

The numbers n_0 < n_1 < … are fixed in advance, each as small as this allows: were
D = B + 1 + c, a stop with at most c errors would have probability at most α·s_c, where
s_c = 1 − r^(c+1) rises to 1. That covers every D: one of at most B cannot be wrong,
and any other is B + 1 + c for some c. The probability is exact, over all orders of
drawing, so the promise holds at every look and no level is lost to inequalities.

Let A_c(D) be the probability that n_(c−1) draws have shown c errors and no look before
has stopped. Looks stop at the first c with exactly c errors in n_c draws, so

    A_c = P(c in n_(c−1) draws) − Σ_(i<c−1) Q_i · P(c − i in draws n_i … n_(c−1)),
    Q_c = A_c · P(none in draws n_(c−1) … n_c).

The allowance B may fall as errors are found, by a rule fixed in advance: n_c is then
computed for B_c, its value once c errors are found. As long as it falls by at most one
from one error to the next, B_c + 1 + c never falls, and the proof above stays as it is.
It may rise, too: a detected error may allow more of the others to stay, or more errors
than were foreseen be answered for by repairs elsewhere.

Beyond 128 errors exactness costs more than it saves: there the looks lie some √c apart
and share a part of α that is reserved for them, by the union bound.

Source: exact sequential design after Wald (1947) and Armitage, McPherson & Rowe (1969),
for the finite population of a risk-limiting audit (Stark 2008).
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable
from typing import NamedTuple

import numpy as np

from smart_engine.errors import InvalidInputError
from smart_engine.evidence.tails import (
    BoolArray,
    FloatArray,
    IntArray,
    hypergeometric_cdf,
    hypergeometric_log_none,
    hypergeometric_log_pmf,
    largest,
)
from smart_engine.guarantee import Guarantee

__all__ = ["Acceptance", "Allowance", "SequentialTest", "risen"]

_EXACT = 128
"""Errors up to which every look is exact."""

_SPACED_SHARE = 0.01
"""Least share of α reserved for looks beyond."""

_ROUNDING = 1e-9
"""Share of α left unused, against rounding."""


def risen(errors: int, gain: float, foreseen: int, surplus: float) -> int:
    """Return by how much an allowance has risen once that many errors are detected.

    Args:
        errors: Errors detected.
        gain: As of `Acceptance`, like the others.
        foreseen: As of `Acceptance`.
        surplus: As of `Acceptance`.
    """
    return int(gain * errors + surplus * max(0, errors - foreseen))


class Acceptance:
    """Sample sizes that suffice, by the number of errors detected.

    Args:
        items: Number of items audited, M ≥ 0.
        max_errors: Number of errors that may stay undetected, B ≥ 0; see `lower`.
        level: Probability with which the promise may fail, 0 < α < 1.
        expected_errors: Errors one expects to find before stopping, ≥ 0. It shapes
            s_c and so decides where the test is strong; it never touches validity.
        gain: Errors that may stay undetected besides, for each one detected, ≥ 0.
        foreseen: Errors detected that are expected at most, ≥ 0.
        surplus: Errors that may stay undetected besides, for each one detected beyond
            those foreseen, ≥ 0.

    Raises:
        InvalidInputError: If an argument is out of range.

    Example:
        ```python
        # 5 % of 1,000 may stay undetected: 56 draws without an error suffice at 5 %.
        acceptance = Acceptance(1000, 50, 0.05, expected_errors=0)
        assert acceptance.draws(0) == 56
        assert acceptance.draws(1) > 56
        ```
    """

    def __init__(
        self,
        items: int,
        max_errors: int,
        level: float,
        expected_errors: float = 1.0,
        gain: float = 0.0,
        foreseen: int = 0,
        surplus: float = 0.0,
    ) -> None:
        for field, value, fits in (
            ("items", items, items >= 0),
            ("max_errors", max_errors, max_errors >= 0),
            ("level", level, 0 < level < 1),
            ("expected_errors", expected_errors, expected_errors >= 0),
            ("gain", gain, gain >= 0),
            ("foreseen", foreseen, foreseen >= 0),
            ("surplus", surplus, surplus >= 0),
        ):
            if not fits:
                raise InvalidInputError(field, value, "is out of range")
        self.items = items
        self.max_errors = self._allowed = max_errors
        self.level = level
        self.expected_errors = expected_errors
        self.gain = gain
        self.foreseen = foreseen
        self.surplus = surplus
        self._ratio = expected_errors / (1 + expected_errors)
        beyond = self._ratio**_EXACT
        self._spaced_share = max(_SPACED_SHARE, beyond)
        self._exact_level = level * (1 - self._spaced_share) / (1 - beyond)
        self._sizes: list[int] = []
        self._spaced_look, self._spaced_looks = (0, 0), 0

    def allowed(self, errors: int) -> int:
        """Return how many errors may stay undetected once that many are detected."""
        rise = risen(errors, self.gain, self.foreseen, self.surplus)
        return self._allowed + rise

    def draws(self, errors: int) -> int:
        """Return the number of draws that suffices with that many errors detected.

        It is at most M: once B or fewer items are left, nothing is to be proven.
        """
        while len(self._sizes) <= errors:
            self._sizes.append(self._next())
        return self._sizes[errors]

    @property
    def most_draws(self) -> int:
        """Number of draws after which nothing is left to prove."""
        return self.items - min(self.items, self._allowed)

    def share_of_level(self, errors: IntArray) -> FloatArray:
        """Return s_c, the share of the level that may be used up to so many errors."""
        return np.asarray(1 - self._ratio ** (errors + 1.0), float)

    def lower(self, errors: int, max_errors: int) -> None:
        """Let only so many errors stay undetected once that many are detected.

        Sizes for fewer errors detected stay as they are.
        """
        if max_errors < self._allowed:
            del self._sizes[errors:]
            self._allowed = max_errors

    def _next(self) -> int:
        """Compute the size for one more error."""
        errors = len(self._sizes)
        marked = self.allowed(errors) + 1 + errors
        before = self._sizes[-1] if self._sizes else 0
        last = self.items - self.allowed(errors)
        if before >= last or marked > self.items:
            return max(before, last)
        if errors < _EXACT:
            return self._exact(errors, marked, before, last)
        return self._spaced(errors, before, last)

    def _exact(self, errors: int, marked: int, before: int, last: int) -> int:
        """Least size at which stopping with `errors` stays within its share of α."""
        share = self._exact_level * (1 - self._ratio ** (errors + 1))
        room = share * (1 - _ROUNDING)
        log_arrival, stopped = self._arrival(errors, marked)
        if stopped >= room:
            # Cannot happen with rising shares but by rounding: then look no earlier
            # than where nothing is to be proven.
            return last
        target = math.log(room - stopped) - log_arrival
        left, hidden = self.items - before, marked - errors

        def falls_short(size: int) -> bool:
            return hypergeometric_log_none(left, hidden, size - before) > target

        return largest(before, last - 1, falls_short) + 1

    def _arrival(self, errors: int, marked: int) -> tuple[float, float]:
        """Log A_c, and the probability of an earlier stop, were D = `marked`."""
        if errors == 0:
            return 0.0, 0.0
        from scipy.linalg import solve_triangular

        sizes = np.array(self._sizes, np.int64)  # n_0 … n_(c−1)
        at = np.concatenate([[0], sizes])  # draws made when a look comes into view
        look = np.arange(errors + 1)
        shown = np.exp(hypergeometric_log_pmf(look, self.items, marked, at))
        # passed[m, i]: from a stop with i errors to m errors when look m is in view.
        m, i = np.tril_indices(errors + 1, -2)
        passed = np.zeros((errors + 1, errors))
        left, hidden, gap = self.items - sizes[i], marked - i, at[m] - sizes[i]
        passed[m, i] = np.exp(hypergeometric_log_pmf(m - i, left, hidden, gap))
        left, hidden, gap = self.items - at[:-1], marked - look[:-1], sizes - at[:-1]
        quiet = np.exp(hypergeometric_log_pmf(0, left, hidden, gap))
        stops = solve_triangular(
            np.eye(errors) + quiet[:, None] * passed[:-1],
            quiet * shown[:-1],
            lower=True,
            unit_diagonal=True,
        )
        arrival = max(float(shown[-1] - passed[-1] @ stops), 0.0)
        with np.errstate(divide="ignore"):
            return float(np.log(arrival)), float(stops.sum())

    def _spaced(self, errors: int, before: int, last: int) -> int:
        """Size of the next spaced look at or above `errors`, by the union bound."""
        at = _EXACT
        while at < errors:
            at += int(at**0.5)
        if self._spaced_look == (at, self._allowed):
            return before
        self._spaced_looks += 1
        look = self._spaced_looks
        share = 1.0 / (look * (look + 1))  # sums to 1 over all looks
        level = self.level * self._spaced_share * share * (1 - _ROUNDING)
        hidden = self.allowed(errors) + 1 + at

        def falls_short(size: int) -> bool:
            return hypergeometric_cdf(at, self.items, hidden, size) > level

        size = last
        if max(before, at) < last:
            size = largest(max(before, at), last - 1, falls_short) + 1
        if size < last:  # that many settle it with so few errors, not with any up to at
            self._spaced_look = at, self._allowed
        return size


class Allowance(NamedTuple):
    """Wrong answers that may be handed out undetected: a share of those handed out.

    Attributes:
        guarantee: What is promised.
        answers: Items that may still get an answer when an audit is designed.
        elsewhere: Errors that may be among those of them that it is not about.
    """

    guarantee: Guarantee
    answers: int
    elsewhere: int = 0

    def after(self, failures: int) -> int:
        """Return the allowance once the reference has failed on that many draws."""
        allowed = self.guarantee.max_errors(max(0, self.answers - failures))
        return allowed - self.elsewhere


class SequentialTest:
    """One audit as it runs: its design, and what its draws have shown so far.

    Args:
        policy: Name of the policy that is audited.
        acceptance: Its design.
        allowance: How many errors may stay undetected after failures of the reference;
            by default as many as before.
        repair_level: Level with which it may end by repairs, beside that of its design;
            see `smart_engine.evidence.repair`.

    Attributes:
        draws: Draws made.
        errors: Numbers of the draws, from 1, that showed an error.
        failures: Those of them on which the reference failed.
        accepted: Number of draws after which the audit accepted; None so far. Later
            draws were in flight already: they repair, but prove nothing more.
        repaired: Number of items, the next in the order of draws, that the reference
            answers in the wave that ends the audit; None unless it ends like that.

    Example:
        ```python
        test = SequentialTest("small", Acceptance(1000, 50, 0.05, expected_errors=0))
        test.observe(np.zeros(60, bool))
        assert test.accepted == 56
        ```
    """

    def __init__(
        self,
        policy: str,
        acceptance: Acceptance,
        allowance: Allowance | None = None,
        repair_level: float = 0.0,
    ) -> None:
        self.policy = policy
        self.acceptance = acceptance
        self.allowance = allowance
        self.repair_level = repair_level
        self.repaired: int | None = None
        self.draws = 0
        self.errors: list[int] = []
        self.failures: list[int] = []
        self.accepted: int | None = None

    @property
    def target(self) -> int:
        """Number of draws that suffices if no further error is found."""
        return self.acceptance.draws(len(self.errors))

    @property
    def suffices(self) -> bool:
        """Whether all draws made suffice, those after it accepted included.

        Whoever waits until they do stops no oftener in error than at the first look
        that accepts: what is wrong undetected then was so at that look, too.
        """
        return self.target <= self.draws

    @property
    def undetected(self) -> int:
        """Most errors that stay undetected if it accepts now, B."""
        if self.allowance is None:
            return self.acceptance.max_errors
        return self.allowance.after(len(self.failures))

    @property
    def ended(self) -> bool:
        """Whether its policy may serve what is left: it accepted, or is repaired."""
        return self.accepted is not None or self.repaired is not None

    @property
    def unrepaired(self) -> int:
        """Most errors that stay undetected if it ends by repairs: one less than B.

        Each item of the last wave on which the reference fails takes an answer from
        those that B is a share of; one error less makes up for 1/δ of them.
        """
        return self.undetected - 1

    def observe(self, wrong: BoolArray, failed: BoolArray | None = None) -> None:
        """Take in further draws, in the order in which they were drawn.

        Args:
            wrong: Per draw, whether it showed an error.
            failed: Per draw, whether the reference failed: an error, too.
        """
        before, lost = self.draws + 1, np.zeros(len(wrong), bool)
        lost = lost if failed is None else failed
        errors = (np.flatnonzero(wrong | lost) + before).tolist()
        self.extend(
            self.draws + len(wrong), errors, (np.flatnonzero(lost) + before).tolist()
        )

    def extend(
        self, draws: int, errors: Iterable[int], failures: Container[int]
    ) -> None:
        """Take in the draws up to that number; errors and failures by their numbers."""
        for number in errors:
            self._look(number - 1)
            self.errors.append(number)
            if number in failures:
                self.failures.append(number)
                if self.allowance is not None:
                    allowed = self.allowance.after(len(self.failures))
                    self.acceptance.lower(len(self.errors), allowed)
        self.draws = draws
        self._look(draws)

    def covers(self, answered: int) -> bool:
        """Whether no more answers are missing in the end than it has allowed for.

        More of them say that the reference failed oftener after the draws than before.
        """
        if self.allowance is None:
            return True
        failures = len(self.failures)
        if self.repaired is not None:
            guarantee = self.allowance.guarantee
            allowed = guarantee.max_errors(answered) - self.allowance.elsewhere
            return self.unrepaired <= allowed
        later = self.allowance.answers - failures - answered
        return later <= self.allowance.after(failures)

    def _look(self, draws: int) -> None:
        """Accept if that many draws suffice, and none before did."""
        if self.accepted is None and self.target <= draws:
            self.accepted = self.target
