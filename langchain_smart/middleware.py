"""`SmartMiddleware`: an agent whose model calls are answered for less."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain_core.language_models import FakeListChatModel
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.runnables import Runnable
from typing_extensions import override

from langchain_smart.batching import with_threads
from langchain_smart.chat_model import SmartChatModel
from smart_engine.equivalence import Normalized, as_equivalence
from smart_engine.money.ledger import Ledger
from smart_engine.money.pricing import Price
from smart_engine.report.report import Report
from smart_engine.runtime.gathering import gathering
from smart_engine.serving.books import Books
from smart_engine.store.forks import fork_safe_lock

__all__ = ["SmartMiddleware"]


class SmartMiddleware(AgentMiddleware[Any, Any, Any]):
    """Answers an agent's model calls as its own model would, for less.

    Each call of the agent's model goes through a `SmartChatModel` over that model and
    the candidates; the rest of the request stays as it is. All calls share one ledger,
    and the calls of one task, such as those with one system prompt and the same tools,
    are one stream. Where another middleware chooses the model, put this one after it.

    Args:
        candidates: Cheaper models that may stand in for the agent's own.
        reference: The model whose answers define "right"; the agent's own if not given.
        **settings: All other settings of `SmartChatModel`, such as `prices`.

    Raises:
        InvalidInputError: At construction, if a setting cannot be used; at the first
            call, if the agent's model has no price.

    Example:
        ```python
        from langchain.agents import create_agent
        from langchain_core.language_models import FakeListChatModel

        smart = SmartMiddleware(
            candidates=[FakeListChatModel(responses=["Yes."], name="small")],
            prices={"big": Price.free(), "small": Price.free()},
        )
        big = FakeListChatModel(responses=["yes"], name="big")
        agent = create_agent(big, middleware=[smart])
        state = agent.invoke({"messages": [("user", "Is 7 a prime number?")]})
        assert state["messages"][-1].content == "yes"
        assert smart.report().spend["big"].calls == 1
        ```
    """

    def __init__(
        self,
        candidates: Sequence[Runnable[Any, Any] | str],
        *,
        reference: Runnable[Any, Any] | str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        rule = as_equivalence(settings.get("equivalence", Normalized()))
        given = {**settings, "candidates": candidates, "equivalence": rule}
        books = given.pop("books", None) or Books(fork_safe_lock, process=os.getpid())
        stand_in = FakeListChatModel(responses=[""], name="the agent's own model")
        prices = {**given.get("prices", {}), str(stand_in.name): Price.free()}
        checked = SmartChatModel(
            **{**given, "reference": reference or stand_in, "prices": prices}
        )
        self._reference = None if reference is None else checked.reference
        self._settings = {**given, "candidates": checked.candidates, "books": books}
        self._books: Books = books
        self._lock = fork_safe_lock()
        self._last: SmartChatModel | None = None

    def report(self) -> Report:
        """Return calls, costs and savings so far; see `SmartChatModel.report`."""
        return self._books.report()

    def ledger(self) -> Ledger:
        """Return every call so far; see `SmartChatModel.ledger`."""
        return self._books.ledger()

    def batching(
        self, *, gather_ms: float | None = None, max_items: int = 1000
    ) -> AbstractContextManager[None]:
        """Answer agents that run at once turn by turn, each in one batch.

        See `SmartChatModel.batching`.
        """
        gather_ms = self._settings.get("gather_ms") if gather_ms is None else gather_ms
        return with_threads(gathering(self._books, gather_ms, max_items), max_items)

    @override
    def wrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], ModelResponse[Any]],
    ) -> ModelResponse[Any]:
        return handler(request.override(model=self._over(request.model)))

    @override
    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> ModelResponse[Any]:
        return await handler(request.override(model=self._over(request.model)))

    def _over(self, own: BaseChatModel) -> SmartChatModel:
        reference = self._reference or own
        with self._lock:
            if self._last is None or self._last.reference is not reference:
                given = {**self._settings, "reference": reference}
                self._last = SmartChatModel(**given)
            return self._last
