"""Whether a call that failed is worth another attempt."""

from __future__ import annotations

from smart_engine.calls import Failure
from smart_engine.errors import SmartError

__all__ = ["may_succeed_later"]

_LASTING = SmartError | ValueError | TypeError | LookupError | NotImplementedError
"""Errors of the call itself, which another attempt would meet again."""


def may_succeed_later(failure: Failure) -> bool:
    """Whether the same call may succeed a little later; none is paid for twice.

    Example:
        ```python
        assert may_succeed_later(Failure(ConnectionError("reset")))
        assert not may_succeed_later(Failure(ConnectionError("reset"), cost=0.01))
        assert not may_succeed_later(Failure(ValueError("no such model")))
        ```
    """
    error = failure.error
    if failure.usage is not None or failure.cost:
        return False
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        return status in {408, 409, 429} or status >= 500
    return isinstance(error, Exception) and not isinstance(error, _LASTING)
