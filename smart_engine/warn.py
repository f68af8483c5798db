"""Warnings: each names the line of the user's that led to it, not one of ours."""

from __future__ import annotations

import sys
import warnings
from types import FrameType

__all__ = ["warn"]

_INNER = {
    *("smart_engine", "langchain_smart", "llama_index_smart"),
    *("langchain_core", "langchain", "langgraph", "llama_index", "pydantic"),
    *("llama_index_instrumentation", "wrapt"),
    *("asyncio", "concurrent", "contextlib", "functools", "threading"),
}
"""Packages through whose code a call of the user's comes to us."""


def warn(text: str) -> None:
    """Warn of something, at the line outside of this package that led to it.

    In a thread of ours there is none: Python names `sys` then. (From Python 3.12 on,
    `warnings.warn` can leave out files by itself.)

    Example:
        ```python
        import warnings

        with warnings.catch_warnings(record=True) as caught:
            warn("nothing limits what this costs")
        assert caught[0].category is UserWarning
        ```
    """
    level, frame = 2, _caller(sys._getframe())  # noqa: SLF001 - as `logging` does
    while frame is not None and _package(frame) in _INNER:
        level, frame = level + 1, _caller(frame)
    warnings.warn(text, stacklevel=level)


def _caller(frame: FrameType) -> FrameType | None:
    return frame.f_back


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]
