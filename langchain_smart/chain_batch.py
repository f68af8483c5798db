"""A batch put to chains: how an item's run begins, and how it ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import (
    get_async_callback_manager_for_config,
    get_callback_manager_for_config,
)
from typing_extensions import override

from langchain_smart.chain_items import ChainAsker
from langchain_smart.jobs import Job
from langchain_smart.tiers import ChainMember
from smart_engine.batch.certificate import Certificate
from smart_engine.calls import Call, Failure, Outcome, Served
from smart_engine.money.reservations import Allowance

__all__ = ["ChainJob"]


@dataclass
class ChainJob(Job):
    """The items of one task in a batch, for chains.

    Attributes:
        tiers: The tiers by name.
        name: What an item's run is called where its config has no name for it.
        arguments: What every tier is called with beside the items.
        allowance: Returns what a call in flight may spend, if there is a budget.
    """

    tiers: Mapping[str, ChainMember]
    name: str
    arguments: dict[str, Any]
    allowance: Callable[[Call], Allowance | None]
    _askers: dict[int, ChainAsker] = field(init=False, default_factory=dict)

    # -- runs ------------------------------------------------------------------

    @override
    def configured(self, item: int, *, is_async: bool) -> Any:
        config = self.share.configs[item]
        if is_async:
            return get_async_callback_manager_for_config(config)
        return get_callback_manager_for_config(config)

    @override
    def started(self, item: int) -> Any:
        return self.manager.on_chain_start(None, **self._start(item))

    @override
    async def astarted(self, item: int) -> Any:
        return await self.manager.on_chain_start(None, **self._start(item))

    def _start(self, item: int) -> dict[str, Any]:
        """Return the arguments that start an item's run."""
        config = self.share.configs[item]
        return {
            "inputs": self.share.given[item],
            "name": config.get("run_name") or self.name,
            "run_id": config.get("run_id"),
        }

    @override
    def end(self, run: Any, output: Any) -> Awaitable[None] | None:
        ending: Awaitable[None] | None
        if isinstance(output, BaseException):
            ending = run.on_chain_error(output)
        else:
            ending = run.on_chain_end(output)
        return ending

    # -- calls and results -----------------------------------------------------

    @override
    def ask(self, call: Call) -> Outcome | Failure:
        return self._asker(call).ask(call.tier)

    @override
    async def aask(self, call: Call) -> Outcome | Failure:
        return await self._asker(call).aask(call.tier)

    @override
    def broken_off(self, call: Call, error: BaseException) -> Failure:
        return self._asker(call).broken_off(call.tier, [], error)

    def _asker(self, call: Call) -> ChainAsker:
        """Return who asks about an item."""
        asker = self._askers.get(call.item)
        if asker is None:
            config = _inner(self.share.configs[call.item], self.runs[call.item])
            given = self.share.given[call.item]
            inside = partial(self.scope.record_inner_call, call.item)
            made = ChainAsker(
                self.tiers,
                inside,
                given,
                config,
                self.arguments,
                lambda name: self.allowance(Call(call.item, name)),
            )
            asker = self._askers.setdefault(call.item, made)
        return asker

    @override
    def handed_out(
        self, served: Served, certificate: Certificate, certificate_id: str
    ) -> Any:
        return served.answer


def _inner(config: RunnableConfig, run: Any) -> RunnableConfig:
    """Return an item's config for what runs below its run."""
    inner: dict[str, Any] = {**config, "callbacks": run.get_child()}
    inner.pop("run_id", None)
    return inner  # type: ignore[return-value]
