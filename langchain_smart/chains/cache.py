"""No cache answers for one chain's model with what another chain's model said.

LangChain's keys do not tell all models apart: for many classes they contain neither the
model nor its address. Within a chain nothing can be added to them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from langchain_core.caches import BaseCache
from langchain_core.globals import get_llm_cache
from langchain_core.language_models.chat_models import BaseChatModel

from langchain_smart.chains.tiers import ChainMember
from smart_engine.errors import InvalidInputError
from smart_engine.serving.members import model_identity

__all__ = ["check_caches", "confused"]

Pair = tuple[BaseChatModel, BaseChatModel]


def confused(chains: Iterable[ChainMember]) -> list[Pair]:
    """Return pairs of models of two chains that differ, but not in LangChain's keys."""
    pairs = (
        (one.by_key[key], other.by_key[key])
        for one, other in itertools.combinations(chains, 2)
        for key in one.by_key.keys() & other.by_key.keys()
    )
    return [(one, other) for one, other in pairs if _differ(one, other)]


def check_caches(pairs: Iterable[Pair]) -> None:
    """Check that the models of no pair answer from one cache.

    Raises:
        InvalidInputError: If two do.
    """
    for one, other in pairs:
        if (cache := _cache_of(one)) is not None and cache is _cache_of(other):
            hint = (
                f"LangChain's keys do not tell {one.get_name()} and {other.get_name()} "
                "apart, so one would answer for the other: give each a cache of its "
                "own, or cache=False"
            )
            raise InvalidInputError("cache", type(cache).__name__, hint)


def _differ(one: BaseChatModel, other: BaseChatModel) -> bool:
    return one is not other and model_identity(one) != model_identity(other)


def _cache_of(model: BaseChatModel) -> BaseCache | None:
    """Return the cache from which a model answers now, if there is any."""
    if model.cache is False:
        return None
    return model.cache if isinstance(model.cache, BaseCache) else get_llm_cache()
