"""Chat models whose every answer a test decides, with a gauge of their calls."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableBinding
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import PrivateAttr


def say(name: str) -> Callable[[str, dict[str, Any]], str]:
    """Return a script: of three answers, and wrong once in 31 items if small."""

    def answer(text: str, kwargs: dict[str, Any]) -> str:
        number = int(text.rsplit(maxsplit=1)[-1])
        return "no" if name == "small" and number % 31 == 0 else f"yes {number % 3}"

    return answer


class Scripted(BaseChatModel):
    """Answers with `script(text, kwargs)`; an exception it returns is raised."""

    name: str | None = "scripted"
    script: Callable[[str, dict[str, Any]], Any]
    latency: float = 0.0
    usage: bool = True

    _lock: Any = PrivateAttr(default_factory=threading.Lock)
    _seen: list[tuple[str, dict[str, Any]]] = PrivateAttr(default_factory=list)
    _now: int = PrivateAttr(default=0)
    _most: int = PrivateAttr(default=0)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    @property
    def calls(self) -> list[tuple[str, dict[str, Any]]]:
        return self._seen

    @property
    def most_in_flight(self) -> int:
        return self._most

    def _enter(self, text: str, kwargs: dict[str, Any]) -> None:
        with self._lock:
            self._seen.append((text, kwargs))
            self._now += 1
            self._most = max(self._most, self._now)

    def _answer(self, text: str, kwargs: dict[str, Any]) -> ChatResult:
        with self._lock:
            self._now -= 1
        answer = self.script(text, kwargs)
        if isinstance(answer, BaseException):
            raise answer
        if not isinstance(answer, AIMessage):
            answer = AIMessage(content=answer)
        if self.usage:
            tokens = {"input_tokens": len(text), "output_tokens": 1}
            answer.usage_metadata = {**tokens, "total_tokens": len(text) + 1}
        return ChatResult(generations=[ChatGeneration(message=answer)])

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        text = str(messages[-1].text)
        given = {**kwargs, "stop": stop}
        self._enter(text, given)
        if self.latency:
            time.sleep(self.latency)
        return self._answer(text, given)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        text = str(messages[-1].text)
        given = {**kwargs, "stop": stop}
        self._enter(text, given)
        if self.latency:
            await asyncio.sleep(self.latency)
        return self._answer(text, given)


class Foreign(Scripted):
    """A model of another provider: its tools have a form of their own."""

    bindings: list[Any] = []  # noqa: RUF012 - pydantic copies it

    def bind_tools(
        self, tools: Any, *, tool_choice: Any = None, **kwargs: Any
    ) -> RunnableBinding:
        self.bindings.append(tools)
        functions = [convert_to_openai_tool(tool)["function"] for tool in tools]
        offered = [
            {"name": f["name"], "input_schema": f["parameters"]} for f in functions
        ]
        if tool_choice is not None:
            forced = {"type": "any"} if tool_choice == "any" else {"name": tool_choice}
            kwargs["tool_choice"] = forced
        return self.bind(tools=offered, **kwargs)
