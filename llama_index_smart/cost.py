"""What a call costs: as reported, at most, and as estimated.

Estimates are made by LlamaIndex's own token counter, with the tokenizer that is set or
else the one that comes with it; nothing is fetched. What is no text counts as
LlamaIndex counts it. Hidden reasoning is in no text, and so in no estimate. No estimate
exceeds what a budget reserves for the call.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import llama_index.core
from llama_index.core.base.llms.types import ChatMessage, CompletionResponse
from llama_index.core.output_parsers import PydanticOutputParser
from llama_index.core.utilities.token_counting import TokenCounter

from llama_index_smart.logprobs import confidence_of
from llama_index_smart.members import LLMMember, Response
from llama_index_smart.request import Ask
from llama_index_smart.tools import calls_in
from smart_engine.calls import Result
from smart_engine.money.limits import Content, max_output_tokens
from smart_engine.money.pricing import Usage
from smart_engine.money.usage import Billing, first_of, read_billing
from smart_engine.store.forks import fork_safe_lock

__all__ = [
    "estimated",
    "member_settings",
    "outcome",
    "tokens_sent",
    "usage_of",
    "worst_case",
]

# -- as reported -----------------------------------------------------------------------


def outcome(
    member: LLMMember,
    response: Response,
    estimate: Callable[[], Usage] | None = None,
    pieces: Sequence[Response] = (),
) -> Result:
    """Return the result of a call, priced by the usage that its response reports.

    Args:
        member: Whose response it is.
        response: The response.
        estimate: Returns what the call may have used, if estimates are allowed.
        pieces: The pieces in which it came, if it was streamed.
    """
    billing, score = _billing(response), confidence_of(pieces or [response])
    return member.outcome(
        response, confidence=score, estimate=estimate, **billing._asdict()
    )


def usage_of(response: Response) -> Usage | None:
    """Return the usage that a response reports, wherever its integration puts it."""
    return _billing(response).usage


def _billing(response: Response) -> Billing:
    """Return what a response tells of its cost."""
    kwargs = response.additional_kwargs
    own = first_of(response.raw, ("usage", "usage_metadata"))
    return read_billing(response.raw, own, kwargs.get("usage"), kwargs)


# -- at most ---------------------------------------------------------------------------


def worst_case(member: LLMMember, ask: Ask[Any]) -> float:
    """Return the most a call can cost, in USD.

    Raises:
        InvalidInputError: If nothing limits the answer, or more than text is sent.
    """
    return member.worst_case(_content(ask), member_settings(member, ask.arguments))


def member_settings(
    member: LLMMember, arguments: Mapping[str, Any]
) -> list[Mapping[str, Any]]:
    """Return where settings of a call stand, those that take precedence first."""
    inner = getattr(member.model, "model", None)  # a LangChain model, or a name
    return member.settings(arguments, inner)


def _content(ask: Ask[Any]) -> Content:
    texts, kinds = [ask.prompt or ""], list[str]()
    for message in ask.messages or ():
        texts += [f"{block}" for block in message.blocks]
        texts.append(f"{message.additional_kwargs}")
        kinds += _kinds_in(message.blocks)
    specs = ask.tool_specs
    texts += [json.dumps(spec) for spec in specs]
    if ask.output_cls is not None:  # a schema may be longer in the member's own form
        texts.append(PydanticOutputParser(output_cls=ask.output_cls).format(""))
    return Content(texts, kinds, with_tools=bool(specs))


def _kinds_in(blocks: Iterable[Any]) -> Iterator[str]:
    """Yield what parts of a message are called, nested ones included."""
    for block in blocks:
        yield str(getattr(block, "block_type", ""))
        for name in ("content", "cited_content"):
            nested = getattr(block, name, None) or []
            parts = nested if isinstance(nested, list) else [nested]
            yield from _kinds_in(part for part in parts if not isinstance(part, str))


# -- as estimated ----------------------------------------------------------------------

_TOKENS = {"image": 2125, "document": 512, "audio": 256, "video": 2048}
"""Kind of a block that is no text → tokens."""

_AROUND = 3
"""Tokens around a message or a call, as LlamaIndex counts them."""

_CACHE = "TIKTOKEN_CACHE_DIR"

_loading = fork_safe_lock()


def estimated(ask: Ask[Any], member: LLMMember, response: Response) -> Usage:
    """Return what a call may have used.

    Args:
        ask: What was asked.
        member: Who was asked.
        response: The answer, as far as it came.

    Example:
        ```python
        from llama_index.core.llms import CompletionResponse
        from llama_index.core.llms.mock import MockLLM

        from llama_index_smart.cost import estimated
        from llama_index_smart.request import Ask
        from smart_engine.money.pricing import Price, Usage
        from smart_engine.serving.members import Member

        member = Member("mock", MockLLM(), Price(1, 2))
        ask = Ask.completion("Is 7 a prime number?", {})
        usage = estimated(ask, member, CompletionResponse(text="Yes, it is."))
        assert usage == Usage(7, 5, estimated=True)
        ```
    """
    counter = _counter()
    if isinstance(response, CompletionResponse):
        written = counter.get_string_tokens(response.text)
    else:
        written = _message_tokens(response.message, counter)
    limit = max_output_tokens(member_settings(member, ask.arguments))
    written = written if limit is None else min(written, limit)
    return Usage(tokens_sent(ask), written, estimated=True)


def tokens_sent(ask: Ask[Any]) -> int:
    """Return about how many tokens are sent with a call."""
    counter = _counter()
    sent = counter.get_string_tokens(ask.prompt or "")
    for message in ask.messages or ():
        role = counter.get_string_tokens(str(message.role.value))
        sent += role + _message_tokens(message, counter) + _AROUND
    return sent + counter.estimate_tokens_in_tools(ask.tool_specs)


def _message_tokens(message: ChatMessage, counter: TokenCounter) -> int:
    """Return the tokens of a message's blocks, and of the tools that it calls."""
    blocks = sum(_block_tokens(block, counter) for block in message.blocks)
    calls = (f"{name}{given}" for _, name, given in calls_in(message))
    return blocks + sum(counter.get_string_tokens(text) + _AROUND for text in calls)


def _block_tokens(block: Any, counter: TokenCounter) -> int:
    """Return the tokens of a block; calls of tools are counted elsewhere."""
    if block.block_type in _TOKENS:
        return _TOKENS[block.block_type]
    if hasattr(block, "nested_blocks"):
        return sum(_block_tokens(part, counter) for part in block.nested_blocks)
    thoughts: int | None = getattr(block, "num_tokens", None)
    text = getattr(block, "text", None) or getattr(block, "content", None)
    return thoughts or counter.get_string_tokens(text or "")


def _counter() -> TokenCounter:
    """Return LlamaIndex's counter.

    Where no tokenizer is set yet, it loads one: from its own package, unless the
    environment names a directory for such files. What is missing there it would fetch.
    """
    with _loading:
        if llama_index.core.global_tokenizer is not None:
            return TokenCounter()
        directory = os.environ.pop(_CACHE, None)
        try:
            return TokenCounter()
        finally:
            if directory is not None:
                os.environ[_CACHE] = directory
