"""How an item is put to chains, alone or in a batch."""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Generator,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from contextvars import Context
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import (
    get_async_callback_manager_for_config,
    get_callback_manager_for_config,
)
from typing_extensions import override

from langchain_smart.batching import Share
from langchain_smart.callbacks import chain_config, is_watched, quiet_context
from langchain_smart.chains.meter import Meter
from langchain_smart.chains.store import ChainAnswers, identity_of
from langchain_smart.chains.tiers import ChainMember
from smart_engine.calls import Call, Failure, Result, Served
from smart_engine.errors import UnparseableAnswerError
from smart_engine.money.reservations import Allowance
from smart_engine.runtime.batch import Job

__all__ = ["ChainAsker", "ChainJob"]


@dataclass
class ChainAsker:
    """Puts one item to chains.

    Attributes:
        chains: The chains by name.
        record_inner_call: Enters a model's call within a chain's.
        given: The item.
        config: Its config, with the callbacks of its run's children.
        arguments: What every chain is called with beside them.
        allowance: Returns what a chain's call may spend, if there is a budget.
    """

    chains: Mapping[str, ChainMember]
    record_inner_call: Callable[[str, Result], None]
    given: Any
    config: RunnableConfig
    arguments: dict[str, Any]
    allowance: Callable[[str], Allowance | None]
    _meters: dict[str, Meter] = field(init=False, default_factory=dict)

    retries = 0

    @property
    def watched(self) -> bool:
        """Whether the caller sees pieces of answers that it asks for as a whole."""
        return is_watched(self.config)

    def streamed(self, model: str) -> bool:
        """Whether a chain's models have streamed any of its answer."""
        return model in self._meters and self._meters[model].streamed

    def context(self) -> Context:
        """Return the context in which a chain is called."""
        return quiet_context()

    def call(self, model: str, *, shown: bool = False) -> Result:
        """Return a chain's whole answer."""
        config = self._start(model, shown=shown)
        chain = self.chains[model].chain
        answer = chain.invoke(self.given, config, **self.arguments)
        return self._result(model, answer)

    async def acall(self, model: str, *, shown: bool = False) -> Result:
        """Return a chain's whole answer."""
        config = self._start(model, shown=shown)
        chain = self.chains[model].chain
        answer = await chain.ainvoke(self.given, config, **self.arguments)
        return self._result(model, answer)

    def stream(self, model: str) -> Generator[Any]:
        """Yield a chain's answer piece by piece."""
        config = self._start(model, shown=True)
        chain, piece = self.chains[model].chain, None
        for piece in chain.stream(self.given, config, **self.arguments):
            yield piece
        if piece is None:
            raise UnparseableAnswerError(f"{model} yielded nothing")

    async def astream(self, model: str) -> AsyncGenerator[Any]:
        """Yield a chain's answer piece by piece."""
        config = self._start(model, shown=True)
        chain, piece = self.chains[model].chain, None
        pieces = chain.astream(self.given, config, **self.arguments)
        async with aclosing(pieces):  # type: ignore[type-var]
            async for piece in pieces:
                yield piece
        if piece is None:
            raise UnparseableAnswerError(f"{model} yielded nothing")

    def joined(self, model: str, pieces: Sequence[Any]) -> Result:
        """Return the result of a call whose answer was streamed to its end.

        Pieces are joined by core's rule: the answer is their sum, or the last one.
        """
        whole, *rest = pieces
        for piece in rest:
            try:
                whole = whole + piece
            except TypeError:
                whole = piece
        return self._result(model, whole)

    def failed(
        self, model: str, pieces: Sequence[Any], error: BaseException
    ) -> Failure:
        """Return the result of a call that ended by an error, with what it cost."""
        del pieces
        meter = self._meters.get(model)
        if meter is None:  # its price per call did not fit into the budget
            return Failure(error)
        bill = self.chains[model].bill(meter, self.record_inner_call)
        return meter.clock.timed(bill.failure(error))

    def retried(self, model: str, failure: Failure) -> None:
        """Never called: chains have retries of their own."""

    def _start(self, model: str, *, shown: bool) -> RunnableConfig:
        """Return the config of a call that is about to be made."""
        meter = self.chains[model].meter(self.allowance(model))
        self._meters[model] = meter
        return chain_config(self.config, meter, model, shown=shown)

    def _result(self, model: str, answer: Any) -> Result:
        meter = self._meters[model]
        bill = self.chains[model].bill(meter, self.record_inner_call)
        return meter.clock.timed(bill.outcome(answer))


@dataclass
class ChainJob(Job):
    """The items of one task in a batch of chains.

    Attributes:
        share: The items.
        chains: The chains by name.
        name: What an item's run is called where its config has no name for it.
        arguments: What every chain is called with beside the items.
        identities: Per chain, its name and a text that identifies it.
        answers: Writes and reads answers, for a store.
    """

    share: Share = field(kw_only=True)
    chains: Mapping[str, ChainMember] = field(kw_only=True)
    name: str = field(kw_only=True)
    arguments: dict[str, Any] = field(kw_only=True)
    identities: Sequence[tuple[str, str]] = field(kw_only=True)
    answers: ChainAnswers = field(kw_only=True)

    def __post_init__(self) -> None:
        self._runs: list[Any] = [None] * len(self.places)
        self._manager: Any = None

    # -- runs ------------------------------------------------------------------

    @override
    def start(self, item: int) -> None:
        if self._runs[item] is None:
            manager = self._configured(item, get_callback_manager_for_config)
            self._runs[item] = manager.on_chain_start(None, **self._start(item))

    @override
    async def astart(self, item: int) -> None:
        if self._runs[item] is None:
            manager = self._configured(item, get_async_callback_manager_for_config)
            run = await manager.on_chain_start(None, **self._start(item))
            self._runs[item] = run

    def _configured(self, item: int, configure: Callable[[RunnableConfig], Any]) -> Any:
        """Return the callback manager of an item's run."""
        if self._manager is None or not self.share.one_config:
            self._manager = configure(self.share.configs[item])
        return self._manager

    def _start(self, item: int) -> dict[str, Any]:
        config = self.share.configs[item]
        return {
            "inputs": self.share.inputs[item],
            "name": config.get("run_name") or self.name,
            "run_id": config.get("run_id"),
        }

    @override
    def finish(self, item: int, output: Any) -> Awaitable[None] | None:
        run = self._runs[item]
        ending: Awaitable[None] | None = None
        if run is not None and isinstance(output, BaseException):
            ending = run.on_chain_error(output)
        elif run is not None:
            ending = run.on_chain_end(output)
        return ending

    # -- calls and answers -------------------------------------------------------

    @override
    def asker(self, item: int) -> ChainAsker:
        config: dict[str, Any] = {**self.share.configs[item]}
        config["callbacks"] = self._runs[item].get_child()
        config.pop("run_id", None)
        return ChainAsker(
            self.chains,
            partial(self.scope.record_inner_call, item),
            self.share.inputs[item],
            config,  # type: ignore[arg-type]
            self.arguments,
            lambda model: self._allowance(Call(item, model)),
        )

    def _allowance(self, call: Call) -> Allowance | None:
        reserved = self.reservations
        return None if reserved is None else reserved.allowance(call)

    @override
    def worst_case(self, call: Call) -> None:
        """Return nothing: what a chain will call shows only as it runs."""

    @override
    def contents(self) -> Iterator[str]:
        yield from map(repr, self.identities)
        yield identity_of(self.arguments)
        yield from map(identity_of, self.share.inputs)

    @override
    def write(self, answer: Any) -> str:
        return self.answers.write(answer)

    @override
    def read(self, text: str) -> Any:
        return self.answers.read(text)

    @override
    def output(self, served: Served, smart: dict[str, Any]) -> Any:
        return served.answer
