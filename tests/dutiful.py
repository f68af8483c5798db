"""A script for the loopback server: a model that does what it is asked to do.

It calls the tool it must or may call, fills in the schema it is given, and echoes
otherwise. It copies numbers and quoted words from the question, and makes the rest up.
"""

from __future__ import annotations

import json
import re
from typing import Any

from loopback import Asked, Calls


def dutiful(model: str, text: Asked, attempt: int) -> str | Calls:
    """Answer a request."""
    body = text.body
    choice = body.get("tool_choice", "auto")
    offered = {tool["function"]["name"]: tool["function"] for tool in _tools(body)}
    if isinstance(choice, dict):
        offered = {choice["function"]["name"]: offered[choice["function"]["name"]]}
    answered = body["messages"][-1]["role"] == "tool"
    if offered and choice != "none" and (choice != "auto" or not answered):
        named = [name for name in offered if name in text] or sorted(offered)
        name = max(named, key=len)
        return Calls([(name, filled(offered[name].get("parameters") or {}, text))])
    wanted = body.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        return json.dumps(filled(wanted["json_schema"]["schema"], text))
    if wanted.get("type") == "json_object":
        return json.dumps({key: f"some {key}" for key in re.findall(r"'(\w+)'", text)})
    return f"{model} heard: {text}"


def _tools(body: dict[str, Any]) -> list[dict[str, Any]]:
    return body.get("tools") or []


def filled(schema: dict[str, Any], text: str, whole: Any = None, key: str = "") -> Any:
    """Return a value that fits a JSON schema."""
    whole = whole or schema
    if "$ref" in schema:
        found = whole
        for step in schema["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        return filled(found, text, whole, key)
    for choices in (schema.get("anyOf"), schema.get("enum")):
        if choices:
            first = choices[0]
            return filled(first, text, whole, key) if "anyOf" in schema else first
    numbers = [int(number) for number in re.findall(r"\d+", text)] or [1]
    quoted = re.findall(r"'([^'\s]+)'", text)
    values = {
        "integer": numbers[0],
        "number": float(numbers[0]),
        "boolean": True,
        "null": None,
        "string": quoted[0] if quoted and key == "customer_name" else f"some {key}",
    }
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if kind == "object":
        parts = schema.get("properties", {})
        return {name: filled(part, text, whole, name) for name, part in parts.items()}
    if kind == "array":
        return [filled(schema.get("items", {}), text, whole, key)]
    return values[kind]
