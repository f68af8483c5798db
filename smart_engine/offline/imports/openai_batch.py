"""OpenAI's batch API: its output files and error files; custom_id names the input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from smart_engine.offline.imports.content import answer_of, tokens_of
from smart_engine.offline.imports.logged import Format, LoggedCall, Record, Skipped

__all__ = ["OPENAI_BATCH"]


def _fits(record: Record) -> bool:
    return "custom_id" in record and bool({"response", "body"} & record.keys())


def _read(record: Record) -> Iterator[LoggedCall | Skipped]:
    if "response" not in record:
        yield Skipped("a request of a batch, no answer: give the output file")
        return
    response = record["response"]
    if not isinstance(response, Mapping) or record.get("error"):
        yield Skipped("the call failed")
        return
    body = response.get("body")
    if response.get("status_code", 200) != 200 or not isinstance(body, Mapping):
        yield Skipped("the call failed")
        return
    if "data" in body:
        yield Skipped("no call of a model that answers, but embeddings")
        return
    yield LoggedCall(
        model=str(body.get("model") or ""),
        asked={"custom_id": str(record["custom_id"])},
        answer=answer_of(body),
        tokens=tokens_of(body.get("usage")),
        provider="openai",
    )


OPENAI_BATCH = Format("openai-batch", _fits, _read)
