"""Objects of a class: each member is asked in its own form, and the answer is read.

That is a JSON schema where the member's integration asks so by itself
(`response_format`), a tool where it calls tools, and else the schema in the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.output_parsers import PydanticOutputParser
from llama_index.core.program.function_program import get_function_tool
from llama_index.core.program.streaming_utils import (
    process_streaming_content_incremental,
)
from llama_index.core.program.utils import process_streaming_objects
from pydantic import BaseModel

from llama_index_smart.tools import tool_calls

__all__ = ["has_native_mode", "object_in", "object_so_far", "structured_call"]


def has_native_mode(model: Any) -> bool:
    """Whether an LLM's integration asks for objects by a schema that binds it.

    OpenAI's does, and those built on it, such as Azure's, unless the model cannot.
    """
    native = getattr(model, "_should_use_structure_outputs", None)
    return hasattr(model, "_prepare_schema") and native is not None and bool(native())


def structured_call(
    model: Any,
    output_cls: type[BaseModel],
    messages: Sequence[ChatMessage],
    arguments: dict[str, Any],
) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    """Return the verb by which an LLM is asked for an object, and its arguments."""
    if has_native_mode(model):
        arguments = model._prepare_schema(dict(arguments), output_cls)  # noqa: SLF001
        return "chat", (list(messages),), arguments
    calls_functions = model.metadata.is_function_calling_model
    if calls_functions and isinstance(model, FunctionCallingLLM):
        # as `FunctionCallingProgram` asks
        chosen = {"tool_required": True, "tool_choice": None}
        arguments = {**arguments, **chosen, "allow_parallel_tool_calls": False}
        arguments["chat_history"] = list(messages)
        return "chat_with_tools", ([get_function_tool(output_cls)],), arguments
    copies = [message.model_copy(deep=True) for message in messages]
    parser = PydanticOutputParser(output_cls=output_cls)
    return "chat", (parser.format_messages(copies),), arguments


def object_in(response: ChatResponse, output_cls: type[BaseModel]) -> Any:
    """Return the object of a response, whichever form its member was asked in.

    Raises:
        ValueError: If there is none, as its class says.
    """
    for call in tool_calls(response):
        return output_cls.model_validate(call.tool_kwargs)
    text = response.message.content or ""
    return PydanticOutputParser(output_cls=output_cls).parse(text)


def object_so_far(
    piece: ChatResponse, output_cls: type[BaseModel], before: Any, llm: Any
) -> Any:
    """Return the object as far as a piece of a response has it.

    Args:
        piece: The piece, which holds all that was written.
        output_cls: The object's class.
        before: The object as far as the last piece had it, None before any.
        llm: Reads tool calls.
    """
    if tool_calls(piece, partial=True):
        known = None if before is None else [before]
        return process_streaming_objects(piece, output_cls, known, llm=llm)
    return process_streaming_content_incremental(piece, output_cls, before)
