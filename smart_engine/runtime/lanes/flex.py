"""Flex: requests ask for the cheaper service tier once, and else for the standard one.

A provider may refuse the tier for the moment, which costs nothing, or for a model: then
the same request is sent as it was. What a call costs is told by the tier that its reply
reports.
"""

from __future__ import annotations

import json
from typing import Any

from smart_engine.runtime.connections import with_transports

__all__ = ["by_flex"]

_TIER = "service_tier"
_PATHS = ("/chat/completions", "/responses")
_FULL, _UNKNOWN = {429}, {400, 404, 422}
"""Statuses of a tier that is full for the moment, and of one that a model lacks."""


def by_flex(client: Any) -> Any:
    """Return a copy of a client of httpx that asks for flex where nothing is asked for.

    Example:
        ```python
        import httpx


        def model(request):
            tier = json.loads(request.content).get("service_tier", "default")
            return httpx.Response(429 if tier == "flex" else 200, json={"tier": tier})


        client = by_flex(httpx.Client(transport=httpx.MockTransport(model)))
        answer = client.post("http://model.example/v1/responses", json={"model": "big"})
        assert answer.json() == {"tier": "default"}
        ```
    """
    return with_transports(client, _FlexTransport)


class _FlexTransport:
    """A transport of httpx.

    Args:
        network: Sends requests.
    """

    def __init__(self, network: Any) -> None:
        self._network = network
        self._unknown: set[str] = set()

    def handle_request(self, request: Any) -> Any:
        model, cheaper = self._cheaper(request)
        if cheaper is not None:
            response = self._network.handle_request(cheaper)
            if response.status_code in _FULL | _UNKNOWN:
                response.read()
            if not self._refuses(model, response):
                return response
        return self._network.handle_request(request)

    async def handle_async_request(self, request: Any) -> Any:
        model, cheaper = self._cheaper(request)
        if cheaper is not None:
            response = await self._network.handle_async_request(cheaper)
            if response.status_code in _FULL | _UNKNOWN:
                await response.aread()
            if not self._refuses(model, response):
                return response
        return await self._network.handle_async_request(request)

    def _cheaper(self, request: Any) -> tuple[str, Any]:
        """Return the model of a request, and the request for flex, if there is any."""
        if not request.url.path.endswith(_PATHS):
            return "", None
        body = json.loads(request.content)
        model = str(body.get("model", ""))
        if body.get(_TIER) is not None or model in self._unknown:
            return model, None
        length = b"content-length"
        headers = [pair for pair in request.headers.raw if pair[0].lower() != length]
        cheaper = type(request)(
            request.method,
            request.url,
            headers=headers,
            content=json.dumps({**body, _TIER: "flex"}).encode(),
            extensions=request.extensions,
        )
        return model, cheaper

    def _refuses(self, model: str, response: Any) -> bool:
        """Whether a response refuses the tier, which costs nothing."""
        if response.status_code in _FULL:
            return True
        if response.status_code in _UNKNOWN and _TIER in response.text:
            self._unknown.add(model)
            return True
        return False
