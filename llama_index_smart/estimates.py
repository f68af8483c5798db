"""What a call may have used whose LLM does not tell: counted from its texts.

LlamaIndex's own token counter counts texts, by the tokenizer that is set or else by the
one that comes with it; nothing is fetched. What is no text counts as LlamaIndex takes
it where it cannot look into it. What an LLM thinks unseen is in no text, and so in no
estimate. No estimate exceeds what a budget sets aside for the call.
"""

from __future__ import annotations

import os
from threading import Lock
from typing import Any

import llama_index.core
from llama_index.core.base.llms.types import ChatMessage, CompletionResponse
from llama_index.core.utilities.token_counting import TokenCounter

from llama_index_smart.compare import calls_in
from llama_index_smart.cost import limit_of
from llama_index_smart.members import LLMMember, Response
from llama_index_smart.request import Ask
from smart_engine.money.pricing import Usage

__all__ = ["estimated"]

_TAKEN = {"image": 2125, "document": 512, "audio": 256, "video": 2048}
"""Kind of a block that is no text → tokens."""

_AROUND = 3
"""Tokens around a message or a call, as LlamaIndex takes it."""

_CACHE = "TIKTOKEN_CACHE_DIR"

_loading = Lock()


def estimated(ask: Ask[Any], member: LLMMember, response: Response) -> Usage:
    """Return what a call may have used.

    Args:
        ask: What was asked.
        member: Who was asked.
        response: What it said, as far as it came.

    Example:
        ```python
        from llama_index.core.llms import CompletionResponse
        from llama_index.core.llms.mock import MockLLM

        from llama_index_smart.request import Ask
        from llama_index_smart.estimates import estimated
        from smart_engine.money.pricing import Price, Usage
        from smart_engine.serving.members import Member

        member = Member("mock", MockLLM(), Price(1, 2))
        ask = Ask.completion("Is 7 a prime number?", {})
        usage = estimated(ask, member, CompletionResponse(text="Yes, it is."))
        assert usage == Usage(7, 5, estimated=True)
        ```
    """
    counter = _counter()
    read = counter.get_string_tokens(ask.prompt or "")
    read += sum(_sent(message, counter) for message in ask.messages or ())
    read += counter.estimate_tokens_in_tools(ask.told_tools)
    if isinstance(response, CompletionResponse):
        written = counter.get_string_tokens(response.text)
    else:
        written = _in(response.message, counter)
    limit = limit_of(member, ask.arguments)
    said = written if limit is None else min(written, limit)
    return Usage(read, said, estimated=True)


def _sent(message: ChatMessage, counter: TokenCounter) -> int:
    """Return the tokens of a message that is sent, its role included."""
    role = counter.get_string_tokens(str(message.role.value))
    return role + _in(message, counter) + _AROUND


def _in(message: ChatMessage, counter: TokenCounter) -> int:
    """Return the tokens of what a message says, and of the tools that it calls."""
    said = sum(_of(block, counter) for block in message.blocks)
    called = (f"{name}{given}" for _, name, given in calls_in(message))
    return said + sum(counter.get_string_tokens(text) + _AROUND for text in called)


def _of(block: Any, counter: TokenCounter) -> int:
    """Return the tokens of a block; calls of tools are counted elsewhere."""
    if block.block_type in _TAKEN:
        return _TAKEN[block.block_type]
    if hasattr(block, "nested_blocks"):
        return sum(_of(part, counter) for part in block.nested_blocks)
    told: int | None = getattr(block, "num_tokens", None)  # of what was thought
    text = getattr(block, "text", None) or getattr(block, "content", None)
    return told or counter.get_string_tokens(text or "")


def _counter() -> TokenCounter:
    """Return LlamaIndex's counter.

    Where no tokenizer is set yet, it loads one: from its own package, unless the
    environment names a place for such files. What is missing there it would fetch.
    """
    with _loading:
        if llama_index.core.global_tokenizer is not None:
            return TokenCounter()
        elsewhere = os.environ.pop(_CACHE, None)
        try:
            return TokenCounter()
        finally:
            if elsewhere is not None:
                os.environ[_CACHE] = elsewhere
