"""A call's HTTP request and its reply, apart: one is written now, one is read later.

A lane carries what a model's own class sends, and its own class reads what comes back.
So the call is made twice. The first time our transport takes the request and stops the
call; the second time it answers the same request with the reply. No table of request
formats, no reader of replies: tools, schemas and settings work as they do live. Calls
outside of such a block go to the network as ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from smart_engine.runtime.connections import with_transports

__all__ = [
    "Exchange",
    "Reply",
    "Request",
    "exchange",
    "only_reading",
    "only_writing",
    "through_exchange",
]


_CARRIED = ("anthropic-beta",)
"""Headers that change what a request asks for."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a call sends.

    Attributes:
        url: Where it is sent.
        body: What is sent, in JSON.
        headers: Those of its headers that a carrier may have to send.
    """

    url: str
    body: bytes = field(repr=False)  # may be a customer's
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a provider answers.

    Attributes:
        status: The HTTP status.
        body: The answer, in JSON.
    """

    status: int
    body: bytes = field(repr=False)


class _WrittenError(BaseException):
    """The request is written: nothing else of the call is to be done.

    No `Exception`, so that no client takes it for a failed connection.
    """


class _UnexpectedRequestError(RuntimeError):
    """A call sent another request than the one that was carried."""


class Exchange:
    """The request and the reply of one call.

    Args:
        reply: The reply, if there is one: else the request is written.
        closed: Whether no request at all is expected.

    Attributes:
        writes: Whether the call is made for its request alone.
        reads: Whether it is made for the reply alone.
        request: The request, as soon as it is written.
    """

    WrittenError = _WrittenError

    def __init__(self, reply: Reply | None = None, *, closed: bool = False) -> None:
        self._reply, self._closed = reply, closed
        self.writes = reply is None and not closed
        self.reads = reply is not None
        self.request: Request | None = None

    def answer(self, request: Any) -> Any:
        """Return the response of httpx to a request of httpx, or stop the call."""
        if self._closed:
            hint = "the call sends a request only the second time that it is made"
            raise _UnexpectedRequestError(hint)
        if self._reply is None:
            given = request.headers
            headers = {name: given[name] for name in _CARRIED if name in given}
            self.request = Request(str(request.url), request.content, headers)
            raise _WrittenError
        httpx = import_module(type(request).__module__.partition(".")[0])
        headers = {"content-type": "application/json"}
        reply = self._reply
        return httpx.Response(
            reply.status, headers=headers, content=reply.body, request=request
        )


_CURRENT: ContextVar[Exchange | None] = ContextVar("smart_exchange", default=None)


@contextmanager
def exchange(reply: Reply | None = None, *, closed: bool = False) -> Iterator[Exchange]:
    """Let the call in this block be written, or read; see `Exchange`."""
    current = Exchange(reply, closed=closed)
    token = _CURRENT.set(current)
    try:
        yield current
    finally:
        _CURRENT.reset(token)


def only_reading() -> bool:
    """Whether a call is made here for its reply alone, which was paid for."""
    current = _CURRENT.get()
    return current is not None and current.reads


def only_writing() -> bool:
    """Whether a call is made here for its request alone: nobody is to hear of it."""
    current = _CURRENT.get()
    return current is not None and current.writes


def through_exchange(client: Any) -> Any:
    """Return a copy of a client of httpx whose requests take part in an `exchange`.

    Example:
        ```python
        import httpx

        client = through_exchange(httpx.Client())
        with exchange(Reply(200, b'{"answer": 42}')):
            assert client.post("http://model.example").json() == {"answer": 42}
        ```
    """
    return with_transports(client, _Transport)


class _Transport:
    """A transport of httpx that an exchange may stand in for.

    Args:
        network: The transport for all other requests.
    """

    def __init__(self, network: Any) -> None:
        self._network = network

    def handle_request(self, request: Any) -> Any:
        current = _CURRENT.get()
        if current is None:
            return self._network.handle_request(request)
        return current.answer(request)

    async def handle_async_request(self, request: Any) -> Any:
        current = _CURRENT.get()
        if current is None:
            return await self._network.handle_async_request(request)
        return current.answer(request)
