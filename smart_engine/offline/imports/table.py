"""Plain tables, CSV or JSONL: a row a call, with columns of well-known names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from smart_engine.offline.imports.content import answer_of, loaded, tokens_of
from smart_engine.offline.imports.logged import Format, LoggedCall, Record, Skipped

__all__ = ["COLUMNS", "TABLE"]

COLUMNS = {
    "model": ("model", "model_name"),
    "input": ("input", "prompt", "messages", "question", "item_id", "id"),
    "answer": ("answer", "output", "response", "completion"),
}
"""What a table must have → the names that it may have there."""


def _fits(record: Record) -> bool:
    return all(record.keys() & set(names) for names in COLUMNS.values())


def _read(record: Record) -> Iterator[LoggedCall | Skipped]:
    for needed, names in COLUMNS.items():
        if not record.keys() & set(names):
            yield Skipped(f"no column {' or '.join(names)} for the {needed}")
            return
    if str(record.get("cached", record.get("cache_hit"))).lower() in {"true", "1"}:
        yield Skipped("the answer came from a cache")
        return
    if record.get("error"):
        yield Skipped("the call failed")
        return
    asked = _first(record, "input")
    gold = record.get("gold")
    yield LoggedCall(
        model=str(_first(record, "model") or ""),
        asked=asked,
        answer=answer_of(_first(record, "answer")),
        tokens=tokens_of(record) or tokens_of(record.get("usage")),
        provider=str(record.get("provider") or ""),
        project=str(record.get("project") or ""),
        name=str(record.get("task") or ""),
        gold=None if gold == "" else gold,
    )


def _first(record: Record, needed: str) -> Any:
    return loaded(next((record[n] for n in COLUMNS[needed] if record.get(n)), None))


TABLE = Format("table", _fits, _read)
