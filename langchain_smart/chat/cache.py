"""The cache of a member: one in which no member reads another's answers.

LangChain's keys do not tell all models apart: for many classes they contain neither the
model nor its address. The reference would answer for a candidate. A reply that a batch
has brought is read and paid for, though an equal one may be in the cache by now.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import cached_property
from typing import Any

from langchain_core.caches import RETURN_VAL_TYPE, BaseCache
from langchain_core.globals import get_llm_cache
from typing_extensions import override

from langchain_smart.chat.members import ChatMember
from smart_engine.runtime.lanes.exchange import only_reading
from smart_engine.serving.members import model_identity

__all__ = ["MemberCache", "cached"]


def cached(member: ChatMember, cache: BaseCache | bool | None) -> ChatMember:
    """Return a member that uses a cache; its model's own setting takes precedence."""
    update = {"cache": MemberCache(member, cache)}
    return replace(member, model=member.model.model_copy(update=update))


class MemberCache(BaseCache):
    """A member's part of a cache: its keys are hashes of the member and LangChain's.

    Args:
        member: The member.
        cache: The smart model's setting, for a model that has none of its own.
    """

    def __init__(self, member: ChatMember, cache: BaseCache | bool | None) -> None:
        self._member = member
        self._given = cache

    @override
    def lookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        if (cache := self._cache) is None or only_reading():
            return None
        return cache.lookup(prompt, self._key(llm_string))

    @override
    async def alookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        if (cache := self._cache) is None or only_reading():
            return None
        return await cache.alookup(prompt, self._key(llm_string))

    @override
    def update(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        if (cache := self._cache) is not None:
            cache.update(prompt, self._key(llm_string), return_val)

    @override
    async def aupdate(
        self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE
    ) -> None:
        if (cache := self._cache) is not None:
            await cache.aupdate(prompt, self._key(llm_string), return_val)

    @override
    def clear(self, **kwargs: Any) -> None:
        if (cache := self._cache) is not None:
            cache.clear(**kwargs)

    @property
    def _cache(self) -> BaseCache | None:
        own = self._member.model.cache
        chosen = self._given if own is None else own
        if chosen is False:
            return None
        return chosen if isinstance(chosen, BaseCache) else get_llm_cache()

    @cached_property
    def _identity(self) -> str:
        """What identifies the member, as it was when the cache was first used."""
        return f"{self._member.name} {model_identity(self._member.model).mark}"

    def _key(self, llm_string: str) -> str:
        return hashlib.sha256(f"{self._identity} {llm_string}".encode()).hexdigest()
