"""The risk model: how often answers with a certain signal were wrong.

The signal of an item is who agreed with whom, the answer itself where only few are
possible, and the confidence it came with, cut into bands. A signal's rate is shrunk
towards its pattern's as long as little was seen of the answer, and depends on the
confidence as far as the evidence goes (`scores`). Scores need not be calibrated, nor
monotone, nor mean the same for every answer: a bad score costs money, never validity.

Items with the same signal form a leaf; where the reference's price varies, those that
are also in the same band of prices (`prices`). Long items may be hard: how far prices
tell of errors beyond what signals tell, the evidence decides, as of scores.
"""

from __future__ import annotations

import numpy as np

from smart_engine.evidence.policies import Answers, Policy, PolicyResult
from smart_engine.evidence.posterior import DRAWS, Posterior
from smart_engine.evidence.prices import Prices
from smart_engine.evidence.record import REFERENCE
from smart_engine.evidence.scores import place_of_ranks, weigh_scores
from smart_engine.evidence.tails import BoolArray, FloatArray, IntArray

__all__ = ["RiskModel"]

_CLASSES = 16
"""Answer classes that are distinguished, at most."""

_BANDS, _PER_BAND, _PER_ANSWERS = (3, 12), 6, 60
"""Fewest and most bands of confidence, how many drawn items make one, and how many all
answers have together."""

_FEW, _END = 9, (3, 0.01)
"""Scores without which there are no bands; how many of them are in the bands at both
ends, at least, and which share."""

_SHRINKAGE = 4.0
"""How many items the prior of a leaf is worth."""


class RiskModel:
    """Leaves of one policy, and the posterior of the error rate in each.

    Args:
        policy: The policy.
        answers: Candidates' answers on the drawn items.
        wrong: Per tier and drawn item, whether it is wrong.
        posterior: The posterior over items.
        classes: Whether equal codes mean equal answers.

    Attributes:
        result: The policy applied to the drawn items.
        shares: Per draw from the posterior and leaf, the share of items in it.
        patterns: Per draw and pattern, the error rate.
        scored: Whether leaves differ by confidence.
        priced: Whether leaves differ by the reference's price.
        prices: Per leaf, what the reference costs there; 1 is its mean over all items.
        tally: Per leaf, drawn items.
        errors: Per leaf, drawn items whose answer was wrong.
    """

    def __init__(
        self,
        policy: Policy,
        answers: Answers,
        wrong: BoolArray,
        posterior: Posterior,
        *,
        classes: bool,
    ) -> None:
        self._policy = policy
        self._trust = posterior.trust()
        self.result = policy.apply(answers, self._trust)
        code = self.result.served(answers.code)
        score = self.result.served(answers.confidence)
        distinct, first = np.unique(code, return_index=True)
        few = classes and len(distinct) <= min(_CLASSES, max(2, len(code) // 8))
        self._classes = distinct[np.argsort(first)].tolist() if few else []
        known = score[np.isfinite(score)]
        self._edges = _edges(known, len(self._classes))
        self._ids: dict[tuple[int, int, int], int] = {}
        # All but its first two are asked about some items only.
        self._tier = max(policy.tiers[:2], key=lambda t: (answers.cost[t] > 0).mean())
        self._bands = Prices.fit(answers.cost[self._tier], answers.cost[REFERENCE])
        signal = self._assign(self.result, answers, learn=True)
        numbers = [key[0] for key in self._ids]
        self._numbers = list(dict.fromkeys(numbers))
        self._pattern = np.array([self._numbers.index(n) for n in numbers], np.int64)
        self._answer = np.array([key[1] for key in self._ids], np.int64)
        unscored = [key[:2] for key in self._ids]
        group = {key: place for place, key in enumerate(dict.fromkeys(unscored))}
        self._group = np.array([group[key] for key in unscored], np.int64)
        band = np.array([key[2] for key in self._ids], np.int64)
        self.priced = len(self._bands.mean) > 1
        self.scored = len(self._edges) > 0
        below = np.searchsorted(np.sort(known), self._edges, "right") / (
            len(known) or 1
        )
        ends = np.concatenate([[np.nan, 0.0], below, [1.0]])
        self._place = place_of_ranks((ends[band] + ends[band + 1]) / 2)
        bands = len(self._bands.mean)
        self.prices = np.tile(self._bands.mean, len(numbers))
        self.tally = np.zeros(len(numbers) * bands)
        self.errors = np.zeros(len(numbers) * bands)
        leaf = self._banded(signal, answers)
        self.learn(leaf, self.result.wrong(wrong))
        self._set_prior(posterior)

    def leaves(self, answers: Answers) -> tuple[IntArray, IntArray]:
        """Per item, its leaf (−1: unknown, or nothing to serve) and its server."""
        result = self._policy.apply(answers, self._trust)
        return self._banded(self._assign(result, answers), answers), result.server

    def _banded(self, signal: IntArray, answers: Answers) -> IntArray:
        """Leaf per item, given its signal."""
        band = self._bands.bands(answers.cost[self._tier])
        leaf = signal * len(self._bands.mean) + band
        return np.asarray(np.where(signal >= 0, leaf, -1))

    def _by_signal(self, leaves: FloatArray) -> FloatArray:
        """Per signal, the sum over its leaves."""
        return np.asarray(leaves.reshape(-1, len(self._bands.mean)).sum(axis=1))

    def learn(self, leaf: IntArray, wrong: BoolArray) -> None:
        """Count what more draws have shown."""
        known = leaf >= 0
        size = len(self.tally)
        self.tally += np.bincount(leaf[known], minlength=size)
        self.errors += np.bincount(leaf[known], wrong[known], size)

    def rates(
        self, rng: np.random.Generator, patterns: FloatArray | None = None
    ) -> FloatArray:
        """Draw error rates, (draws, leaves).

        Args:
            rng: Source of the draws.
            patterns: Per draw and pattern, its rate; drawn from its posterior if not
                given.
        """
        signals = self._rates_of_signals(rng, patterns)
        if not self.priced:
            return signals
        rates = signals[:, :, None] * self._times(rng, signals)[:, None, :]
        return np.asarray(np.minimum(rates, 1.0).reshape(DRAWS, -1), float)

    def _times(self, rng: np.random.Generator, signals: FloatArray) -> FloatArray:
        """Draw how much more often answers are wrong by band, given their signals.

        Errors are compared with those expected by signals, as if these were draws.
        """
        bands = len(self._bands.mean)
        tally, errors = (x.reshape(-1, bands) for x in (self.tally, self.errors))
        seen, wrong = tally.sum(axis=0), errors.sum(axis=0)
        rate = (wrong.sum() + 0.5) / (seen.sum() + 1)
        known = (errors.sum(axis=1) + rate) / (tally.sum(axis=1) + 1)
        expected = known @ tally
        worth = np.maximum(expected / rate, wrong + 0.5)
        drawn = weigh_scores(
            np.full((len(signals), bands), rate),
            worth,
            wrong,
            np.zeros(bands, np.int64),
            place_of_ranks((np.cumsum(seen) - seen / 2) / seen.sum()),
            rng,
        )
        return np.asarray(drawn / rate, float)

    def _rates_of_signals(
        self, rng: np.random.Generator, patterns: FloatArray | None
    ) -> FloatArray:
        """Draw error rates, (draws, signals), whose mean over a pattern is its rate."""
        count = len(self._numbers)
        seen, wrong = self._by_signal(self.tally), self._by_signal(self.errors)
        tally = np.bincount(self._pattern, seen, count)
        errors = np.bincount(self._pattern, wrong, count)
        if patterns is None:
            good = tally - errors + self._prior_good
            patterns = rng.beta(errors + self._prior_bad, good, size=(DRAWS, count))
        at = self._pattern
        if count == len(at):
            return patterns[:, at]
        raw = self._plain(rng, (errors + 0.5) / (tally + 1))
        for index in range(count):
            here = at == index
            scored = here & np.isfinite(self._place)
            if seen[scored].sum() >= _FEW and scored.sum() > 1:
                raw[:, here] = weigh_scores(
                    raw[:, here],
                    seen[here],
                    wrong[here],
                    self._answer[here],
                    self._place[here],
                    rng,
                )
        member = at[:, None] == np.arange(count)
        mean = raw * (seen / np.maximum(tally[at], 1e-9)) @ member
        scale = patterns / np.maximum(mean, 1e-9)
        return np.asarray(np.minimum(raw * scale[:, at], 1.0), float)

    def _plain(self, rng: np.random.Generator, rate: FloatArray) -> FloatArray:
        """Draw rates by pattern, of that mean rate, and answer; scores do not count."""
        group, first = self._group, np.unique(self._group, return_index=True)[1]
        prior = rate[self._pattern[first]]
        errors = np.bincount(group, self._by_signal(self.errors))
        right = np.bincount(group, self._by_signal(self.tally)) - errors
        drawn = rng.beta(
            errors + _SHRINKAGE * prior + 1e-6,
            right + _SHRINKAGE * (1 - prior) + 1e-6,
            size=(DRAWS, len(first)),
        )
        return np.asarray(drawn[:, group], float)

    def _assign(
        self, result: PolicyResult, answers: Answers, *, learn: bool = False
    ) -> IntArray:
        """Signal per item; only items to learn from make new ones."""
        code, score = result.served(answers.code), result.served(answers.confidence)
        kind = np.zeros(len(code), np.int64)
        for index, value in enumerate(self._classes, 1):
            kind[code == value] = index
        cut = np.searchsorted(self._edges, np.nan_to_num(score))
        band = np.where(np.isfinite(score), 1 + cut, 0)
        joint = np.stack([result.pattern, kind, band])
        width = (_CLASSES + 1) * (_BANDS[1] + 2)
        flat = joint[0] * width + joint[1] * (_BANDS[1] + 2) + joint[2]
        _, first, back = np.unique(flat, return_index=True, return_inverse=True)
        ids = np.full(len(first), -1, np.int64)
        for place in np.argsort(first):
            key = tuple(joint[:, first[place]].tolist())
            if key[0] >= 0:
                if learn:
                    self._ids.setdefault(key, len(self._ids))
                ids[place] = self._ids.get(key, self._nearest(*key))
        return ids[back.ravel()]

    def _nearest(self, pattern: int, kind: int, band: int) -> int:
        """The known signal most like a new one; −1 if its pattern is unknown, too."""
        alike = [key for key in self._ids if key[0] == pattern]
        if not alike:
            return -1
        return self._ids[min(alike, key=lambda k: (k[1] != kind, abs(k[2] - band)))]

    def _set_prior(self, posterior: Posterior) -> None:
        """Set shares, rates and priors of the patterns by the posterior."""
        count = len(self._numbers)
        result = self._policy.apply(posterior.answers, self._trust)
        cell = result.pattern[:, None] == np.array(self._numbers, np.int64)
        weight = posterior.weight @ cell
        wrong = (posterior.weight * result.wrong(posterior.wrong)) @ cell
        self.patterns = np.clip(wrong / np.maximum(weight, 1e-12), 1e-9, 1 - 1e-9)
        tally = np.bincount(self._pattern, self._by_signal(self.tally), count)
        errors = np.bincount(self._pattern, self._by_signal(self.errors), count)
        pattern = np.repeat(self._pattern, len(self._bands.mean))
        inside = self.tally / np.maximum(tally[pattern], 1e-9)
        self.shares = weight[:, pattern] * inside
        # As a beta distribution of the same mean and variance, less what was seen.
        mean, spread = self.patterns.mean(axis=0), self.patterns.var(axis=0)
        worth = np.clip(mean * (1 - mean) / np.maximum(spread, 1e-9) - 1, 1, 1e4)
        self._prior_bad = np.maximum(worth * mean - errors, 1e-3)
        self._prior_good = np.maximum(worth * (1 - mean) - (tally - errors), 1e-3)


def _edges(scores: FloatArray, answers: int) -> FloatArray:
    """Cut scores into bands, finer towards both ends, where risk tends to lie."""
    if len(scores) < _FEW:
        return np.empty(0)
    most = max(_BANDS[0], min(_BANDS[1], _PER_ANSWERS // max(answers, 1)))
    bands = int(np.clip(len(scores) // _PER_BAND, _BANDS[0], most))
    end = min(max(_END[0] / len(scores), _END[1]), 1 / _BANDS[0])
    odds = np.linspace(-1, 1, bands - 1) * np.log(1 / end - 1)
    return np.unique(np.quantile(scores, 1 / (1 + np.exp(-odds))))
