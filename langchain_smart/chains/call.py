"""How an item is put to chains, alone or in a batch."""

from __future__ import annotations

from collections.abc import (
    Callable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from langchain_core.callbacks import AsyncCallbackManager
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import (
    get_async_callback_manager_for_config,
    get_callback_manager_for_config,
    var_child_runnable_config,
)
from typing_extensions import override

from langchain_smart.batching import CORE_VERBS, RunnableJob
from langchain_smart.callbacks import (
    chain_config,
    is_watched,
    quiet_context,
)
from langchain_smart.chains.graph import within_graph
from langchain_smart.chains.meter import Meter
from langchain_smart.chains.store import ChainAnswers, identity_of
from langchain_smart.chains.tiers import ChainMember
from langchain_smart.logprobs import without_logprobs
from smart_engine.calls import Call, Failure, Result, Served
from smart_engine.money.reservations import Allowance
from smart_engine.runtime.requester import Requester, Verb
from smart_engine.runtime.signals import Signals

__all__ = ["ChainJob", "ChainRequester"]

R = TypeVar("R", Result, Failure)


@dataclass
class ChainRequester(Requester):
    """Puts one item to chains.

    Attributes:
        chains: The chains by name.
        record_inner_call: Enters a model's call within a chain's.
        given: The item.
        config: Its config, with the callbacks of its run's children.
        arguments: Further arguments of every chain.
        allowance: Returns what a chain's call may spend, if there is a budget.
        task: Name of the item's task, for tracers.
        signals, plain: See `Requester`; of chains.
    """

    chains: Mapping[str, ChainMember]
    record_inner_call: Callable[[str, Result], None]
    given: Any
    config: RunnableConfig
    arguments: dict[str, Any]
    allowance: Callable[[str], Allowance | None]
    task: str = ""
    signals: Signals = field(default_factory=Signals)
    plain: set[str] = field(default_factory=set)
    _meters: dict[str, Meter] = field(init=False, default_factory=dict)

    context = staticmethod(quiet_context)

    @property
    @override
    def watched(self) -> bool:
        return is_watched(self.config)

    @override
    def streamed(self, model: str) -> bool:
        return model in self._meters and self._meters[model].streamed

    @override
    def worst_case(self, model: str) -> None:
        """Return nothing: a call's meter knows what its models may have cost."""

    @override
    def prepare(self, model: str, verb: Verb, *, shown: bool) -> Callable[[], Any]:
        member, reference = self.chains[model], next(iter(self.chains))
        self._meters[model] = meter = Meter(member, self.allowance(model))
        watched = shown and (self.watched or "stream" in verb)
        config = chain_config(
            self.config, meter, self.task, model, reference, shown=watched, heard=shown
        )
        config["configurable"] = within_graph(
            config.get("configurable") or {}, reference=model == reference, heard=shown
        )
        # Graphs look there too; calls are made in a context of their own.
        var_child_runnable_config.set(config)
        scored = member.scored if self.asks_for_logprobs(model) else None
        asked = getattr(scored or member.chain, CORE_VERBS[verb])
        return partial(asked, self.given, config, **self.arguments)

    @override
    def result(self, model: str, answer: Any) -> Result:
        answer = self.as_asked(model, answer)
        return self._enter(model, self._meters[model].outcome(answer))

    def as_asked(self, model: str | None, answer: Any) -> Any:
        """Return an answer, or a piece of one, as its chain gives it to the user."""
        return without_logprobs(answer) if model in self.signals.models else answer

    @override
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
        return self.result(model, whole)

    @override
    def failed(
        self, model: str, pieces: Sequence[Any], error: BaseException
    ) -> Failure:
        del pieces
        if model not in self._meters:  # its price per call did not fit into the budget
            return Failure(error)
        return self._enter(model, self._meters[model].failure(error))

    def _enter(self, model: str, ended: R) -> R:
        """Enter what was called within a call that has ended; return its result."""
        for name, result in self._meters[model].take_calls():
            self.record_inner_call(name, result)
        return ended


@dataclass(kw_only=True)
class ChainJob(RunnableJob):
    """The items of one task in a batch of chains.

    Attributes:
        chains, arguments, signals: See `ChainRequester`.
        name: Name of an item's run where its config gives none.
        answers: Writes and reads answers, for a store.
    """

    chains: Mapping[str, ChainMember]
    name: str
    arguments: dict[str, Any]
    signals: Signals
    answers: ChainAnswers

    @override
    def _start_run(self, item: int, kind: type[Any]) -> Any:
        config = self.configs[item]
        configure: Callable[[RunnableConfig], Any] = get_callback_manager_for_config
        if kind is AsyncCallbackManager:
            configure = get_async_callback_manager_for_config
        return configure(config).on_chain_start(
            None,
            self.inputs[item],
            name=config.get("run_name") or self.name,
            run_id=config.get("run_id"),
        )

    @override
    def finish(self, item: int, output: Any) -> Any:
        run = self._runs[item]
        if run is None:
            return None
        failed = isinstance(output, BaseException)
        return run.on_chain_error(output) if failed else run.on_chain_end(output)

    @override
    def requester(self, item: int) -> ChainRequester:
        config: dict[str, Any] = {**self.configs[item]}
        config["callbacks"] = self._runs[item].get_child()
        config.pop("run_id", None)
        return ChainRequester(
            self.chains,
            partial(self.scope.record_inner_call, item),
            self.inputs[item],
            config,  # type: ignore[arg-type]
            self.arguments,
            partial(self.allowance, item),
            self.scope.task,
            self.signals,
        )

    @override
    def worst_case(self, call: Call) -> None:
        """Return nothing: what a chain calls shows only as it runs."""

    @override
    def contents(self) -> Iterator[str]:
        yield identity_of(self.arguments)

    @override
    def requests(self) -> Iterator[str]:
        for given, config in zip(self.inputs, self.configs, strict=True):
            chosen = config.get("configurable") or {}
            own = {k: v for k, v in chosen.items() if not k.startswith("__")}
            yield identity_of(given) + (identity_of(own) if own else "")

    @override
    def write(self, answer: Any) -> str:
        return self.answers.write(answer)

    @override
    def read(self, text: str) -> Any:
        return self.answers.read(text)

    @override
    def output(self, served: Served, smart: dict[str, Any], *, bought: bool) -> Any:
        return served.answer
