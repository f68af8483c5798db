"""Flows: what sync and async code share, written once as a generator of effects.

A flow yields what has to be done next and is sent the result. `run` and `arun` carry it
out; they differ only in how one effect is performed, by a call or by awaiting.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from functools import partial
from typing import Any, TypeVar

__all__ = ["Flow", "arun", "run"]

T = TypeVar("T")
E = TypeVar("E")

Flow = Generator[E, Any, T]
"""Yields effects, is sent their results, and returns the outcome."""


def run(flow: Flow[E, T], perform: Callable[[E], Any]) -> T:
    """Carry out a flow in synchronous code, and return its outcome.

    Args:
        flow: The flow.
        perform: Performs one effect; what it raises is raised inside the flow.

    Example:
        ```python
        def greeting():
            name = yield "name?"
            return f"Hello, {name}"


        assert run(greeting(), {"name?": "Ada"}.__getitem__) == "Hello, Ada"
        ```
    """
    resume: Callable[[], E] = partial(next, flow)
    while True:
        try:
            effect = resume()
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        try:
            resume = partial(flow.send, perform(effect))
        except BaseException as error:  # noqa: BLE001 - raised inside the flow
            resume = partial(flow.throw, error)


async def arun(flow: Flow[E, T], perform: Callable[[E], Awaitable[Any]]) -> T:
    """Carry out a flow in asynchronous code; see `run`."""
    resume: Callable[[], E] = partial(next, flow)
    while True:
        try:
            effect = resume()
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        try:
            resume = partial(flow.send, await perform(effect))
        except BaseException as error:  # noqa: BLE001 - raised inside the flow
            resume = partial(flow.throw, error)
