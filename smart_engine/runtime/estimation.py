"""What a whole job would cost: all models are asked about a few of its items.

The items are drawn apart from the order in which an audit would draw them, so that what
is chosen in view of the estimate does not weaken the guarantee. With a store, a batch
of the same items does not buy their answers again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from smart_engine.calls import Failure
from smart_engine.errors import SmartError
from smart_engine.money.pricing import Price
from smart_engine.offline.estimate import Estimate, SampleSession, estimate
from smart_engine.runtime.batch import Batch
from smart_engine.runtime.drive import adrive, drive
from smart_engine.serving.repeated import Repeated
from smart_engine.serving.resume import Resumed

__all__ = ["Estimation"]


@dataclass
class Estimation:
    """Asks all models about some items of a job, and says what all would cost.

    Attributes:
        batch: The job, as a batch would answer it; no budget limits what is asked here.
        n: Most items to ask about; a larger sample extends a smaller one.
        prices: Model → its price, where that is known.
        sizes: Numbers of items for which the share saved is estimated, too.
        shares: Shares that may differ for which it is.
    """

    batch: Batch
    n: int
    prices: Mapping[str, Price]
    sizes: Sequence[int]
    shares: Sequence[float]
    _drawn: list[int] = field(init=False)
    _seed: int = field(init=False)
    _sample: SampleSession = field(init=False)

    def run(self) -> Estimate:
        """Estimate in synchronous code."""
        self._open()
        (job,) = self.batch.jobs
        drive(job.session, job, job.limit)
        return self._close()

    async def arun(self) -> Estimate:
        """Estimate in asynchronous code."""
        self._open()
        (job,) = self.batch.jobs
        await adrive(job.session, job, job.limit)
        return await asyncio.to_thread(self._close)

    def _open(self) -> None:
        (job,), models = self.batch.jobs, self.batch.config.models
        firsts, stored = self.batch.known(job)
        self._seed, items = job.config.batch_seed(stored), len(job.places)
        rng = np.random.default_rng([self._seed, items, 1])
        self._drawn = rng.permutation(items)[: self.n].tolist()
        self._sample = SampleSession(self._drawn, models, job.scope)
        job.session = self._sample
        if firsts is not None:
            job.session = Repeated(self._sample, firsts)
        if stored is not None:
            job.session = Resumed(job.session, stored, firsts)
        job.dispatcher = self.batch.lanes.dispatcher(None)

    def _close(self) -> Estimate:
        batch, (job,), prices = self.batch, self.batch.jobs, self.prices
        config, results = job.config, self._sample.outcomes
        reference, *_ = config.models
        failed = [one for one in results[reference] if isinstance(one, Failure)]
        if len(failed) == len(self._drawn):
            why = f"{type(failed[0].error).__name__}: {failed[0].error}"
            raise SmartError(f"{reference} answered none of the items: {why}")
        tiers = [each.tiers for each in prices.values() if each.by_token]
        cheaper = any("batch" in each for each in tiers)
        in_batches = {name: each.at("batch") or each for name, each in prices.items()}
        expected = estimate(
            results,
            len(job.places),
            config.guarantee,
            job.rule,
            strategy=config.strategy,
            max_in_flight=config.max_concurrency,
            min_saving=config.min_saving,
            sizes=self.sizes,
            shares=self.shares,
            history=batch.history(job),
            task=job.task,
            seed=self._seed,
            label_of=config.label_of,
            max_rounds=config.max_rounds,
            batch_prices=in_batches if cheaper else None,
            max_batches=batch.config_of(job, carried=True).max_rounds,
            slices=job.slices and [job.slices[item] for item in self._drawn],
        )
        batch.books.enter_estimate(expected)
        return expected
