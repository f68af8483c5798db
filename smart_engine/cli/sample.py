"""What a whole job would cost: all models are asked about a few of its items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from smart_engine.calls import Failure
from smart_engine.errors import SmartError
from smart_engine.offline.estimate import Estimate, SampleSession, estimate
from smart_engine.runtime.drive import drive
from smart_engine.serving.repeated import Repeated
from smart_engine.serving.resume import Resumed
from smart_engine.serving.session import Session

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig

    from langchain_smart.chat_model import SmartChatModel

__all__ = ["estimate_job"]

_SIZES = (50, 100, 250, 500, 1_000, 2_500)
"""Rows of the jobs for which the share saved is shown, too."""


def estimate_job(
    smart: SmartChatModel,
    inputs: Sequence[Any],
    sampled: int,
    *,
    configs: list[RunnableConfig] | None = None,
    named: bool = False,
) -> Estimate:
    """Ask all models about some items of a job, and return what all would cost.

    The items are drawn apart from the order in which an audit would draw them, so that
    what is chosen in view of the estimate does not weaken the guarantee. With a store,
    a batch of the same inputs does not buy their answers again.

    Args:
        smart: The model.
        inputs: All items of the job.
        sampled: Number of items to ask about; all, if there are fewer.
        configs: The items' configs.
        named: Whether it is estimated, too, what it would cost under one promise with
            the jobs of its task so far.

    Raises:
        SmartError: If the reference answered none of them.
    """
    (job,) = smart._jobs(inputs, configs, {})  # noqa: SLF001
    batch = smart._batch([job], [])  # noqa: SLF001
    config, (firsts, stored) = batch.config, batch.known(job)
    seed = config.batch_seed(stored)
    rng = np.random.default_rng([seed, len(inputs), 1])
    drawn = rng.permutation(len(inputs))[
        :sampled
    ].tolist()  # a larger sample extends it
    sample = SampleSession(drawn, config.models, job.scope)
    session: Session = sample if firsts is None else Repeated(sample, firsts)
    if stored is not None:
        session = Resumed(session, stored, firsts)
    drive(session, job, config.max_concurrency)
    results = sample.outcomes
    failed = [one for one in results[config.models[0]] if isinstance(one, Failure)]
    if len(failed) == len(drawn):
        why = f"{type(failed[0].error).__name__}: {failed[0].error}"
        raise SmartError(f"{config.models[0]} answered none of the items: {why}")
    prices = {name: member.price for name, member in smart._members.items()}  # noqa: SLF001
    cheaper = any(
        price.by_token and "batch" in price.tiers for price in prices.values()
    )
    in_batches = {name: price.at("batch") or price for name, price in prices.items()}
    return estimate(
        results,
        len(inputs),
        config.guarantee,
        job.rule,
        strategy=config.strategy,
        max_in_flight=config.max_concurrency,
        min_saving=config.min_saving,
        sizes=_SIZES,
        history=batch.history(job) if named else None,
        seed=seed,
        label_of=config.label_of,
        max_rounds=config.max_rounds,
        batch_prices=in_batches if cheaper else None,
        max_batches=batch.config_of(job, carried=True).max_rounds,
        slices=job.slices and [job.slices[item] for item in drawn],
    )
