"""LiteLLM: the proxy's spend logs (`LiteLLM_SpendLogs`), from its API or database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from smart_engine.offline.imports.content import answer_of, loaded, tokens_of
from smart_engine.offline.imports.logged import Format, LoggedCall, Record, Skipped

__all__ = ["LITELLM"]

_CALLS = ("completion", "responses", "anthropic_messages", "generate_content", "text")


def _fits(record: Record) -> bool:
    return {"request_id", "call_type"} <= record.keys() and "spend" in record


def _read(record: Record) -> Iterator[LoggedCall | Skipped]:
    kind = str(record["call_type"] or "completion")
    if not any(name in kind for name in _CALLS):
        yield Skipped(f"no call of a model that answers, but {kind}")
        return
    metadata = loaded(record.get("metadata"))
    told = metadata if isinstance(metadata, Mapping) else {}
    if "failure" in (record.get("status"), told.get("status")):
        yield Skipped("the call failed")
        return
    if str(record.get("cache_hit")).lower() == "true":
        yield Skipped("the answer came from a cache")
        return
    asked = loaded(record.get("messages"))
    sent = loaded(record.get("proxy_server_request"))
    if not asked and isinstance(sent, Mapping):
        asked = sent.get("messages") or sent.get("input") or sent.get("prompt")
    response = loaded(record.get("response"))
    if not asked or not response:
        yield Skipped("no text is logged: store_prompts_in_spend_logs is off")
        return
    yield LoggedCall(
        model=str(record.get("model") or record.get("model_group") or ""),
        asked=asked,
        answer=answer_of(response),
        tokens=tokens_of(record),
        provider=str(record.get("custom_llm_provider") or ""),
        project=str(record.get("team_id") or ""),
    )


LITELLM = Format("litellm", _fits, _read)
