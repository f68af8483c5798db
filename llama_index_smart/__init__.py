"""A LlamaIndex LLM that answers as its reference would, for less.

Names load when they are first used; they need the extra `llama-index`.
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

if TYPE_CHECKING:
    from llama_index_smart.compare import SameScore
    from llama_index_smart.judge import ChatJudge
    from llama_index_smart.langchain_llm import LangChainLLM
    from llama_index_smart.llm import SmartLLM

_HOME = {
    "ChatJudge": "judge",
    "LangChainLLM": "langchain_llm",
    "SameScore": "compare",
    "SmartLLM": "llm",
}
_EXTRAS = {"llama_index": "llama-index", "langchain_core": "langchain"}

__all__ = [
    "Certificate",
    "ChatJudge",
    "Date",
    "Exact",
    "Guarantee",
    "Items",
    "Json",
    "Label",
    "LangChainLLM",
    "Ledger",
    "Normalized",
    "Number",
    "Price",
    "Report",
    "SameScore",
    "Similar",
    "SmartLLM",
]


def __getattr__(name: str) -> Any:
    """Load a public name from the file that defines it (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'llama_index_smart' has no attribute {name!r}")
    try:
        return getattr(import_module(f"llama_index_smart.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        from smart_engine.errors import MissingExtraError

        missing = (error.name or "").split(".")[0]
        if missing not in _EXTRAS:
            raise
        needed_for = f"llama_index_smart.{name}"
        raise MissingExtraError(_EXTRAS[missing], needed_for) from error


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
