"""A LlamaIndex LLM that answers as its reference would, for less.

Names load when they are first used; they need the extra `llama-index`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from smart_engine import (
    Certificate,
    Exact,
    Guarantee,
    Json,
    Label,
    Ledger,
    Normalized,
    Number,
    Price,
    Report,
)

if TYPE_CHECKING:
    from llama_index_smart.langchain_llm import LangChainLLM
    from llama_index_smart.llm import SmartLLM

_HOME = {"LangChainLLM": "langchain_llm", "SmartLLM": "llm"}

__all__ = [
    "Certificate",
    "Exact",
    "Guarantee",
    "Json",
    "Label",
    "LangChainLLM",
    "Ledger",
    "Normalized",
    "Number",
    "Price",
    "Report",
    "SmartLLM",
]


def __getattr__(name: str) -> Any:
    """Load a public name from the file it lives in (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'llama_index_smart' has no attribute {name!r}")
    try:
        return getattr(import_module(f"llama_index_smart.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        from smart_engine.errors import MissingExtraError

        missing = (error.name or "").split(".")[0]
        extras = {"llama_index": "llama-index", "langchain_core": "langchain"}
        if missing not in extras:
            raise
        raise MissingExtraError(extras[missing], f"llama_index_smart.{name}") from error


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
