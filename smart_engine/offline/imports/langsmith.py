"""LangSmith: runs, from its exports (JSONL) and its SDK."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from smart_engine.offline.imports.content import answer_of, loaded, tokens_of
from smart_engine.offline.imports.logged import Format, LoggedCall, Record, Skipped

__all__ = ["LANGSMITH"]


def _fits(record: Record) -> bool:
    return "run_type" in record and ("inputs" in record or "outputs" in record)


def _read(record: Record) -> Iterator[LoggedCall | Skipped]:
    if record["run_type"] != "llm":
        yield Skipped(f"no call of a model, but {record['run_type']}")
        return
    if record.get("error") or record.get("status") == "error":
        yield Skipped("the call failed")
        return
    outputs = _mapping(record.get("outputs"))
    extra = _mapping(record.get("extra"))
    metadata = _mapping(extra.get("metadata"))
    given = _mapping(extra.get("invocation_params"))
    names = (metadata.get("ls_model_name"), given.get("model"), given.get("model_name"))
    inputs = loaded(record.get("inputs"))
    if isinstance(inputs, Mapping) and len(inputs) == 1:
        (inputs,) = inputs.values()  # {"messages": …}, {"prompt": …}, {"text": …}
    project = record.get("session_name") or record.get("session_id")
    yield LoggedCall(
        model=next((str(name) for name in names if name), ""),
        asked=inputs,
        answer=answer_of(outputs),
        tokens=_tokens(record, outputs),
        provider=str(metadata.get("ls_provider") or ""),
        project=str(project or ""),
        name=str(record.get("name") or ""),
    )


def _tokens(record: Record, outputs: Mapping[str, Any]) -> tuple[int, int] | None:
    output = _mapping(outputs.get("llm_output"))
    generations = loaded(outputs.get("generations"))
    while isinstance(generations, list) and generations:
        generations = generations[0]
    message = _mapping(_mapping(generations).get("message"))
    places = (
        record,
        outputs.get("usage_metadata"),
        outputs.get("usage"),
        output.get("token_usage"),
        output.get("usage"),
        message.get("usage_metadata"),
        _mapping(message.get("kwargs")).get("usage_metadata"),
    )
    return next(filter(None, map(tokens_of, places)), None)


def _mapping(value: Any) -> Mapping[str, Any]:
    value = loaded(value)
    return value if isinstance(value, Mapping) else {}


LANGSMITH = Format("langsmith", _fits, _read)
