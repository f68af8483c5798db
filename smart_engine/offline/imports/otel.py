"""OpenTelemetry: spans of the GenAI semantic conventions, as OTLP writes them in JSON.

Also those of conventions before 1.37 (messages as events) and of OpenLLMetry
(`gen_ai.prompt.0.content`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from smart_engine.offline.imports.content import answer_of, count, loaded
from smart_engine.offline.imports.logged import Format, LoggedCall, Record, Skipped

__all__ = ["OTEL"]

_CALLS = {"chat", "text_completion", "generate_content", "completion"}
"""Operations that are calls of a model."""

_NUMBERED = re.compile(r"gen_ai\.(prompt|completion)\.(\d+)\.(role|content)")


def _fits(record: Record) -> bool:
    return "resourceSpans" in record or "resource_spans" in record


def _read(record: Record) -> Iterator[LoggedCall | Skipped]:
    for resource in _lists(record, "resourceSpans", "resource_spans"):
        inner = resource.get("resource")
        about = _attributes(inner if isinstance(inner, Mapping) else {})
        for scope in _lists(resource, "scopeSpans", "scope_spans"):
            for span in _lists(scope, "spans"):
                yield _span(span, str(about.get("service.name") or ""))


def _span(span: Mapping[str, Any], service: str) -> LoggedCall | Skipped:
    told = _attributes(span)
    operation = told.get("gen_ai.operation.name") or told.get("llm.request.type")
    if not operation and "gen_ai.request.model" not in told:
        return Skipped("no call of a model, but another span")
    if operation and str(operation) not in _CALLS:
        return Skipped(f"no call of a model, but {operation}")
    status = span.get("status")
    code = status.get("code") if isinstance(status, Mapping) else None
    if told.get("error.type") or code in (2, "STATUS_CODE_ERROR"):
        return Skipped("the call failed")
    for event in _lists(span, "events"):
        inner = _attributes(event)
        if event.get("name") == "gen_ai.client.inference.operation.details":
            told = inner | told
    system = told.get("gen_ai.system_instructions")
    asked = told.get("gen_ai.input.messages") or _numbered(told, "prompt")
    asked = loaded(asked or list(_events(span, asked=True)))
    if system and isinstance(asked, list):
        asked = [{"role": "system", "content": loaded(system)}, *asked]
    answer = told.get("gen_ai.output.messages") or _numbered(told, "completion")
    answer = loaded(answer or list(_events(span, asked=False)))
    usage = {
        side: told.get(f"gen_ai.usage.{side}_tokens", told.get(f"gen_ai.usage.{old}"))
        for side, old in (("input", "prompt_tokens"), ("output", "completion_tokens"))
    }
    sent, received = count(usage["input"]), count(usage["output"])
    known = sent is not None and received is not None and sent + received > 0
    provider = told.get("gen_ai.provider.name") or told.get("gen_ai.system")
    model = told.get("gen_ai.request.model") or told.get("gen_ai.response.model")
    return LoggedCall(
        model=str(model or ""),
        asked=asked,
        answer=answer_of(answer[-1]) if isinstance(answer, list) and answer else "",
        tokens=(sent or 0, received or 0) if known else None,
        provider=str(provider or ""),
        project=service,
        name=str(span.get("name") or ""),
    )


def _events(span: Mapping[str, Any], *, asked: bool) -> Iterator[dict[str, Any]]:
    """Yield the messages that older conventions write as events, one each."""
    for event in _lists(span, "events"):
        kind = re.fullmatch(
            r"gen_ai\.(\w+)\.message|gen_ai\.choice", str(event.get("name"))
        )
        if kind is None or (kind[1] is not None) != asked:
            continue
        told = _attributes(event)
        content = told.get("content") or loaded(told.get("message"))
        yield {"role": kind[1] or "assistant", "content": content}


def _numbered(told: Mapping[str, Any], which: str) -> list[dict[str, Any]]:
    """Return the messages that are spread over numbered attributes."""
    found: dict[int, dict[str, Any]] = {}
    for name, value in told.items():
        parts = _NUMBERED.fullmatch(name)
        if parts and parts[1] == which:
            found.setdefault(int(parts[2]), {})[parts[3]] = value
    return [found[number] for number in sorted(found)]


def _lists(record: Mapping[str, Any], *names: str) -> Iterator[Mapping[str, Any]]:
    """Yield the objects of a list that goes by one of these names."""
    for name in names:
        inner = record.get(name)
        for each in inner if isinstance(inner, list) else ():
            if isinstance(each, Mapping):
                yield each


def _attributes(owner: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes by name, from OTLP's list of keys and typed values."""
    return {
        str(each.get("key")): _value(each.get("value"))
        for each in _lists(owner, "attributes")
    }


def _value(value: Any) -> Any:
    """Return the Python value of an OTLP value."""
    if not isinstance(value, Mapping):
        return value
    if "arrayValue" in value:
        inner = value["arrayValue"]
        values = inner.get("values") if isinstance(inner, Mapping) else None
        return [*map(_value, values)] if isinstance(values, list) else []
    if "kvlistValue" in value:
        inner = value["kvlistValue"]
        pairs = inner if isinstance(inner, Mapping) else {}
        return {
            str(p.get("key")): _value(p.get("value")) for p in _lists(pairs, "values")
        }
    return next(iter(value.values()), None)


OTEL = Format("otel", _fits, _read)
