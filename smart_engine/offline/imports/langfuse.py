"""Langfuse: observations, from its exports (JSON, JSONL, CSV) and its public API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from smart_engine.offline.imports.content import answer_of, count, loaded, tokens_of
from smart_engine.offline.imports.logged import Format, LoggedCall, Record, Skipped

__all__ = ["LANGFUSE"]


def _fits(record: Record) -> bool:
    traced = "traceId" in record or "trace_id" in record
    kinds = {"providedModelName", "provided_model_name", "usageDetails", "costDetails"}
    kinds |= {"usage_details", "cost_details", "completionStartTime", "modelParameters"}
    return traced and "type" in record and bool(kinds & record.keys())


def _read(record: Record) -> Iterator[LoggedCall | Skipped]:
    kind = str(record.get("type") or "").upper()
    if kind != "GENERATION":
        yield Skipped(f"no call of a model, but {kind or 'an observation'}")
        return
    if str(record.get("level") or "").upper() == "ERROR":
        yield Skipped("the call failed")
        return
    names = ("providedModelName", "provided_model_name", "model")
    project = record.get("projectId") or record.get("project_id") or ""
    yield LoggedCall(
        model=next((str(record[name]) for name in names if record.get(name)), ""),
        asked=loaded(record.get("input")),
        answer=answer_of(record.get("output")),
        tokens=_tokens(record),
        project=str(project),
        name=str(record.get("name") or ""),
    )


def _tokens(record: Record) -> tuple[int, int] | None:
    """Return input and output tokens; the details of either add up."""
    details = loaded(record.get("usageDetails") or record.get("usage_details"))
    if not isinstance(details, Mapping) or not details:
        usage = loaded(record.get("usage"))
        details = usage if isinstance(usage, Mapping) else {}
        return tokens_of(record) or tokens_of(details) or _sums(details)
    return tokens_of(details) or _sums(details)


def _sums(details: Mapping[str, Any]) -> tuple[int, int] | None:
    if "input" not in details or "output" not in details:
        return None
    sums = {"input": 0, "output": 0}
    for name, value in details.items():
        side = "input" if name.startswith(("input", "cache_")) else "output"
        if name.startswith(("input", "cache_", "output")):
            sums[side] += count(value) or 0
    return (sums["input"], sums["output"]) if sum(sums.values()) else None


LANGFUSE = Format("langfuse", _fits, _read)
