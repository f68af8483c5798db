"""Tools as they were given, bound to each member in that member's own form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.tools import StructuredTool
from langchain_core.utils.function_calling import (
    convert_to_json_schema,
    convert_to_openai_tool,
)

from langchain_smart.chat.members import BoundModel, ChatMember, unwrapped
from smart_engine.errors import SmartError

__all__ = ["Tools", "ToolsUnsupportedError", "described"]


class ToolsUnsupportedError(SmartError, NotImplementedError):
    """A member cannot call tools."""

    def __init__(self, member: str) -> None:
        super().__init__(
            f"{member} cannot call tools (it has no bind_tools of its own): leave it "
            "out of the candidates where tools are used"
        )


class Tools(list[Any]):
    """The tools of a request.

    As a list it holds them in OpenAI's form, for tracers, caches and LangGraph. Each
    member binds the raw tools in its own way, once.

    Args:
        raw: Anything that `bind_tools` takes.
        options: Further arguments of `bind_tools`, such as `tool_choice`.

    Attributes:
        schemas: By name, the schemas of tools that only make an object: they are given
            as classes, or run nothing, as those of an agent's `response_format`.
    """

    def __init__(self, raw: Sequence[Any], options: dict[str, Any]) -> None:
        super().__init__(_shown(tool) for tool in raw)
        self._raw = list(raw)
        self.schemas = {
            shown["function"]["name"]: getattr(tool, "args_schema", tool)
            for shown, tool in zip(self, self._raw, strict=True)
            if "function" in shown and (isinstance(tool, type) or _runs_nothing(tool))
        }
        self._options = options
        self._bound: dict[str, tuple[object, BoundModel]] = {}

    def bound_to(self, member: ChatMember) -> BoundModel:
        """Return the member with these tools.

        Raises:
            ToolsUnsupportedError: If it cannot call tools.
        """
        model, bound = self._bound.get(member.name, (None, None))
        if bound is None or model is not member.model:
            try:
                binding = member.model.bind_tools(self._raw, **self._options)
            except NotImplementedError as error:
                raise ToolsUnsupportedError(member.name) from error
            except Exception as error:
                error.add_note(f"raised by {member.name}.bind_tools")
                raise
            bound = BoundModel(*unwrapped(binding))
            self._bound[member.name] = member.model, bound
        return bound

    def offer(self, name: str) -> bool:
        """Whether a tool of that name may be called: any, if a provider has its own."""
        names = [tool.get("function", {}).get("name") for tool in self]
        return name in names or None in names

    @property
    def options(self) -> dict[str, Any]:
        """Options as they can be shown."""
        return described(self._options)

    def __repr__(self) -> str:
        """Show everything that identifies these tools."""
        return f"Tools({super().__repr__()}, {self.options})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tools) and repr(self) == repr(other)

    __hash__ = None  # as a list's


def _runs_nothing(tool: Any) -> bool:
    return isinstance(tool, StructuredTool) and not (tool.func or tool.coroutine)


def _shown(tool: Any) -> Any:
    """Return a tool in OpenAI's form; a provider's own stays as it is."""
    try:
        return convert_to_openai_tool(tool)
    except Exception:  # noqa: BLE001 - the members say what is wrong with it
        return tool if isinstance(tool, dict) else {"type": "unknown"}


def described(options: dict[str, Any]) -> dict[str, Any]:
    """Return options without objects whose text differs from run to run."""

    def shown(value: Any) -> Any:
        try:
            return convert_to_json_schema(value) if isinstance(value, type) else value
        except Exception:  # noqa: BLE001 - a class that is no schema
            return repr(value)

    return {name: shown(value) for name, value in options.items()}
