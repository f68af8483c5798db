"""A member that is ready to be asked: its model and the arguments of the call.

Every call of a member is made here, whichever verb it serves.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableBinding, RunnableConfig
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from langchain_smart.members import usage_in
from smart_engine.errors import SmartError

__all__ = ["Bound", "unwrapped"]


@dataclass(frozen=True, slots=True)
class Bound:
    """A member with all that a request hands it, in the member's own form.

    Attributes:
        model: The model to call: never a binding, whose empty config would bring the
            ambient callbacks back in.
        arguments: What it is called with beside the messages.
        parser: Turns its messages into the object that was asked for, if one was.
        retries: How often a call that failed is made again.
        begins: Told before each attempt at a call.
        repeats: Told why an attempt failed after which there is another.
    """

    model: BaseChatModel
    arguments: dict[str, Any] = field(default_factory=dict)
    parser: Runnable[Any, Any] | None = None
    retries: int = 0
    begins: Callable[[], None] = field(default=lambda: None)
    repeats: Callable[[BaseException], None] = field(default=lambda _: None)

    def called_with(self, arguments: dict[str, Any], retries: int) -> Bound:
        """Return it with further arguments, which take precedence."""
        merged = {**self.arguments, **arguments}
        return replace(self, arguments=merged, retries=retries)

    def invoke(self, given: LanguageModelInput, config: RunnableConfig) -> AIMessage:
        """Return the whole answer."""
        if not self.retries:
            return self.model.invoke(given, config, **self.arguments)
        retrying = Retrying(**self._policy)
        return retrying(self.model.invoke, given, config, **self.arguments)

    async def ainvoke(
        self, given: LanguageModelInput, config: RunnableConfig
    ) -> AIMessage:
        """Return the whole answer."""
        if not self.retries:
            return await self.model.ainvoke(given, config, **self.arguments)
        retrying = AsyncRetrying(**self._policy)
        return await retrying(self.model.ainvoke, given, config, **self.arguments)

    def stream(
        self, given: LanguageModelInput, config: RunnableConfig
    ) -> Iterator[AIMessage]:
        """Yield the answer piece by piece; only its beginning can be tried again."""

        def begin() -> tuple[list[AIMessage], Iterator[AIMessage]]:
            chunks = iter(self.model.stream(given, config, **self._streamed))
            return [chunk for chunk in [next(chunks, None)] if chunk], chunks

        begun: tuple[list[AIMessage], Iterator[AIMessage]]
        begun = Retrying(**self._policy)(begin)
        first, rest = begun
        yield from first
        yield from rest

    async def astream(
        self, given: LanguageModelInput, config: RunnableConfig
    ) -> AsyncGenerator[AIMessage]:
        """Yield the answer piece by piece; only its beginning can be tried again."""

        async def begin() -> tuple[list[AIMessage], AsyncIterator[AIMessage]]:
            chunks = aiter(self.model.astream(given, config, **self._streamed))
            return [chunk for chunk in [await anext(chunks, None)] if chunk], chunks

        begun: tuple[list[AIMessage], AsyncIterator[AIMessage]]
        begun = await AsyncRetrying(**self._policy)(begin)
        first, rest = begun
        try:
            for chunk in first:
                yield chunk
            async for chunk in rest:
                yield chunk
        finally:
            if isinstance(rest, AsyncGenerator):
                await rest.aclose()

    @property
    def _streamed(self) -> dict[str, Any]:
        """Arguments of a streamed call: ask for the usage where nobody has chosen."""
        undecided = getattr(self.model, "stream_usage", ...) is None
        return {"stream_usage": True, **self.arguments} if undecided else self.arguments

    @property
    def _policy(self) -> dict[str, Any]:
        """How tenacity tries again."""

        def repeats(state: RetryCallState) -> None:
            ended = state.outcome
            if ended is not None and (error := ended.exception()) is not None:
                self.repeats(error)

        return {
            "stop": stop_after_attempt(self.retries + 1),
            "wait": wait_random_exponential(multiplier=0.5, max=8),
            "retry": retry_if_exception(_may_pass),
            "before": lambda _: self.begins(),
            "before_sleep": repeats,
            "reraise": True,
        }


def unwrapped(runnable: Runnable[Any, Any]) -> tuple[Any, dict[str, Any]]:
    """Return what is bound, and all arguments that are bound to it."""
    arguments: dict[str, Any] = {}
    while isinstance(runnable, RunnableBinding):
        arguments = {**runnable.kwargs, **arguments}
        runnable = runnable.bound
    return runnable, arguments


def _may_pass(error: BaseException) -> bool:
    """Whether the same call may succeed a little later; none is paid for twice."""
    if usage_in(error) is not None:
        return False
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        return status in {408, 409, 429} or status >= 500
    lasting = SmartError | ValueError | TypeError | LookupError | NotImplementedError
    return isinstance(error, Exception) and not isinstance(error, lasting)
