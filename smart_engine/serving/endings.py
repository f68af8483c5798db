"""Why an answer ended, as providers report it: whole, cut off or refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from smart_engine.errors import UnparseableAnswerError

__all__ = ["refuse_incomplete", "reported_ending"]

_NAMES = ("finish_reason", "stop_reason", "stopReason", "done_reason", "status")
"""Where providers report it."""

_WHOLE = {
    *("stop", "end_turn", "stop_sequence", "eos", "eos_token", "complete", "completed"),
    *("tool_calls", "tool_call", "tool_use", "function_call"),
    *("success", "1", "none", ""),
}
"""Reasons of whole answers; whatever else a provider says, the answer is not whole."""


def reported_ending(*reports: Any) -> str | None:
    """Return why an answer ended, None where no provider reports it.

    Args:
        *reports: Mappings or objects in which it may be reported.

    Example:
        ```python
        assert reported_ending(None, {"finish_reason": "MAX_TOKENS"}) == "max_tokens"
        ```
    """
    for report in reports:
        for name in _NAMES:
            mapping = isinstance(report, Mapping)
            reason = report.get(name) if mapping else getattr(report, name, None)
            reason = getattr(reason, "name", reason)  # of an enumeration
            if isinstance(reason, str | int) and not isinstance(reason, bool):
                return str(reason).lower().rpartition(".")[2]
    return None


def refuse_incomplete(*reports: Any) -> None:
    """Raise if an answer is not whole; see `reported_ending`.

    Raises:
        UnparseableAnswerError: It names the reason.
    """
    ending = reported_ending(*reports)
    if ending is not None and ending not in _WHOLE:
        raise UnparseableAnswerError(f"the answer is not whole: {ending}")
