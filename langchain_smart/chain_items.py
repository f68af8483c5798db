"""How a tier is asked about one item, and what its call brought.

Every call of a tier goes through here, in batches and on its own.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from langchain_core.runnables import RunnableConfig

from langchain_smart.chain_runs import is_watched, tier_config
from langchain_smart.meter import Meter
from langchain_smart.tiers import ChainMember
from smart_engine.calls import Failure, Outcome, Result
from smart_engine.errors import UnparseableAnswerError
from smart_engine.money.reservations import Allowance

__all__ = ["ChainAsker"]


@dataclass
class ChainAsker:
    """Puts one item to tiers.

    Attributes:
        tiers: The tiers by name.
        inside: Told of a model's call within a tier's, and what it brought.
        given: The item.
        config: Its config, with the callbacks of its run's children.
        arguments: What every tier is called with beside them.
        allowance: Returns what a tier's call may spend, if there is a budget.
    """

    tiers: Mapping[str, ChainMember]
    inside: Callable[[str, Result], None]
    given: Any
    config: RunnableConfig
    arguments: dict[str, Any]
    allowance: Callable[[str], Allowance | None]
    _meters: dict[str, Meter] = field(init=False, default_factory=dict)

    @property
    def watched(self) -> bool:
        """Whether somebody shows the answer while it is made."""
        return is_watched(self.config)

    def streamed(self, name: str) -> bool:
        """Whether a tier's models have streamed any of its answer."""
        return name in self._meters and self._meters[name].streamed

    def ask(self, name: str, *, shown: bool = False) -> Outcome | Failure:
        """Return what a tier brings."""
        config = self._begin(name, shown=shown)
        chain = self.tiers[name].chain
        answer = chain.invoke(self.given, config, **self.arguments)
        return self._brought(name, answer)

    async def aask(self, name: str, *, shown: bool = False) -> Outcome | Failure:
        """Return what a tier brings."""
        config = self._begin(name, shown=shown)
        chain = self.tiers[name].chain
        answer = await chain.ainvoke(self.given, config, **self.arguments)
        return self._brought(name, answer)

    def stream(self, name: str) -> Iterator[Any]:
        """Yield a tier's answer piece by piece."""
        config = self._begin(name, shown=True)
        empty = True
        for piece in self.tiers[name].chain.stream(
            self.given, config, **self.arguments
        ):
            empty = False
            yield piece
        if empty:
            raise UnparseableAnswerError(f"{name} yielded nothing")

    async def astream(self, name: str) -> AsyncGenerator[Any]:
        """Yield a tier's answer piece by piece."""
        config = self._begin(name, shown=True)
        empty = True
        pieces = self.tiers[name].chain.astream(self.given, config, **self.arguments)
        async with aclosing(pieces):  # type: ignore[type-var]
            async for piece in pieces:
                empty = False
                yield piece
        if empty:
            raise UnparseableAnswerError(f"{name} yielded nothing")

    def whole(self, name: str, pieces: Sequence[Any]) -> Outcome | Failure:
        """Return what a streamed answer brought."""
        return self._brought(name, _joined(pieces))

    def broken_off(
        self, name: str, pieces: Sequence[Any], error: BaseException
    ) -> Failure:
        """Return what a call brought that ended by an error."""
        del pieces
        meter = self._meters.get(name)
        if meter is None:  # what it costs beside its models did not fit
            return Failure(error)
        bill = self.tiers[name].bill(meter, self.inside)
        return meter.clock.timed(bill.failure(error))

    def _begin(self, name: str, *, shown: bool) -> RunnableConfig:
        """Return the config of a call that is about to be made."""
        meter = self.tiers[name].meter(self.allowance(name))
        self._meters[name] = meter
        return tier_config(self.config, meter, name, shown=shown)

    def _brought(self, name: str, answer: Any) -> Outcome | Failure:
        """Return what a call brought that ended with an answer."""
        meter = self._meters[name]
        bill = self.tiers[name].bill(meter, self.inside)
        return meter.clock.timed(bill.outcome(answer))


def _joined(pieces: Sequence[Any]) -> Any:
    """Return the whole that pieces make, by core's rule: their sum, or the last one."""
    whole, *rest = pieces
    for piece in rest:
        try:
            whole = whole + piece
        except TypeError:
            whole = piece
    return whole
