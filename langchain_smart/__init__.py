"""LangChain models that answer as the reference would, for less.

Names load when they are first used; they need the extra `langchain`, and
`SmartMiddleware` the extra `agents`, `smart_dataset` the extra `ray`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from smart_engine import (
    Certificate,
    Date,
    Exact,
    Guarantee,
    Items,
    Json,
    Label,
    Ledger,
    Normalized,
    Number,
    Price,
    Report,
    Similar,
)
from smart_engine.errors import MissingExtraError

if TYPE_CHECKING:
    from langchain_smart.chat_model import SmartChatModel
    from langchain_smart.judge import ChatJudge
    from langchain_smart.middleware import SmartMiddleware
    from langchain_smart.ray_data import SmartDataset, smart_dataset
    from langchain_smart.recorded import RecordedChatModel
    from langchain_smart.rows import RowCaller
    from langchain_smart.runnable import SmartRunnable

_HOME = {
    "ChatJudge": "judge",
    "RecordedChatModel": "recorded",
    "RowCaller": "rows",
    "SmartChatModel": "chat_model",
    "SmartDataset": "ray_data",
    "SmartMiddleware": "middleware",
    "SmartRunnable": "runnable",
    "smart_dataset": "ray_data",
}
_EXTRAS = {"langchain_core": "langchain", "langchain": "agents"}

__all__ = [
    "Certificate",
    "ChatJudge",
    "Date",
    "Exact",
    "Guarantee",
    "Items",
    "Json",
    "Label",
    "Ledger",
    "Normalized",
    "Number",
    "Price",
    "RecordedChatModel",
    "Report",
    "RowCaller",
    "Similar",
    "SmartChatModel",
    "SmartDataset",
    "SmartMiddleware",
    "SmartRunnable",
    "smart_dataset",
]


def __getattr__(name: str) -> Any:
    """Load a public name from the file that defines it (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'langchain_smart' has no attribute {name!r}")
    try:
        return getattr(import_module(f"langchain_smart.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing not in _EXTRAS:
            raise
        raise MissingExtraError(_EXTRAS[missing], f"langchain_smart.{name}") from error


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
