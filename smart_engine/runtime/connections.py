"""HTTP clients with other transports: connections apart by event loop, or our own.

A connection belongs to the event loop that opened it. A client that several calls of
`asyncio.run` share takes a connection that a closed loop has left behind: the request
is sent, and billed, and its answer cannot be read any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from copy import copy
from typing import Any
from weakref import WeakKeyDictionary

__all__ = ["by_loop", "with_transports"]

_COPIES: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
"""Client → its copy, so that models that share a client still share its limits."""


def by_loop(client: Any) -> Any:
    """Return a copy of an `httpx.AsyncClient` with connections for each event loop.

    They are closed when `asyncio.run` ends their loop. What is no such client, or has a
    transport of the user's own, is returned as it is.
    """
    mounts = getattr(client, "_mounts", None)
    if not isinstance(mounts, dict) or not _has_pool(client._transport):  # noqa: SLF001
        return client
    if client not in _COPIES:
        _COPIES[client] = own = copy(client)
        own._transport = _LoopTransport(client._transport)  # noqa: SLF001
        own._mounts = {  # noqa: SLF001
            pattern: _LoopTransport(each) if _has_pool(each) else each
            for pattern, each in mounts.items()
        }
    return _COPIES[client]


def with_transports(client: Any, wrap: Callable[[Any], Any]) -> Any:
    """Return a copy of a client of httpx whose requests go through other transports.

    Args:
        client: The client, which stays as it is and keeps its connections.
        wrap: Returns what sends requests, given the client's own transport.
    """
    own = copy(client)
    mounts = client._mounts.items()  # noqa: SLF001
    own._transport = _Borrowed(wrap(client._transport), client)  # noqa: SLF001
    own._mounts = {  # noqa: SLF001
        pattern: each and _Borrowed(wrap(each), client) for pattern, each in mounts
    }
    return own


class _Borrowed:
    """A transport of httpx over another client's, which closes it itself.

    Args:
        transport: Sends requests.
        owner: Whose connections it uses: they last as long as this does.
    """

    def __init__(self, transport: Any, owner: Any) -> None:
        self.handle_request = getattr(transport, "handle_request", None)
        self.handle_async_request = getattr(transport, "handle_async_request", None)
        self._owner = owner

    def close(self) -> None:
        """Leave the connections open: they are their owner's."""

    async def aclose(self) -> None:
        """Leave the connections open: they are their owner's."""


def _has_pool(transport: Any) -> bool:
    connections = getattr(getattr(transport, "_pool", None), "_connections", None)
    return isinstance(connections, list) and hasattr(transport, "handle_async_request")


class _LoopTransport:
    """A transport of httpx with a pool of connections for each event loop.

    Args:
        transport: Its settings hold; its own connections are not used.
    """

    def __init__(self, transport: Any) -> None:
        self._settings = transport
        self._open: dict[Any, tuple[Any, AsyncGenerator[Any]]] = {}

    async def handle_async_request(self, request: Any) -> Any:
        loop = asyncio.get_running_loop()
        if loop not in self._open:
            for other in list(self._open):
                if other.is_closed():  # without closing its generators
                    self._open.pop(other, None)
            lifetime = self._lifetime(loop)
            self._open[loop] = await anext(lifetime), lifetime
        return await self._open[loop][0].handle_async_request(request)

    async def aclose(self) -> None:
        _, lifetime = self._open.get(asyncio.get_running_loop(), (None, None))
        if lifetime is not None:
            await lifetime.aclose()

    async def _lifetime(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[Any]:
        """Yield a transport that lasts until its loop closes its generators."""
        transport = copy(self._settings)
        transport._pool = pool = copy(transport._pool)  # noqa: SLF001
        pool._connections, pool._requests = [], []  # noqa: SLF001
        try:
            async with aclosing(transport):
                yield transport
        finally:
            self._open.pop(loop, None)
