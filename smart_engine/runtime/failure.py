"""What an error says of its call: whether it was billed, and whether to try again.

An error is free only where it shows that no model was at work: the connection was
refused, or the server refused the request. Everything else may have been billed. Errors
are known by what the clients of providers have in common: HTTP statuses and the names
of their classes, at any place of an error's chain of causes.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any

from smart_engine.calls import Failure
from smart_engine.warn import warn

__all__ = [
    "explain",
    "is_missing",
    "is_unbilled",
    "is_untold",
    "may_succeed_later",
    "refuses",
    "seconds_asked_for",
]

_UNSENT = {"ConnectError", "ConnectTimeout", "PoolTimeout", "ClientConnectorError"}
_UNSENT |= {"EndpointConnectionError", "ConnectTimeoutError", "NewConnectionError"}
_UNSENT |= {"UnansweredError", "UncarriableError"}
"""Errors of httpx, aiohttp, botocore and urllib3 before a request is sent, and of
batches that made none of it."""

_PASSING = {"APIConnectionError", "TransportError", "ClientConnectionError"}
_PASSING |= {"HTTPClientError", "BotoConnectionError", "HTTPError"}
_PASSING |= {"GoneError", "UnansweredError"}
"""Errors of connections, of the clients of OpenAI and Anthropic, and of batches."""

_SAID = {"true": True, "false": False}
"""What `x-should-retry` says, a header of OpenAI and Anthropic."""

_AFTER_GENERATION = {408, 499}
"""Statuses for a client that did not wait: the model may have answered."""

_LONGEST_WAIT = 120.0
"""Seconds that a server may ask to wait for before another attempt."""


def is_untold(failure: Failure) -> bool:
    """Whether a call was made of which nobody told whether it was billed.

    Example:
        ```python
        from smart_engine.calls import Timing

        made = Timing(began=0.0, seconds=1.0)
        assert is_untold(Failure(TimeoutError(), timing=made))
        assert not is_untold(Failure(TimeoutError(), cost=0.01, timing=made))
        assert not is_untold(Failure(ConnectionRefusedError(), timing=made))
        assert not is_untold(Failure(TimeoutError()))  # before any call
        ```
    """
    told = failure.usage is not None or failure.cost or failure.unknown is not None
    return not (told or failure.timing is None or is_unbilled(failure.error))


def is_unbilled(error: BaseException) -> bool:
    """Whether an error shows that its call cost nothing, or that nothing was made."""
    for cause in _chain(error):
        status = _status(cause)
        if status is not None:
            return 400 <= status < 500 and status not in _AFTER_GENERATION
        if isinstance(cause, ConnectionRefusedError | socket.gaierror):
            return True
        if _UNSENT & _names(cause):
            return True
    return False


def may_succeed_later(failure: Failure) -> bool:
    """Whether the same call may succeed a little later; no answer is bought twice.

    Example:
        ```python
        assert may_succeed_later(Failure(ConnectionError("reset")))
        assert not may_succeed_later(Failure(ConnectionError("reset"), cost=0.01))
        assert not may_succeed_later(Failure(ValueError("no such model")))
        ```
    """
    if failure.usage is not None or failure.cost:
        return False
    for cause in _chain(failure.error):
        status, headers = _status(cause), _headers(cause)
        if headers.get("x-should-retry") in _SAID:
            return _SAID[headers["x-should-retry"]]
        if (_wait(headers) or 0.0) > _LONGEST_WAIT:
            return False
        if status is not None:
            return status in {408, 409, 429} or status >= 500
        if isinstance(cause, OSError) or _PASSING & _names(cause):
            return True
    return False


def refuses(error: BaseException) -> bool:
    """Whether a server refuses a request as it is, and names no other cause.

    Example:
        ```python
        refused = ValueError("bad request")
        refused.status_code = 400
        assert refuses(refused)
        refused.code = "content_filter"
        assert not refuses(refused)
        ```
    """
    for cause in _chain(error):
        told = (getattr(cause, name, None) for name in ("code", "param"))
        if any(isinstance(each, str) for each in told):
            return False
        if _status(cause) in {400, 422}:
            return True
    return False


def is_missing(error: BaseException) -> bool:
    """Whether a server says that there is no such thing, or no longer."""
    return any(
        _status(cause) in {404, 410} or "GoneError" in _names(cause)
        for cause in _chain(error)
    )


def seconds_asked_for(error: BaseException) -> float | None:
    """Return how long a server asks to wait before another attempt, if it does."""
    waits = (_wait(_headers(cause)) for cause in _chain(error))
    asked = next((wait for wait in waits if wait is not None), 0.0)
    return asked if 0 < asked <= _LONGEST_WAIT else None


def explain(model: str, error: BaseException) -> None:
    """Say what to do, in a note and a warning, where a stream may report no usage."""
    if _status(error) in {400, 422} and "stream_options" in str(error):
        note = (
            f"the endpoint of {model} refuses to report the usage of streams: give its "
            "model stream_usage=False (LlamaIndex: additional_kwargs="
            "{'stream_options': None}), and allow estimate_usage=True"
        )
        error.add_note(note)
        warn(note)


def _headers(error: BaseException) -> Mapping[str, str]:
    """Return the headers of the reply that an error carries, if it has any."""
    headers = getattr(getattr(error, "response", None), "headers", None)
    return headers if isinstance(headers, Mapping) else {}


def _wait(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that headers ask to wait, in any form that servers use."""
    after = headers.get("retry-after", "")
    with suppress(TypeError, ValueError):
        return float(headers.get("retry-after-ms", "")) / 1000
    with suppress(TypeError, ValueError):
        return float(after)
    with suppress(TypeError, ValueError):
        return parsedate_to_datetime(after).timestamp() - time.time()
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes; what was only handled before it is no cause."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__


def _status(error: BaseException) -> int | None:
    """Return the HTTP status that an error carries, wherever its client puts it."""
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore
        response = response.get("ResponseMetadata") or {}
        return _number(response.get("HTTPStatusCode"))
    places = ((error, "status_code"), (error, "code"), (error, "status"))
    found = (_number(getattr(place, name, None)) for place, name in places)
    first = next((status for status in found if status is not None), None)
    return first or _number(getattr(response, "status_code", None))


def _number(value: Any) -> int | None:
    """Return a value if it can be an HTTP status."""
    return int(value) if isinstance(value, int) and 100 <= value < 600 else None


def _names(error: BaseException) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}
