"""A batch tried on a few of its items, before anything big is spent."""

from __future__ import annotations

from typing import Any

import numpy as np

from langchain_smart.chat_batches import ChatBatches
from langchain_smart.driver import drive
from smart_engine.calls import Failure
from smart_engine.errors import SmartError
from smart_engine.offline.estimate import Estimate, SampleSession, estimate
from smart_engine.serving.resume import Resumed, ResumedSession
from smart_engine.serving.session import Session

__all__ = ["try_batch"]


def try_batch(smart: ChatBatches, inputs: list[Any], sampled: int) -> Estimate:
    """Ask all members about some items, and return what all items would cost.

    The items are drawn apart from the order in which an audit would draw them, so that
    what is chosen in view of the estimate does not weaken the guarantee. With a store,
    a batch of the same inputs does not buy their answers again.

    Args:
        smart: The model.
        inputs: All items of the job.
        sampled: Number of items to ask about; all, if there are fewer.

    Raises:
        SmartError: If the reference answered none of them.
    """
    _, (job,) = smart._prepare(inputs, None, return_exceptions=False, kwargs={})  # noqa: SLF001 - of this package
    terms, rule = smart._terms, smart._request(None, {}).reading(smart._rule)  # noqa: SLF001
    rng = np.random.default_rng([terms.seed, len(inputs), 1])
    drawn = rng.permutation(len(inputs))[:sampled].tolist()  # a larger sample goes on
    sample = SampleSession(drawn, terms.models, job.scope)
    asked: Session = sample
    if isinstance(job.session, ResumedSession):
        asked = Resumed(sample, job.session.stored)
    drive(asked, lambda _: None, job.ask, job.broken_off, terms.max_concurrency)
    answers = sample.outcomes
    failed = [one for one in answers[terms.models[0]] if isinstance(one, Failure)]
    if len(failed) == len(drawn):
        why = f"{type(failed[0].error).__name__}: {failed[0].error}"
        raise SmartError(f"{terms.models[0]} answered none of the items: {why}")
    return estimate(
        answers,
        len(inputs),
        terms.guarantee,
        rule,
        strategy=terms.strategy,
        max_in_flight=terms.max_concurrency,
        seed=terms.seed,
    )
